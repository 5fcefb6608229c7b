"""Pixels that published weights see, against those of timm's and torchvision's own transformations."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.data import crops
from imagenet_repro.data.augment import augment
from imagenet_repro.pretrained import published
from imagenet_repro.runs.evaluate import configure_evaluation
from tests.goldens.formula import photograph

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "peers" / "images.npz")


@pytest.mark.parametrize("name", GOLDEN.files)
def test_pixels_are_those_of_the_publisher(name):
    row = published.by_name(name)
    config = configure_evaluation(row.network, dict(row.options), row.preprocessing)
    side = config.data.size_evaluated
    cropped = crops.crop(photograph(), config.eval_crop, side, np.random.default_rng(0))
    pixels = np.asarray(augment.normalize(jnp.asarray(cropped[None]), spec=config.augment)[0])
    edges = [(i * side // 8, -(-(i + 1) * side // 8)) for i in range(8)]
    means = [[pixels[a:b, c:d].mean((0, 1)) for c, d in edges] for a, b in edges]
    np.testing.assert_allclose(means, GOLDEN[name], atol=1e-5)
