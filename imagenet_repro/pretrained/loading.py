"""Load the weights of a file into a model that may differ from them in its classes or its grid of patches."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import maxvit
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.models.vit import VisionTransformer, resize_positions
from imagenet_repro.pretrained import forms, tensors
from imagenet_repro.pretrained.files import Weights, read
from imagenet_repro.scoring import class_names, sets

UNUSED = "mask_token"  # replaces hidden patches in the pre-training of DINOv2 and is not used afterwards
IMAGENET_ORDER = "the file names no classes; its 1,000 are taken to be ImageNet's, in the order of their WordNet ids"
REPRESENTATION = "pre_logits."  # a hidden layer of the head in early ViT files of 21,843 classes


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `load`.

    Attributes:
      path: of the file.
      notes: a sentence for everything that was converted, replaced, resized or left out.
      replaced: parameters that keep the model's initial values, since the file has other classes.
      left_out: tensors of the file that belong to heads which the model does not have.
      preprocessing: of images for these weights, as the file states it, else as published for the network.
    """

    path: Path
    notes: tuple[str, ...]
    replaced: tuple[str, ...]
    left_out: tuple[str, ...]
    preprocessing: Preprocessing


def load(
    model: Network,
    weights: str | Path | Weights,
    *,
    drop_background: bool = False,
    class_names: Sequence[str] = (),
) -> Report:
    """Load a file's weights into a model, in place.

    All heads keep their initial values where the file has other classes than the model, or no heads. Classes in
    another order are brought into that of `class_names`. The file's tensors for heads that the model does not have
    (`num_classes=0`, `auxiliary=False`) are left out. Learned positions are interpolated to the model's grid of
    patches, and biases of relative positions to its window. Any other mismatch is an error, and the model is then
    unchanged.

    Args:
      model: made by `models.create`, or by `models.abstract` where the file has every tensor.
      weights: a path, or the result of `read`.
      drop_background: whether to drop the file's first class, TensorFlow's background (1,001 classes in the file and
        1,000 in the model).
      class_names: names of the model's classes by index; empty: only their number is compared with the file's. A
        file that names none is taken to have ImageNet's in the order of their WordNet ids if it has 1,000.

    Raises:
      UserError: as `read`, or a tensor is missing, has another shape or a number that is not finite, or is not in
        the model; the message names the first such tensor.
    """
    if not isinstance(weights, Weights):
        weights = read(weights)
    options = _check_origin(model.known_origin, weights)
    fit = _Fit(model, weights)
    if drop_background:
        fit.drop_background()
    fit.resize_positions()
    fit.resize_biases()
    fit.leave_out()
    fit.replace_heads()
    fit.order_heads(weights.class_names, class_names)
    check_finite(fit.arrays, weights.path)
    if fit.is_complete:
        options += _check_form(model.known_origin, weights)
    try:
        tensors.load_torch(model, fit.arrays)
    except UserError as error:
        notes = f". It was read so: {'; '.join(weights.notes)}" if weights.notes else ""
        raise UserError(f"{weights.path}: {error}{suggestion(weights, model.known_origin)}{notes}") from error
    preprocessing = weights.preprocessing or models.spec(model.known_origin.name).preprocessing
    model.preprocessing, model.class_names = weights.preprocessing, fit.class_names  # `write` states both
    return Report(weights.path, (*weights.notes, *options, *fit.notes), fit.replaced, fit.left_out, preprocessing)


