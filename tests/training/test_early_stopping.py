"""Tests of the early end of a run whose evaluations no longer improve."""

import json

import pytest

from imagenet_repro.training.early_stopping import EarlyStopping

ERRORS = [0.9, 0.8, 0.8, 0.7, 0.7, 0.75, 0.7]


def first_due(evaluations, errors, record=None):
    stopping = EarlyStopping(evaluations, **(record or {}))
    for number, error in enumerate(errors):
        if stopping.is_due:
            return number, stopping
        stopping.observe(error)
    return (len(errors) if stopping.is_due else None), stopping


@pytest.mark.parametrize(("evaluations", "end"), [(0, None), (1, 3), (2, 6), (3, 7), (4, None)])
def test_the_run_ends_after_a_number_of_evaluations_without_a_lower_error(evaluations, end):
    assert first_due(evaluations, ERRORS)[0] == end


@pytest.mark.parametrize("cut", range(1, 7))
def test_counting_continues_from_the_record_in_a_checkpoint(cut):
    _, before = first_due(3, ERRORS[:cut])
    record = json.loads(json.dumps(before.record))
    assert first_due(3, ERRORS[cut:], record)[0] == 7 - cut


def test_the_record_is_empty_where_a_run_never_ends_early():
    assert first_due(0, ERRORS)[1].record == {}
    assert EarlyStopping(2).record == {"best": None, "stalled": 0}
