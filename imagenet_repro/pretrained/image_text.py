"""Weights of networks with two towers: the network, its options and its images for a file, and loading.

Shapes of tensors tell the published networks apart, so that a file needs no name. They do not show the activation of
the MLPs: OpenAI's CLIP has a sigmoid approximation of GELU, LAION's has the exact GELU. It follows from a TorchScript
archive, which only OpenAI published, or from the configuration beside the file. Files of SigLIP have the tanh
approximation with which big_vision trained them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from imagenet_repro.errors import UserError
from imagenet_repro.models import image_text
from imagenet_repro.models.image_text import ImageTextNetwork, TwoTowers
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.models.vit import VisionTransformer, resize_positions
from imagenet_repro.pretrained import preprocessing, tensors
from imagenet_repro.pretrained.files import Weights
from imagenet_repro.pretrained.loading import Report, check_finite, with_axes
from imagenet_repro.pretrained.selection import Selection

_EMBEDDING, _POSITIONS, _PATCH = "text.token_embedding.weight", "image.pos_embed", "image.patch_embed.proj.weight"


def select_image_text(
    weights: Weights,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Selection:
    """Return the network with two towers and the preprocessing of images for a file of weights.

    Args:
      weights: the content of a file.
      name: one of `image_text.TWO_TOWERS`; empty: as the file states, or as the shapes of its tensors show.
      options: of the network, as the user states them; they come before those that the file shows.
      settings: keys of the preprocessing to replace, as texts (`preprocessing.KEYS`).

    Raises:
      UserError: the file has no two towers or those of no network here, an unknown name or key, or nothing shows the
        activation.
    """
    if _EMBEDDING not in weights.tensors or _POSITIONS not in weights.tensors:
        raise UserError(
            f"{weights.path} has no image tower and text tower; --protocol=zeroshot needs weights of CLIP or SigLIP"
        )
    stated = weights.origin
    if stated is not None and (not name or name == stated.name):
        name, chosen = stated.name, dict(stated.options)
    else:
        name, chosen = name or _likely_network(weights), {}
    design = image_text.two_towers(name)
    chosen |= {key: value for key, value in weights.options.items() if key in design.options} | dict(options or {})
    if stated is None and design.image.norm_pre and "activation" not in chosen:
        raise UserError(
            f"{weights.path} does not show the activation of {name}, and the wrong one would give wrong answers"
            " without an error: 'quick_gelu' (OpenAI's, DFN's and MetaCLIP's weights) or 'gelu' (LAION's and"
            " DataComp's). Add one of them: --options=\"{'activation': 'quick_gelu'}\""
        )
    images, source = _images(weights, name, design)
    if "image_size" in chosen:
        images = dataclasses.replace(images, image_size=chosen["image_size"])
    if settings:
        images = preprocessing.change(images, settings)
        source = f"{', '.join(settings)} as given; the rest {source}"
    return Selection(name, chosen | {"image_size": images.image_size}, images, source)


def _images(weights: Weights, name: str, design: TwoTowers) -> tuple[Preprocessing, str]:
    """Return the preprocessing of images that a file states or shows, and where it is from, in words."""
    if weights.preprocessing is not None:
        return weights.preprocessing, weights.source or "as the file states"
    size = _image_size(weights)
    is_own = size in (0, _used_pixels(design))
    return design.preprocessing(design.image_size if is_own else size), f"usual for {name}"


def _likely_network(weights: Weights) -> str:
    """Return the network whose towers have the shapes of the file; UserError where there is none."""
    for name, design in image_text.TWO_TOWERS.items():
        if _image_size(weights) == _used_pixels(design) and _has_shapes(weights, design):
            return name
    for name, design in image_text.TWO_TOWERS.items():  # of images of another size
        if _has_shapes(weights, design):
            return name
    shapes = ", ".join(f"'{name}' {weights.tensors[name].shape}" for name in (_EMBEDDING, _POSITIONS))
    raise UserError(
        f"{weights.path} has the towers of no network here ({shapes}); add --model=NAME, one of"
        f" {', '.join(image_text.TWO_TOWERS)}"
    )


def _used_pixels(design: TwoTowers) -> int:
    """Return the side of the part of images that fills patches."""
    return design.image_size // design.image.patch * design.image.patch


def _image_size(weights: Weights) -> int:
    """Return the side of the images that the file's positions are for, in pixels; 0 where it is no square."""
    count, patch = weights.tensors[_POSITIONS].shape[-2], weights.tensors[_PATCH].shape[-1]
    side = math.isqrt(count)  # with a class token one more than a square
    return side * patch if count - side**2 in (0, 1) else 0


