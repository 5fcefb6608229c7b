"""The table of the cost of each stage of a system of features."""

from typing import Any

from rich.console import Console

from imagenet_repro.scoring.terminal import ruled_table

COLUMNS = ("stage", "seconds", "ms per image", "TFLOP", "MB", "bytes per image")


def rows(stages: dict[str, dict[str, Any]], images: int) -> list[tuple[str, ...]]:
    """Return the cells of one row for each stage, and of one row for their sum.

    Args:
      stages: `seconds`, `flops` and `bytes` of each stage, by its name.
      images: number of images in the training split, for the times and sizes per image.
    """
    total = {key: sum(cost[key] for cost in stages.values()) for key in ("seconds", "flops", "bytes")}
    return [_row(name, cost, images) for name, cost in (stages | {"all": total}).items()]


def _row(name: str, cost: dict[str, Any], images: int) -> tuple[str, ...]:
    is_per_image = name.endswith("codes")
    return (
        name,
        f"{cost['seconds']:,.0f}",
        f"{1e3 * cost['seconds'] / images:,.2f}",
        f"{cost['flops'] / 1e12:,.2f}",
        f"{cost['bytes'] / 1e6:,.1f}" if cost["bytes"] else "",
        f"{cost['bytes'] / images:,.0f}" if is_per_image else "",
    )


def markdown(stages: dict[str, dict[str, Any]], images: int) -> str:
    """Return the table in Markdown."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *rows(stages, images)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def show(stages: dict[str, dict[str, Any]], images: int, console: Console | None = None) -> None:
    """Print the table."""
    (console or Console()).print(ruled_table(COLUMNS, rows(stages, images), gap=3))
