import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.config import Lora, Train, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.models import parameter_names
from imagenet_repro.training import finetuning, optimizer, parallel, state, step
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.systems import NetworkSystem
from tests.training.small_network import CLASSES, Small, batch, config

FROZEN = frozenset({"conv.weight", "norm.weight", "norm.bias"})
STATS = {"norm.running_mean", "norm.running_var"}
SETTINGS = {"ema_decay": 0.9, "accumulate": 2, "optimizer": {"name": "adamw", "learning_rate": 0.01}}


def compiled(mode, frozen=FROZEN, frozen_norm="evaluation", **settings):
    """Return the state on the devices, the compiled step, and the network."""
    spec = config(**(SETTINGS | settings))
    net = FunctionalNetwork(Small(0.0, nnx.Rngs(0)), frozen=frozen, frozen_norm=frozen_norm)
    frozen |= net.fixed_stats
    tx = optimizer.create(spec.optimizer)
    # Odd numbers, whose mean over three devices would be rounded.
    net.stats = {name: x + 0.1 for name, x in net.stats.items()}
    first = state.create(net.params, net.stats, tx, ema=True, seed=0, frozen=frozen)
    spread = parallel.create(mode)
    placed = spread.put_state(first)
    train_step = step.TrainStep(net, spec, CLASSES, tx, frozen)
    return placed, spread.compile_training(train_step, placed, spread.put_batch(batch(0))), net


def trained(mode, steps=2, **settings):
    placed, take, _ = compiled(mode, **settings)
    before = jax.device_get(placed)
    spread = parallel.create(mode)
    for number in range(steps):
        placed, _ = take(placed, spread.put_batch(batch(number)), np.float32(0.01))
    return before, jax.device_get(placed)


@pytest.mark.parametrize("mode", [pytest.param("pmap", marks=pytest.mark.slow), "fsdp"])
def test_frozen_parameters_and_statistics_keep_their_bits_and_have_no_state(mode):
    before, after = trained(mode)
    for name in before.params:
        assert np.array_equal(before.params[name], after.params[name]) == (name in FROZEN), name
    for name in before.stats:
        np.testing.assert_array_equal(before.stats[name], after.stats[name])
    assert not STATS & after.ema["stats"].keys()
    assert not FROZEN & after.ema["params"].keys()
    trained_size = sum(x.size for name, x in after.params.items() if name not in FROZEN)
    moments = [x for x in jax.tree.leaves(after.opt_state) if np.ndim(x)]
    assert sum(x.size for x in moments) == 2 * trained_size
    params, stats = after.evaluated
    assert params.keys() == before.params.keys()
    assert stats.keys() == before.stats.keys()
    np.testing.assert_array_equal(params["conv.weight"], before.params["conv.weight"])


def test_trained_parameters_get_the_same_gradient_from_fewer_operations():
    settings = {"accumulate": 1, "optimizer": {"name": "sgd", "weight_decay": 0.0}, "frozen_norm": "training"}
    states, operations = {}, {}
    for frozen in (frozenset(), FROZEN):
        placed, take, net = compiled("pmap", frozen=frozen, **settings)
        before = jax.device_get(net.stats)
        cost = take.cost_analysis()
        operations[frozen] = (cost[0] if isinstance(cost, list) else cost)["flops"]
        states[frozen], _ = jax.device_get(take(placed, parallel.create("pmap").put_batch(batch(0)), np.float32(0.1)))
    for name, value in states[FROZEN].params.items():
        if name not in FROZEN:
            np.testing.assert_allclose(value, states[frozenset()].params[name], rtol=1e-5, atol=1e-7)
    assert operations[FROZEN] < 0.85 * operations[frozenset()]
    # In training mode the statistics of frozen layers move.
    assert not np.array_equal(before["norm.running_mean"], states[FROZEN].stats["norm.running_mean"])


def system(depth=3, name="vit_tiny_patch16", **settings):
    base = {
        "batch_size": 8,
        "precision": "float32",
        "data": {"image_size": 32},
        "model": {"name": name, "options": {"depth": depth, "image_size": 32, "scan": True}},
    }
    return NetworkSystem.create(resolve_config(base | settings), CLASSES)


def abstract(**settings):
    base = {
        "batch_size": 8,
        "data": {"image_size": 32},
        "model": {"name": "vit_tiny_patch16", "options": {"depth": 3, "image_size": 32, "scan": True}},
    }
    return NetworkSystem.abstract(resolve_config(base | settings), CLASSES, jax.devices())


def count(network):
    return network.flops_per_step(network.abstract_state())


def test_gradients_stop_at_the_first_trained_layer():
    """Counted by hand: products of the forward pass, and of the backward pass through what is trained."""
    tokens, width, images = 5, 192, 8
    patches = 2 * images * 4 * 16 * 16 * 3 * width
    attention = 2 * (2 * images * tokens * tokens * width)
    matrices = {"qkv": 3 * width**2, "proj": width**2, "fc1": 4 * width**2, "fc2": 4 * width**2}
    linear = 2 * images * tokens * sum(matrices.values())
    head = 2 * images * width * CLASSES
    forward = patches + 3 * (attention + linear) + head
    assert count(abstract(train={"freeze": ("all_but_head",)})) == forward + head
    last = ("patch_embed", "*_token", "pos_embed", "blocks.0", "blocks.1")
    backward = 2 * linear + 2 * attention + 2 * head  # down to the block's first norm, and no further
    assert count(abstract(train={"freeze": last})) == forward + backward


