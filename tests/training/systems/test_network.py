"""Tests of networks as systems."""

import jax
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.training.systems import NetworkSystem


@pytest.mark.parametrize(
    ("option", "source"),
    [("num_classes", "the data set"), ("dtype", "config.precision"), ("seed", "config.seed"), ("name", "model.name")],
)
def test_an_option_that_the_run_sets_itself_is_refused(option, source):
    config = resolve_config({"model": {"name": "resnet18", "options": {option: 3}}})
    with pytest.raises(UserError, match=rf"config\.model\.options: '{option}' follows from .*{source}; leave it out"):
        NetworkSystem.create(config, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_group": 2}, "config.norm_group: 2 has no effect without config.cross_device_norm=true; set it too"),
        (
            {"norm_group": 3, "cross_device_norm": True},
            r"config.norm_group: 8 device\(s\) do not divide into groups of 3; take a divisor",
        ),
    ],
)
def test_groups_that_share_no_statistics_or_do_not_divide_the_devices_are_refused(settings, message):
    config = resolve_config({"model": {"name": "lenet5"}, **settings})
    with pytest.raises(UserError, match=message):
        NetworkSystem.abstract(config, 10, jax.devices())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ema_decay": 0.9}, "config.ema_decay: schedule_free_adamw evaluates an average of its own"),
        ({"max_filter_rms": 0.1}, "config.max_filter_rms: schedule_free_adamw averages iterates"),
        ({"schedule": {"name": "cosine"}}, "config.schedule: schedule_free_adamw needs a rate that stays"),
        ({"schedule": {"name": "plateau"}}, "config.schedule: schedule_free_adamw needs a rate that stays"),
    ],
)
def test_settings_that_contradict_a_schedule_free_optimizer_are_refused(settings, message):
    flat = {"schedule": {"name": "linear", "warmup": 0.05, "final": 1.0}}
    config = {"model": {"name": "lenet5"}, "optimizer": {"name": "schedule_free_adamw"}} | flat
    NetworkSystem.abstract(resolve_config(config), 10, jax.devices())
    with pytest.raises(UserError, match=message):
        NetworkSystem.abstract(resolve_config(config | settings), 10, jax.devices())
