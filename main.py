"""The command line in a clone of the repository: `python main.py COMMAND --help`."""

import sys

from imagenet_repro.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
