"""Weights of networks with two towers, in the layout of each publisher, against their own features."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from imagenet_repro import pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models import image_text
from imagenet_repro.pretrained import tensors
from tests.goldens.formula import formula, image
from tests.goldens.write_image_text import tokens

GOLDENS = Path(__file__).parents[1] / "goldens" / "image_text"
# The network of each golden, and the options that its publisher's code differs in.
NETWORKS = {
    "openai": ("ours_tiny_clip", {"activation": "quick_gelu"}),
    "transformers_clip": ("ours_tiny_clip", {"activation": "quick_gelu"}),
    "open_clip_siglip": ("ours_tiny_siglip", {"activation": "gelu"}),
    "transformers_siglip": ("ours_tiny_siglip", {}),
    "big_vision": ("ours_tiny_siglip", {}),
}


def arrays_of(golden):
    shapes = zip(golden["names"].tolist(), map(json.loads, golden["shapes"].tolist()), strict=True)
    return {name: np.asarray(formula(name, tuple(shape))) for name, shape in shapes}


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def relative_error(result, expected):
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


@functools.cache
def compiled(name, activation):
    """Return a network of shapes, and its features as a compiled function of its state."""
    network = image_text.abstract_image_text(name, activation=activation, scan=True).eval()
    graphdef, _, rest = nnx.split(network, nnx.Param, ...)
    return network, jax.jit(lambda state, *inputs: nnx.merge(graphdef, state, rest)(*inputs))


@pytest.mark.parametrize(
    "layout", [pytest.param(n, marks=[pytest.mark.slow] * (n == "open_clip_siglip")) for n in NETWORKS]
)
def test_features_equal_those_of_the_publisher(layout, tmp_path):
    golden, (name, options) = np.load(GOLDENS / f"{layout}.npz"), NETWORKS[layout]
    ending = "npz" if layout == "big_vision" else "safetensors"
    weights = pretrained.read(save(tmp_path / f"weights.{ending}", arrays_of(golden)))
    selection = pretrained.select_image_text(weights, options=options)
    assert selection.name == name
    network, encode = compiled(name, selection.options.get("activation", "gelu_tanh"))
    network = nnx.clone(network)
    pretrained.load_image_text(network, weights)
    inputs = jnp.asarray(image(0, 32).transpose(0, 2, 3, 1)), jnp.asarray(tokens(), jnp.int32)
    features = encode(nnx.state(network, nnx.Param), *inputs)
    for result, expected in ((features.images, golden["image"]), (features.texts, golden["text"])):
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert relative_error(result, expected) < 2e-5


def test_a_torchscript_program_is_read_and_not_run():
    weights = pretrained.read(GOLDENS / "program.pt")
    assert sorted(weights.tensors) == ["image.cls_token", "image.head.weight", "logit_scale"]
    token = formula("visual.class_embedding", (4,)).astype(np.float16)
    np.testing.assert_array_equal(weights.tensors["image.cls_token"], token[None, None])
    np.testing.assert_array_equal(weights.tensors["image.head.weight"], formula("visual.proj", (3, 4)))
    assert weights.options == {"activation": "quick_gelu"}
    assert any("not run" in note for note in weights.notes)


def test_every_tensor_of_open_clip_has_a_place(tmp_path):
    golden = np.load(GOLDENS / "open_clip_siglip.npz")
    weights = pretrained.read(save(tmp_path / "weights.safetensors", arrays_of(golden)))
    shapes = {name: array.shape if "logit" not in name else () for name, array in weights.tensors.items()}
    assert shapes == tensors.shapes(image_text.abstract_image_text("ours_tiny_siglip"))


@pytest.fixture(scope="module")
def clip():
    """Return the arrays of a small CLIP in OpenAI's layout."""
    return arrays_of(np.load(GOLDENS / "openai.npz"))


def open_clip_config(**model):
    vision = {"image_size": 32, "layers": 12}
    images = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": {"vision_cfg": vision, **model}, "preprocess_cfg": images}


