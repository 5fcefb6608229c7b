import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import HardDistillation, SoftDistillation
from imagenet_repro.data.augment import augment
from imagenet_repro.models.nn.network import WithAuxiliary
from imagenet_repro.training import distillation, parallel
from imagenet_repro.training.distillation import Teacher
from tests.training.small_network import CLASSES, batch, config, make, network

STUDENT = np.random.default_rng(0).normal(size=(5, 7)) * 2
TEACHER = np.random.default_rng(1).normal(size=(5, 7)) * 2
COLOUR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_hard_labels_are_the_teachers_most_likely_classes():
    loss = distillation.per_image(HardDistillation(), jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    expected = -log_softmax(STUDENT)[np.arange(5), TEACHER.argmax(-1)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_soft_labels_are_compared_at_a_temperature():
    t = 3.0
    loss = distillation.per_image(SoftDistillation(temperature=t), jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    p, q = log_softmax(TEACHER / t), log_softmax(STUDENT / t)
    np.testing.assert_allclose(loss, t**2 * (np.exp(p) * (p - q)).sum(-1), rtol=1e-4)


def teacher(order=range(CLASSES), colour=COLOUR):
    net = network()
    # Statistics that evaluation mode reads, and training mode would not.
    stats = {name: np.asarray(x) + 0.5 for name, x in net.stats.items()}
    params = {name: np.asarray(x) * 1.5 for name, x in net.params.items()}
    return Teacher(net, params, stats, np.asarray(list(order), np.int32), colour["mean"], colour["std"], "teacher")


def gradients(settings, mode="shard_map", heads=0, colour=COLOUR, order=range(CLASSES)):
    """Return the step's measures with a teacher, the state before and after it, and the configuration."""
    spec = config(**settings)
    step, first = make(spec, heads=heads)
    one = teacher(order, colour)
    params, stats = one.tensors()
    step = dataclasses.replace(step, frozen=one.names, teacher=one)
    first = dataclasses.replace(first, params=first.params | params, stats=first.stats | stats)
    spread = parallel.create(mode)
    placed = spread.put_state(first)
    before = jax.device_get(placed)
    compiled = spread.compile_training(step, placed, spread.put_batch(batch(0)))
    after, measures = jax.device_get(compiled(placed, spread.put_batch(batch(0)), np.float32(0.1)))
    return measures, before, after, spec


def test_the_teacher_sees_the_same_images_in_its_own_normalisation_and_evaluation_mode():
    order = np.random.default_rng(2).permutation(CLASSES)
    measures, before, after, spec = gradients(
        {"distill": {"name": "soft", "alpha": 0.25, "temperature": 2.0}}, "fsdp", order=order
    )
    data = {name: jnp.asarray(x) for name, x in batch(0).items()}
    pixels, _ = augment.augment(
        data["image"],
        data["label"],
        data["epoch"],
        data["index"],
        seed=jax.random.wrap_key_data(before.rng),
        spec=dataclasses.replace(spec.augment, mean=(0.0,) * 3, std=(1.0,) * 3),
        num_classes=CLASSES,
    )
    own = network()
    one = teacher()
    images = (pixels - np.asarray(COLOUR["mean"])) / np.asarray(COLOUR["std"])
    theirs = [{name: jnp.asarray(x) for name, x in part.items()} for part in (one.params, one.stats)]
    scores = own.evaluate(*theirs, jnp.asarray(images, jnp.float32))[:, order]
    colour = (pixels - np.asarray(spec.augment.mean)) / np.asarray(spec.augment.std)
    student_step, _ = make(spec)
    parts = jnp.asarray(colour, jnp.float32).reshape(jax.device_count(), -1, *colour.shape[1:])
    losses = []
    plain = {name: jnp.asarray(x) for name, x in before.params.items() if not name.startswith("teacher.")}
    for share, taught in zip(parts, scores.reshape(len(parts), -1, CLASSES), strict=True):
        logits, _ = student_step.network.train(plain, own.stats, jax.random.key(0), share)
        p, q = log_softmax(np.asarray(taught) / 2), log_softmax(np.asarray(logits) / 2)
        losses.append(4 * (np.exp(p) * (p - q)).sum(-1).mean())
    expected = 0.75 * measures["loss"] + 0.25 * np.mean(losses)
    np.testing.assert_allclose(measures["objective"], expected, rtol=1e-4)
    for name in one.names & before.params.keys():
        np.testing.assert_array_equal(after.params[name], before.params[name])


@pytest.mark.slow
def test_every_way_to_spread_the_step_agrees():
    settings = {"distill": {"name": "hard"}, "accumulate": 2, "ema_decay": 0.9}
    by_mode = [gradients(settings, mode) for mode in ("pmap", "fsdp")]
    (measures, _, after, _), (others, _, other_after, _) = by_mode
    np.testing.assert_allclose(measures["objective"], others["objective"], rtol=1e-5)
    for name, value in after.params.items():
        np.testing.assert_allclose(value, other_after.params[name], rtol=2e-4, atol=1e-5)
    assert not any(name.startswith("teacher.") for name in after.ema["params"])
    assert not any(name.startswith("teacher.") for name in after.without_teacher().params)


@pytest.mark.parametrize("is_distilled", [True, False])
def test_a_distillation_head_learns_from_the_teacher_and_the_class_head_from_the_labels(is_distilled):
    spec = config(distill={"name": "hard", "alpha": 0.5})
    step, _ = make(spec)
    labels = jax.nn.one_hot(jnp.arange(5), 7)
    output = WithAuxiliary(jnp.asarray(STUDENT), (jnp.asarray(-STUDENT),), 0.3, is_distilled)
    main, objective = step._distilled_loss(output, labels, jnp.asarray(TEACHER))
    on_labels, on_others = (-log_softmax(x)[np.arange(5), np.arange(5)].mean() for x in (STUDENT, -STUDENT))
    student = -STUDENT if is_distilled else STUDENT
    on_teacher = -log_softmax(student)[np.arange(5), TEACHER.argmax(-1)].mean()
    labelled = on_labels if is_distilled else on_labels + 0.3 * on_others
    np.testing.assert_allclose(main, on_labels, rtol=1e-5)
    np.testing.assert_allclose(objective, 0.5 * labelled + 0.5 * on_teacher, rtol=1e-5)