def check_finite(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise UserError for numbers that are not finite in float32, with which every score would be NaN."""
    for name, array in arrays.items():
        with np.errstate(over="ignore", invalid="ignore"):
            count = array.size - np.count_nonzero(np.isfinite(array.astype(np.float32, copy=False)))
        if count:
            raise UserError(
                f"{path}: {count:,} numbers of tensor '{name}' are NaN or infinite, as after a training that diverged;"
                " take an earlier checkpoint"
            )


_FREE = ("auxiliary", "image_size")  # options in which a file may differ, since other notes name their effect


def _check_origin(origin: Origin, weights: Weights) -> tuple[str, ...]:
    """Return notes on the network that the file states; UserError where it is not the model's."""
    stated = weights.origin
    if stated is None:
        return ()
    if stated.name not in (*models.names(), *models.aliases()):
        return (f"the file says that it is of '{stated.name}', which is not a network here",)
    spec = models.spec(stated.name)
    if spec is not models.spec(origin.name):
        raise UserError(
            f"{weights.path} says that it is of {stated.name}, and the model is {origin.name}: build {stated.name},"
            " or, to load it anyway, pass dataclasses.replace(pretrained.read(path), origin=None)"
        )
    theirs, ours = spec.options | stated.options, spec.options | origin.options
    differ = [key for key in ours if key not in _FREE and "drop" not in key and theirs[key] != ours[key]]
    return tuple(f"the file is of {key}={theirs[key]!r} and the model of {key}={ours[key]!r}" for key in differ)


def _check_form(origin: Origin, weights: Weights) -> tuple[str, ...]:
    """Return notes on options that the file shows and the model has otherwise.

    Raises UserError where the model's form is not the file's, or where the file does not show its form.
    """
    path = str(weights.path)
    if weights.origin is None:
        forms.check_known(origin.name, dict(weights.options) | origin.options, path)
    forms.check_fits(origin.name, weights.options, origin.options, path)
    ours = models.spec(origin.name).options | origin.options
    differ = {key: value for key, value in weights.options.items() if key in ours and ours[key] != value}
    return tuple(
        f"the file is of {key}={value!r} and the model of {key}={ours[key]!r}" for key, value in differ.items()
    )


class _Fit:
    """The tensors of a file, fitted to a model step by step."""

    def __init__(self, model: Network, weights: Weights):
        self.model, self.origin, self.path = model, model.known_origin, weights.path
        self.expected = tensors.shapes(model)
        self.arrays = {
            name: with_axes(array, self.expected.get(name, array.shape))
            for name, array in weights.tensors.items()
            if not name.endswith(tensors.IGNORED)
        }
        self.notes: list[str] = []
        self.replaced: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()
        self.class_names: tuple[str, ...] = ()

    def drop_background(self) -> None:
        """Drop the first class of every head."""
        for name in self._heads():
            classes = self.expected[name][0]
            shape = self.arrays[name].shape if name in self.arrays else ()
            if shape[:1] != (classes + 1,):
                raise UserError(
                    f"{self.path}: drop_background needs a file of one class more than the model's {classes}; the"
                    f" shape of its '{name}' is {shape}. Leave it out, or build the model for one class less"
                )
            self.arrays[name] = self.arrays[name][1:]
        self.notes.append("dropped class 0 of the file, TensorFlow's background")

    def resize_positions(self) -> None:
        """Interpolate learned positions where the grid of patches differs."""
        name = "pos_embed"
        array, shape = self.arrays.get(name), self.expected.get(name)
        if array is None or shape is None or not isinstance(self.model, VisionTransformer):
            return
        if array.shape == shape or array.ndim != 3 or array.shape[::2] != (1, shape[2]):
            return
        side = math.isqrt(max(array.shape[1] - self.model.positioned, 0))
        if side == 0 or side**2 + self.model.positioned != array.shape[1]:
            return  # no square grid, so the file has other tokens than the model: an error like any other shape
        self.arrays[name] = np.asarray(resize_positions(jnp.asarray(array), (side, side), self.model.grid))
        height, width = self.model.grid
        self.notes.append(f"interpolated the positions from {side} x {side} patches to {height} x {width}")

    def resize_biases(self) -> None:
        """Interpolate biases of relative positions where the window differs."""
        resized = set()
        for name in self.arrays.keys() & self.expected.keys():
            array, shape = self.arrays[name], self.expected[name]
            is_table = name.endswith(f".{maxvit.TABLE}") and array.ndim == 3 and array.shape[1] == array.shape[2]
            if is_table and array.shape != shape and array.shape[0] == shape[0] and array.shape[1] % 2:
                resized.add((array.shape[1] // 2 + 1, shape[1] // 2 + 1))
                self.arrays[name] = maxvit.resize_table(array, shape[1])
        for old, new in sorted(resized):
            self.notes.append(
                f"interpolated the biases of relative positions from windows of {old} x {old} to {new} x {new}"
            )

    def leave_out(self) -> None:
        """Leave out tensors of heads that the model does not have, and tensors that no network uses."""
        extra = [name for name in self.arrays if name not in self.expected]
        if UNUSED in extra:
            del self.arrays[UNUSED]
            self.notes.append(f"left out '{UNUSED}', which only pre-training uses")
        possible = _with_all_heads(self.origin) if extra else set()
        self._leave_out(name for name in extra if name in possible or self._is_representation(name))

    def replace_heads(self) -> None:
        """Keep the model's own heads where the file has another number of classes, or no heads."""
        missing = self.expected.keys() - self.arrays.keys()
        heads = set() if self.is_complete else self._heads()
        if heads and not heads & self.arrays.keys() and missing <= self.expected.keys() - _without_heads(self.origin):
            self._keep_own(missing, "has no head")
            return
        self._check_auxiliary(missing)
        shapes = {name: self.arrays[name].shape for name in heads & self.arrays.keys()}
        counts = {shape[:1] for shape in shapes.values()}
        same_rest = shapes.keys() == heads and all(
            shape[1:] == self.expected[name][1:] for name, shape in shapes.items()
        )
        classes = self.origin.num_classes
        if same_rest and len(counts) == 1 and counts != {(classes,)} and all(shapes.values()):
            self._keep_own(heads, f"has {counts.pop()[0]:,} classes and the model {classes:,}")
            self._leave_out(name for name in list(self.arrays) if name.startswith(REPRESENTATION))

    def order_heads(self, stated: Sequence[str], wanted: Sequence[str]) -> None:
        """Bring the classes of the file's heads into the wanted order; keep the model's own heads for other classes.

        Args:
          stated: names of the classes that the file states; empty: none.
          wanted: names of the model's classes; empty: they are not known.
        """
        if self.replaced or not self.origin.num_classes:
            return
        self.class_names = tuple(wanted or stated)
        if not wanted:
            return
        names = self._known_names(stated, wanted)
        try:
            matching = class_names.match(wanted, "the data", names, "the file")
        except UserError as error:
            self.class_names = ()
            self._keep_own(self._heads(), f"has other classes ({error})")
            return
        if matching.note:
            self.notes.append(matching.note)
        if not matching.is_same_order:
            self.arrays |= {name: self.arrays[name][matching.index] for name in self._heads()}

    def _known_names(self, stated: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
        """Return the names of the file's classes: as stated, ImageNet's where there are 1,000, otherwise numbers."""
        if stated:
            return stated
        if self.origin.num_classes != sets.CLASSES or not class_names.has_names(wanted):
            return class_names.numbered(self.origin.num_classes)
        self.notes.append(IMAGENET_ORDER)
        return sets.imagenet_wnids()

    @property
    def is_complete(self) -> bool:
        """Whether the arrays are those of the model, by name and shape."""
        return {name: array.shape for name, array in self.arrays.items()} == self.expected

    def _heads(self) -> set[str]:
        """Return the tensors whose shape depends on the number of classes."""
        origin = self.origin
        if not origin.num_classes:
            return set()
        others = _shapes(origin.name, origin.num_classes + 1, origin.options)
        return {name for name, shape in self.expected.items() if others[name] != shape}

    def _is_representation(self, name: str) -> bool:
        return name.startswith(REPRESENTATION) and not self.origin.num_classes

    def _check_auxiliary(self, missing: Set[str]) -> None:
        """Raise UserError where the file lacks auxiliary heads and nothing else."""
        origin = self.origin
        if not missing or "auxiliary" not in models.spec(origin.name).options:
            return
        if not missing & _shapes(origin.name, origin.num_classes, origin.options | {"auxiliary": False}).keys():
            raise UserError(
                f"{self.path} has no auxiliary heads ('{min(missing)}' is missing first); build the network without:"
                " auxiliary=False, in a configuration model.options={'auxiliary': False}"
            )

    def _keep_own(self, names: Iterable[str], reason: str) -> None:
        self.arrays.update(tensors.to_torch(self.model, names))
        self.replaced = tuple(sorted(names))
        self.notes.append(f"the file {reason}: {', '.join(self.replaced)} keep their initial values")

    def _leave_out(self, names: Iterable[str]) -> None:
        removed = tuple(name for name in names if self.arrays.pop(name, None) is not None)
        if removed:
            self.left_out += removed
            self.notes.append(f"left out {', '.join(removed)}, parts of a head that the model does not have")


def with_axes(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array in `shape` where they differ only by axes of length one at the end.

    A linear layer is a 1x1 convolution in some implementations, and a scale [channels] is [channels, 1, 1].
    """

    def significant(shape: tuple[int, ...]) -> tuple[int, ...]:
        return significant(shape[:-1]) if shape and shape[-1] == 1 else shape

    return array.reshape(shape) if significant(array.shape) == significant(shape) else array


def _shapes(name: str, num_classes: int, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return tensors.shapes(models.abstract(name, num_classes, **options))


def _with_all_heads(origin: Origin) -> set[str]:
    """Return the tensors of a network with every head that it can have."""
    auxiliary = {"auxiliary": True} if "auxiliary" in models.spec(origin.name).options else {}
    return set(_shapes(origin.name, origin.num_classes or 1000, origin.options | auxiliary))


def _without_heads(origin: Origin) -> set[str]:
    return set(_shapes(origin.name, 0, origin.options))


# --- the network of a file --------------------------------------------------------------------------------------


def suggestion(weights: Weights, origin: Origin) -> str:
    """Return a sentence for a message that names the network whose tensors are most like the weights.

    The sentence is empty if that network is `origin`.

    The networks of one builder share most names, so the first network of each builder decides which are compared.
    """
    if weights.origin is not None:
        stated = weights.origin
        return f". The file says that it is of {stated.name}, {stated.num_classes} classes, options {stated.options}"
    shapes = {name: array.shape for name, array in weights.tensors.items() if not name.endswith(tensors.IGNORED)}
    own = _shapes(origin.name, origin.num_classes, origin.options)
    if len(shapes.items() & own.items()) > 0.9 * max(len(shapes), len(own)):
        return ""
    if len(shapes.keys() & own.keys()) >= 0.5 * len(shapes):
        family_likeness, builder = 1.0, _builder(origin.name)  # others need not be traced, which takes seconds
    else:
        family_likeness, builder = max(
            ((_likeness(shapes, name, by_names=True), builder) for builder, name in _first_networks().items()),
            key=lambda pair: pair[0],
        )
    candidates = [name for name in models.names() if _builder(name) == builder] if family_likeness >= 0.1 else []
    likeness, best = 0.0, ""
    for name in candidates:
        likeness, best = max((likeness, best), (_likeness(shapes, name), name))
        if likeness > 0.99:
            break  # the deepest, which come last, take seconds each
    if likeness >= 0.5 and best != origin.name:
        return f". Its tensors are most like those of {best} ({100 * likeness:.0f} % have its names and shapes)"
    if len(shapes.keys() & own.keys()) >= 0.5 * len(own):
        return ""  # the names are those of this network
    return ". No network here has tensors like those"


def _builder(name: str) -> Any:
    """Return the class of a network; a `partial` of it counts as the class."""
    builder = models.spec(name).builder
    return getattr(builder, "func", builder)


def _first_networks() -> dict[Any, str]:
    """Return the first network of each builder."""
    firsts: dict[Any, str] = {}
    for name in models.names():
        firsts.setdefault(_builder(name), name)
    return firsts


def _likeness(shapes: Mapping[str, Any], network: str, by_names: bool = False) -> float:
    """Return the share of tensors that weights and network have in common, by name and shape or by name alone."""
    expected = _published_shapes(network)
    if by_names:
        return len(shapes.keys() & expected.keys()) / max(min(len(shapes), len(expected)), 1)
    return len(shapes.items() & expected.items()) / max(len(shapes), len(expected), 1)


@functools.cache
def _published_shapes(network: str) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes with 1,000 classes; tracing a deep network takes a second."""
    return _shapes(network, 1000, {})
