"""Preprocessing of images that the user gives in place of what a file of weights or its network states."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from imagenet_repro.config import parse_text
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.spec import Kernel, Preprocessing

KEYS = {
    "mean": "of red, green and blue in [0, 1], such as 0.485,0.456,0.406; one number is that of all three",
    "std": "of red, green and blue in [0, 1]",
    "size": "pixels, the side of the square that the network sees",
    "crop": "that side over the shorter side after resizing, such as 0.875; or squash: both sides are resized to size",
    "kernel": "of the resizing: nearest, bilinear or bicubic",
    "antialias": "whether the kernel widens when shrinking, as Pillow's does",
}


def change(preprocessing: Preprocessing, settings: Mapping[str, str], prefix: str = "--preprocess.") -> Preprocessing:
    """Return preprocessing with some of its parts replaced.

    Args:
      preprocessing: what the file or the network states.
      settings: texts by key of `KEYS`.
      prefix: of a key, for messages.

    Raises:
      UserError: an unknown key, or a value that is not valid or is in other units.
    """
    changes: dict[str, Any] = {}
    for key, text in settings.items():
        name = f"{prefix}{key}"
        if key not in KEYS:
            raise UserError(f"{name}: there is no such key; {nearest(key, KEYS)}")
        changes |= _parsers[key](text, name)
    return dataclasses.replace(preprocessing, **changes)


def describe(preprocessing: Preprocessing) -> str:
    """Return the preprocessing in words."""
    p = preprocessing
    crop = "the complete image squashed" if p.crop == "squash" else f"central crop {p.crop_ratio:.4g}"
    antialias = "" if p.antialias else " without antialiasing"
    return f"{p.image_size} px, {crop}, {p.kernel}{antialias}, mean {_listed(p.mean)}, std {_listed(p.std)}"


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:.4g}" for number in numbers)


def _colours(key: str, text: str, name: str) -> dict[str, Any]:
    numbers = tuple(float(number) for number in parse_text(text, tuple[float, ...], name))
    if len(numbers) not in (1, 3):
        raise UserError(f"{name}: {text} has {len(numbers)} numbers; one is needed for each of red, green and blue")
    if any(number < 0 or number > 1 or (key == "std" and number == 0) for number in numbers):
        divided = ",".join(f"{number / 255:.4g}" for number in numbers)
        low = "above 0" if key == "std" else "from 0"
        raise UserError(
            f"{name}: {text} is out of range; it is {key} of pixels in [0, 1], {low} to 1. If it is of pixels from 0"
            f" to 255, type {name}={divided}"
        )
    return {key: numbers * (3 // len(numbers))}


def _size(text: str, name: str) -> dict[str, Any]:
    size = parse_text(text, int, name)
    if not 1 <= size <= 65_536:
        raise UserError(f"{name}: {size} is out of range; it must be from 1 to 65,536 pixels")
    return {"image_size": size}


def _crop(text: str, name: str) -> dict[str, Any]:
    if text.strip() == "squash":
        return {"crop": "squash", "crop_ratio": 1.0}
    ratio = parse_text(text, float, name)
    if not 0 < ratio <= 1:
        raise UserError(
            f"{name}: {text} is not valid; it is the crop over the resized shorter side, above 0 to 1, or squash"
        )
    return {"crop": "center", "crop_ratio": ratio}


def _kernel(text: str, name: str) -> dict[str, Any]:
    if text not in get_args(Kernel):
        raise UserError(f"{name}: there is no kernel '{text}'; {nearest(text, get_args(Kernel))}")
    return {"kernel": text}


_parsers = {
    "mean": lambda text, name: _colours("mean", text, name),
    "std": lambda text, name: _colours("std", text, name),
    "size": _size,
    "crop": _crop,
    "kernel": _kernel,
    "antialias": lambda text, name: {"antialias": parse_text(text, bool, name)},
}
