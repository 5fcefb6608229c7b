"""Tests of the step against its parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.data.augment import augment
from imagenet_repro.training.step import AXIS
from tests.training import small_network


def on_one_device(function):
    """Return `function(state, batch, …)` compiled as one program, with an axis "data" of size one."""

    @jax.jit
    def mapped(state, batch, *rest):
        one = jax.tree.map(lambda x: x[None], batch)
        result = jax.vmap(lambda state, batch: function(state, batch, *rest), axis_name=AXIS, in_axes=(None, 0))
        return jax.tree.map(lambda x: x[0], result(state, one))

    return mapped


def half(batch, number):
    size = len(batch["label"]) // 2
    return {name: value[number * size : (number + 1) * size] for name, value in batch.items()}


def test_accumulation_is_the_mean_over_parts_with_statistics_carried_along():
    batch = small_network.batch(0)
    accumulating, state = small_network.make(small_network.config(accumulate=2))
    part, _ = small_network.make(small_network.config())
    gradients, stats, measures = on_one_device(accumulating.gradients)(state, batch)
    first, after_first, m1 = on_one_device(part.gradients)(state, half(batch, 0))
    second, after_both, m2 = on_one_device(part.gradients)(
        dataclasses.replace(state, stats=after_first), half(batch, 1)
    )
    for name, value in gradients.items():
        np.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-6)
    for name, value in stats.items():
        np.testing.assert_allclose(value, after_both[name], rtol=1e-5)
    np.testing.assert_allclose(measures["loss"], (m1["loss"] + m2["loss"]) / 2, rtol=1e-5)
    assert measures["top1_correct"] == m1["top1_correct"] + m2["top1_correct"]


def test_loss_is_the_cross_entropy_with_the_mixed_and_smoothed_targets():
    config = small_network.config(augment={"cutmix": 1.0, "label_smoothing": 0.1, "brightness": 0.3})
    step, state = small_network.make(config)
    batch = small_network.batch(0)
    _, _, measures = on_one_device(step.gradients)(state, batch)
    images, targets = augment.augment(
        *(jnp.asarray(batch[name]) for name in ("image", "label", "epoch", "index")),
        seed=config.seed,
        spec=config.augment,
        num_classes=small_network.CLASSES,
    )
    logits, _ = step.network.train(state.params, state.stats, jax.random.key(0), images)
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(measures["loss"], -(np.asarray(targets) * log_probabilities).sum(1).mean(), rtol=1e-5)


def test_the_average_moves_by_its_decay_and_is_what_is_evaluated():
    config = small_network.config(ema_decay=0.75)
    step, before = small_network.make(config)
    update = on_one_device(lambda state, batch: step(state, batch, small_network.learning_rate(0)))
    after, _ = update(before, small_network.batch(0))
    params, stats = after.evaluated
    for averaged, old, new in ((params, before.params, after.params), (stats, before.stats, after.stats)):
        for name, value in averaged.items():
            np.testing.assert_allclose(value, 0.75 * old[name] + 0.25 * new[name], rtol=1e-5, atol=1e-6)


def test_the_warm_up_of_the_average_is_tensorflows():
    step, before = small_network.make(small_network.config(ema_decay=0.75, ema_warmup=True))
    update = on_one_device(lambda state, batch: step(state, batch, small_network.learning_rate(0)))
    name = "fc2.weight"
    for updates, decay in ((0, 2 / 11), (8, 10 / 19), (1000, 0.75)):
        moved = dataclasses.replace(before, step=jnp.int32(updates))
        after, _ = update(moved, small_network.batch(0))
        expected = decay * before.params[name] + (1 - decay) * after.params[name]
        np.testing.assert_allclose(after.ema["params"][name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_auxiliary_heads_add_their_weighted_losses_and_measures_are_the_main_ones(accumulate):
    config = small_network.config(accumulate=accumulate, augment={"flip": False})
    step, state = small_network.make(config, heads=2)
    batch = small_network.batch(0)
    gradients, _, measures = on_one_device(step.gradients)(state, batch)

    def losses(params, part):
        images = augment.normalize(jnp.asarray(part["image"]), config.augment)
        output, _ = step.network.train(params, state.stats, jax.random.key(0), images)
        heads = [jax.nn.log_softmax(logits) for logits in (output.logits, *output.auxiliary)]
        return [-jnp.take_along_axis(head, part["label"][:, None], 1).mean() for head in heads]

    def total(params):
        parts = [batch] if accumulate == 1 else [half(batch, 0), half(batch, 1)]
        each = [losses(params, part) for part in parts]
        main, first, second = (sum(values) / len(parts) for values in zip(*each, strict=True))
        return main + 0.3 * (first + second), main

    (objective, main), expected = jax.value_and_grad(total, has_aux=True)(state.params)
    np.testing.assert_allclose(measures["loss"], main, rtol=1e-5)
    np.testing.assert_allclose(measures["objective"], objective, rtol=1e-5)
    assert {name for name in gradients if name.startswith("heads")} == {
        f"heads.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")
    }
    for name, value in expected.items():
        np.testing.assert_allclose(gradients[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


def test_auxiliary_heads_vanish_in_evaluation():
    network = small_network.network(heads=1)
    images = jnp.zeros((2, small_network.SIDE, small_network.SIDE, 3))
    assert network.evaluate(network.params, network.stats, images).shape == (2, small_network.CLASSES)


def test_the_step_reports_the_rate_that_it_was_given():
    step, state = small_network.make(small_network.config(schedule={"name": "plateau", "factor": 0.5}))
    update = on_one_device(lambda state, batch: step(state, batch, np.float32(0.025)))
    assert float(update(state, small_network.batch(0))[1]["learning_rate"]) == pytest.approx(0.025)


def test_the_loss_is_the_one_that_the_configuration_names():
    config = small_network.config(loss={"name": "sigmoid", "reduction": "sum"}, augment={"flip": False})
    step, state = small_network.make(config)
    batch = small_network.batch(0)
    _, _, measures = on_one_device(step.gradients)(state, batch)
    images = augment.normalize(jnp.asarray(batch["image"]), config.augment)
    logits, _ = step.network.train(state.params, state.stats, jax.random.key(0), images)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    one_hot = np.eye(small_network.CLASSES)[batch["label"]]
    binary = -(one_hot * np.log(p) + (1 - one_hot) * np.log(1 - p))
    np.testing.assert_allclose(measures["loss"], binary.sum(1).mean(), rtol=1e-5)


def test_progress_decides_the_rate_and_the_number_of_steps_does_not():
    step, state = small_network.make(small_network.config(schedule={"name": "cosine"}))
    rates, update = [], on_one_device(step)
    for steps, progress in ((0, 0.5), (1000, 0.5), (0, 0.0)):
        moved = dataclasses.replace(state, step=jnp.int32(steps))
        rates.append(
            float(update(moved, small_network.batch(0), small_network.learning_rate(progress))[1]["learning_rate"])
        )
    assert rates == pytest.approx([0.05, 0.05, 0.1])


def test_dropout_differs_between_steps_and_devices_and_repeats_for_the_same():
    step, state = small_network.make(small_network.config(), dropout=0.5)
    batch = small_network.batch(0, size=8)
    twice = {name: np.stack([value, value]) for name, value in batch.items()}

    def one(state, batch):  # this device's own loss, before any mean
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        key = jax.random.fold_in(jax.random.fold_in(key, jax.lax.axis_index(AXIS)), 0)
        run_key = jax.random.wrap_key_data(state.rng)
        result = {"run_key": run_key, "key": key, "batch": batch, "wrap": lambda params: params}
        return step._loss(state.params, state.stats, **result)[0]

    mapped = jax.jit(jax.vmap(one, axis_name=AXIS, in_axes=(None, 0)))

    def losses(steps):
        moved = dataclasses.replace(state, step=jnp.int32(steps))
        return np.asarray(mapped(moved, twice))

    assert losses(0)[0] != losses(0)[1]
    assert losses(0)[0] != losses(1)[0]
    np.testing.assert_array_equal(losses(1), losses(1))


def test_bfloat16_leaves_parameters_statistics_and_loss_in_float32():
    from imagenet_repro import models
    from imagenet_repro.training import optimizer, state
    from imagenet_repro.training.functional import FunctionalNetwork
    from imagenet_repro.training.step import TrainStep

    config = small_network.config(precision="bfloat16")
    network = FunctionalNetwork(models.create("resnet18", num_classes=small_network.CLASSES, dtype=jnp.bfloat16))
    tx = optimizer.create(config.optimizer)
    first = state.create(network.params, network.stats, tx, ema=False, seed=0)
    step = TrainStep(network, config, small_network.CLASSES, tx)
    shapes = jax.eval_shape(
        on_one_device(lambda s, b: step(s, b, small_network.learning_rate(0))), first, small_network.batch(0)
    )
    assert {x.dtype for x in jax.tree.leaves((shapes[0].params, shapes[0].stats))} == {jnp.dtype("float32")}
    assert shapes[1]["loss"].dtype == jnp.float32


def test_one_compiled_step_serves_every_seed_and_learning_rate():
    def program(seed, rate):
        optimizer = {"name": "sgd", "learning_rate": rate}
        step, state = small_network.make(
            small_network.config(seed=seed, optimizer=optimizer, augment={"mixup": 0.2}), dropout=0.5
        )
        mapped = jax.jit(jax.vmap(step, axis_name=AXIS, in_axes=(None, 0, None)))
        shares = jax.tree.map(lambda x: x[None], small_network.batch(0))
        return mapped.lower(state, shares, small_network.learning_rate(0.5)).as_text()

    assert program(0, 0.1) == program(1, 0.3)
