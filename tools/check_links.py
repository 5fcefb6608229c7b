"""Check that the targets of links and paths in the repository's documents exist.

    python -m tools.check_links

Relative links and images of README.md, CONTRIBUTING.md and results/README.md must name a file, and after `#` a heading
of it. Paths in back quotes in any document, such as `configs/resnet.py` or `imagenet_repro/config/`, must exist. (The
links within docs/ are checked by mkdocs.)
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.generated import REPOSITORY

LINKED = ("README.md", "CONTRIBUTING.md", "results/README.md")
TOP_LEVEL = ("benchmarks", "configs", "docs", "imagenet_repro", "requirements", "results", "tests", "tools")
PATH = re.compile(rf"`((?:{'|'.join(TOP_LEVEL)})/[\w./-]*)(?::[\w.-]+)?`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)


def main() -> int:
    """Print the missing targets; return 1 if there are any."""
    problems = [*broken_links(), *missing_paths()]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


def broken_links() -> Iterator[str]:
    """Yield a message for each relative link whose target does not exist."""
    for document in LINKED:
        path = REPOSITORY / document
        for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists():
                yield f"{document}: there is no {target}"
            elif anchor and anchor not in headings(file):
                yield f"{document}: {name or document} has no heading #{anchor}"


def headings(file: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def missing_paths() -> Iterator[str]:
    """Yield a message for each path in back quotes that does not exist in the repository."""
    documents = [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
    for document in documents:
        for name in PATH.findall(document.read_text(encoding="utf-8")):
            if not (REPOSITORY / name).exists():
                yield f"{document.relative_to(REPOSITORY)}: there is no {name}"


if __name__ == "__main__":
    sys.exit(main())
