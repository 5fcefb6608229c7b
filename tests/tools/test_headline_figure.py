"""Tests of the figure at the head of the README."""

import pytest

from tools import headline_figure

LEADERBOARD = """system,top-1 error %,{heading}
alexnet,20.0,"[18.0, 22.0]"
xrce_2011,40.5,"[37.5, 43.6]"
lenet5,60.0,"[59.0, 61.0]"
"""


@pytest.mark.parametrize("heading", ["95 % interval", '"95 % interval, new images and new seeds"'])
def test_systems_are_read_by_year(tmp_path, heading):
    tables = tmp_path / "demo" / "tables"
    tables.mkdir(parents=True)
    (tables / "leaderboard.csv").write_text(LEADERBOARD.format(heading=heading))
    (measured,) = headline_figure.read_demos(tmp_path).values()
    assert [one[:2] for one in measured] == [("lenet5", 1998), ("xrce_2011", 2011), ("alexnet", 2012)]
    assert measured[1][2:] == (40.5, 37.5, 43.6)
