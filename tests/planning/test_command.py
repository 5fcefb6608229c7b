"""The printed plan, compiled for the eight devices of the tests in the place of eight chips."""

import dataclasses
import json

import jax
import pytest

from imagenet_repro.planning import command
from imagenet_repro.planning.command import PlanOptions, plan_run
from imagenet_repro.planning.facts import all_devices
from imagenet_repro.planning.topology import Topology
from tests.planning.test_plan import config


@pytest.fixture(autouse=True)
def chips(monkeypatch):
    """Open the devices of the tests as chips with 16.9 GB each."""
    facts = all_devices()["v5e"]
    monkeypatch.setattr(command, "open_topology", lambda name: Topology(name, facts, jax.devices(), (2, 4)))
    monkeypatch.setenv("COLUMNS", "120")
    return facts


def test_a_plan_is_printed_and_written(capsys, tmp_path):
    file = tmp_path / "plan.json"
    options = PlanOptions(efficiency=0.25, price=1.5, num_classes=10, num_examples=3200, json_file=str(file))
    assert plan_run(config(), "v5e:2x4", options) == 0
    out = capsys.readouterr().out
    plan = json.loads(file.read_text())
    assert "lenet5, 61.7 k parameters, 32 px, float32, batch 32 (4 on each device)" in out
    assert "on 8 x TPU v5e (v5e:2x4), pmap" in out
    assert "of 16.9 GB of each device" in out
    assert f"at most {plan['images_per_second']:,.0f} images/s" in out
    assert f"limited by {plan['limiter']}" in out
    assert "budget 2ep: 200 steps, 6.40 k images" in out
    assert plan["budget"]["price"] == pytest.approx(1.5 * plan["budget"]["device_hours"])


def test_a_step_that_does_not_fit_says_by_how_much_and_what_to_try(capsys, monkeypatch, chips):
    small = dataclasses.replace(chips, memory=1e5)
    monkeypatch.setattr(command, "open_topology", lambda name: Topology(name, small, jax.devices(), (2, 4)))
    assert plan_run(config(), "v5e:2x4", PlanOptions(num_classes=10, num_examples=3200)) == 0
    out = capsys.readouterr().out
    assert "does not fit" in out
    assert "more than the 100 kB that it has" in out
    assert "--config.batch_size=16 is half the batch" in out
