"""Tests of stages: their configurations, and the steps at which they begin under every budget."""

import dataclasses

import jax
import pytest

from imagenet_repro.config import Model, resolve_config
from imagenet_repro.config.amount import Amount
from imagenet_repro.errors import UserError
from imagenet_repro.training import progressive
from imagenet_repro.training.budget import Budget, Meter


def config(**settings):
    base = {
        "model": {"name": "alexnet", "options": {"dropout": 0.3}},
        "data": {"image_size": 300},
        "augment": {"mixup": 0.2, "cutmix": 0.4},
        "progressive": {"stages": 4},
    }
    return resolve_config(base | settings)


def stages(config):
    return [progressive.stage_config(config, stage) for stage in range(config.progressive.stages)]


@pytest.mark.parametrize(("size", "sizes"), [(300, [171, 214, 257, 300]), (384, [192, 256, 320, 384])])
def test_sizes_are_those_of_efficientnetv2(size, sizes):
    assert [stage.data.image_size for stage in stages(config(data={"image_size": size}))] == sizes


def test_regularisation_rises_evenly_and_the_last_stage_is_the_configuration():
    result = stages(config())
    assert [stage.augment.mixup for stage in result] == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])
    assert [stage.augment.cutmix for stage in result] == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4])
    assert [stage.model.options["dropout"] for stage in result] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert result[-1] == config()


def test_first_values_are_the_configured_ones():
    spec = {"stages": 2, "image_size_from": 100, "dropout_from": 0.1, "mixup_from": 0.05, "cutmix_from": 0.3}
    first = stages(config(progressive=spec))[0]
    assert first.data.image_size == 200
    assert (first.augment.mixup, first.augment.cutmix, first.model.options["dropout"]) == (0.05, 0.3, 0.1)


def test_a_networks_own_dropout_counts_and_a_network_without_it_stays():
    assert stages(config(model={"name": "alexnet"}))[0].model.options == {"dropout": 0.0}
    assert stages(config(model={"name": "resnet50"}))[0].model == Model("resnet50")


def test_one_stage_is_no_stage():
    assert stages(config(progressive={})) == [config(progressive={})]


def test_a_first_size_above_the_last_is_refused():
    with pytest.raises(UserError, match=r"image_size_from: 128 is larger than config\.data\.image_size, 64"):
        stages(config(data={"image_size": 64}))


METER = Meter(batch_size=10, num_examples=100, flops_per_step=7)
FLOPS = [7, 10, 15, 20]


@pytest.mark.parametrize(
    ("budget", "starts"),
    [("40st", [10, 20, 30]), ("4ep", [10, 20, 30]), ("400img", [10, 20, 30]), ("41st", [11, 21, 31])],
)
def test_stages_are_equal_shares_of_steps(budget, starts):
    meter = progressive.staged(METER, Amount.parse(budget), FLOPS[1:])
    assert meter.later == tuple(zip(starts, FLOPS[1:], strict=True))
    assert [meter.stage(step) for step in (0, starts[0] - 1, starts[0], starts[1], starts[2], 39)] == [
        0,
        0,
        1,
        2,
        3,
        3,
    ]


@pytest.mark.parametrize("budget", ["4000flop", "1234flop", "40st", "7.3ep"])
def test_operations_are_those_of_the_steps_taken_and_stages_begin_at_their_share(budget):
    amount = Amount.parse(budget)
    meter = progressive.staged(METER, amount, FLOPS[1:])
    budget = Budget(amount, meter)
    flops = 0
    for step in range(budget.total_steps):
        spent = meter.spent(step, 0.0)
        assert spent.flops == flops
        assert not budget.finished(spent)
        assert meter.stage(step) == int(budget.progress(spent) * 4 + 1e-9)
        flops += FLOPS[meter.stage(step)]
    assert budget.finished(meter.spent(budget.total_steps, 0.0))
    assert budget.progress(meter.spent(budget.total_steps, 0.0)) == 1.0
    assert budget.progress(meter.spent(budget.total_steps - 1, 0.0)) < 1.0


def test_seconds_and_too_few_steps_are_refused():
    with pytest.raises(UserError, match=r"config\.budget: 60s cannot be divided into the 4 stages"):
        progressive.staged(METER, Amount.parse("60s"), FLOPS[1:])
    with pytest.raises(UserError, match=r"config\.progressive\.stages: 3st are 3 steps, too few for 4 stages"):
        progressive.staged(METER, Amount.parse("3st"), FLOPS[1:])
    assert progressive.staged(METER, Amount.parse("60s"), []) == METER


def test_stages_are_trained_from_the_same_parameters():
    from imagenet_repro.training.state import create
    from imagenet_repro.training.systems import NetworkSystem

    full_config = config(
        model={"name": "alexnet", "options": {"stem": "small", "dropout": 0.5}},
        data={"image_size": 64},
        batch_size=8,
        augment={},
        precision="float32",
        progressive={"stages": 2, "image_size_from": 32},
    )
    system = NetworkSystem.create(full_config, 10)
    first, last = system.at_stage(0), system.at_stage(1)
    assert last.network is system.network
    shapes = {name: value.shape for name, value in first.network.params.items()}
    assert shapes == {name: value.shape for name, value in system.network.params.items()}
    params, stats = system.network.params, system.network.stats
    state = jax.eval_shape(lambda: create(params, stats, system.optimizer, ema=False, seed=0))
    assert (first.config.data.image_size, first.config.model.options["dropout"]) == (48, 0.0)
    assert first.flops_per_step(state) < last.flops_per_step(state)
    assert (
        dataclasses.replace(first.config, data=full_config.data, augment=full_config.augment, model=full_config.model)
        == full_config
    )
