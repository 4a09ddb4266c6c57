"""`python -m xfdfuzz`."""

import sys

from xfdfuzz.cli import main

if __name__ == "__main__":
    sys.exit(main())
