"""Run the commands of docs/tutorial.md and put their output into the page.

    python -m tools.tutorial --photos=DIR            # DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE

The page's blocks of the language `console` hold commands, on lines that begin with `$ `, and below each what it
printed. Blocks of `python` that begin with a comment naming a file are written to that file first. Everything happens
in an empty directory that is deleted at the end, so that the page shows what a reader sees. It takes some minutes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.generated import REPOSITORY

PAGE = REPOSITORY / "docs" / "tutorial.md"
WIDTH = 100  # columns of the commands' terminal
LONGEST = 40  # lines of one output that the page shows; more are cut in the middle


def main() -> int:
    """Run the page's commands and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="the folder of images")
    photos = parser.parse_args().photos.resolve()
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("main.py", "configs", "imagenet_repro"):
            (folder / name).symlink_to(REPOSITORY / name)
        shutil.copytree(photos, folder / "photos")
        PAGE.write_text(run_page(text, folder), encoding="utf-8")
    return 0


def run_page(text: str, folder: Path) -> str:
    """Return the page with each command's output as it is today.

    Args:
      text: the page.
      folder: where the commands run and the files are written.
    """

    def replace(match: re.Match[str]) -> str:
        language, body = match[1], match[2]
        if language == "console":
            return f"```console\n{run_block(body, folder)}```\n"
        if name := re.match(r"# (\S+\.py)\n", body):
            (folder / name[1]).write_text(body, encoding="utf-8")
        return match[0]

    return re.sub(r"^```(console|python)\n(.*?)^```\n", replace, text, flags=re.MULTILINE | re.DOTALL)


def run_block(body: str, folder: Path) -> str:
    """Return a block's commands, each with the output that it has now."""
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)\n", body, flags=re.MULTILINE)
    return "".join(f"$ {command}\n{run_command(command, folder)}" for command in commands)


def run_command(command: str, folder: Path) -> str:
    """Return the output of a command in a shell, both streams together, without blanks at the ends of lines."""
    print(f"$ {command}", file=sys.stderr, flush=True)
    variables = {
        "COLUMNS": str(WIDTH),
        "TFDS_DATA_DIR": str(folder / "tensorflow_datasets"),
        "PYTHONPATH": str(folder),
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | variables | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    print(done.stdout, file=sys.stderr, flush=True)
    output = done.stdout.replace(f"{folder}/tensorflow_datasets", "~/tensorflow_datasets").replace(f"{folder}/", "")
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > LONGEST:
        lines = [*lines[: LONGEST // 2], "…", *lines[-LONGEST // 2 :]]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
