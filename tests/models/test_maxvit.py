"""MaxViT: logits of a small network against timm's, partitions, relative positions and sizes of images."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models import maxvit
from imagenet_repro.models.nn.initialisers import DrawnRngs, Draws
from tests.goldens.formula import formula, image
from tests.models import probe

GOLDEN = Path(__file__).parents[1] / "goldens" / "peers" / "maxvit.npz"


def small(**options):
    """Return a network of five narrow blocks for images of 64 pixels, in shapes."""
    arguments = {"image_size": 64, "num_classes": 10} | options
    rngs = DrawnRngs(jax.random.key(0), Draws())
    return nnx.eval_shape(lambda: maxvit.MaxViT((1, 1, 2, 1), 32, 16, rngs=rngs, **arguments))


def test_logits_of_a_small_network_equal_those_of_timm():
    golden = np.load(GOLDEN)
    shapes = map(json.loads, golden["shapes"].tolist())
    weights = {name: formula(name, shape) for name, shape in zip(golden["names"].tolist(), shapes, strict=True)}
    graphdef, state = nnx.split(pretrained.load_torch(small(), weights).eval())
    images = image(0, 64, 1).transpose(0, 2, 3, 1)
    logits = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)
    assert np.linalg.norm(logits - golden["logits"]) < 1e-4 * np.linalg.norm(golden["logits"])


@pytest.mark.slow
def test_a_loop_rematerialisation_and_bfloat16_change_little_and_gradients_are_finite():
    golden = np.load(GOLDEN)
    shapes = map(json.loads, golden["shapes"].tolist())
    weights = {name: formula(name, shape) for name, shape in zip(golden["names"].tolist(), shapes, strict=True)}
    images = jnp.asarray(image(0, 64, 2).transpose(0, 2, 3, 1))

    def answer(**options):
        graphdef, params, rest = nnx.split(pretrained.load_torch(small(**options), weights).eval(), nnx.Param, ...)

        def loss(params):
            logits = nnx.merge(graphdef, params, rest)(images)
            return jnp.square(logits).mean(), logits

        (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        return np.asarray(logits), gradient

    plain, gradient = answer()
    looped, other = answer(scan=True, remat=True)
    np.testing.assert_allclose(looped, plain, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b) + 1e-5
    rounded, _ = answer(dtype=jnp.bfloat16)
    assert np.linalg.norm(rounded - plain) < 0.1 * np.linalg.norm(plain)


@pytest.mark.parametrize("part", ["window", "grid"])
def test_parts_of_a_map_are_neighbours_or_spread_over_it(part):
    rows, columns = np.mgrid[:4, :6]
    x = jnp.asarray(np.stack([rows, columns], -1)[None], jnp.float32)
    parts = maxvit.split_map(x, 2, part)
    assert parts.shape == (6, 4, 2)
    second = [[0, 2], [0, 3], [1, 2], [1, 3]] if part == "window" else [[0, 1], [0, 4], [2, 1], [2, 4]]
    np.testing.assert_array_equal(parts[1], second)
    np.testing.assert_array_equal(maxvit.join_map(parts, 2, part, x.shape), x)


def test_biases_depend_on_the_difference_of_rows_and_columns():
    bias = maxvit.RelativeBias(3, 2, rngs=nnx.Rngs(0))
    table, biases = np.asarray(bias.relative_position_bias_table[...]), np.asarray(bias())
    places = [(row, column) for row in range(3) for column in range(3)]
    for query, (row, column) in enumerate(places):
        for key, (other_row, other_column) in enumerate(places):
            expected = table[:, other_row - row + 2, other_column - column + 2]
            np.testing.assert_array_equal(biases[:, query, key], expected)


def test_a_table_for_another_window_keeps_its_centre_its_ends_and_its_symmetry():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(2, 13, 13)).astype(np.float32)
    resized = maxvit.resize_table(table, 23)
    assert resized.shape == (2, 23, 23)
    np.testing.assert_allclose(resized[:, 11, 11], table[:, 6, 6], rtol=1e-6)
    np.testing.assert_allclose(resized[:, ::22, ::22], table[:, ::12, ::12], atol=1e-4)
    np.testing.assert_allclose(maxvit.resize_table(table[:, ::-1], 23), resized[:, ::-1], atol=1e-6)
    smooth = np.arange(-6, 7, dtype=np.float32)[None, :, None] * np.ones((1, 1, 13), np.float32)
    assert (np.diff(maxvit.resize_table(smooth, 23)[0, :, 0]) > 0).all()


@pytest.mark.slow
def test_weights_of_other_windows_load_with_a_note(tmp_path):
    source = models.abstract("maxvit_tiny", 3, image_size=64)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in pretrained.tensors.shapes(source).items()}
    table = "stages.3.blocks.1.attn_grid.attn.rel_pos.relative_position_bias_table"
    arrays[table] = np.random.default_rng(0).normal(size=arrays[table].shape).astype(np.float32)
    weights = pretrained.files.Weights(tmp_path / "x", arrays)
    target = models.abstract("maxvit_tiny", 3, image_size=96)
    report = pretrained.load(target, weights)
    assert "interpolated the biases of relative positions from windows of 2 x 2 to 3 x 3" in report.notes
    loaded = target.stages[3].blocks[1].attn_grid.attn.rel_pos.relative_position_bias_table[...]
    np.testing.assert_allclose(loaded, maxvit.resize_table(arrays[table], 5))


def test_images_are_multiples_of_the_size_that_the_windows_are_for():
    assert probe.shapes_of(small(), (64, 128)) == (2, 10)
    assert probe.shapes_of(small(num_classes=0), (64, 64)) == (2, 256)
    with pytest.raises(UserError, match=r"96 x 64 pixels: it is built for 64 x 64.*image_size, a multiple of 32"):
        probe.shapes_of(small(), (96, 64))
    with pytest.raises(UserError, match="multiple of 32, such as 96"):
        models.abstract("maxvit_tiny", image_size=100)
