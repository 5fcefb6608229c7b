"""Cue conflict: does a system name the shape or the texture of an image whose two cues disagree?

Geirhos et al. 2019, "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness" (arXiv 1811.12231). Each of 1,280 images has the shape of one object and the texture of another, in
16 categories. The file name states both: `airplane/airplane1-bear2.png` is an aeroplane with the texture of a bear. On
80 images both cues are of one category; these are left out of the shape bias.

- **Decision**: the category with the largest mean probability over its ImageNet classes, as the authors recommend
  (Geirhos et al. 2018, arXiv 1808.08750, appendix); 207 of the 1,000 classes belong to a category.
- **Shape bias**: of the images whose decision is one of the two cues, the share whose decision is the shape.
- **Error**: the share of all images with conflicting cues whose decision is not the shape.

`cue_conflict_classes.csv` has the category of each class, and `cue_conflict_observers.csv` the answers of ten people
and four networks. Both are facts of the authors' repository, `rgeirhos/texture-vs-shape`, whose stimuli are under
CC BY 4.0.
"""

import csv
import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.metrics import format_rate
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.scoring.sets import imagenet_wnids
from imagenet_repro.statistics.intervals import clustered_interval
from imagenet_repro.statistics.populations import NEW_IMAGES

TITLE = "Cue conflict"
SOURCE = "Geirhos et al. 2019, arXiv 1811.12231"
_STIMULI = "texture-vs-shape/stimuli/style-transfer-preprocessed-512"
PREPARE = f"python main.py prepare folder:{_STIMULI} --holdout=0% --name=cue_conflict"
COLUMNS = ("object_response", "category", "imagename")  # columns of the authors' files that are read
_NAME = re.compile(r"(?:.*[/_])?([a-z]+\d+)-([a-z]+\d+)\.png")
_NUMBER = re.compile(r"\d+$")
_ROWS = 4_096  # images whose probabilities are computed at once


@dataclasses.dataclass(frozen=True)
class Cues:
    """The two cues of one image.

    Attributes:
      shape_object, texture_object: the objects that were combined, such as `airplane1` and `bear2`.
    """

    shape_object: str
    texture_object: str

    @property
    def shape(self) -> str:
        """The category of the shape."""
        return _NUMBER.sub("", self.shape_object)

    @property
    def texture(self) -> str:
        """The category of the texture."""
        return _NUMBER.sub("", self.texture_object)


@dataclasses.dataclass(frozen=True)
class ShapeBias:
    """Answers of one observer to the images whose cues disagree, and to those whose cues agree.

    Attributes:
      observer: a network or a person.
      shape, texture, neither: number of images with conflicting cues whose answer is the shape, the texture, or
        neither.
      agreeing_right, agreeing: number of right answers to the images whose cues agree, and number of these images.
      interval: 95 % interval of the shape bias, for new images; None if the answers by image are not known.
      is_person: whether the observer is a person.
    """

    observer: str
    shape: int
    texture: int
    neither: int
    agreeing_right: int
    agreeing: int
    interval: tuple[float, float] | None = None
    is_person: bool = False

    @property
    def images(self) -> int:
        """Number of images with conflicting cues."""
        return self.shape + self.texture + self.neither

    @property
    def bias(self) -> float:
        """Share of the shape among answers that are one of the two cues, in [0, 1]; NaN without such answers."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else float("nan")

    @property
    def error(self) -> float:
        """Share of the images with conflicting cues whose answer is not the shape."""
        return 1.0 - self.shape / self.images

    def sentences(self) -> list[str]:
        """Return the shape bias with its interval, and the errors."""
        population = "new images" if self.is_person else NEW_IMAGES
        lines = [f"{TITLE}: {self._describe_bias(population)}"]
        error, interval = format_rate(self.images - self.shape, self.images)
        lines.append(
            f"{TITLE}: error by shape among 16 categories {error} %, 95 % interval {interval} for {population}"
        )
        if self.agreeing:
            error, interval = format_rate(self.agreeing - self.agreeing_right, self.agreeing)
            lines.append(
                f"{TITLE}: error where shape and texture agree {error} %, 95 % interval {interval} for {population}"
                f" ({self.agreeing:,} images)"
            )
        return lines

    def _describe_bias(self, population: str) -> str:
        counts = (
            f"{self.shape:,} by shape, {self.texture:,} by texture, {self.neither:,} by neither, of {self.images:,}"
            " images whose cues disagree"
        )
        if not self.shape + self.texture:
            return f"no shape bias, since no answer is one of the two cues ({counts})"
        interval = ""
        if self.interval:
            low, high = (f"{100 * value:.1f}" for value in self.interval)
            interval = f", 95 % interval [{low}, {high}] for {population}"
        return f"shape bias {100 * self.bias:.1f} %{interval} ({counts})"


# --- categories ---------------------------------------------------------------------------------------------------


@functools.cache
def categories() -> tuple[str, ...]:
    """Return the names of the 16 categories, sorted."""
    return tuple(sorted(set(_category_of_wnid().values())))


@functools.cache
def _category_of_wnid() -> dict[str, str]:
    return {row["wnid"]: row["category"] for row in _read_table("cue_conflict_classes.csv")}


def _read_table(name: str) -> list[dict[str, str]]:
    text = resources.files("imagenet_repro.scoring").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@functools.cache
def _averages() -> Float[np.ndarray, "classes categories"]:
    """Return the matrix that takes probabilities of the 1,000 classes to the mean over each category's classes."""
    of_wnid, names = _category_of_wnid(), categories()
    matrix = np.array([[of_wnid.get(wnid) == name for name in names] for wnid in imagenet_wnids()], np.float64)
    return matrix / matrix.sum(axis=0)


