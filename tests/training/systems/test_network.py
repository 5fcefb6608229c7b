"""Tests of networks as systems."""

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
