"""Error rates of stored predictions, in the challenge's own format or in this project's.

The challenge's format (development kits of ILSVRC 2010 to 2015) is a text file with one line for each image, in the
order of the images' names, with up to five labels by decreasing confidence, separated by spaces or commas. Labels
after the fifth are ignored, as the kit's `eval_flat.m` does, and an empty line is no guess, which is wrong. The file
of labels has one integer per line (`ILSVRC2012_validation_ground_truth.txt`). Both files are compared as written:
either both hold ILSVRC2012_IDs (1 to 1000, in the challenge's order) or both hold class indices (0 to 999, WordNet ids
sorted).

Instead of text, the predictions may be an `.npz` file of `scoring.predictions`, which has its own labels. If a file of
labels is given as well, the images are taken in the order of their ids.

ReaL (Beyer et al. 2020, "Are we done with ImageNet?") replaces the 50,000 validation labels by lists of labels. Images
with an empty list are dropped, and a first guess is right if it is in the list. Its labels are class indices.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Console

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names, hierarchy, predictions, sets
from imagenet_repro.scoring.hierarchy import Hierarchy
from imagenet_repro.scoring.metrics import GUESSES, format_rate, is_wrong
from imagenet_repro.scoring.people import PEOPLE, Person
from imagenet_repro.scoring.terminal import both_interval_headings, print_lines, print_table, score_table
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES

NO_GUESS = -1
MAX_LABEL = 2**31 - 1
INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
VALIDATION_ID = re.compile(r"(?:.*/)?ILSVRC2012_val_([0-9]{8})(?:\.\w+)?")


@dataclasses.dataclass(frozen=True)
class ErrorCount:
    """Number of wrong images under one rule: `guesses` labels for each image, compared with `truth`."""

    truth: str  # "labels" or "ReaL"
    guesses: int
    wrong: int
    images: int
    dropped: int = 0  # images that the rule leaves out (ReaL: those with an empty list)

    @property
    def error(self) -> float:
        """Error rate, a share of the images in [0, 1]."""
        return self.wrong / self.images

    @property
    def wilson(self) -> tuple[float, float]:
        """Wilson's 95 % interval for new images and these checkpoints, as shares."""
        return binomial_interval(self.wrong, self.images, "wilson")

    @property
    def exact(self) -> tuple[float, float]:
        """95 % interval of Clopper and Pearson for new images and these checkpoints, as shares."""
        return binomial_interval(self.wrong, self.images, "exact")

    def __str__(self) -> str:
        error, low_to_high = format_rate(self.wrong, self.images)
        name = f"top-{self.guesses} error" + (" against ReaL labels" if self.truth == "ReaL" else "")
        left_out = f", {self.dropped:,} without a label left out" if self.dropped else ""
        return (
            f"{name} {error} %, 95 % interval {low_to_high} for {NEW_IMAGES} ({self.wrong:,} of {self.images:,} images"
            f" wrong{left_out})"
        )


@dataclasses.dataclass(frozen=True)
class ClassificationScore:
    """All error counts of one file of predictions, and notes for the reader."""

    path: Path
    scores: tuple[ErrorCount, ...]
    notes: tuple[str, ...] = ()
    hierarchy: Hierarchy | None = None  # if the predictions name their classes by WordNet ids
    people: tuple[Person, ...] = ()  # whose errors stand beside those on images of ImageNet


def score(
    predictions_path: str | Path,
    labels_path: str | Path | None = None,
    *,
    guesses: int = GUESSES,
    real_path: str | Path | None = None,
) -> ClassificationScore:
    """Count errors with 1 to `guesses` guesses against the labels, and with one guess against ReaL.

    ReaL is scored if its file is given.

    Raises:
      UserError: with file and line, for files that are absent or have another format, for different numbers of images,
        and if there is nothing to score against.
    """
    if not 1 <= guesses <= GUESSES:
        raise UserError(f"--guesses={guesses}: the challenge accepts 1 to {GUESSES} guesses")
    predictions_path = Path(predictions_path)
    notes: list[str] = []
    ids, top5, own_labels, provenance = _read_predictions(predictions_path, notes, as_imagenet=real_path is not None)
    labels = own_labels if labels_path is None else read_labels(labels_path)
    if labels is None and real_path is None:
        raise UserError(f"{predictions_path} has no labels; name a file of labels with --labels=FILE")
    scores: list[ErrorCount] = []
    if labels is not None:
        _check_lengths(predictions_path, len(top5), labels_path or predictions_path, len(labels))
        scores += flat_scores(top5, labels, guesses)
        notes += _numbering_note(top5, labels) + _other_labels_note(own_labels, labels)
    if real_path is not None:
        lists = read_real(real_path)
        scores.append(_real_score(predictions_path, ids, top5, real_path, lists))
        if own_labels is not None and ids is not None:
            own = _lists_of(predictions_path, ids, real_path, lists)
            pairs = [(int(label), frozenset(one)) for label, one in zip(own_labels, own, strict=True) if one]
            sets.check_not_shifted(str(real_path), pairs)
        notes += _numbering_note(top5, np.array([label for labels in lists for label in labels]))
    tree = _hierarchy(top5, own_labels, class_names.of_provenance(provenance)) if labels is own_labels else None
    people = tuple(PEOPLE) if sets.is_of_imagenet(provenance) else ()
    return ClassificationScore(predictions_path, tuple(scores), tuple(notes), tree, people)


