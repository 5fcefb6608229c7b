"""Puts the weights of a file into a model that need not be quite theirs: other classes, another grid of patches."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import vit
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import tensors
from imagenet_repro.pretrained.files import Weights, read

UNUSED = "mask_token"  # DINOv2's stand-in for hidden patches in its pre-training: nothing reads it afterwards
REPRESENTATION = "pre_logits."  # a hidden layer before the head in early ViT files of 21,843 classes: part of the head


@dataclasses.dataclass(frozen=True)
class Report:
    """What `load` did.

    Attributes:
      path: of the file.
      notes: a sentence each: how the file was read, what was replaced, resized or left out; empty: nothing of that.
      replaced: parameters that keep the model's initial values, since the file has another number of classes.
      left_out: tensors of the file that belong to heads which the model was built without.
      preprocessing: how images were prepared for these weights: as the file says, else the network's published way.
    """

    path: Path
    notes: tuple[str, ...]
    replaced: tuple[str, ...]
    left_out: tuple[str, ...]
    preprocessing: Preprocessing


def load(model: Network, weights: str | Path | Weights, *, drop_background: bool = False) -> Report:
    """Puts a file's weights into a model of `models.create`, in place.

    Heads whose number of classes differs from the file's keep their initial values, all of a network's together; so
    do those that the file lacks altogether. Heads that the model was built without (`num_classes=0`,
    `auxiliary=False`) are left out of the file's. Learned positions are interpolated to the model's grid of patches.
    Anything else that does not fit is refused, and the model is then unchanged.

    Args:
      model: made by `models.create`; one of `models.abstract` where the file has every tensor.
      weights: a path, or what `read` returned.
      drop_background: the file's first class is TensorFlow's background and the model does not have it (1,001 and
        1,000 classes).

    Raises:
      UserError: as `read`, or naming the first tensor that is missing, mis-shaped, or has no place in the model.
    """
    if not isinstance(weights, Weights):
        weights = read(weights)
    options = _check_origin(model.origin, weights)
    fit = _Fit(model, weights)
    if drop_background:
        fit.drop_background()
    fit.resize_positions()
    fit.leave_out()
    fit.replace_heads()
    try:
        tensors.load_torch(model, fit.given)
    except UserError as error:
        raise UserError(f"{weights.path}: {error}{suggestion(weights, model.origin)}") from error
    preprocessing = weights.preprocessing or models.spec(model.origin.name).preprocessing
    model.preprocessing = weights.preprocessing  # for `write`, unless it is told another
    return Report(weights.path, (*weights.notes, *options, *fit.notes), fit.replaced, fit.left_out, preprocessing)


_FREE = ("auxiliary", "image_size")  # options in which a file may differ: what they change is said elsewhere


def _check_origin(origin: Origin, weights: Weights) -> tuple[str, ...]:
    """Notes on what the file says of its network; UserError where it is another network than the model."""
    stated = weights.origin
    if stated is None:
        return ()
    if stated.name not in (*models.names(), *models.aliases()):
        return (f"the file says that it is of '{stated.name}', which is no network here",)
    spec = models.spec(stated.name)
    if spec is not models.spec(origin.name):
        raise UserError(
            f"{weights.path} says that it is of {stated.name}, and the model is {origin.name}: build {stated.name},"
            " or, to load it all the same, pass dataclasses.replace(pretrained.read(path), origin=None)"
        )
    theirs, ours = spec.options | stated.options, spec.options | origin.options
    differ = [key for key in ours if key not in _FREE and "drop" not in key and theirs[key] != ours[key]]
    return tuple(f"the file is of {key}={theirs[key]!r} and the model of {key}={ours[key]!r}" for key in differ)


class _Fit:
    """A file's tensors on their way into a model."""

    def __init__(self, model: Network, weights: Weights):
        self.model, self.path = model, weights.path
        self.expected = tensors.shapes(model)
        self.given = {
            name: _with_axes(array, self.expected.get(name, array.shape))
            for name, array in weights.tensors.items()
            if not name.endswith(tensors.IGNORED)
        }
        self.notes: list[str] = []
        self.replaced: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()

    def drop_background(self) -> None:
        """Takes the first class out of every head."""
        for name in self._heads():
            classes = self.expected[name][0]
            found = self.given[name].shape if name in self.given else ()
            if found[:1] != (classes + 1,):
                raise UserError(
                    f"{self.path}: drop_background needs a file of one class more than the model's {classes}; the"
                    f" shape of its '{name}' is {found}. Leave it out, or build the model for one class less"
                )
            self.given[name] = self.given[name][1:]
        self.notes.append("dropped class 0 of the file, TensorFlow's background")

    def resize_positions(self) -> None:
        """Interpolates learned positions where the grid of patches differs."""
        name = "pos_embed"
        array, shape = self.given.get(name), self.expected.get(name)
        if array is None or shape in (None, array.shape) or array.ndim != 3 or array.shape[::2] != (1, shape[2]):
            return
        side = math.isqrt(max(array.shape[1] - self.model.positioned, 0))
        if side == 0 or side**2 + self.model.positioned != array.shape[1]:
            return  # no square grid: other tokens than the model's; its shape is refused as any other
        self.given[name] = np.asarray(vit.resize_positions(jnp.asarray(array), (side, side), self.model.grid))
        height, width = self.model.grid
        self.notes.append(f"interpolated the positions from {side} x {side} patches to {height} x {width}")

    def leave_out(self) -> None:
        """Takes out what belongs to heads that the model was built without, and what no network reads."""
        extra = [name for name in self.given if name not in self.expected]
        if UNUSED in extra:
            del self.given[UNUSED]
            self.notes.append(f"left out '{UNUSED}', which is of use in pre-training alone")
        possible = _whole(self.model.origin) if extra else set()
        self._take_out(name for name in extra if name in possible or self._is_representation(name))

    def replace_heads(self) -> None:
        """Keeps the model's own heads where the file has another number of classes, or none."""
        missing = self.expected.keys() - self.given.keys()
        heads = set() if self._fits() else self._heads()
        if heads and not heads & self.given.keys() and missing <= self.expected.keys() - _headless(self.model.origin):
            self._keep_own(missing, "has no head")
            return
        self._check_auxiliary(missing)
        shapes = {name: self.given[name].shape for name in heads & self.given.keys()}
        counts = {shape[:1] for shape in shapes.values()}
        alike = shapes.keys() == heads and all(shape[1:] == self.expected[name][1:] for name, shape in shapes.items())
        classes = self.model.origin.num_classes
        if alike and len(counts) == 1 and counts != {(classes,)} and all(shapes.values()):
            self._keep_own(heads, f"has {counts.pop()[0]:,} classes and the model {classes:,}")
            self._take_out(name for name in list(self.given) if name.startswith(REPRESENTATION))

    def _fits(self) -> bool:
        return {name: array.shape for name, array in self.given.items()} == self.expected

    def _heads(self) -> set[str]:
        """The tensors whose shape depends on the number of classes."""
        origin = self.model.origin
        if not origin.num_classes:
            return set()
        others = _shapes(origin.name, origin.num_classes + 1, origin.options)
        return {name for name, shape in self.expected.items() if others[name] != shape}

    def _is_representation(self, name: str) -> bool:
        return name.startswith(REPRESENTATION) and not self.model.origin.num_classes

    def _check_auxiliary(self, missing: Set[str]) -> None:
        """Raises UserError where the file lacks no more than auxiliary heads."""
        origin = self.model.origin
        if not missing or "auxiliary" not in models.spec(origin.name).options:
            return
        if not missing & _shapes(origin.name, origin.num_classes, origin.options | {"auxiliary": False}).keys():
            raise UserError(
                f"{self.path} has no auxiliary heads ('{min(missing)}' is missing first); build the network without:"
                " auxiliary=False, in a configuration model.options={'auxiliary': False}"
            )

    def _keep_own(self, names: Iterable[str], why: str) -> None:
        self.given.update(tensors.to_torch(self.model, names))
        self.replaced = tuple(sorted(names))
        self.notes.append(f"the file {why}: {', '.join(self.replaced)} keep their initial values")

    def _take_out(self, names: Iterable[str]) -> None:
        taken = tuple(name for name in names if self.given.pop(name, None) is not None)
        if taken:
            self.left_out += taken
            self.notes.append(f"left out {', '.join(taken)}, parts of a head that the model does not have")


