"""Tests of the check that a step's memory suffices, with a memory that the tests set."""

import dataclasses

import pytest

from imagenet_repro.config import Config
from imagenet_repro.errors import UserError
from imagenet_repro.planning import fit
from imagenet_repro.planning.fit import Candidate, Search, StepMeter
from imagenet_repro.training import fitting
from imagenet_repro.training.systems import NetworkSystem
from tests.planning.test_plan import config


def search(needed, temporary, free, bytes_of, *, devices=1, **settings):
    """Return a search whose compiler needs what `bytes_of` says, and the list of the settings that it compiled."""
    compiled = []

    def measure(candidate):
        compiled.append((candidate.batch_size, candidate.accumulate))
        return bytes_of(candidate)

    batch = settings["batch_size"]
    return Search(measure, Config(**settings), devices, needed, temporary, batch, free), compiled


def linear(candidate):
    """Return the bytes of a step: 100 for the state's copy, 1 for an image of the batch, 30 for one at a time."""
    return 100 + candidate.batch_size + 30 * candidate.batch_size // candidate.accumulate


def test_the_least_number_of_parts_that_fits_is_found_with_one_compilation():
    tried, compiled = search(linear(Candidate(256, 1)), 30 * 256, 2500, linear, batch_size=256)
    assert tried.find_accumulate() == (Candidate(256, 4), 2276)
    assert compiled == [(256, 4)]
    assert linear(Candidate(256, 2)) > 2500


def test_parts_divide_the_share_of_a_device_and_grow_from_the_configured_ones():
    tried, compiled = search(3000, 2880, 1200, lambda candidate: 1000, devices=2, batch_size=96, accumulate=2)
    assert tried.find_accumulate() == (Candidate(96, 6), 1000)  # 48 images a device: 3, 4, 6, 8 … parts
    assert compiled == [(96, 6)]


@pytest.mark.parametrize("free", [400, 1000, 2500, 7000])
def test_the_batch_that_is_found_fits_and_a_quarter_more_does_not(free):
    tried, compiled = search(linear(Candidate(256, 1)), 30 * 256, free, linear, batch_size=256)
    candidate, size = tried.find_batch(tried.find_accumulate())
    assert size == linear(candidate) <= free
    assert linear(Candidate(round(1.25 * candidate.batch_size) + 1, 1)) > free
    assert len(compiled) <= 3


def test_nothing_is_suggested_that_was_not_seen_to_fit():
    tried, compiled = search(1000, 900, 500, lambda candidate: None, batch_size=8)
    assert tried.find_accumulate() is None
    assert tried.find_batch(None) is None
    assert 0 < len(compiled) <= 2 * fit.TRIES


@pytest.mark.parametrize(
    ("images", "unit", "rounded"), [(143, 1, 128), (15, 1, 15), (7, 8, 0), (100, 8, 96), (-3, 1, 0)]
)
def test_batches_are_rounded_to_an_eighth(images, unit, rounded):
    assert fit.round_down(images, unit) == rounded


@pytest.fixture(scope="module")
def fitted():
    """Return the meter and the compiled step of a LeNet-5 on the eight devices of the tests."""
    system = NetworkSystem.create(dataclasses.replace(config(), batch_size=256), 10)
    state, step = system.initial_state(), system.train_step(1)
    batch = system.spread.put_batch(system.blank_batch(256))
    compiled = fitting.compile_training(system.spread, step, state, batch, None)
    return StepMeter(system.spread, step, state, batch, "none"), compiled


@pytest.mark.slow
def test_the_same_step_measures_as_when_it_was_compiled(fitted):
    meter, compiled = fitted
    assert meter.measure(Candidate(256, 1)) == meter.bytes_of(compiled.memory)


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_refused_with_settings_that_fit(fitted):
    meter, compiled = fitted
    needed = meter.bytes_of(compiled.memory)
    fit.require_fit(meter, compiled, needed)
    fit.require_fit(meter, compiled, None)
    with pytest.raises(UserError, match=r"^config\.batch_size: a step of 256 images needs ") as error:
        fit.require_fit(meter, compiled, needed - compiled.memory.temporary_bytes // 2)
    assert "--config.batch_size=" in str(error.value)
    assert "--config.accumulate=" in str(error.value)
    assert "keeps the batch of 256" in str(error.value)
    assert "--config.parallel=fsdp" in str(error.value)
