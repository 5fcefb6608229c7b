"""The command line of an installed package: `python -m imagenet_repro COMMAND --help`."""

import sys

from imagenet_repro.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
