"""A test that every interval names its population: in headings, captions, sentences, help texts and docstrings."""

import ast
import re
from pathlib import Path

import pytest

import imagenet_repro

PACKAGE = Path(imagenet_repro.__file__).parent
# Words that tell a text about an interval of a measured number from one about a stretch of time or of values.
INTERVAL = re.compile(
    r"\d+ ?% (\w+ )?interval|95 % (Wilson|exact)|[Ii]ntervals?( \w+)? (is|are) (Wilson|normal|Student)"
    r"|(Wilson|Student|Pearson|bootstrap|[Nn]ormal|Tukey)\S*( t| 95 %| \(\d+\))? intervals?",
)
POPULATION = re.compile(r"new (images|seeds)|NEW_(IMAGES|SEEDS)|interval_heading|population")
# Functions of intervals for any population, the paragraph that introduces the headings, and a table whose caption
# names the population of each of its columns.
EXEMPT = {
    "statistics/intervals.py": ("bootstrap", "Clopper", "Wilson's interval", "Student's t"),
    "report/sections/transfer.py": ("95 % interval at {describe_budget(text)}",),
    "report/sections/leaderboard.py": ("Numbers in brackets, [low, high]", "a column's heading"),
}


def texts(tree):
    """Yield every text of a module, of formatted ones with their expressions in braces, and its line."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node) if part is not node}
            yield (
                node.lineno,
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                    for part in node.values
                ),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def unnamed_intervals(name, source):
    """Return the lines and texts of a module that show an interval without its population."""
    return [
        (line, text)
        for line, text in texts(ast.parse(source))
        if INTERVAL.search(text)
        and not POPULATION.search(text)
        and not any(words in text for words in EXEMPT.get(name, ()))
    ]


def test_every_interval_names_its_population():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        found += [f"{name}:{line}: {text}" for line, text in unnamed_intervals(name, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ('HEADINGS = ("error %", "95 % interval")', True),
        ('HEADINGS = ("error %", "95 % Wilson")', True),
        ('caption = f"Intervals are Wilson\'s over {n} images."', True),
        ('caption = f"Intervals are Wilson\'s for {NEW_IMAGES}."', False),
        ('def f():\n    """Return the mean and its normal 95 % interval."""', True),
        ('text = "95 % interval, new images and new seeds"', False),
        ('text = "the interval of checkpoints"', False),
    ],
)
def test_an_interval_without_a_population_is_found(source, is_found):
    assert bool(unnamed_intervals("any.py", source)) == is_found
