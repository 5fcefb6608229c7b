"""Tests of configurations that share a measurement: their lowered steps are one program but for constants."""

import dataclasses
import re

import jax
import pytest

from imagenet_repro.config import flatten_settings, resolve_config, set_key
from imagenet_repro.planning import step_key
from imagenet_repro.training.systems.network import NetworkSystem

CLASSES = 7
BASE = {
    "batch_size": 4,
    "precision": "float32",
    "model": {"name": "lenet5"},
    "data": {"image_size": 32},
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "augment": {"label_smoothing": 0.1, "erasing": 0.2, "brightness": 0.4},
}
CONSTANT = re.compile(r"dense<-?[\d.]+([eE][+-]?\d+)?> : tensor<f32>")  # the whole numbers of loops and shapes stay


def configure(base=BASE, **changes):
    """Return a configuration with dotted keys changed, a double underscore standing for the dot."""
    settings: dict = {}
    for key, value in flatten_settings(base).items():
        set_key(settings, key, value)
    for key, value in sorted(changes.items(), key=lambda change: not change[0].endswith("__name")):
        set_key(settings, key.replace("__", "."), value)
    return resolve_config(settings)


def program(config):
    """Return the step of a configuration as it is given to the compiler, without the numbers of its constants."""
    system = NetworkSystem.abstract(config, CLASSES, jax.devices()[:1])
    batch = {
        name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in system.blank_batch(config.batch_size).items()
    }
    lowered = system.spread.lower_training(system.train_step(1), system.abstract_state(), batch)
    return CONSTANT.sub("dense<number> : tensor<f32>", lowered.as_text())


def half(value):
    """Return another number that switches nothing on or off."""
    return value / 2 if value not in (0, 1) else value


def changed_without_effect(config, **kept):
    """Return a configuration in which every number is changed that is said to be a constant, and all that has none."""
    changes = {"name": "other", "seed": 5, "schedule__warmup": 0.123, "optimizer__learning_rate": 0.0123}
    section = dataclasses.asdict(config.optimizer)
    keys = (*step_key.OFF_AT_ZERO, *step_key.OFF_AT_ONE)
    changes |= {f"optimizer__{name}": half(value) for name, value in section.items() if f"optimizer.{name}" in keys}
    changes |= {"ema_decay": 0.8, "clip_norm": 2.5, "augment__label_smoothing": 0.3, "augment__erasing": 0.7}
    settings = {key: value for key, value in flatten_settings(dataclasses.asdict(config)).items() if value != {}}
    return configure(settings, **changes | {"augment__brightness": 0.2} | kept)


@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("adamw", "lamb", "rmsprop", "lion", "muon", "schedule_free_adamw")
        ),
    ],
)
def test_equal_keys_mean_equal_programs(optimizer):
    # schedule-free AdamW keeps its own average and needs a flat schedule
    own = {"ema_decay": 0.0, "schedule__final": 1.0} if optimizer == "schedule_free_adamw" else {}
    config = configure(optimizer__name=optimizer, schedule__name="linear", **own)
    other = changed_without_effect(config, **own)
    assert other != config
    assert step_key.step_key(config) == step_key.step_key(other)
    assert step_key.run_key(config) == step_key.run_key(other)
    assert program(config) == program(other)


PROGRAMS: dict = {}


@pytest.mark.parametrize(
    "change",
    [
        {"augment__label_smoothing": 0.0},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                {"batch_size": 6},
                {"data__image_size": 36},
                {"optimizer__nesterov": True},
                {"optimizer__name": "adamw"},
                {"optimizer__layer_decay": 0.5},
                {"clip_norm": 0.0},
                {"ema_decay": 0.0},
                {"accumulate": 2},
                {"loss__name": "sigmoid"},
                {"augment__mixup": 0.2},
                {"augment__erasing": 0.0},
                {"max_filter_rms": 0.1},
                {"precision": "bfloat16"},
            )
        ),
    ],
    ids=str,
)
def test_other_programs_have_other_keys(change):
    config, other = configure(), configure(**change)
    PROGRAMS.setdefault("base", None) or PROGRAMS.update(base=program(config))
    assert program(other) != PROGRAMS["base"]
    assert step_key.step_key(config) != step_key.step_key(other)
    assert step_key.run_key(config) != step_key.run_key(other)


@pytest.mark.parametrize(
    "change",
    [{"budget": "3ep"}, {"evaluate_every": "2ep"}, {"train_crop__name": "squash"}, {"data__train_split": "train[:9]"}],
    ids=str,
)
def test_what_a_run_reads_and_how_long_it_is_matters_to_the_run_alone(change):
    config, other = configure(), configure(**change)
    assert step_key.step_key(config) == step_key.step_key(other)
    assert step_key.run_key(config) != step_key.run_key(other)


def test_a_key_that_nobody_has_thought_of_counts():
    config = configure()
    known = {*step_key.WITHOUT_EFFECT, *step_key.OFF_AT_ZERO, *step_key.OFF_AT_ONE}
    for key, value in flatten_settings(dataclasses.asdict(config)).items():
        if key in known or key.startswith("schedule.") or not isinstance(value, bool):
            continue
        assert step_key.run_key(configure(**{key.replace(".", "__"): not value})) != step_key.run_key(config), key