def test_lora_costs_less_than_training_everything_and_trains_few_parameters():
    whole, adapted = abstract(), abstract(train={"lora": {"rank": 4}})
    assert count(adapted) < 0.75 * count(whole)
    per_block = 4 * (192 + 3 * 192) + 4 * (192 + 192)
    assert adapted.trained_parameters == 3 * per_block + 192 * CLASSES + CLASSES
    assert adapted.summary()["parameters"] == whole.summary()["parameters"]


@pytest.mark.slow
def test_a_run_with_lora_starts_as_the_network():
    adapted = system(depth=1, train={"lora": {"rank": 2}})
    plain = system(depth=1)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    before = plain.score(plain.network.params, plain.network.stats, images)
    np.testing.assert_array_equal(adapted.score(adapted.network.params, adapted.network.stats, images), before)


def names_of(name="resnet18"):
    network = models.abstract(name, CLASSES)
    return network, parameter_names.shapes(network)


def frozen(*patterns, name="resnet18", **options):
    network, names = names_of(name)
    return finetuning.frozen_names(Train(freeze=patterns, **options), network, names)


def test_patterns_name_parameters_modules_and_all_but_the_head():
    _, names = names_of()
    assert names.keys() - frozen("all_but_head") == {"fc.weight", "fc.bias"}
    assert frozen("layer1.0", "conv1") == {n for n in names if n.startswith(("layer1.0.", "conv1."))}
    assert frozen("layer?.*.bn1.*") == {n for n in names if n.startswith("layer") and ".bn1." in n}
    assert names.keys() - frozen("all_but_head", "!layer4.1") == {
        n for n in names if n.startswith(("fc.", "layer4.1."))
    }
    assert frozen() == set()


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("layer9",), "'layer9' matches no parameter; did you mean 'layer[1-4]'"),
        (("all_but_haed",), "did you mean 'all_but_head'"),
        (("conv1", "!zzz"), "'zzz' matches no parameter; valid: .*conv1"),
        (("*",), "leaves nothing to train"),
    ],
)
def test_patterns_that_match_nothing_or_all_are_errors(patterns, message):
    with pytest.raises(UserError, match=rf"config\.train\.freeze: .*{message}"):
        frozen(*patterns)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("vit_tiny_patch16", "qvk", "'qvk' matches no matrix; did you mean 'qkv'"),
        ("vit_tiny_patch16", "norm1", "'blocks.0.norm1' is a LayerNorm and not a matrix"),
        ("vit_tiny_patch16", "blocks.0", "is a Block and not a matrix; below it, 'blocks.0.attn"),
        ("vit_tiny_patch16", "head", "'head' is the head"),
        ("convnext_tiny", "conv_dw", "a convolution of 96 groups"),
    ],
)
def test_lora_on_anything_but_a_matrix_is_an_error(name, target, message):
    with pytest.raises(UserError, match=rf"config\.train\.lora\.targets: .*{message}"):
        finetuning.attach_adapters(models.abstract(name, CLASSES), Lora(rank=2, targets=(target,)), 0)


def test_lora_needs_a_target():
    with pytest.raises(UserError, match=r"config\.train\.lora\.targets: .* at least one matrix"):
        finetuning.attach_adapters(models.abstract("vit_tiny_patch16", CLASSES), Lora(rank=2, targets=()), 0)


def test_a_frozen_head_that_starts_afresh_is_an_error():
    with pytest.raises(UserError, match=r"the head \(fc.weight\) is frozen, and that of config\.model\.weights"):
        finetuning.check_head(["fc.bias", "fc.weight"], {"fc.weight", "conv1.weight"})
    finetuning.check_head(["fc.bias", "fc.weight"], {"conv1.weight"})


def test_a_head_at_zero_scores_all_classes_alike():
    network = models.build("lenet5", rngs=nnx.Rngs(0), num_classes=7)
    finetuning.zero_head(network)
    pooled = jnp.asarray(np.random.default_rng(0).normal(size=(2, 84)), jnp.float32)
    np.testing.assert_array_equal(network.output(pooled), np.zeros((2, 7)))
    assert network.f6.weight[...].any()


def test_a_run_trains_as_configured_in_every_stage():
    one = abstract(
        model={"name": "vit_tiny_patch16", "options": {"depth": 1, "image_size": 32, "dropout": 0.2}},
        progressive={"stages": 2, "image_size_from": 16, "dropout_from": 0.1},
        train={"lora": {"rank": 2}},
    )
    for stage in (0, 1):
        step_of_stage = one.at_stage(stage).train_step(1)
        assert step_of_stage.frozen == one.frozen
        assert step_of_stage.network.params.keys() == one.network.params.keys()