def flat_scores(
    top5: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], guesses: int = GUESSES
) -> list[ErrorCount]:
    """Count the challenge's flat error, mean_i min_j [guess_ij != label_i], with 1 to `guesses` guesses."""
    wrong = [int(np.sum(is_wrong(top5, labels, k))) for k in range(1, guesses + 1)]
    return [ErrorCount("labels", k, count, len(labels)) for k, count in enumerate(wrong, start=1)]


def real_score(best: Int[np.ndarray, " n"], lists: Sequence[Sequence[int]]) -> ErrorCount:
    """Count ReaL errors of the first guesses against each image's list of labels; empty lists are dropped."""
    counted = [(guess, labels) for guess, labels in zip(best.tolist(), lists, strict=True) if labels]
    if not counted:
        raise UserError("every ReaL list of these images is empty, so none can be scored")
    wrong = sum(guess not in labels for guess, labels in counted)
    return ErrorCount("ReaL", 1, wrong, len(counted), dropped=len(lists) - len(counted))


def read_guesses(path: str | Path) -> Int[np.ndarray, "n 5"]:
    """Read the challenge's format: up to five labels per line, by decreasing confidence; -1 if a line has fewer."""
    lines = read_lines(path)
    guesses = np.full((len(lines), GUESSES), NO_GUESS, np.int64)
    for row, line in enumerate(lines):
        words = line.replace(",", " ").split()[:GUESSES]
        guesses[row, : len(words)] = [integer(word, path, row + 1) for word in words]
    return guesses


def read_labels(path: str | Path) -> Int[np.ndarray, " n"]:
    """Read one non-negative integer per line."""
    labels = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) != 1:
            raise UserError(f"{path}, line {number}: expected one label, found {len(words)}: '{line[:40]}'")
        labels.append(integer(words[0], path, number))
        if labels[-1] < 0:
            raise UserError(f"{path}, line {number}: the label {labels[-1]} is negative")
    return np.asarray(labels, np.int64)


def read_real(path: str | Path) -> list[list[int]]:
    """Read `real.json` of google-research/reassessed-imagenet: lists of labels, in the order of the images' names."""
    try:
        lists = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(lists, list) or not lists:
        raise UserError(f"{path}: ReaL labels are a list with a list of labels for each image")
    for index, labels in enumerate(lists):
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise UserError(f"{path}: entry {index} (image {index + 1}) is not a list of integers: {str(labels)[:40]}")
    return lists


def print_score(card: ClassificationScore, console: Console | None = None) -> None:
    """Print the table of all errors, a sentence for each published rule, the errors by super-class, and the notes."""
    console = console or Console()
    headings = ("against", "guesses", "wrong", "images", "error %", *both_interval_headings())
    rows = [_cells(count.truth, count.guesses, count.wrong, count.images) for count in card.scores]
    rows += [_cells(person.who, GUESSES, person.wrong, person.images) for person in card.people]
    print_table(score_table(headings, rows), console)
    print_lines((str(count) for count in card.scores if count.guesses in (1, GUESSES)), console)
    if card.hierarchy is not None:
        console.print()
        print_table(hierarchy.terminal_table(card.hierarchy), console)
        print_lines((hierarchy.TABLE_NOTE, *hierarchy.sentences(card.hierarchy)), console)
    if card.people:
        sources = "; ".join(person.source for person in card.people)
        note = f"People's errors are on images of ImageNet's test set, with five guesses for each ({sources})."
        print_lines([note], console)
    print_lines((f"Note: {note}" for note in card.notes), console)


def _cells(name: str, guesses: int, wrong: int, images: int) -> tuple[str, ...]:
    error, wilson = format_rate(wrong, images, "wilson")
    _, exact = format_rate(wrong, images, "exact")
    return name, str(guesses), f"{wrong:,}", f"{images:,}", error, wilson, exact


def _hierarchy(
    top5: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"] | None, class_names: Sequence[str]
) -> Hierarchy | None:
    if labels is None or not hierarchy.has_wordnet_ids(class_names):
        return None
    return hierarchy.score_hierarchy(top5, labels, class_names)


