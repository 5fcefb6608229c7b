"""Tests of the losses of pairs on eight devices, against NumPy in float64 and against values of open_clip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro.training import contrastive_loss
from imagenet_repro.training.step import AXIS

SHARE, WIDTH = 4, 6  # pairs of a device, numbers of a feature
SCALE, BIAS = 7.5, -3.0
# open_clip 3.3: ClipLoss()(images, texts, 7.5)["contrastive_loss"] and SigLipLoss()(images, texts, 7.5, -3.0), in
# float64, on the features of `features()`.
CLIP_VALUE, SIGLIP_VALUE = 5.4894494921013735, 13.266559922663669


def features():
    """Return 32 unit vectors of images and 32 of texts, by a formula that needs no generator."""
    numbers = np.arange(8 * SHARE * WIDTH, dtype=np.float64).reshape(-1, WIDTH)
    both = np.sin(numbers * 1.7), np.cos(numbers * 0.9 + np.sin(numbers * 0.3))
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in both)


def log_softmax(x):
    shifted = x - x.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def clip_reference(images, texts, scale, bias):
    logits = scale * images @ texts.T
    return -(np.trace(log_softmax(logits)) + np.trace(log_softmax(logits.T))) / (2 * len(images))


def siglip_reference(images, texts, scale, bias):
    scores = scale * images @ texts.T + bias
    signs = 2 * np.eye(len(images)) - 1
    return np.log1p(np.exp(-signs * scores)).sum() / len(images)


REFERENCES = {"softmax": clip_reference, "sigmoid": siglip_reference}


def softmax(images, texts, scale, bias):
    return contrastive_loss.softmax_loss(images, texts, scale + 0 * bias)


LOSSES = {"softmax": softmax, "sigmoid": contrastive_loss.sigmoid_loss}


def device_gradients(loss, *inputs):
    """Return one device's loss, the counts of its images, and its gradients as a step reduces them."""

    def objective(*inputs):
        result = loss(*inputs)
        return result.loss, result.better

    (value, better), gradients = jax.value_and_grad(objective, argnums=(0, 1, 2, 3), has_aux=True)(*inputs)
    features, (scale, bias) = gradients[:2], gradients[2:]
    mean = jax.tree.map(lambda x: jax.lax.pmean(x, AXIS), (value, scale, bias))
    return mean[0], better, tuple(x / jax.lax.axis_size(AXIS) for x in features), mean[1:]


def on_devices(name, mode, devices=8):
    images, texts = (jnp.asarray(x) for x in features())
    scale, bias = jnp.asarray(SCALE, images.dtype), jnp.asarray(BIAS, images.dtype)
    step = functools.partial(device_gradients, LOSSES[name])
    if mode == "pmap":
        shares = (x.reshape(devices, -1, WIDTH) for x in (images, texts))
        value, better, of_features, of_numbers = jax.pmap(
            step, axis_name=AXIS, in_axes=(0, 0, None, None), out_axes=(None, 0, 0, None)
        )(*shares, scale, bias)
        return value, better.reshape(-1), tuple(x.reshape(-1, WIDTH) for x in of_features), of_numbers
    share, whole = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.shard_map(
        step,
        mesh=Mesh(np.asarray(jax.devices()[:devices]), (AXIS,)),
        in_specs=(share, share, whole, whole),
        out_specs=(whole, share, share, whole),
        check_vma=False,
    )
    return jax.jit(mapped)(images, texts, scale, bias)


def numeric_gradients(reference):
    """Return central differences of a reference with respect to all of its inputs."""
    inputs = [*features(), np.asarray(SCALE), np.asarray(BIAS)]
    gradients = []
    for i, array in enumerate(inputs):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [x.copy() for x in inputs]
                moved[i][place] += step
                values.append(reference(*moved))
            gradient[place] = (values[0] - values[1]) / 2e-5
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("name", LOSSES)
def test_eight_devices_have_the_loss_and_the_gradients_of_the_whole_batch(name):
    gradients = numeric_gradients(REFERENCES[name])
    with jax.enable_x64(True):
        for mode in ("pmap", "shard_map"):
            value, _, of_features, of_numbers = on_devices(name, mode)
            np.testing.assert_allclose(value, REFERENCES[name](*features(), SCALE, BIAS), rtol=1e-12)
            for one, expected in zip((*of_features, *of_numbers), gradients, strict=True):
                np.testing.assert_allclose(one, expected, atol=1e-8)


@pytest.mark.parametrize(("name", "value"), [("softmax", CLIP_VALUE), ("sigmoid", SIGLIP_VALUE)])
def test_the_loss_is_that_of_open_clip(name, value):
    assert REFERENCES[name](*features(), SCALE, BIAS) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_text_is_beaten_by_those_that_are_more_similar(name):
    images, texts = features()
    similarity = images @ texts.T
    _, better, _, _ = on_devices(name, "shard_map")
    np.testing.assert_array_equal(better, (similarity > np.diag(similarity)[:, None] + 1e-5).sum(1))


def test_no_device_holds_more_scores_than_one_block():
    lowered = jax.jit(lambda: on_devices("sigmoid", "shard_map")[2:]).lower().as_text()
    assert f"tensor<{SHARE}x{SHARE}xf32>" in lowered
    assert f"tensor<{SHARE}x{8 * SHARE}xf32>" not in lowered
    assert f"tensor<8x{SHARE}x{SHARE}xf32>" not in lowered  # nor all of its blocks, for the backward pass
