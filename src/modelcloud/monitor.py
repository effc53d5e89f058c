"""`python -m modelcloud.monitor`: the same as `modelcloud monitor`.

Must never: do anything of its own.
"""

from __future__ import annotations

import sys

from modelcloud.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["monitor", *sys.argv[1:]]))
