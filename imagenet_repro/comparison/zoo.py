"""The networks that can be made, as a table."""

from rich import box
from rich.console import Console
from rich.table import Table

from imagenet_repro import models
from imagenet_repro.comparison.table import FILE_WIDTH, quantity
from imagenet_repro.models import counting


def show(names: list[str]) -> None:
    """Prints a line for each network: year, parameters, multiply-adds of one image, reference and options."""
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading, justify in (
        ("year", "left"),
        ("name", "left"),
        ("parameters", "right"),
        ("multiply-adds", "right"),
        ("at", "right"),
        ("paper", "left"),
        ("options", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading not in ("paper", "options"))
    for name in names:
        table.add_row(*_cells(name))
    console.print(table)
    console.print("Parameters are the trainable ones, for 1000 classes.", highlight=False)


def _cells(name: str) -> list[str]:
    spec = models.spec(name)
    parameters = counting.parameter_count(models.abstract(name))
    multiply_adds = counting.multiply_adds(name, spec.preprocessing.image_size)
    options = ", ".join(f"{option}={default!r}" for option, default in spec.options.items())
    size = f"{spec.preprocessing.image_size} px"
    return [str(spec.year), name, f"{parameters:,}", quantity(multiply_adds), size, spec.paper, options]
