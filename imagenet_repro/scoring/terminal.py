"""Plain tables and lines for the terminal, in one form for every command that prints scores."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def score_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table without borders whose first `left` columns are aligned left and the others right."""
    table = Table(*headings, box=None)
    for column in table.columns[left:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table, console: Console) -> None:
    """Print a table and an empty line; square brackets in its cells are text, not markup."""
    console.print(table, markup=False)
    console.print()


def print_lines(lines: Iterable[str], console: Console | None = None) -> None:
    """Print lines as they are: not wrapped, not highlighted, and without markup."""
    console = console or Console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