def _has_shapes(weights: Weights, design: TwoTowers) -> bool:
    """Return whether a file has the widths, depths, pooling, vocabulary and texts of a network."""
    image, text = design.image, design.text
    wanted = {
        _PATCH: (image.width, 3, image.patch, image.patch),
        _EMBEDDING: (text.vocabulary, text.width),
        "text.pos_embed": (text.context, text.width),
        f"image.blocks.{image.depth - 1}.mlp.fc1.weight": (image.hidden, image.width),
        f"text.blocks.{text.depth - 1}.mlp.fc1.weight": (text.hidden, text.width),
    }
    absent = (f"image.blocks.{image.depth}.mlp.fc1.weight", f"text.blocks.{text.depth}.mlp.fc1.weight")
    pools = ("image.attn_pool.latent" in weights.tensors) == (design.image_pool == "attention")
    shapes = {key: weights.tensors[key].shape for key in wanted if key in weights.tensors}
    return pools and shapes == wanted and not any(key in weights.tensors for key in absent)


def load_image_text(network: ImageTextNetwork, weights: Weights) -> Report:
    """Load a file's weights into a network with two towers, in place.

    Positions of the image tower are interpolated to the network's grid of patches. Any other mismatch is an error, and
    the network is then unchanged.

    Raises:
      UserError: the features of the two towers differ in width, or a tensor is missing, has another shape or a number
        that is not finite, or is not in the network; the message names the first such tensor.
    """
    expected = tensors.shapes(network)
    arrays = {name: with_axes(array, expected.get(name, array.shape)) for name, array in weights.tensors.items()}
    _check_widths(arrays, weights)
    notes = list(weights.notes)
    notes += _fit_positions(network, arrays)
    check_finite(arrays, weights.path)
    try:
        tensors.load_torch(network, arrays)
    except UserError as error:
        raise UserError(f"{weights.path}: {error}") from error
    origin = network.known_origin
    images = weights.preprocessing or image_text.two_towers(origin.name).preprocessing(
        origin.options.get("image_size")
    )
    network.preprocessing = weights.preprocessing
    return Report(weights.path, tuple(notes), (), (), images)


def _check_widths(arrays: Mapping[str, np.ndarray], weights: Weights) -> None:
    """Raise UserError where the towers' features have different widths, whose product is not defined."""
    image = arrays.get("image.head.weight", arrays.get("image.attn_pool.proj.weight"))
    text = arrays.get("text.proj.weight", arrays.get("text.norm.weight"))
    if image is not None and text is not None and image.ndim and text.ndim and len(image) != len(text):
        raise UserError(
            f"{weights.path}: images have {len(image):,} features and texts {len(text):,}; towers of two different"
            " networks? Take both from one file"
        )


def _fit_positions(network: ImageTextNetwork, arrays: dict[str, np.ndarray]) -> list[str]:
    """Interpolate the positions of another grid of patches, in place; return a note where this was done."""
    array, tower = arrays.get(_POSITIONS), network.image
    if (
        array is None
        or not isinstance(tower, VisionTransformer)
        or array.ndim != 3
        or array.shape == (1, tower.positioned + math.prod(tower.grid), array.shape[-1])
    ):
        return []
    side = math.isqrt(max(array.shape[1] - tower.positioned, 0))
    if side == 0 or side**2 + tower.positioned != array.shape[1]:
        return []
    arrays[_POSITIONS] = np.asarray(resize_positions(jnp.asarray(array), (side, side), tower.grid))
    height, width = tower.grid
    return [f"interpolated the positions of images from {side} x {side} patches to {height} x {width}"]
