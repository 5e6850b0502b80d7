"""`python -m services`: the local stack."""

import sys

from services.stack.main import main

if __name__ == "__main__":
    sys.exit(main())
