"""The table of `main.py probe`, from the entries of its file of results."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM
from imagenet_repro.scoring.terminal import print_lines, print_table, ruled_table, widen_for_file
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_IMAGES_AND_DRAWS

HEADINGS = ("method", "features", "setting", "held-out\nerror %", "top-1 error %", "top-5 error %", "seconds", "GB")
WIDTH = 132  # columns of the table in a file


def print_report(methods: Mapping[str, Mapping[str, Any]], images: str, console: Console) -> None:
    """Print a row for each classifier, what selection on the scored images would have claimed, and the conventions.

    Args:
      methods: entries of `probe.json` by method.
      images: name of the scored images.
      console: receives the table.
    """
    widen_for_file(console, WIDTH)
    rows = [row for name, method in methods.items() for row in _rows(name, method)]
    print_table(ruled_table(HEADINGS, rows, left=(0, 1, 2), one_line=(0, 4, 5)), console)
    print_lines([sentence for name, method in methods.items() for sentence in _optimism(name, method)], console)
    print_lines(
        [
            f"scored on {images}; 95 % intervals for {NEW_IMAGES}; GB: peak memory of the process or device so far",
            f"*: selected on held-out training images; fewshot: mean over draws, intervals for {NEW_IMAGES_AND_DRAWS}",
        ],
        console,
    )


def _rows(name: str, method: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    has_choice = len(method["rows"]) > 1 and "selected" in method
    for number, row in enumerate(method["rows"]):
        is_first = number == 0
        mark = " *" if has_choice and number == method["selected"] else ""
        held_out = f"{100 * row['held_out_wrong'] / row['held_out_images']:.1f}" if "held_out_wrong" in row else ""
        yield (
            name if is_first else "",
            method["layer"] if is_first else "",
            row["setting"] + mark,
            held_out,
            format_with_interval(row, "top1"),
            format_with_interval(row, "top5"),
            f"{method['seconds']:,.1f}" if is_first else "",
            f"{method['peak_memory']['bytes'] / 1e9:.1f}" if is_first else "",
        )


def format_with_interval(row: Mapping[str, Any], name: str) -> str:
    """Return an error rate of a row with its interval, in percent."""
    images = row["images"] // len(row.get("draws", (0,)))
    digits = 2 if images >= FINE_DIGITS_FROM else 1
    low, high = row[f"{name}_interval"]
    return f"{100 * row[f'{name}_error']:.{digits}f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _optimism(name: str, method: Mapping[str, Any]) -> Iterator[str]:
    """Yield what selecting on the scored images would have claimed, where something was selected."""
    if "selected" not in method:
        return
    images = method["rows"][method["selected"]]["images"]
    selected, claimed = method["selected_wrong"], method["claimed_wrong"]
    yield (
        f"{name}: selecting among {method['tried']} on the scored images themselves would have claimed"
        f" {100 * claimed / images:.2f} % top-1 error ({method['claimed_setting']}),"
        f" {100 * (selected - claimed) / images:.2f} points less than the {100 * selected / images:.2f} % of the one"
        f" selected on held-out images{' (before it was fitted to all training images)' if name == 'logistic' else ''}"
    )
