"""Tests that the diagrams name existing modules."""

import pytest

from tools import diagrams
from tools.generated import REPOSITORY


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_modules_of_the_boxes_exist(name):
    _, boxes, legend = diagrams.DIAGRAMS[name]
    assert {box.kind for box in boxes} == set(legend)
    for box in boxes:
        for module in box.modules.split(", "):
            path = REPOSITORY / "imagenet_repro" / module
            assert path.is_dir() or path.with_suffix(".py").is_file(), module