# --- reading ---------------------------------------------------------------------------------------------------


def _read_predictions(
    path: Path, notes: list[str], *, as_imagenet: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Return (ids, guesses [n, 5], labels, provenance), and append a note if classes were reordered.

    The images of an `.npz` are sorted by id; text has guesses only. With `as_imagenet`, classes that have names are
    counted as ImageNet's are.
    """
    if path.suffix != ".npz":
        return None, read_guesses(path), None, {}
    file = predictions.load(path)
    if as_imagenet and class_names.has_names(class_names.of_provenance(file.provenance)):
        file = sets.with_imagenet_classes(file, str(path), notes.append)
    order = np.argsort(file.id)
    top5 = np.pad(file.top5, ((0, 0), (0, GUESSES - file.top5.shape[1])), constant_values=NO_GUESS)
    labelled = bool(np.all(file.label >= 0))
    return file.id[order], top5[order], file.label[order] if labelled else None, file.provenance


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error
    except OSError as error:
        raise UserError(f"could not read {path}: {error.strerror or error}") from error


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file, including empty ones. Raises `UserError` if it is absent, empty or not text."""
    text = _read_text(path)
    lines = text.removesuffix("\n").split("\n") if text else []  # an empty line is an image without a guess
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def integer(word: str, path: str | Path, line: int) -> int:
    """Parse the integer in a word of a file. Raises `UserError` if it is no integer or too large for a label."""
    if not INTEGER.fullmatch(word) or abs(int(word)) > MAX_LABEL:
        raise UserError(f"{path}, line {line}: '{word[:40]}' is not an integer label")
    return int(word)


# --- checks ----------------------------------------------------------------------------------------------------


def _check_lengths(path: Path, num_predictions: int, labels: str | Path, num_labels: int) -> None:
    if num_predictions != num_labels:
        raise UserError(
            f"{path} has predictions for {num_predictions:,} images and {labels} has labels for "
            f"{num_labels:,}: both need one line per image, in the same order (an extra line is often an empty one "
            "at the end)"
        )


def _numbering_note(top5: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return a note if the numbers look like 1-based ids on one side and 0-based indices on the other."""
    guessed = top5[top5 != NO_GUESS]
    if guessed.size == 0 or (guessed.min() == 0) == (labels.min() == 0):
        return []
    if guessed.max() - guessed.min() != labels.max() - labels.min():
        return []
    return [
        f"labels run from {labels.min()} to {labels.max()} and guesses from {guessed.min()} to {guessed.max()}: "
        "their numbering seems to differ. ILSVRC2012_IDs (1 to 1000) and class indices (0 to 999) are also in "
        "different orders, so subtracting one does not convert them."
    ]


def _other_labels_note(own: np.ndarray | None, labels: np.ndarray) -> list[str]:
    """Return a note if most of the labels are not those that the predictions were stored with."""
    if own is None or own is labels:
        return []
    differ = int(np.sum(own != labels))
    if 2 * differ < len(labels):
        return []
    return [
        f"{differ:,} of {len(labels):,} labels differ from those that the predictions were stored with: the file seems"
        " to have the images or the classes in another order"
    ]


def _real_score(
    predictions_path: Path,
    ids: np.ndarray | None,
    top5: np.ndarray,
    real_path: str | Path,
    lists: list[list[int]],
) -> ErrorCount:
    if ids is None:
        _check_lengths(predictions_path, len(top5), real_path, len(lists))
        return real_score(top5[:, 0], lists)
    return real_score(top5[:, 0], _lists_of(predictions_path, ids, real_path, lists))


def _lists_of(path: Path, ids: np.ndarray, real_path: str | Path, lists: list[list[int]]) -> list[list[int]]:
    """Return the list of each image, by the number in its name."""
    numbers = _validation_numbers(path, ids)
    if numbers.max() > len(lists):
        raise UserError(f"{path} has image number {numbers.max()}, and {real_path} lists {len(lists):,} images")
    return [lists[number - 1] for number in numbers]


def _validation_numbers(path: Path, ids: np.ndarray) -> Int[np.ndarray, " n"]:
    """Return N for each ILSVRC2012_val_N, from 1."""
    matches = [VALIDATION_ID.fullmatch(name) for name in ids.tolist()]
    numbers = [int(match[1]) if match else 0 for match in matches]
    for name, number in zip(ids.tolist(), numbers, strict=True):
        if number == 0:
            raise UserError(
                f"{path}: ReaL labels are for the validation images of ImageNet 2012, named ILSVRC2012_val_00000001 "
                f"and so on; '{name}' is not one"
            )
    return np.array(numbers)
