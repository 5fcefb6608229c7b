"""The command line: one module for each command, with its options, its help and its call.

`COMMANDS` in `imagenet_repro.cli.main` lists them. Nothing outside this package uses argparse, and no module of it
imports JAX before a command runs, so that `--help` answers at once.
"""
