"""Tests of the check that an evaluation's memory suffices, with a memory that the tests set."""

import dataclasses
import re
from unittest import mock

import jax
import numpy as np
import pytest

from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.planning.evaluation_fit import require_evaluation_fit
from imagenet_repro.training.step_memory import StepMemory
from imagenet_repro.training.systems import NetworkSystem
from tests.planning.test_plan import config

SPLIT = Split("blank", "test", "1.0.0", tuple("abcdefghij"), 0, ())
TRAINING = StepMemory(arguments={"batch": 1_000}, waiting_bytes=2_000)


@pytest.fixture(scope="module")
def evaluated():
    """Return the evaluator, the configuration and the state of a LeNet-5 with batches of 512 on eight devices."""
    settings = config()
    data = dataclasses.replace(settings.data, eval_batch_size=512)
    settings = dataclasses.replace(settings, data=data, batch_size=64)
    system = NetworkSystem.create(settings, 10)
    return Evaluator(settings, system.score, system.spread, SPLIT), settings, system.initial_state()


def test_an_evaluation_that_fits_is_compiled_once(evaluated):
    evaluator, settings, state = evaluated
    require_evaluation_fit(evaluator, settings, state, TRAINING, free=10**12)
    compiled = evaluator.compile(state)
    require_evaluation_fit(evaluator, settings, state, TRAINING, free=None)
    assert evaluator.compile(state) is compiled
    counts, predictions = compiled(*state.evaluated, evaluator.blank_batch(512))
    assert int(counts["images"]) == 0  # blank images have no weight
    assert evaluator.spread.local_rows(predictions["logits"]).shape == (512, 10)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(evaluated):
    evaluator, settings, state = evaluated
    images = 512 // 8 * np.prod(evaluator.blank_batch(8)["image"].shape[-3:])  # bytes on a device
    with pytest.raises(UserError, match=r"^config\.data\.eval_batch_size: an evaluation of 512 images") as error:
        require_evaluation_fit(evaluator, settings, state, TRAINING, free=int(4 * images))
    message = str(error.value)
    assert "where it is not set" not in message
    suggested = int(re.findall(r"--config\.data\.eval_batch_size=(\d+) needs", message)[0])
    assert 8 <= suggested < 512
    smaller = dataclasses.replace(settings, data=dataclasses.replace(settings.data, eval_batch_size=suggested))
    again = Evaluator(smaller, evaluator.score, evaluator.spread, SPLIT)
    require_evaluation_fit(again, smaller, state, TRAINING, free=int(4 * images))


def test_a_batch_that_the_compiler_refuses_is_named_with_the_setting(evaluated, monkeypatch):
    evaluator, settings, state = evaluated
    message = "RESOURCE_EXHAUSTED: Used 20G of 16G hbm"
    monkeypatch.setattr(Evaluator, "compile", mock.Mock(side_effect=jax.errors.JaxRuntimeError(message)))
    unset = dataclasses.replace(settings, batch_size=512, data=dataclasses.replace(settings.data, eval_batch_size=0))
    with pytest.raises(UserError, match=r"which is config\.batch_size where it is not set") as error:
        require_evaluation_fit(evaluator, unset, state, TRAINING, free=16 * 10**9)
    assert "--config.data.eval_batch_size=" in str(error.value)