def _with_axes(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in `shape` where they differ by axes of one at the end alone.

    A 1x1 convolution is one implementation's linear layer, and [channels, 1, 1] scale as [channels] do.
    """

    def significant(shape: tuple[int, ...]) -> tuple[int, ...]:
        return significant(shape[:-1]) if shape and shape[-1] == 1 else shape

    return array.reshape(shape) if significant(array.shape) == significant(shape) else array


def _shapes(name: str, num_classes: int, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return tensors.shapes(models.abstract(name, num_classes, **options))


def _whole(origin: Origin) -> set[str]:
    """The tensors of a network with every head that it can have."""
    auxiliary = {"auxiliary": True} if "auxiliary" in models.spec(origin.name).options else {}
    return set(_shapes(origin.name, origin.num_classes or 1000, origin.options | auxiliary))


def _headless(origin: Origin) -> set[str]:
    return set(_shapes(origin.name, 0, origin.options))


# --- which network is it? --------------------------------------------------------------------------------------


def suggestion(weights: Weights, origin: Origin) -> str:
    """A sentence for a message: the network whose tensors the weights are like, where it is another one than `origin`.

    The networks of one builder have most names in common, so the first of each decides which builder's are compared.
    """
    if weights.origin is not None:
        about = weights.origin
        return f". The file says that it is of {about.name}, {about.num_classes} classes, options {about.options}"
    given = {name: array.shape for name, array in weights.tensors.items() if not name.endswith(tensors.IGNORED)}
    own = _shapes(origin.name, origin.num_classes, origin.options)
    if len(given.items() & own.items()) > 0.9 * max(len(given), len(own)):
        return ""
    if len(given.keys() & own.keys()) >= 0.5 * len(given):
        alike, builder = 1.0, _family(origin.name)  # the others need not be traced, which takes seconds
    else:
        alike, builder = max(
            ((_likeness(given, name, names_alone=True), builder) for builder, name in _firsts().items()),
            key=lambda found: found[0],
        )
    candidates = [name for name in models.names() if _family(name) == builder] if alike >= 0.1 else []
    likeness, best = 0.0, ""
    for name in candidates:
        likeness, best = max((likeness, best), (_likeness(given, name), name))
        if likeness > 0.99:
            break  # the deepest, which come last, take seconds each
    if likeness >= 0.5 and best != origin.name:
        return f". Its tensors are most like those of {best} ({100 * likeness:.0f} % have its names and shapes)"
    if len(given.keys() & own.keys()) >= 0.5 * len(own):
        return ""  # it is of this network as far as names say
    return ". No network here has tensors like those"


def _family(name: str) -> Any:
    """The builder of a network, whatever options it is a `partial` with."""
    builder = models.spec(name).builder
    return getattr(builder, "func", builder)


def _firsts() -> dict[Any, str]:
    """The first network of each builder."""
    firsts: dict[Any, str] = {}
    for name in models.names():
        firsts.setdefault(_family(name), name)
    return firsts


def _likeness(given: Mapping[str, Any], network: str, names_alone: bool = False) -> float:
    """Share of both sides' tensors that are common to them; of names, how many of the network's are there."""
    expected = _published_shapes(network)
    if names_alone:
        return len(given.keys() & expected.keys()) / max(min(len(given), len(expected)), 1)
    return len(given.items() & expected.items()) / max(len(given), len(expected), 1)


@functools.cache
def _published_shapes(network: str) -> Mapping[str, tuple[int, ...]]:
    """The shapes with 1,000 classes; tracing a deep network takes a second."""
    return _shapes(network, 1000, {})
