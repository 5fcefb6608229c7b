"""Tests of the section on shape and texture, from files where `evaluate` puts them."""

import dataclasses

import numpy as np
import pytest

from imagenet_repro.config import Data
from imagenet_repro.report.plots.shape_bias import draw_shape_bias
from imagenet_repro.report.sections import shape_bias
from imagenet_repro.scoring.predictions import save
from imagenet_repro.scoring.sets import imagenet_wnids
from imagenet_repro.storage.workdir import Workdir
from tests.report import comparisons
from tests.scoring.synthetic_predictions import from_logits

NAMES = ["airplane/airplane1-bear2.png", "bear/bear1-cat1.png", "cat/cat3-bear2.png"]
GUESSES = ("n02690373", "n02132136", "n02132136")  # airliner, bear, bear: shape, shape, texture


@pytest.fixture
def compared(tmp_path):
    """Return two systems; a run of the first has answers, and the steps of the second are not known."""
    comparison = comparisons.comparison(2)
    first, second = (
        dataclasses.replace(run, path=tmp_path / str(number))
        for number, run in enumerate(system.runs[0] for system in comparison.systems)
    )
    second = dataclasses.replace(second, result=second.result | {"spent": {}})
    logits = np.zeros((3, 1_000))
    for row, wnid in enumerate(GUESSES):
        logits[row, imagenet_wnids().index(wnid)] = 12.0
    path = Workdir(first.path).predictions(Data(name="cue_conflict"), "train", 1_000)
    path.parent.mkdir(parents=True)
    save(path, from_logits(logits, np.full(3, -1), ids=NAMES))
    systems = [
        dataclasses.replace(one, runs=(run,)) for one, run in zip(comparison.systems, (first, second), strict=True)
    ]
    return dataclasses.replace(comparison, systems=tuple(systems))


def test_runs_with_answers_stand_beside_published_networks_and_people(compared):
    found = shape_bias.results(compared)
    assert [(seed, one.observer, one.shape, one.texture) for seed, one in found] == [("0", "nec_uiuc_2010", 2, 1)]
    table = shape_bias.table(found)
    assert len(table.rows) == 1 + 4 + 10
    assert table.rows[0][:3] == ("nec_uiuc_2010", "0", "66.7")
    chart = draw_shape_bias(compared, found)
    assert [row["bias"] for row in chart.datasets["runs"]] == [66.6667]
    assert [row["row"] for row in chart.datasets["published"]].count("people") == 10


def test_without_answers_there_is_no_table():
    assert shape_bias.results(comparisons.comparison(2)) == []
    assert shape_bias.table([]) is None
