"""`python -m conclave`: the same as the `conclave` command."""

import sys

from conclave.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
