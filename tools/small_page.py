"""Write a small copy of a comparison page that can be committed, without thumbnails and with the main figures only.

  python tools/small_page.py runs/demo/report.html results/demo/report.html

The tables, the provenance and the first figure of each section stay. The figures are pictures, from `figures/` beside
the page, since the libraries that draw charts are larger than all the rest. Links to pages beside it are left out, and
paths of workdirs are shortened, so that the copy does not depend on the machine that made it.
"""

import base64
import json
import re
import sys
from pathlib import Path

LARGEST = 300_000  # bytes
KEPT = ("curves", "compute", "differences", "transfer")  # sections that keep their first figure
TARGET = "target_"  # begins the name of a section of one data set, which keeps its first figure too
NOTE = '<p class="setting">This is a small copy, without thumbnails and with fewer figures than the page itself.</p>'
CHART = re.compile(
    r'<div class="chart card" role="group" aria-label="([^"]*)"></div>\n<noscript>.*?</noscript>\n', re.DOTALL
)
DATA = re.compile(r"<script type=\"application/json\" data-chart>(.*?)</script>\n", re.DOTALL)
SCRIPTS = re.compile('<script id="(vega|charts)">.*?</script>\n', re.DOTALL)


def shrink(page: str, figures: Path) -> str:
    """Return the page without thumbnails and minor figures.

    Args:
      page: the page.
      figures: the directory of its figures' files.
    """
    page = re.sub(r'<img (src="data:image/jpeg;base64,[^"]*"|data-picture)[^>]*>', "", page)
    page = re.sub(r'<p><a href="[^"#:]+\.html">.*?</a></p>\n?', "", page)
    page = re.sub(r'<section id="(\w+)".*?</section>\n', _keep_first_figure, page, flags=re.DOTALL)
    page = re.sub(r"<figure.*?</figure>\n", lambda figure: _as_picture(figure[0], figures), page, flags=re.DOTALL)
    page = SCRIPTS.sub("", page)
    page = re.sub(r"/[^\s<>\"&]*?/(runs/)", r"\1", page)
    return page.replace("</header>", f"{NOTE}\n</header>", 1)


def _keep_first_figure(section: re.Match[str]) -> str:
    figures = re.findall(r"<figure.*?</figure>\n", section[0], flags=re.DOTALL)
    text = section[0]
    is_kept = section[1] in KEPT or section[1].startswith(TARGET)
    for figure in figures[1 if is_kept else 0 :]:
        text = text.replace(figure, "", 1)
    return text


def _as_picture(figure: str, figures: Path) -> str:
    """Return a figure with the picture of its first view instead of its chart."""
    data = DATA.search(figure)
    if data is None:
        return figure
    svg = (figures / f"{json.loads(data[1])['views'][0]['name']}.svg").read_bytes()
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    figure = CHART.sub(
        lambda chart: f'<div class="scroll card" tabindex="0"><img src="{source}" alt="{chart[1]}"></div>\n', figure
    )
    return DATA.sub("", figure)


def main(arguments: list[str]) -> int:
    """Write the small copy of the page named first to the path named second; return the exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    page, copy = map(Path, arguments)
    text = shrink(page.read_text(encoding="utf-8"), page.parent / "figures")
    if len(text.encode()) > LARGEST:
        print(f"{page} has {len(text.encode()):,} bytes without its figures, more than {LARGEST:,}", file=sys.stderr)
        return 1
    copy.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
