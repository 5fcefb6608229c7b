"""Tests of learning rates against their closed forms."""

import json
import math

import numpy as np
import pytest

from imagenet_repro.config import (
    ConstantSchedule,
    CooldownSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    StepSchedule,
)
from imagenet_repro.training.learning_rate import LearningRate


def rates(spec, progress):
    share = LearningRate(1.0, spec)
    return np.asarray([share(p) for p in progress])


def test_warm_up_is_a_straight_line_to_the_peak():
    for spec in (
        CosineSchedule(warmup=0.2),
        LinearSchedule(warmup=0.2),
        StepSchedule(warmup=0.2),
        ExponentialSchedule(warmup=0.2),
    ):
        np.testing.assert_allclose(rates(spec, [0, 0.05, 0.1, 0.15]), [0, 0.25, 0.5, 0.75], rtol=1e-6)


def test_cosine_and_linear_end_at_their_final_share():
    at = np.linspace(0.1, 1, 19)
    after = (at - 0.1) / 0.9
    cosine = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * a)) for a in after]
    np.testing.assert_allclose(rates(CosineSchedule(warmup=0.1, final=0.01), at), cosine, atol=1e-6)
    np.testing.assert_allclose(rates(LinearSchedule(warmup=0.1, final=0.2), at), 0.2 + 0.8 * (1 - after), atol=1e-6)


@pytest.mark.parametrize(("progress", "rate"), [(0, 1), (0.33, 1), (0.34, 0.1), (0.7, 0.01), (0.9, 0.001), (1, 0.001)])
def test_steps_drop_at_their_boundaries(progress, rate):
    assert rates(StepSchedule(), [progress])[0] == pytest.approx(rate, rel=1e-5)


def test_exponential_falls_in_stairs():
    spec = ExponentialSchedule(every=0.1, factor=0.5)
    np.testing.assert_allclose(rates(spec, [0.05, 0.15, 0.55]), [1, 0.5, 0.5**5], rtol=1e-5)


def test_a_cooldown_is_a_straight_line_at_the_end_of_a_constant_rate():
    at = [0.05, 0.1, 0.5, 0.75, 0.8, 0.9, 1.0]
    np.testing.assert_allclose(rates(ConstantSchedule(warmup=0.1), at), [0.5, 1, 1, 1, 1, 1, 1], rtol=1e-6)
    cooldown = CooldownSchedule(warmup=0.1, cooldown=0.25, final=0.1)
    np.testing.assert_allclose(rates(cooldown, at), [0.5, 1, 1, 1, 0.82, 0.46, 0.1], rtol=1e-5)


def test_equal_boundaries_drop_twice():
    assert rates(StepSchedule(boundaries=(0.5, 0.5)), [0.5])[0] == pytest.approx(0.01, rel=1e-5)


def test_plateau_warms_up_and_stays_at_the_peak_without_evaluations():
    np.testing.assert_allclose(rates(PlateauSchedule(warmup=0.2), [0, 0.1, 0.2, 0.9]), [0, 0.5, 1, 1], rtol=1e-6)


def drops(spec, errors, learning_rate=None):
    learning_rate = learning_rate or LearningRate(0.1, spec)
    return [learning_rate.observe(error) for error in errors], learning_rate


def test_the_rate_drops_when_the_error_has_not_fallen_for_the_patience():
    spec = PlateauSchedule(patience=2, drops=2)
    dropped, learning_rate = drops(spec, [0.9, 0.8, 0.8, 0.85, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7])
    assert [number for number, drop in enumerate(dropped) if drop] == [3, 7]
    assert learning_rate.scale == pytest.approx(0.01)
    assert learning_rate(0.5) == pytest.approx(0.001)
    assert learning_rate.drops_record["best"] == 0.7


def test_an_improvement_below_min_delta_does_not_count():
    assert drops(PlateauSchedule(patience=1, min_delta=0.05), [0.9, 0.86, 0.84])[0] == [False, True, False]


def test_drops_continue_from_the_record_in_a_checkpoint():
    spec, errors = PlateauSchedule(patience=2, drops=3), [0.9, 0.9, 0.91, 0.5, 0.6, 0.7, 0.5, 0.5]
    uninterrupted, end = drops(spec, errors)
    for cut in range(len(errors)):
        first, learning_rate = drops(spec, errors[:cut])
        record = json.loads(json.dumps(learning_rate.drops_record))
        second, resumed = drops(spec, errors[cut:], LearningRate(0.1, spec, record))
        assert first + second == uninterrupted
        assert resumed.drops_record == end.drops_record


def test_other_schedules_ignore_the_errors():
    dropped, learning_rate = drops(CosineSchedule(), [0.5] * 10)
    assert not any(dropped)
    assert (learning_rate.scale, learning_rate.drops_record) == (1.0, {})
