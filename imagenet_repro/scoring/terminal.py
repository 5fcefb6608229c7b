"""Tables, lines and the stage that a command is in, for the terminal, in one form for every command."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading, terminal_heading

TICK = 0.5  # seconds between two updates of the elapsed time
HOURS_IN_DAYS = 48  # spans from here on are written in days
LINE_INTERVAL = 30.0  # seconds between two lines if the output is a file


def score_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table without borders whose first `left` columns are aligned left and the others right."""
    table = Table(*headings, box=None)
    for column in table.columns[left:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def ruled_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    one_line: Collection[int] = (),
    gap: int = 2,
) -> Table:
    """Return a table with a rule below its headings, whose cells are text, not markup.

    Args:
      headings: the headings, of one or more lines; the last lines are level.
      rows: the cells of each row.
      left: indices of the columns that are aligned left; the others are aligned right.
      one_line: indices of the columns whose cells are not wrapped.
      gap: spaces between two columns, 2 or 3.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, gap - 2), show_edge=False)
    height = max(heading.count("\n") for heading in headings)
    for index, heading in enumerate(headings):
        table.add_column(
            "\n" * (height - heading.count("\n")) + heading,
            justify="left" if index in left else "right",
            no_wrap=index in one_line,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def both_interval_headings() -> tuple[str, str]:
    """Return the headings of two columns: Wilson's interval of an error rate for new images, and the exact one."""
    wilson, exact = (interval_heading(NEW_IMAGES, method=method) for method in ("Wilson", "exact"))
    return terminal_heading(wilson), terminal_heading(exact)


def widen_for_file(console: Console, width: int) -> None:
    """Set the width of a console to at least `width` columns if its output is a file, for which rich assumes 80.

    A notebook is no file: rich knows its width.
    """
    if not console.is_terminal and not console.is_jupyter:
        console.width = max(console.width, width)


def print_table(table: Table, console: Console) -> None:
    """Print a table and an empty line; square brackets in its cells are text, not markup."""
    console.print(table, markup=False)
    console.print()


def print_lines(lines: Iterable[str], console: Console | None = None) -> None:
    """Print lines as they are: not wrapped, not highlighted, and without markup."""
    console = console or Console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def show_stages(console: Console, name: str = "", *, announce: bool = False) -> Iterator[Callable[[str], None]]:
    """Show the stage that a command is in, and its seconds: on a line that disappears, or as lines of a file.

    Args:
      console: where; a quiet one shows nothing.
      name: what is written before each stage.
      announce: whether a file gets a line when a stage begins, and not only while it lasts.

    Yields:
      The function to call with the name of each stage when it begins.
    """
    prefix = f"{name}: " if name else ""
    status = console.status("") if console.is_terminal and not console.quiet else None

    def show(text: str) -> None:
        if status:
            status.update(f"{prefix}{text}")
        else:
            print_lines([f"{prefix}{text}"], console)

    interval = TICK if status else LINE_INTERVAL
    with status or contextlib.nullcontext(), repeat_stage(show, interval, announce=announce or bool(status)) as begin:
        yield begin


@contextlib.contextmanager
def repeat_stage(
    show: Callable[[str], None], interval: float, *, announce: bool = True
) -> Iterator[Callable[[str], None]]:
    """Show every `interval` seconds the stage that a command is in and how long it has taken.

    Args:
      show: called with the text, also from a thread.
      interval: seconds.
      announce: whether the stage is also shown when it begins.

    Yields:
      The function to call with the name of each stage when it begins.
    """
    stage, began, ended = "", time.monotonic(), threading.Event()

    def begin(name: str) -> None:
        nonlocal stage, began
        stage, began = name, time.monotonic()
        if announce:
            show(name)

    def repeat() -> None:
        while not ended.wait(interval):
            if stage:
                show(f"{stage} for {duration(time.monotonic() - began)}")

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield begin
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Return a span of time as text in two units that suit it, such as "3 min 20 s" or "2 days 5 h"."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= HOURS_IN_DAYS:
        days, hours = divmod(hours + (minutes >= 30), 24)
        return f"{days} days {hours} h" if hours else f"{days} days"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
