"""Zero-shot classifiers: the ensemble of texts and the logits, against a few lines of NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.models import zero_shot
from imagenet_repro.models.image_text import ImageTextNetwork
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.text_tower import TextTower
from imagenet_repro.models.vit import Design, VisionTransformer


def towers(rngs, bias=None):
    """Return small towers with 8 features."""
    image = VisionTransformer(
        Design(32, 1, 2, 64, 4, norm_pre=True), num_classes=8, head_bias=None, image_size=8, rngs=rngs
    )
    sizes = {"vocabulary": 12, "context": 10, "width": 32, "depth": 1, "heads": 2, "hidden": 64, "features": 8}
    text = TextTower(**sizes, causal=bias is None, pool="last" if bias else "eot", rngs=rngs)
    return ImageTextNetwork(image, text, scale=5.0, bias=bias, rngs=rngs)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_logits_are_those_of_the_normalised_mean_of_normalised_texts(bias, monkeypatch):
    network = initialise(lambda rngs: towers(rngs, bias), jax.random.key(0)).eval()
    monkeypatch.setattr(zero_shot, "BATCH", 4)  # 15 texts: the last batch is padded
    tokens = np.random.default_rng(0).integers(1, 10, (5, 3, 10)).astype(np.int32)
    tokens[..., 6] = 11  # the end of text, after which CLIP reads nothing
    shown = []
    embeddings = zero_shot.class_embeddings(network, tokens, shown.append)
    features = np.asarray(jax.jit(network.encode_text)(jnp.asarray(tokens.reshape(15, 10)))).reshape(5, 3, 8)
    np.testing.assert_allclose(embeddings, unit(unit(features).mean(1)), atol=1e-5)
    assert sum(shown) == 15
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    classifier = zero_shot.ZeroShotNetwork(network, embeddings)

    def split(images):
        patches, logits = classifier.split_at_map(images)
        return logits(patches)

    logits, from_map, features = jax.jit(lambda x: (classifier(x), split(x), network.encode_image(x)))(images)
    expected = 5 * unit(np.asarray(features)) @ embeddings.T + (bias or 0)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(from_map, expected, atol=1e-4)
