"""Networks of two towers: counts of the published ones, text towers, options and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro.errors import UserError
from imagenet_repro.models import image_text
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.text_tower import TextTower
from imagenet_repro.zoo import counting

# Parameters as open_clip 3.3 counts them with its own modules.
COUNTS = {
    "clip_vit_base_patch32": 151_277_313,
    "clip_vit_large_patch14_336": 427_944_193,
    "siglip_vit_base_patch16_224": 203_155_970,
    "siglip_vit_so400m_patch14_384": 877_960_498,
    "siglip2_vit_base_patch16_256": 375_234_050,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_networks_have_the_parameters_of_open_clip(name, count):
    assert counting.parameter_count(image_text.abstract_image_text(name)) == count


def test_features_have_length_one_and_logits_the_scale_of_the_paper():
    similarity = jax.eval_shape(
        lambda: initialise(lambda rngs: image_text.create_image_text("ours_tiny_siglip", rngs), jax.random.key(0))(
            jnp.zeros((2, 32, 32, 3)), jnp.zeros((3, 64), jnp.int32)
        )
    )
    assert [leaf.shape for leaf in similarity] == [(2, 192), (3, 192), (), ()]
    features = np.asarray([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(image_text.unit(jnp.asarray(features)), features / 5, rtol=1e-6)


@functools.cache
def text_tower(causal=True):
    """Return the features of tokens under a small text tower."""
    sizes = {"vocabulary": 11, "context": 6, "width": 32, "depth": 2, "heads": 2, "hidden": 64, "features": 8}
    design = {"causal": causal, "pool": "eot" if causal else "last"}
    tower = initialise(lambda rngs: TextTower(**sizes, **design, rngs=rngs), jax.random.key(0))
    tower.eval()
    return jax.jit(tower)


def tokens(*rows):
    return jnp.asarray([row + [0] * (6 - len(row)) for row in rows], jnp.int32)


def test_padding_and_what_follows_the_end_of_text_change_nothing_of_clip():
    first, padded, followed = text_tower()(tokens([9, 5, 10], [9, 5, 10, 0, 0], [9, 5, 10, 7]))
    np.testing.assert_allclose(first, padded, atol=1e-6)
    np.testing.assert_allclose(first, followed, atol=1e-6)
    np.testing.assert_allclose(first, text_tower()(tokens([9, 5, 10])[:, :3])[0], atol=1e-5)


def test_every_token_counts_in_siglip():
    first, other = text_tower(causal=False)(tokens([5, 6], [4, 6]))
    assert np.abs(np.asarray(first - other)).max() > 1e-4


@pytest.mark.parametrize(
    ("causal", "length", "message"), [(True, 7, "7 tokens.*at most 6"), (False, 5, "5.*exactly 6")]
)
def test_texts_of_another_length_are_refused_with_both_numbers(causal, length, message):
    with pytest.raises(UserError, match=message):
        text_tower(causal)(jnp.zeros((1, length), jnp.int32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("siglip2_vit_base_patch16_naflex", {}, "list of patches"),
        ("clip_vit_base_patch33", {}, "clip_vit_base_patch32"),
        ("ours_tiny_clip", {"activation": "geluu"}, "gelu"),
        ("ours_tiny_clip", {"width": 3}, "no option 'width'"),
        ("ours_tiny_clip", {"image_size": 33}, "multiples of 8"),
    ],
)
def test_errors_name_the_mistake(name, options, message):
    with pytest.raises(UserError, match=message):
        image_text.abstract_image_text(name, **options)


def test_so400m_leaves_out_pixels_that_fill_no_patch():
    net = image_text.abstract_image_text("siglip_vit_so400m_patch14_384")
    assert net.image.pos_embed.shape == (1, 27 * 27, 1152)
    graphdef, state = nnx.split(net.eval())
    images = jax.ShapeDtypeStruct((1, 384, 384, 3), jnp.float32)
    assert jax.eval_shape(lambda s, x: nnx.merge(graphdef, s).encode_image(x), state, images).shape == (1, 1152)
