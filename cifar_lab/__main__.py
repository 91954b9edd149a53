"""`python -m cifar_lab COMMAND`, the same as `cifar-lab COMMAND`."""

import sys

from cifar_lab.commands.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
