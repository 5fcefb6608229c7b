"""Plans of a sweep's networks, compiled for the eight devices of the tests in the place of eight chips."""

import jax
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.planning.facts import all_devices
from imagenet_repro.planning.topology import Topology
from imagenet_repro.sweeps import controller, device_plans
from tests.sweeps import small_sweeps


@pytest.fixture
def compiled(monkeypatch):
    """Open the devices of the tests as chips; yield the list of configurations that are compiled."""
    facts, configs, plan_step = all_devices()["v5e"], [], device_plans.plan_step

    def plan(config, *arguments, **options):
        configs.append(config)
        return plan_step(config, *arguments, **options)

    monkeypatch.setattr(device_plans, "open_topology", lambda name: Topology(name, facts, jax.devices(), (2, 4)))
    monkeypatch.setattr(device_plans, "plan_step", plan)
    monkeypatch.setenv("COLUMNS", "120")
    return configs


def test_equal_networks_are_compiled_once_without_the_data_set(compiled, capsys, tmp_path):
    data = {"data_dir": str(tmp_path), "name": "imagenet2012", "image_size": 32}
    sweep = small_sweeps.sweep(systems=2, seeds=(0, 1), set={"data": data, "batch_size": 32})
    assert controller.dry_run(sweep, str(tmp_path / "w"), controller.SweepOptions(), "v5e:2x4") == 0
    assert [config.model.name for config in compiled] == ["lenet5"]
    out = capsys.readouterr().out
    assert "each run on 8 x TPU v5e (v5e:2x4)" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("a ", "b "))]
    assert [(row[0], row[1], row[2]) for row in rows] == [("a", "2", "4"), ("b", "2", "4")]
    assert rows[0][3:] == rows[1][3:]
    assert "total: 0 s of device time, at 50 % of the bound" in out
    assert not (tmp_path / "w").exists()


def test_a_network_that_cannot_be_planned_is_named(compiled, capsys, tmp_path):
    data = {"data_dir": str(tmp_path), "name": "imagenet2012", "image_size": 32}
    sweep = small_sweeps.sweep(systems=1, set={"data": data, "batch_size": 30})
    controller.dry_run(sweep, str(tmp_path / "w"), controller.SweepOptions(), "v5e:2x4")
    out = capsys.readouterr().out
    assert "a: config.batch_size: 30 images do not divide among 8 devices" in out
    assert "without a" in out
    assert compiled


def test_a_topology_is_for_dry_runs_alone():
    from imagenet_repro.cli.main import COMMANDS

    with pytest.raises(UserError, match="--topology=h100:8 needs --dry_run"):
        COMMANDS["sweep"].run(
            config="configs/sweeps/demo.py", workdir="w", status=False, dry_run=False, topology="h100:8",
            launcher="local", workers=0, storage="", target="", overrides={}, slurm={},
        )  # fmt: skip
