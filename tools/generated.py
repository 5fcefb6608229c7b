"""Files that a tool generates and that are committed: write them, or compare them with the committed ones."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def write_or_check(files: Mapping[Path, str], description: str | None, command: str) -> int:
    """Write generated files, or with `--check` on the command line compare them with those that are committed.

    Args:
      files: the text of each file by its path.
      description: the text of `--help`.
      command: the command that renews stale files.

    Returns:
      An exit code: 1 if `--check` found a file that is missing or differs, else 0.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    if not parser.parse_args().check:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)} is stale; run `{command}` and commit the file", file=sys.stderr)
    return 1 if stale else 0