def decide(logits: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
    """Return the index in `categories()` of each image's decision; of equal means the first category wins.

    Args:
      logits: logits of ImageNet's 1,000 classes in order; -inf for a class that does not count.
    """
    chosen = np.zeros(len(logits), np.int64)
    for begin in range(0, len(logits), _ROWS):
        rows = logits[begin : begin + _ROWS].astype(np.float64)
        shares = np.exp(rows - rows.max(axis=1, keepdims=True))
        chosen[begin : begin + _ROWS] = np.argmax(shares / shares.sum(axis=1, keepdims=True) @ _averages(), axis=1)
    return chosen


# --- scores -------------------------------------------------------------------------------------------------------


def read_cues(name: str) -> Cues:
    """Return the cues that an image's file name states. Raises `UserError` if it states none of the 16 categories."""
    found = _NAME.fullmatch(name)
    cues = Cues(found[1], found[2]) if found else None
    if cues is None or not {cues.shape, cues.texture} <= set(categories()):
        raise UserError(
            f"{name} is not an image of the cue-conflict set, whose files are called SHAPE1-TEXTURE2.png, such as"
            f" airplane1-bear2.png. Prepare the stimuli of github.com/rgeirhos/texture-vs-shape:\n  {PREPARE}"
        )
    return cues


def score(observer: str, names: Sequence[str], answers: Sequence[str], *, is_person: bool = False) -> ShapeBias:
    """Return the shape bias of answers.

    Args:
      observer: name of who answered.
      names: file name of each image.
      answers: category of each answer, in any spelling for none.
      is_person: whether the observer is a person.

    Raises:
      UserError: an image is not of the set, or none has conflicting cues.
    """
    cues = [read_cues(name) for name in names]
    conflict = np.array([one.shape != one.texture for one in cues], bool)
    is_shape = np.array([answer == one.shape for answer, one in zip(answers, cues, strict=True)], bool)
    is_texture = np.array([answer == one.texture for answer, one in zip(answers, cues, strict=True)], bool)
    if not conflict.any():
        raise UserError(f"{observer}: no image has conflicting cues; are these the images of the cue-conflict set?")
    decided = conflict & (is_shape | is_texture)
    rows = np.flatnonzero(decided)
    interval = None
    if rows.size:
        objects = ([cues[row].shape_object for row in rows], [cues[row].texture_object for row in rows])
        interval = clustered_interval(is_shape[rows], *objects)
    return ShapeBias(
        observer,
        shape=int((is_shape & conflict).sum()),
        texture=int((is_texture & conflict).sum()),
        neither=int((conflict & ~decided).sum()),
        agreeing_right=int((is_shape & ~conflict).sum()),
        agreeing=int((~conflict).sum()),
        interval=interval,
        is_person=is_person,
    )


def score_predictions(observer: str, predicted: Predictions) -> ShapeBias:
    """Return the shape bias of stored predictions among ImageNet's 1,000 classes in order; errors as `score`."""
    names = categories()
    return score(observer, predicted.id.tolist(), [names[index] for index in decide(predicted.logits)])


def read_answers(path: Path) -> ShapeBias:
    """Return the shape bias of one of the authors' CSV files, which have a row for each image.

    Raises:
      UserError: the file cannot be read, lacks a column, is of several observers, or names other images.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        raise UserError(
            f"{path} has no column '{missing[0]}'; files of answers have {', '.join(COLUMNS)}, as in raw-data/ of"
            " github.com/rgeirhos/texture-vs-shape"
        )
    observers = {row["subj"] for row in rows if row.get("subj")}
    if len(observers) > 1:
        raise UserError(f"{path} has answers of {len(observers)} observers; give a file for each")
    _check_answers(path, rows)
    observer = observers.pop() if observers else path.stem
    names, answers = [row["imagename"] for row in rows], [row["object_response"] for row in rows]
    return score(observer, names, answers, is_person=observer.startswith("subject"))


def _check_answers(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Raise `UserError` if a row's category is not its image's shape, or if an image occurs twice."""
    images: Counter[Cues] = Counter()
    for number, row in enumerate(rows, start=2):
        cues = read_cues(row["imagename"])
        images[cues] += 1
        if row["category"] != cues.shape:
            raise UserError(f"{path}, line {number}: the shape of {row['imagename']} is not {row['category']}")
        if images[cues] > 1:
            raise UserError(f"{path}, line {number}: {row['imagename']} occurs twice")


# --- published answers --------------------------------------------------------------------------------------------


@functools.cache
def observers() -> tuple[ShapeBias, ...]:
    """Return the published answers of four networks and ten people."""
    return tuple(
        ShapeBias(
            row["observer"],
            shape=int(row["shape"]),
            texture=int(row["texture"]),
            neither=int(row["neither"]),
            agreeing_right=int(row["agreeing_right"]),
            agreeing=int(row["agreeing"]),
            is_person=row["kind"] == "person",
        )
        for row in _read_table("cue_conflict_observers.csv")
    )


def reference_sentence() -> str:
    """Return a sentence on the shape bias of people and of the published networks."""
    people = sorted(one.bias for one in observers() if one.is_person)
    networks = ", ".join(f"{one.observer} {100 * one.bias:.1f} %" for one in observers() if not one.is_person)
    return (
        f"Published shape bias ({SOURCE}): {len(people)} people {100 * people[0]:.1f} to {100 * people[-1]:.1f} %,"
        f" mean {100 * sum(people) / len(people):.1f} %; {networks}."
    )


def describe(result: ShapeBias) -> list[str]:
    """Return the sentences on a result, then one on published answers."""
    return [*result.sentences(), reference_sentence()]
