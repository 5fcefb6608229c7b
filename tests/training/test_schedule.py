"""Learning rates against their closed forms."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import CosineSchedule, ExponentialSchedule, LinearSchedule, PlateauSchedule, StepSchedule
from imagenet_repro.training import schedule


def rates(spec, progress):
    return np.asarray([float(schedule.rate(spec, jnp.float32(p))) for p in progress])


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


def test_plateau_warms_up_and_leaves_the_drops_to_the_moment():
    np.testing.assert_allclose(rates(PlateauSchedule(warmup=0.2), [0, 0.1, 0.2, 0.9]), [0, 0.5, 1, 1], rtol=1e-6)


def drops(spec, errors, watch=None):
    watch = watch or schedule.Watch(spec)
    return [watch.look(error) for error in errors], watch


def test_the_rate_drops_when_the_error_has_not_fallen_for_the_patience():
    found, watch = drops(PlateauSchedule(patience=2, drops=2), [0.9, 0.8, 0.8, 0.85, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7])
    assert [number for number, drop in enumerate(found) if drop] == [3, 7]
    assert watch.scale == pytest.approx(0.01)
    assert watch.best == 0.7


def test_an_improvement_below_min_delta_is_none():
    assert drops(PlateauSchedule(patience=1, min_delta=0.05), [0.9, 0.86, 0.84])[0] == [False, True, False]


def test_a_watch_goes_on_from_what_a_checkpoint_holds():
    spec, errors = PlateauSchedule(patience=2, drops=3), [0.9, 0.9, 0.91, 0.5, 0.6, 0.7, 0.5, 0.5]
    whole, end = drops(spec, errors)
    for cut in range(len(errors)):
        first, watch = drops(spec, errors[:cut])
        known = json.loads(json.dumps(watch.known))
        second, again = drops(spec, errors[cut:], schedule.Watch(spec, **known))
        assert first + second == whole
        assert again == end


def test_other_schedules_are_left_alone():
    found, watch = drops(CosineSchedule(), [0.5] * 10)
    assert not any(found)
    assert (watch.scale, watch.known) == (1.0, {})
