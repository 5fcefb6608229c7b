"""Learning rates against their closed forms."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro import config as cfg
from imagenet_repro.training import schedule


def rates(spec, progress):
    return np.asarray([float(schedule.rate(spec, jnp.float32(p))) for p in progress])


def test_warm_up_is_a_straight_line_to_the_peak():
    for spec in (cfg.Cosine(warmup=0.2), cfg.Linear(warmup=0.2), cfg.Steps(warmup=0.2), cfg.Exponential(warmup=0.2)):
        np.testing.assert_allclose(rates(spec, [0, 0.05, 0.1, 0.15]), [0, 0.25, 0.5, 0.75], rtol=1e-6)


def test_cosine_and_linear_end_at_their_final_share():
    at = np.linspace(0.1, 1, 19)
    after = (at - 0.1) / 0.9
    cosine = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * a)) for a in after]
    np.testing.assert_allclose(rates(cfg.Cosine(warmup=0.1, final=0.01), at), cosine, atol=1e-6)
    np.testing.assert_allclose(rates(cfg.Linear(warmup=0.1, final=0.2), at), 0.2 + 0.8 * (1 - after), atol=1e-6)


@pytest.mark.parametrize(("progress", "rate"), [(0, 1), (0.33, 1), (0.34, 0.1), (0.7, 0.01), (0.9, 0.001), (1, 0.001)])
def test_steps_drop_at_their_boundaries(progress, rate):
    assert rates(cfg.Steps(), [progress])[0] == pytest.approx(rate, rel=1e-5)


def test_exponential_falls_in_stairs():
    spec = cfg.Exponential(every=0.1, factor=0.5)
    np.testing.assert_allclose(rates(spec, [0.05, 0.15, 0.55]), [1, 0.5, 0.5**5], rtol=1e-5)