@pytest.mark.parametrize(("model", "activation"), [({"quick_gelu": True}, "quick_gelu"), ({}, "gelu")])
def test_the_configuration_beside_a_file_of_open_clip_states_activation_and_images(clip, model, activation, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(**model)))
    save(tmp_path / "open_clip_model.safetensors", clip)
    selection = pretrained.select_image_text(pretrained.read(tmp_path))
    assert (selection.name, selection.options) == ("ours_tiny_clip", {"activation": activation, "image_size": 32})
    assert (selection.preprocessing.crop, selection.preprocessing.std) == ("squash", (0.25, 0.25, 0.25))


def test_the_configuration_of_transformers_states_activation_and_images(clip, tmp_path):
    config = {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config": {}}
    images = {
        "size": 32,
        "crop_size": 32,
        "do_center_crop": True,
        "resample": 3,
        "feature_extractor_type": "CLIPFeature",
    }
    images |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    selection = pretrained.select_image_text(pretrained.read(save(tmp_path / "model.safetensors", clip)))
    assert selection.options == {"activation": "gelu", "text_activation": "quick_gelu", "image_size": 32}
    assert (selection.preprocessing.crop, selection.preprocessing.crop_ratio) == ("center", 1.0)


def test_an_activation_that_nothing_shows_is_asked_for(clip, tmp_path):
    weights = pretrained.read(save(tmp_path / "clip.safetensors", clip))
    with pytest.raises(UserError, match=r"activation of ours_tiny_clip.*quick_gelu"):
        pretrained.select_image_text(weights)
    with pytest.raises(UserError, match=r"no classifier.*--protocol=zeroshot"):
        pretrained.select(weights)


def load(arrays, path):
    weights = pretrained.read(save(path, arrays))
    selection = pretrained.select_image_text(weights, "ours_tiny_clip", {"activation": "quick_gelu"})
    network = image_text.abstract_image_text(selection.name, **selection.options)
    return pretrained.load_image_text(network, weights), network


def test_positions_of_other_images_are_interpolated(clip, tmp_path):
    larger = clip | {"visual.positional_embedding": np.ones((1 + 6 * 6, 192), np.float32)}
    weights = pretrained.read(save(tmp_path / "clip.safetensors", larger))
    options = {"activation": "gelu"}
    assert pretrained.select_image_text(weights, options=options).options["image_size"] == 48
    options |= {"image_size": 64}
    assert pretrained.select_image_text(weights, options=options).preprocessing.image_size == 64
    report, network = load(larger | {}, tmp_path / "clip.safetensors")
    assert report.preprocessing.image_size == 48
    assert network.image.pos_embed.shape == (1, 37, 192)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_projection": np.zeros((192, 64), np.float32)}, "images have 192 features and texts 64"),
        ({"ln_final.bias": np.full(192, np.nan, np.float32)}, "NaN"),
        ({"ln_final.bias": None}, "lack the tensor 'text.norm.bias'"),
        ({"visual.proj": np.zeros(3, np.float32)}, "2 axes are needed"),
    ],
)
def test_weights_that_do_not_fit_are_refused(clip, change, message, tmp_path):
    arrays = {name: array for name, array in (clip | change).items() if array is not None}
    with pytest.raises(UserError, match=message):
        load(arrays, tmp_path / "clip.safetensors")


def test_naflex_is_refused_with_the_reason(tmp_path):
    golden = arrays_of(np.load(GOLDENS / "transformers_siglip.npz"))
    golden["vision_model.embeddings.patch_embedding.weight"] = np.zeros((192, 3 * 64), np.float32)
    with pytest.raises(UserError, match=r"NaFlex.*list of patches"):
        pretrained.read(save(tmp_path / "naflex.safetensors", golden))


def test_a_file_without_towers_is_refused(tmp_path):
    weights = pretrained.read(save(tmp_path / "w.safetensors", {"fc.weight": np.zeros((2, 3), np.float32)}))
    with pytest.raises(UserError, match="no image tower and text tower"):
        pretrained.select_image_text(weights)
