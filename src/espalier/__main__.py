"""``python -m espalier``. Never anything but the console script."""

import sys

from espalier.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
