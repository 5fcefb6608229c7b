"""Tables and lines for the terminal, in one form for every command."""

from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


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


def widen_for_file(console: Console, width: int) -> None:
    """Set the width of a console to at least `width` columns if its output is a file, for which rich assumes 80."""
    if not console.is_terminal:
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
