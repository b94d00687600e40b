"""`python -m likeness` is the `likeness` command."""

import sys

from likeness.cli import main

if __name__ == "__main__":
    sys.exit(main())
