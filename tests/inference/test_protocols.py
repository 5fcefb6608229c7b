"""Tests of protocols against a plain loop over views in NumPy, with a system whose scores are easy to recompute."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from imagenet_repro.config import Config, resolve_config
from imagenet_repro.data import crops
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols

SIZE = 32
RNG = np.random.default_rng(0)  # unused by these crops
WEIGHTS = np.random.default_rng(1).normal(size=(SIZE * SIZE * 3, 7)).astype(np.float32) / 50
CONFIG = resolve_config({"data": {"image_size": SIZE}, "eval_crop": {"name": "center", "ratio": 0.875}})


@dataclasses.dataclass
class Linear:
    """A system whose scores are linear in the pixels; on larger images it has a score at every eighth pixel."""

    config: Config = CONFIG

    def score(self, params, stats, images):
        return (images.reshape(len(images), -1).astype(jnp.float32) / 255) @ params["w"]

    def class_map(self, params, stats, images):
        rows, columns = ((side - SIZE) // 8 + 1 for side in images.shape[1:3])
        result = [
            self.score(params, stats, images[:, 8 * i : 8 * i + SIZE, 8 * j : 8 * j + SIZE])
            for i in range(rows)
            for j in range(columns)
        ]
        return jnp.stack(result, 1).reshape(len(images), rows, columns, -1)


def of_view(view):
    return (view.reshape(-1).astype(np.float64) / 255) @ WEIGHTS


def mean(scores, average="probabilities"):
    scores = np.stack(scores)
    return (
        scores.mean(0) if average == "logits" else logsumexp(log_softmax(scores, -1), axis=0) - math.log(len(scores))
    )


def image(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scores(parts, images, aspect=1.0):
    rows = np.stack([crops.crop(one, protocols.host_crops(parts, CONFIG, aspect), SIZE, RNG) for one in images])
    score = jax.jit(protocols.scorer(parts, Linear(), aspect))
    return np.asarray(score({"w": jnp.asarray(WEIGHTS)}, {}, jnp.asarray(rows)))


def resized(one, scale):
    height, width = one.shape[:2]
    shorter = min(height, width)
    return crops.resize(one, scale * height // shorter, scale * width // shorter, "bilinear", False)


def mirrored(views):
    return [*views, *(view[:, ::-1] for view in views)]


def ten(one):
    """Return the four corners and the centre, and their mirror images."""
    down, across = one.shape[0] - SIZE, one.shape[1] - SIZE
    starts = [(0, 0), (0, across), (down, 0), (down, across), (round(down / 2), round(across / 2))]
    return mirrored([one[i : i + SIZE, j : j + SIZE] for i, j in starts])


def test_ten_crops_of_the_centre_square():
    images = [image(50, 70), image(80, 45, 1)]
    for one, result in zip(images, scores(protocols.parse("10crop"), images), strict=True):
        full = resized(one, round(256 * SIZE / 224))
        side = min(full.shape[:2])
        top, left = round((full.shape[0] - side) / 2), round((full.shape[1] - side) / 2)
        views = ten(full[top : top + side, left : left + side])
        np.testing.assert_allclose(result, mean([of_view(view) for view in views]), atol=1e-5)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_ten_crops_of_the_full_image_with_either_mean(average):
    (result,) = scores(protocols.parse("resnet_10crop", {"average": average}), [image()])
    views = ten(resized(image(), round(256 * SIZE / 224)))
    np.testing.assert_allclose(result, mean([of_view(view) for view in views], average), atol=1e-5)


def test_fifty_crops_a_scale():
    (result,) = scores(protocols.parse("vgg_50crops"), [image()])
    views = []
    for scale in (256, 384, 512):
        full = resized(image(), round(scale * SIZE / 224))
        down, across = full.shape[0] - SIZE, full.shape[1] - SIZE
        places = [(round(down * i / 4), round(across * j / 4)) for i in range(5) for j in range(5)]
        views += mirrored([full[i : i + SIZE, j : j + SIZE] for i, j in places])
    assert len(views) == 150
    np.testing.assert_allclose(result, mean([of_view(view) for view in views]), atol=1e-5)


def test_a_run_is_evaluated_by_one_crop():
    (result,) = scores(protocols.parse("crop"), [image()])
    np.testing.assert_allclose(result, of_view(crops.crop(image(), CONFIG.eval_crop, SIZE, RNG)), atol=1e-5)
    (result,) = scores(protocols.parse("squash"), [image()])
    np.testing.assert_allclose(result, of_view(crops.resize(image(), SIZE, SIZE, "bilinear", False)), atol=1e-5)


def dense(one, scales):
    """Return the mean of the class map over copies cut to 4:3 and their mirror images."""
    result = []
    for scale in scales:
        height, width = scale, math.floor(scale * 4 / 3)
        part = crops.crop(one, crops.Copies(((height, width),)), SIZE, RNG).reshape(height, width, 3)
        for view in (part, part[:, ::-1]):
            places = [(i, j) for i in range(0, height - SIZE + 1, 8) for j in range(0, width - SIZE + 1, 8)]
            result.append(np.mean([of_view(view[i : i + SIZE, j : j + SIZE]) for i, j in places], axis=0))
    return result


def test_dense_scores_are_means_over_space_before_any_other():
    (result,) = scores(protocols.parse("vgg_dense"), [image()], 4 / 3)
    expected = mean(dense(image(), [round(scale * SIZE / 224) for scale in (256, 384, 512)]))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_sum_of_protocols_is_the_mean_of_their_probabilities():
    (result,) = scores(protocols.parse("vgg_dense+10crop"), [image()], 4 / 3)
    parts = [scores(protocols.parse(name), [image()], 4 / 3)[0] for name in ("vgg_dense", "10crop")]
    np.testing.assert_allclose(result, mean(parts), atol=1e-5)


VIEWS = {"crop": 1, "crop_flip": 2, "10crop": 10, "googlenet144": 144, "vgg_50crops": 150, "resnet_10crop": 10}


@pytest.mark.parametrize(("name", "number"), VIEWS.items())
def test_the_number_of_views_is_the_papers(name, number):
    (part,) = protocols.parse(name)
    assert part.views(CONFIG) == number


def test_sizes_grow_with_the_crop_except_caffes():
    sizes = {}
    for size in (224, 227, 299, 64):
        sizes[size] = protocols.scale_pixels((256,), resolve_config({"data": {"image_size": size}}))[0]
    assert sizes == {224: 256, 227: 256, 299: 342, 64: 73}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("10crops", {}, "there is no '10crops'; did you mean '10crop'"),
        ("10crop", {"scale": "256"}, "protocol.scale: "),
        ("10crop", {"positions": "('left',)"}, "protocol.positions"),
        ("10crop", {"scales": "()"}, "protocol.scales"),
        ("10crop", {"squares": "whole", "positions": "('square',)"}, "'square' resizes a square"),
        ("crop+10crop", {"flips": "False"}, "has 2 parts"),
    ],
)
def test_invalid_protocols_are_named(name, settings, message):
    with pytest.raises(UserError) as caught:
        protocols.parse(name, settings)
    assert message in str(caught.value)


def test_a_scale_below_the_crop_is_refused():
    with pytest.raises(UserError, match="windows of 32 pixels do not fit into a shorter side of 29"):
        protocols.host_crops(protocols.parse("10crop", {"scales": "(200,)"}), CONFIG, 1.0)
