"""Boxes for a trained network's guesses: from class activation maps, and by regression from its last feature map.

Class activation maps (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", sec. 3.2) need no
annotated boxes. The map of each guessed class is resized to the crop and thresholded at a share of its highest value,
20 % in the paper; the box encloses the largest connected region above. The authors' program thresholds 8-bit heat maps
at three levels, so its numbers differ from this rule's.

Regression learns from the boxes of training images, like the single-class regression of Simonyan and Zisserman (2014,
arXiv 1409.1556, appendix A.1), which predicts one box for an image of any class. They fine-tuned the network for it;
here the network stays as it is, its last map is averaged over a grid of cells, and a linear layer is fitted by ridge
regression. A box's corners are shares of the crop. Ridge regression is linear in its targets, so centres and sizes in
place of corners would give the same boxes. Among a few penalties, the one with the most right boxes on training images
left out of the fit is chosen.

Two baselines ignore the images: a central box of half the image's area, and the mean box of the training images. Least
squares does not maximize the share of right boxes: if objects differ much in size, the mean box is right less often
than a larger one, and the same holds for boxes that regress towards it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Num

from imagenet_repro.config import CenterCrop, Config, SquashCrop
from imagenet_repro.data import crops, image_index, loader
from imagenet_repro.data.augment import augment
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import maps
from imagenet_repro.models.nn.network import Network
from imagenet_repro.scoring import metrics
from imagenet_repro.scoring.classification import NO_GUESS
from imagenet_repro.scoring.localization.annotations import NO_CLASS, NO_OBJECTS, AnnotatedObjects, lookup
from imagenet_repro.scoring.localization.boxes import area, edges, iou, pixels_within
from imagenet_repro.scoring.localization.error_rates import (
    OVERLAP,
    BoxGuesses,
    LocalizationErrors,
    count_errors,
    right_boxes,
)
from imagenet_repro.training.functional import FunctionalNetwork, Tensors

THRESHOLD = 0.2  # share of a map's highest value: Zhou et al. 2016, sec. 3.2
CENTRAL = np.array(
    [0.5 - 0.5**1.5, 0.5 - 0.5**1.5, 0.5 + 0.5**1.5, 0.5 + 0.5**1.5]
)  # shares of the image; half of its area
MOST_FEATURES = 8192  # features of an image for regression; their sums of products take 0.5 GB
CHUNK = 1024  # images whose products are summed in float32
HELD_OUT_EVERY, MOST_HELD_OUT = 10, 2000  # training images on which the penalty is chosen
FEWEST = 20  # training images with boxes, for regression
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # on the weights of standardised features

CAM, REGRESSION = "activation maps", "regression"


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """An image of a split, with the positions of its crop and its objects; all boxes are given by their edges."""

    index: int  # in the split
    id: str
    label: int
    height: int  # pixels
    width: int
    window: Float[np.ndarray, " 4"]  # the part shown by the crop
    instances: Float[np.ndarray, "m 4"]  # the objects of its class

    def from_crop(self, shares: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Convert boxes from shares of the crop to pixels of the image."""
        left, top, right, bottom = self.window
        return shares * np.tile([right - left, bottom - top], 2) + np.tile([left, top], 2)

    def in_crop(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Convert boxes from pixels of the image to shares of the crop, beyond [0, 1] outside the crop."""
        left, top, right, bottom = self.window
        return (boxes - np.tile([left, top], 2)) / np.tile([right - left, bottom - top], 2)

    def from_image(self, shares: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Convert boxes from shares of the image to pixels."""
        return shares * np.tile([float(self.width), float(self.height)], 2)

    def in_image(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Convert boxes from pixels to shares of the image."""
        return boxes / np.tile([float(self.width), float(self.height)], 2)

    def largest(self) -> Float[np.ndarray, "1 4"]:
        """Return the largest instance."""
        return self.instances[[int(np.argmax(area(self.instances)))]]


@dataclasses.dataclass(frozen=True)
class BoxResult:
    """Result of one method of predicting boxes."""

    name: str
    guessed: BoxGuesses
    right: Bool[np.ndarray, "n 5"]  # whether a box overlaps its image's objects enough, for any class
    errors: tuple[LocalizationErrors, ...]  # with one to five guesses

    @property
    def looks(self) -> bool:
        """Whether the boxes depend on the images."""
        return self.name in (CAM, REGRESSION)


@dataclasses.dataclass(frozen=True)
class LocalizationResult:
    """Results of all methods on the same images."""

    frames: tuple[AnnotatedImage, ...]
    results: tuple[BoxResult, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Selection of a network's outputs for a batch of normalised images.

    It is hashed by its fields, as `jax.jit` requires.
    """

    guesses: bool = False  # `top5`: the best classes, at most five
    maps: bool = False  # `map` [b, k, mh, mw]: the activation map of each guess
    grid: bool = False  # `grid` [b, d]: the last feature map, averaged over a grid of cells

    def __call__(self, model: nnx.Module, images: Float[Array, "b h w 3"]) -> dict[str, Array]:
        """Return the selected arrays by name."""
        network, outputs = cast(Network, model), {}
        if self.guesses:
            logits = cast(Array, network(images))  # auxiliary heads return logits only in training
            outputs["top5"] = metrics.top5(logits)
        if self.maps:
            outputs["map"] = maps.activation(network, images, outputs["top5"])
        if self.grid:
            outputs["grid"] = grid(maps.localization_map(network, images))
        return outputs


class LocalizationNetwork:
    """A network in evaluation mode on one device, with the annotated images that it is applied to.

    Args:
      network: the network (see `training.functional`).
      params: its parameters.
      stats: its statistics.
      config: configuration of the run, which says how images are cropped, normalised and batched.
      objects: annotated objects by image name.

    Attributes:
      left_out: records of the last split that could not be decoded.

    Raises:
      UserError: the evaluation crop is random, so its position is unknown.
    """

    def __init__(
        self,
        network: FunctionalNetwork,
        params: Tensors,
        stats: Tensors,
        config: Config,
        objects: Mapping[str, AnnotatedObjects],
    ):
        if not isinstance(config.eval_crop, CenterCrop | SquashCrop):
            raise UserError(
                f"config.eval_crop '{config.eval_crop.name}' shows a random part of an image; boxes need 'center' or"
                " 'squash'"
            )
        self._network, self._state, self._config, self._objects = network, (params, stats), config, objects
        self._crop: CenterCrop | SquashCrop = config.eval_crop
        self.left_out = 0

    @property
    def side(self) -> int:
        """Side of a crop in pixels."""
        return self._config.data.size_evaluated

    def frames(self, split: Split, selection: Outputs) -> Iterator[tuple[list[AnnotatedImage], dict[str, np.ndarray]]]:
        """Yield the annotated images of a split batch by batch, with the network's selected outputs for each.

        Raises:
          UserError: more records than `data.max_bad_share` allows cannot be decoded.
        """
        run = jax.jit(self._apply(selection))
        data, crop = self._config.data, self._crop
        size = data.eval_batch_size or self._config.batch_size
        bad = BadRecords(split, data, print)
        for batch in loader.eval_batches(split, data, crop, batch_size=size):
            bad.update(batch)
            bad.check()
            self.left_out = len(bad)
            annotated = [(row, frame) for row, frame in enumerate(self._annotated(split, batch)) if frame is not None]
            if annotated:
                rows, frames = zip(*annotated, strict=True)
                outputs = jax.device_get(run(*self._state, batch["image"]))
                yield list(frames), {name: value[list(rows)] for name, value in outputs.items()}

    def annotated_beyond(self, split: Split) -> int:
        """Return the number of annotated images outside a split, whose ids are read if no index has them."""
        index = image_index.find(split)
        if index is None:
            ids = (split.records[number].id for number in range(split.num_examples))
        else:
            ids = index.id.tolist()
        return len(self._objects) - sum(lookup(self._objects, one) is not None for one in ids)

    def _apply(self, selection: Outputs) -> Callable:
        def apply(params: Tensors, stats: Tensors, images: Array) -> dict[str, Array]:
            model = self._network.model(params, stats)
            return selection(model, augment.normalize(images, self._config.augment))

        return apply

    def _annotated(self, split: Split, batch: Batch) -> Iterator[AnnotatedImage | None]:
        columns = (batch[name].tolist() for name in ("index", "id", "label", "weight", "size"))
        for index, image_id, label, weight, (height, width) in zip(*columns, strict=True):
            if weight == 0:  # padding, or an image that cannot be decoded
                yield None
                continue
            boxes = _of_class(lookup(self._objects, image_id) or NO_OBJECTS, split.class_names[label])
            if not len(boxes):
                yield None
                continue
            window = np.array(crops.crop_window(self._crop, height, width, self.side))
            yield AnnotatedImage(index, image_id, label, height, width, window, edges(boxes))


# --- feature grid -------------------------------------------------------------------------------------


def grid(features: Float[Array, "b mh mw c"]) -> Float32[Array, "b d"]:
    """Average a feature map over the finest square grid with at most 8,192 numbers, or over one cell.

    Cells begin and end at whole positions, and overlap if the sides do not divide, as in PyTorch's adaptive pooling.
    """
    height, width, channels = features.shape[1:]
    side = max(1, min(height, width, int((MOST_FEATURES / channels) ** 0.5)))
    rows, columns = _cells(height, side), _cells(width, side)
    pooled = jnp.einsum("bhwc,ih,jw->bijc", features.astype(jnp.float32), rows, columns)
    return pooled.reshape(len(features), -1)


def _cells(length: int, cells: int) -> Float32[np.ndarray, "cells length"]:
    """Return the weights that average positions into cells."""
    weights = np.zeros((cells, length), np.float32)
    for cell in range(cells):
        start, end = cell * length // cells, -(-(cell + 1) * length // cells)
        weights[cell, start:end] = 1 / (end - start)
    return weights


# --- boxes from maps -------------------------------------------------------------------------------------------


def map_box(
    activation: Float[np.ndarray, "mh mw"], side: int, threshold: float = THRESHOLD
) -> Float[np.ndarray, " 4"]:
    """Return the box around the largest region of a class activation map above a share of its highest value.

    Args:
      activation: map of one class; larger values mean more of it.
      side: side of the crop in pixels, to which the map is resized bilinearly; regions also connect at corners.
      threshold: the share, in (0, 1).

    Returns:
      Edges as shares of the crop; the complete crop if no value is positive.
    """
    resized = cv2.resize(np.asarray(activation, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    if not resized.max() > 0:
        return np.array([0.0, 0.0, 1.0, 1.0])
    above = (resized > threshold * resized.max()).astype(np.uint8)
    _, _, regions, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    left, top, width, height, _ = regions[1 + int(np.argmax(regions[1:, cv2.CC_STAT_AREA]))].tolist()
    return np.array([left, top, left + width, top + height]) / side


# --- boxes by regression ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BoxRegressor:
    """A linear layer from features to the corners of a box, as shares of a crop."""

    weight: Float[np.ndarray, "d 4"]
    bias: Float[np.ndarray, " 4"]

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 4"]:
        """Return boxes by their edges."""
        return features @ self.weight + self.bias


class RidgeRegression:
    """Ridge regression from sums over images, in float64, so that features need not be kept.

    Features are standardised; the penalty applies to their weights and not to the bias.
    """

    def __init__(self):
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._sums: list[np.ndarray | float] | None = None

    def add(self, features: Float32[np.ndarray, "n d"], targets: Float[np.ndarray, "n t"]) -> None:
        """Add images with their features and targets."""
        self._rows.append((features, targets))
        if sum(len(rows) for rows, _ in self._rows) >= CHUNK:
            self._flush()

    def fit(self, penalties: Sequence[float]) -> list[BoxRegressor]:
        """Return the layer for each penalty, which minimizes mean squared error plus penalty x squared weights."""
        from scipy.linalg import cho_factor, cho_solve

        self._flush()
        if self._sums is None:
            raise ValueError("a regression needs at least one image")
        images, sum_x, sum_y, gram, cross = self._sums
        mean, mean_y = sum_x / images, sum_y / images
        scale = np.sqrt(np.maximum(np.diag(gram) / images - mean**2, 0))
        scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, np.inf)  # a constant feature gets weight zero
        gram = (gram / images - np.outer(mean, mean)) / np.outer(scale, scale)
        cross = (cross / images - np.outer(mean, mean_y)) / scale[:, None]
        layers = []
        for penalty in penalties:
            factorization = cho_factor(gram + penalty * np.eye(len(gram)), overwrite_a=True)
            weight = cho_solve(factorization, cross) / scale[:, None]
            layers.append(BoxRegressor(weight, mean_y - mean @ weight))
        return layers

    def _flush(self) -> None:
        if not self._rows:
            return
        x, y = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        self._rows = []
        new = [float(len(x)), x.sum(0, np.float64), y.sum(0), (x.T @ x).astype(np.float64), x.T.astype(np.float64) @ y]
        self._sums = new if self._sums is None else [a + b for a, b in zip(self._sums, new, strict=True)]


@dataclasses.dataclass(frozen=True)
class FittedRegression:
    """Regression fitted to the boxes of training images."""

    layer: BoxRegressor
    mean: Float[np.ndarray, " 4"]  # box, as shares of an image
    sentence: str  # a description of the fit, for a person


def fit_boxes(batches: Iterator[tuple[list[AnnotatedImage], dict[str, np.ndarray]]]) -> FittedRegression:
    """Fit the largest box of each training image, with the penalty that is best on a tenth of the images.

    Args:
      batches: batches of `LocalizationNetwork.frames` with `grid`.

    Raises:
      UserError: fewer than 20 training images have boxes.
    """
    ridge, held_out, shares, n_images = RidgeRegression(), [], [], 0
    for frames, outputs in batches:
        targets = np.concatenate([frame.in_crop(frame.largest()) for frame in frames])
        shares += [frame.in_image(frame.largest()) for frame in frames]
        is_held_out = (n_images + np.arange(len(frames))) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        is_held_out &= len(held_out) < MOST_HELD_OUT
        ridge.add(outputs["grid"][~is_held_out], targets[~is_held_out])
        held_out += zip(outputs["grid"][is_held_out], targets[is_held_out], strict=True)
        n_images += len(frames)
    if n_images < FEWEST:
        raise UserError(
            f"regression needs the boxes of training images, and only {n_images} have one; use --method=cam"
        )
    features, targets = (np.stack(part) for part in zip(*held_out, strict=True))
    layers = ridge.fit(PENALTIES)
    right = [_right(layer(features), targets) for layer in layers]
    best = int(np.argmax(right))
    sentence = (
        f"regression: {features.shape[1]:,} features, fitted to {n_images - len(targets):,} training images with"
        f" penalty {PENALTIES[best]:g}; {100 * right[best]:.1f} % of the boxes of {len(targets):,} other images are"
        " right"
    )
    return FittedRegression(layers[best], np.concatenate(shares).mean(0), sentence)


def _right(boxes: Float[np.ndarray, "n 4"], targets: Float[np.ndarray, "n 4"]) -> float:
    """Return the share of boxes that overlap their target enough."""
    pairs = zip(boxes, targets, strict=True)
    return float(np.mean([iou(one[None], other[None])[0, 0] >= OVERLAP for one, other in pairs]))


# --- localization -------------------------------------------------------------------------------------------------


def localize(
    viewer: LocalizationNetwork, split: Split, train: Split | None, *, cam: bool, threshold: float
) -> LocalizationResult:
    """Predict boxes for every annotated image of a split by each method, and count their errors.

    Args:
      viewer: the trained network.
      split: images to localize.
      train: images to fit the regression to; None: no regression and no mean training box.
      cam: whether to derive boxes from class activation maps.
      threshold: see `map_box`.

    Raises:
      UserError: no image of the split has a box of its class; or too few of `train` have one, and there is no other
        method.
    """
    notes = []
    if train is not None and viewer.annotated_beyond(split) < FEWEST:  # checked before the long pass
        if not cam:
            raise UserError(
                f"regression needs boxes of {train.split}, and the file has only those of the scored images"
            )
        train, notes = None, [f"the file has no boxes of {train.split} to learn from, so there is no regression"]
    fitted = None if train is None else fit_boxes(viewer.frames(train, Outputs(grid=True)))
    selection = Outputs(guesses=True, maps=cam, grid=fitted is not None)
    frames: list[AnnotatedImage] = []
    top5: list[np.ndarray] = []
    boxes: dict[str, list[np.ndarray]] = {}
    for batch, outputs in viewer.frames(split, selection):
        frames += batch
        top5.append(_five(outputs["top5"]))
        for name, batch_boxes in _boxes_of(batch, outputs, fitted, threshold, viewer.side).items():
            boxes.setdefault(name, []).extend(batch_boxes)
    if not frames:
        raise UserError(f"no image of {split.name} {split.split} has a box of its class in that file")
    if fitted is not None:
        notes.append(fitted.sentence)
    if "map" in outputs:
        places = " x ".join(map(str, outputs["map"].shape[2:]))
        notes.append(f"activation maps have {places} positions, which limits the precision of their boxes")
    if viewer.left_out:
        notes.append(f"{viewer.left_out:,} records cannot be decoded and are left out")
    if n_without := split.num_examples - len(frames) - viewer.left_out:
        notes.append(f"{n_without:,} images have no box of their class and are left out")
    guessed = np.concatenate(top5)
    results = tuple(_result(name, frames, guessed, np.stack(batch_boxes)) for name, batch_boxes in boxes.items())
    return LocalizationResult(tuple(frames), results, tuple(notes))


def _boxes_of(
    frames: list[AnnotatedImage],
    outputs: dict[str, np.ndarray],
    fitted: FittedRegression | None,
    threshold: float,
    side: int,
) -> dict[str, list[Int[np.ndarray, "5 4"]]]:
    """Return, by method, the boxes of the five guesses of every image by first and last pixels."""
    boxes: dict[str, list[np.ndarray]] = {}
    if "map" in outputs:
        shares = [np.stack([map_box(one, side, threshold) for one in each]) for each in outputs["map"]]
        boxes[CAM] = [_pixels(frame, frame.from_crop(box)) for frame, box in zip(frames, shares, strict=True)]
    if fitted is not None:
        corners = fitted.layer(outputs["grid"].astype(np.float64))
        boxes[REGRESSION] = [
            _pixels(frame, frame.from_crop(box[None])) for frame, box in zip(frames, corners, strict=True)
        ]
        boxes["mean training box"] = [_pixels(frame, frame.from_image(fitted.mean[None])) for frame in frames]
    boxes["central box"] = [_pixels(frame, frame.from_image(CENTRAL[None])) for frame in frames]
    return boxes


def _pixels(frame: AnnotatedImage, boxes: Float[np.ndarray, "k 4"]) -> Int[np.ndarray, "5 4"]:
    """Return the first and last pixels of five boxes; a single box serves all five guesses."""
    pixels = pixels_within(boxes, frame.height, frame.width)
    return np.concatenate([pixels, np.repeat(pixels[-1:], metrics.GUESSES - len(pixels), axis=0)])


def _five(top5: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n 5"]:
    return np.pad(top5, ((0, 0), (0, metrics.GUESSES - top5.shape[1])), constant_values=NO_GUESS)


def _result(
    name: str, frames: Sequence[AnnotatedImage], top5: np.ndarray, boxes: Num[np.ndarray, "n 5 4"]
) -> BoxResult:
    labels, ids = np.array([frame.label for frame in frames]), np.array([frame.id for frame in frames])
    guessed = BoxGuesses(top5, boxes, labels, ids)
    pixels = [frame.instances - np.array([0, 0, 1, 1]) for frame in frames]
    return BoxResult(name, guessed, right_boxes(boxes, pixels), count_errors(guessed, pixels))


def _of_class(objects: AnnotatedObjects, name: str) -> Num[np.ndarray, "m 4"]:
    """Return the boxes of objects of a class, and of objects without a class."""
    return objects.boxes[np.array([one in (NO_CLASS, name) for one in objects.classes], bool)]
