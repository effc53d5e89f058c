"""The process of a platform's node: `python -m modelcloud.node SETTINGS_FD`, see `handover`.

Must never: be run by hand; `modelcloud up` is for that.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Read the settings that were left for this process, and run."""
    from modelcloud.config import PlatformConfig
    from modelcloud.node import app, handover

    return app.main(handover.read(int(sys.argv[1]), PlatformConfig))


if __name__ == "__main__":
    sys.exit(main())
