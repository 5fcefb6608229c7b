"""LeNet-5 against a transcription of the paper in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import lenet
from imagenet_repro.zoo import counting
from tests.models import probe

# Table I of the paper: rows are maps of S2, columns maps of C3.
TABLE_I = """
#...###..####.##
##...###..####.#
###...###..#.###
.###..####..#.##
..###..####.##.#
...###..####.###
"""
READS = np.array([[mark == "#" for mark in row] for row in TABLE_I.split()]).T


def squash(x):
    return 1.7159 * np.tanh(2 / 3 * x)


def correlate(maps, kernels, bias):
    """Correlate maps [h, w, in] with kernels [5, 5, in, out]."""
    return np.einsum("hwikl,klio->hwo", sliding_window_view(maps, (5, 5), (0, 1)), kernels) + bias


def subsample(maps, layer):
    h, w, n = maps.shape
    total = maps.reshape(h // 2, 2, w // 2, 2, n).sum((1, 3))
    return squash(total * np.asarray(layer.gain[...]) + np.asarray(layer.bias[...]))


def c3_kernels(layer):
    """Return dense kernels [5, 5, 6, 16], zero where table I has no mark."""
    dense, maps = np.zeros((5, 5, 6, 16)), iter(range(16))
    for conv in (layer.three, layer.four, layer.six):
        for column in np.moveaxis(np.asarray(conv.weight[...]), -1, 0):
            map_ = next(maps)
            dense[:, :, READS[map_], map_] = column
    bias = np.concatenate([np.asarray(conv.bias[...]) for conv in (layer.three, layer.four, layer.six)])
    return dense, bias


def transcribed(model, image, codes):
    weights = [
        (np.asarray(layer.weight[...]), np.asarray(layer.bias[...])) for layer in (model.c1, model.c5, model.f6)
    ]
    x = subsample(squash(correlate(image, *weights[0])), model.s2)
    x = subsample(squash(correlate(x, *c3_kernels(model.c3))), model.s4)
    x = squash(correlate(x, *weights[1])).mean((0, 1))
    x = squash(x @ weights[2][0] + weights[2][1])
    return -((x - codes) ** 2).sum(1)


def evaluated(model, images):
    graphdef, state = nnx.split(model.eval())
    return jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, jnp.asarray(images))


@pytest.mark.parametrize(("size", "num_classes"), [(32, 10), (36, 7)])
def test_the_network_of_1998_is_the_papers(size, num_classes):
    model = models.create("lenet5_1998", num_classes)
    images = np.random.default_rng(0).uniform(-0.1, 1.175, (2, size, size, 1)).astype(np.float32)
    logits = evaluated(model, images)
    expected = [transcribed(model, image, lenet.codes(num_classes)) for image in images.astype(np.float64)]
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_layers_have_the_papers_numbers_of_parameters():
    model = models.abstract("lenet5_1998", 10)
    counts = [counting.parameter_count(getattr(model, name)) for name in ("c1", "s2", "c3", "s4", "c5", "f6")]
    assert counts == [156, 12, 1516, 32, 48_120, 10_164]


def test_networks_without_statistics_have_only_parameters():
    for name in ("lenet5_1998", "lenet5"):
        nnx.split(models.abstract(name), nnx.Param)  # raises if a variable of another kind remains


def test_the_codes_of_ten_classes_are_pictures_of_the_digits():
    seven = lenet.codes(10)[7].reshape(12, 7)
    picture = ["".join(" #"[int(pixel > 0)] for pixel in row).rstrip() for row in seven]
    right = ["#######", "     ##", "     ##", "    ##"]
    assert picture == [*right, "   ##", "   ##", "  ##", "  ##", "  ##", "  ##", "", ""]


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_codes_are_signs_far_apart(num_classes):
    codes = lenet.codes(num_classes)
    assert codes.shape == (num_classes, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    distances = (84 - codes @ codes.T) / 2
    assert distances[~np.eye(num_classes, dtype=bool)].min() >= 6


def test_the_code_of_a_class_does_not_depend_on_the_number_of_classes():
    np.testing.assert_array_equal(lenet.codes(11), lenet.codes(100)[:11])


def test_weights_start_within_the_papers_bounds():
    model = models.create("lenet5_1998", 10)
    for layer, fan_in in ((model.c1, 25), (model.c3.four, 100), (model.c5, 400), (model.f6, 120)):
        for values in (layer.weight[...], layer.bias[...]):
            assert np.abs(values).max() <= 2.4 / fan_in
        assert np.abs(layer.weight[...]).max() > 0.9 * 2.4 / fan_in


def test_the_scaled_tanh_maps_one_to_one():
    np.testing.assert_allclose(lenet.squash(jnp.array([-1.0, 0.0, 1.0])), [-1, 0, 1], atol=1e-4)


def test_colour_is_converted_to_grey_by_luma():
    colour = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)
    luma = colour @ np.array([[0.299], [0.587], [0.114]], np.float32)
    np.testing.assert_allclose(lenet.grey(jnp.asarray(colour)), luma, atol=1e-6)
    np.testing.assert_array_equal(lenet.grey(jnp.asarray(luma)), luma)


@pytest.mark.parametrize("name", ["lenet5_1998", "lenet5"])
def test_sizes_channels_and_features(name):
    assert probe.shapes(name, (32, 51)) == (2, 10)
    assert probe.shapes(name, (32, 32), channels=1) == (2, 10)
    assert probe.shapes(name, (32, 32), num_classes=0) == (2, 84)
    with pytest.raises(UserError, match="at least 32 "):
        probe.shapes(name, (40, 31))
    with pytest.raises(UserError, match="channels"):
        probe.shapes(name, (32, 32), channels=2)


def test_the_modern_lenet_pools_maxima_after_relu():
    model = models.create("lenet5", 10)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32)
    kernels = {name: np.asarray(getattr(model, name).weight[...]) for name in ("c1", "c3", "c5", "f6", "output")}
    biases = {name: np.asarray(getattr(model, name).bias[...]) for name in kernels}
    x = image[0].astype(np.float64)
    for name in ("c1", "c3"):
        x = probe.maxima(np.maximum(correlate(x, kernels[name], biases[name]), 0)[None], 2, 2)[0]
    x = np.maximum(correlate(x, kernels["c5"], biases["c5"]), 0)[0, 0]
    x = np.maximum(x @ kernels["f6"] + biases["f6"], 0) @ kernels["output"] + biases["output"]
    np.testing.assert_allclose(evaluated(model, image)[0], x, atol=1e-5)
