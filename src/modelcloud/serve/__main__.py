"""The node's process: `python -m modelcloud.serve SETTINGS_FD [LIFELINE_FD]`, see `launch`.

Must never: be run by hand; `modelcloud serve` is for that.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Read the settings that were left for this process, and serve."""
    from modelcloud.config import ServeConfig
    from modelcloud.node import handover
    from modelcloud.serve import app

    settings, *lifeline = map(int, sys.argv[1:])
    return app.main(handover.read(settings, ServeConfig), *lifeline)


if __name__ == "__main__":
    sys.exit(main())
