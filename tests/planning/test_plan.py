"""Plans of a small network, compiled for the eight devices of the tests in the place of eight chips."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from imagenet_repro.config import Config, FeatureConfig, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.planning import plan as plans
from imagenet_repro.planning.advice import advise, find_batch
from imagenet_repro.planning.budget_cost import budget_cost
from imagenet_repro.planning.compiled_step import abstract_step
from imagenet_repro.planning.dataset import dataset_size
from imagenet_repro.planning.facts import all_devices
from imagenet_repro.planning.plan import Bound, plan_step, require_network
from imagenet_repro.planning.topology import Topology
from imagenet_repro.training.fitting import memory_in
from imagenet_repro.training.systems.network import NetworkSystem

SETTINGS = {
    "budget": "2ep",
    "batch_size": 32,
    "precision": "float32",
    "model": {"name": "lenet5"},
    "data": {"name": "imagenet2012", "image_size": 32},
    "optimizer": {"name": "sgd", "momentum": 0.9},
}


def config(**more):
    resolved = resolve_config(SETTINGS | more)
    assert isinstance(resolved, Config)
    return resolved


@pytest.fixture(scope="module")
def topology():
    return Topology("v5e:2x4", all_devices()["v5e"], jax.devices(), (2, 4))


@pytest.fixture(scope="module")
def plan(topology):
    return plan_step(config(), topology, num_classes=10)


def nbytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_the_parts_of_memory_are_those_of_the_real_state(plan):
    state = NetworkSystem.create(config(), 10).initial_state()
    parts = plan.compiled.arguments
    assert parts["parameters"] == nbytes(state.params)
    assert parts["optimizer"] == nbytes(state.opt_state)
    assert parts["average"] == 0
    assert parts["batch"] == 4 * (32 * 32 * 3 + 3 * 4)  # of one device: pixels, and three integers
    assert sum(parts.values()) == pytest.approx(plan.compiled.argument_bytes, abs=64)  # the step's number and key
    assert plan.parameters == sum(x.size for x in state.params.values())


def test_the_state_is_updated_in_place(plan):
    assert plan.aliases == plan.compiled.donated > 0
    assert plan.compiled.aliased_bytes >= 2 * plan.compiled.arguments["parameters"]


def test_gradients_are_reduced_once(plan):
    gradients = plan.compiled.arguments["parameters"]
    assert plan.collectives["all-reduce"]["bytes"] == pytest.approx(gradients, abs=64)  # and the measures


def test_the_bound_follows_from_the_published_rates(plan, topology):
    facts, system = topology.facts, NetworkSystem.create(config(), 10)
    flops = system.flops_per_step(system.initial_state()) / 8
    assert plan.flops == flops
    assert plan.bound.arithmetic == flops / (facts.peak_bf16 / 6)
    assert plan.bound.traffic == plan.traffic.total_bytes / facts.bandwidth
    assert plan.images_per_second == 32 / plan.bound.seconds
    assert plan.fits


def test_fsdp_keeps_a_part_of_large_parameters_on_each_device(topology, plan):
    split = plan_step(config(parallel="fsdp"), topology, num_classes=1024)
    whole = sum(x.size for x in NetworkSystem.abstract(config(), 1024, jax.devices()).network.params.values()) * 4
    assert split.compiled.arguments["parameters"] < 0.5 * whole
    assert {"all-gather", "reduce-scatter"} <= set(split.collectives)


@pytest.mark.parametrize("seconds", [(3, 2, 1), (2, 3, 1), (1, 2, 3)])
def test_the_slowest_part_limits(seconds):
    bound = Bound(*seconds)
    assert bound.seconds == 3
    assert bound.limiter == ("arithmetic", "memory traffic", "interconnect")[int(np.argmax(seconds))]


def test_a_plan_is_json(plan):
    record = json.loads(json.dumps(plan.to_dict()))
    assert record["limiter"] == plan.bound.limiter
    assert "text" not in record


def test_the_cost_of_a_budget(plan):
    cost = budget_cost(plan, config(), 3200, efficiency=0.5, price=3.0)
    assert (cost.steps, cost.images) == (200, 6400)
    assert cost.seconds == pytest.approx(200 * plan.bound.seconds / 0.5)
    assert cost.device_hours == pytest.approx(8 * cost.seconds / 3600)
    assert cost.price == pytest.approx(3 * cost.device_hours)


def test_a_budget_in_seconds_buys_steps(plan):
    cost = budget_cost(plan, config(budget="10s"), 3200, efficiency=0.5)
    assert cost.steps == int(10 / (plan.bound.seconds / 0.5))


def too_large(plan, needed):
    return dataclasses.replace(
        plan, compiled=dataclasses.replace(plan.compiled, text="", needed_bytes=needed), bound=None
    )


def test_advice_for_a_step_that_does_not_fit(plan):
    vit = config(model={"name": "vit_tiny_patch16", "options": {"remat": False}}, batch_size=64)
    state = {"parameters": 2 * 10**9, "optimizer": 4 * 10**9, "batch": 10**6}
    compiled = dataclasses.replace(plan.compiled, text="", needed_bytes=20 * 10**9, arguments=state)
    large = dataclasses.replace(plan, compiled=compiled, bound=None, batch_size=64)
    text = "\n".join(advise(large, vit))
    assert "without 'remat' lets the run choose" in text
    assert "--config.accumulate=2" in text
    assert "--config.parallel=fsdp" in text
    assert "--config.batch_size=32" in text
    assert advise(plan, config()) == []


@pytest.mark.parametrize(("largest", "start", "found"), [(64, 16, 64), (64, 512, 64), (64, 64, 64), (4, 64, 8)])
def test_the_largest_batch_is_found_from_both_sides(plan, largest, start, found):
    tried = []

    def plan_of(config):
        tried.append(config.batch_size)
        result = dataclasses.replace(plan, batch_size=config.batch_size)
        return result if config.batch_size <= largest else too_large(result, 20 * 10**9)

    assert find_batch(config(batch_size=start), 8, plan_of).batch_size == found
    assert len(tried) == len(set(tried)) <= 5


def test_the_memory_that_a_tpu_lacks_is_read_from_its_compiler():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 22.75G of 15.75G hbm. Exceeded by 7.00G."
    )
    assert memory_in(message) == (22.75 * 2**30, 15.75 * 2**30)
    early = (
        "E1000: the total memory required for HLO temporaries (384.00G) exceeds available HBM (95.73G). HLO module: m."
    )
    assert memory_in(early) == (384 * 2**30, 95.73 * 2**30)
    assert memory_in("RESOURCE_EXHAUSTED: of something") == (0, 0)
    assert memory_in("INTERNAL: something else") is None


@pytest.mark.parametrize(
    ("needed", "policies"),
    [
        ({"none": 1}, ["none"]),
        ({"none": 9, "products": 1}, ["none", "products"]),
        ({"none": 0, "products": 9, "blocks": 9}, ["none", "products", "blocks"]),  # 0: refused
    ],
)
def test_more_is_computed_again_until_the_step_fits(monkeypatch, plan, topology, needed, policies):
    compiled = []

    def compile_step(step, topology, policy, **options):
        compiled.append(policy)
        gigabytes = needed[policy]
        text = plan.compiled.text if gigabytes else ""
        return dataclasses.replace(plan.compiled, text=text, remat=policy, needed_bytes=(gigabytes or 10) * 2 * 10**9)

    monkeypatch.setattr(plans, "compile_step", compile_step)
    model = {"name": "vit_tiny_patch16", "options": {"image_size": 32, "depth": 2}}
    result = plan_step(config(model=model), topology, num_classes=10)
    assert compiled == policies == list(result.tried)
    assert result.compiled.remat == policies[-1]
    assert result.fits == (needed[policies[-1]] == 1)


def test_a_network_with_a_choice_of_its_own_is_compiled_once(topology):
    model = {"name": "vit_tiny_patch16", "options": {"image_size": 32, "depth": 2, "remat": True}}
    assert list(abstract_step(config(model=model), 10, topology).policies) == ["none"]


def test_a_batch_that_does_not_divide_is_an_error(topology):
    with pytest.raises(UserError, match=r"config.batch_size: 30 images do not divide among 8 devices"):
        plan_step(config(batch_size=30), topology)


def test_what_cannot_be_planned():
    with pytest.raises(UserError, match="hand-made features"):
        require_network(FeatureConfig())
    with pytest.raises(UserError, match="float64 is for the CPU"):
        require_network(config(precision="float64"))


@pytest.mark.parametrize(("split", "images"), [("train", 1_281_167), ("train[:99%]", 1_268_355)])
def test_the_size_of_imagenet_is_known_where_it_is_not_prepared(split, images):
    size = dataset_size(config(data={"name": "imagenet2012", "train_split": split}))
    assert (size.num_classes, size.num_examples) == (1000, images)


def test_the_size_of_another_data_set_is_asked_for(tmp_path):
    other = config(data={"name": "cifar10", "data_dir": str(tmp_path)})
    with pytest.raises(UserError, match="say its size with --num_classes and --num_examples"):
        dataset_size(other)
    assert dataset_size(other, 10, 50_000).num_examples == 50_000


def test_an_unknown_split_is_an_error():
    with pytest.raises(UserError, match="imagenet2012 has no such split"):
        dataset_size(config(data={"name": "imagenet2012", "train_split": "training"}))
