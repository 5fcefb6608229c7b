"""The challenge's localization task: five guesses of a class and a box, scored as its development kit scores them.

A guess is right if its class is the image's and its box overlaps any instance of that class with an intersection over
union of at least 0.5. An image is right if any of its guesses is: e = mean_i min_j max(d_ij, f_ij), with d for the
class and f for the box (`eval_clsloc.m` of the kits of 2013 to 2015, `eval_localization_flat.m` of 2012). From 2012 to
2015 a list named the images with poor boxes, 1,762 of the 50,000 for validation, whose boxes were not scored; the
classification error counts these images.

The challenge's format is a text file with one line for each image, in the order of the images' names: "label xmin ymin
xmax ymax" up to five times, by falling confidence. Anything after the fifth guess is ignored, and an empty line is no
guess. Labels are compared as written, as in `classification`.

Instead of text, guesses may be an `.npz` file of `main.py localize`, with these arrays for n images:

| key          | type    | shape     | meaning                                                                      |
|--------------|---------|-----------|------------------------------------------------------------------------------|
| `id`         | unicode | [n]       | the data set's own name of the image, unique                                 |
| `label`      | int32   | [n]       | class index of the ground truth                                              |
| `top5`       | int32   | [n, 5]    | best classes first; -1: none                                                 |
| `box`        | int32   | [n, 5, 4] | x_min, y_min, x_max, y_max of each guess: first and last pixels of the image |
| `provenance` | unicode | []        | a JSON object: the provenance of the boxes                                   |
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from rich.console import Console

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.classification import NO_GUESS, integer, read_labels, read_lines
from imagenet_repro.scoring.localization import annotations
from imagenet_repro.scoring.localization.annotations import NO_OBJECTS, AnnotatedObjects, lookup, without_ending
from imagenet_repro.scoring.localization.boxes import pixel_iou
from imagenet_repro.scoring.metrics import GUESSES, format_rate, is_wrong
from imagenet_repro.scoring.terminal import both_interval_headings, print_lines, print_table, score_table
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading, terminal_heading
from imagenet_repro.storage import files

OVERLAP = 0.5  # least intersection over union of a right box
WORDS = 5  # words of one guess in a line of text: the label and four numbers
FORMS = {"id": ("U", 1), "label": ("i", 1), "top5": ("i", 2), "box": ("i", 3), "provenance": ("U", 0)}
Boxes = Num[np.ndarray, "_ 4"]


@dataclasses.dataclass(frozen=True)
class BoxGuesses:
    """Guessed classes and boxes, by first and last pixels, for each of n images."""

    top5: Int[np.ndarray, "n 5"]
    box: Num[np.ndarray, "n 5 4"]
    label: Int[np.ndarray, " n"]
    id: Shaped[np.ndarray, " n"]  # names of the images
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LocalizationErrors:
    """Numbers of wrong images with the first `guesses` guesses."""

    guesses: int
    wrong_class: int  # images without the right class among the guesses
    images: int
    wrong: int  # scored images without a right class in a right box
    wrong_box: int  # of these, the images with the right class among the guesses
    judged: int  # images whose boxes are scored


@dataclasses.dataclass(frozen=True)
class LocalizationScore:
    """Errors with one to five guesses, and notes for the reader."""

    errors: tuple[LocalizationErrors, ...]
    notes: tuple[str, ...] = ()


def right_boxes(boxes: Num[np.ndarray, "n k 4"], instances: Sequence[Boxes]) -> Bool[np.ndarray, "n k"]:
    """Return whether each box overlaps an instance of its image with an intersection over union of at least 0.5.

    Args:
      boxes: k boxes for each image, by first and last pixels.
      instances: for each image, the boxes of the objects of its class.
    """
    is_right = [np.any(pixel_iou(*pair) >= OVERLAP, axis=1) for pair in zip(boxes, instances, strict=True)]
    return np.stack(is_right) if is_right else np.zeros(boxes.shape[:2], bool)


def count_errors(
    guessed: BoxGuesses, instances: Sequence[Boxes], judged: Bool[np.ndarray, " n"] | None = None
) -> tuple[LocalizationErrors, ...]:
    """Return the errors with one to five guesses.

    Args:
      guessed: guesses for n images.
      instances: for each image, the boxes of the objects of its class.
      judged: whether an image's boxes count; None: all do.
    """
    judged = np.ones(len(instances), bool) if judged is None else judged
    well_placed = np.where(right_boxes(guessed.box, instances), guessed.top5, NO_GUESS)
    errors = []
    for k in range(1, GUESSES + 1):
        classified = ~is_wrong(guessed.top5, guessed.label, k)
        localized = ~is_wrong(well_placed, guessed.label, k)
        errors.append(
            LocalizationErrors(
                guesses=k,
                wrong_class=int(np.sum(~classified)),
                images=len(instances),
                wrong=int(np.sum(judged & ~localized)),
                wrong_box=int(np.sum(judged & classified & ~localized)),
                judged=int(np.sum(judged)),
            )
        )
    return tuple(errors)


def score(
    predictions: str | Path,
    boxes: str | Path,
    *,
    labels: str | Path | None = None,
    images: str | Path | None = None,
    blacklist: str | Path | None = None,
    classes: str | Path | None = None,
) -> LocalizationScore:
    """Score a file of guesses, text or `.npz`, against annotated boxes.

    Args:
      predictions: file of guesses.
      boxes: a folder of XML files, or a CSV file (see `annotations`).
      labels: file with one integer per line; required for text, while an `.npz` has its own labels.
      images: file with the images' names, one per line, in the order of the guesses; None: the images that have boxes,
        sorted, or an `.npz` file's own.
      blacklist: file with numbers of images, one per line, whose boxes are not scored; images are numbered from 1 in
        the order of their names, or as `images` has them.
      classes: file with the number of each class by its name in the annotations; required if an image has objects of
        several classes.

    Raises:
      UserError: a file is absent or has another form, the numbers of images differ, or a scored image has no box of
        its class.
    """
    objects = annotations.read(boxes)
    numbers = {} if images is None else annotations.read_images(images)
    guessed = _guesses(Path(predictions), labels, sorted(numbers, key=numbers.__getitem__) or sorted(objects))
    numbers = numbers or _numbered(guessed.id.tolist())
    judged = _judged(guessed.id, numbers, blacklist)
    numbered = None if classes is None else annotations.read_classes(classes)
    instances = [
        instances_of(lookup(objects, name) or NO_OBJECTS, label, numbered, name, needed=bool(counts))
        for name, label, counts in zip(guessed.id.tolist(), guessed.label.tolist(), judged, strict=True)
    ]
    return LocalizationScore(count_errors(guessed, instances, judged), _notes(guessed, judged, blacklist))


def instances_of(
    objects: AnnotatedObjects, label: int, classes: Mapping[str, int] | None, image: str, *, needed: bool = True
) -> Boxes:
    """Return the boxes of an image's objects of its class; without `classes` all objects must have the same class.

    Raises:
      UserError: the classes of the objects are ambiguous, or a box is `needed` and there is none.
    """
    if classes is None:
        if len(set(objects.classes)) > 1:
            names = ", ".join(sorted(set(objects.classes)))
            raise UserError(f"{image} has objects of several classes ({names}); number them with --classes=FILE")
        instances = objects.boxes
    else:
        instances = objects.boxes[np.array(annotations.class_numbers(objects, classes, image), int) == label]
    if needed and not len(instances):
        raise UserError(f"{image}, of class {label}, has no box of its class; put it on the list of --blacklist=FILE")
    return instances


def read_guesses(path: str | Path) -> tuple[Int[np.ndarray, "n 5"], Float[np.ndarray, "n 5 4"]]:
    """Read labels and boxes in the challenge's format; -1 and an empty box if a line has fewer than five guesses.

    Raises:
      UserError: with the line, for other lines and for boxes that end before they begin.
    """
    lines = read_lines(path)
    labels = np.full((len(lines), GUESSES), NO_GUESS, np.int64)
    boxes = np.tile(np.array([0.0, 0.0, -1.0, -1.0]), (len(lines), GUESSES, 1))
    for row, line in enumerate(lines):
        words = line.replace(",", " ").split()
        if len(words) % WORDS:
            raise UserError(
                f"{path}, line {row + 1}: {len(words)} numbers; each guess has {WORDS}: label xmin ymin xmax ymax"
            )
        for place, start in enumerate(range(0, min(len(words), GUESSES * WORDS), WORDS)):
            where = f"{path}, line {row + 1}, guess {place + 1}"
            labels[row, place] = integer(words[start], path, row + 1)
            boxes[row, place] = annotations.parse_box(words[start + 1 : start + WORDS], where)
    return labels, boxes


def save(path: Path, guessed: BoxGuesses) -> None:
    """Write an `.npz` file atomically. Raises `SaveError` if it cannot be written."""
    arrays = {key: getattr(guessed, key).astype(np.int32) for key in ("label", "top5", "box")}
    with files.atomic_write(path, "boxes") as file:
        np.savez(file, id=guessed.id, **arrays, provenance=np.asarray(json.dumps(guessed.provenance)))


def load(path: Path) -> BoxGuesses:
    """Read a file that `save` wrote. Raises `UserError` if it is absent, damaged or has another form."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in FORMS}
            provenance = json.loads(str(arrays.pop("provenance")))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except KeyError as error:
        raise UserError(f"{path} has no boxes ({error}); `main.py localize` writes files with boxes") from error
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path} is truncated, damaged or not an .npz archive ({error})") from error
    _check_forms(path, arrays)
    return BoxGuesses(**arrays, provenance=provenance)


def print_score(card: LocalizationScore, console: Console | None = None) -> None:
    """Print both errors by the number of guesses, a sentence on five guesses, and the notes."""
    console = console or Console()
    rows = []
    for row in card.errors:
        wrong, wilson = format_rate(row.wrong, row.judged)
        _, exact = format_rate(row.wrong, row.judged, "exact")
        rows.append((str(row.guesses), wrong, wilson, exact, *format_rate(row.wrong_class, row.images)))
    of_class = terminal_heading(interval_heading(NEW_IMAGES, of="class alone"))
    headings = ("guesses", "localization error %", *both_interval_headings(), "class alone %", of_class)
    print_table(score_table(headings, rows, left=0), console)
    print_lines((sentence(card.errors[-1]), *(f"Note: {note}" for note in card.notes)), console)


def sentence(one: LocalizationErrors) -> str:
    """Describe the errors in one sentence."""
    error, low_to_high = format_rate(one.wrong, one.judged)
    share = 100 * one.wrong_box / one.judged
    return (
        f"localization error with {one.guesses} guesses {error} %, 95 % interval {low_to_high} for {NEW_IMAGES}"
        f" ({one.wrong:,} of {one.judged:,} images wrong); {share:.1f} % have the right class but no right box"
    )


# --- reading and checks ----------------------------------------------------------------------------------------


def _guesses(path: Path, labels: str | Path | None, names: Sequence[str]) -> BoxGuesses:
    """Return guesses in the order of the images, which text takes from `names`."""
    if path.suffix == ".npz":
        if labels is not None:
            raise UserError(f"{path} has its own labels; leave out --labels={labels}")
        return load(path)
    if labels is None:
        raise UserError(f"{path} has no labels; name a file of labels with --labels=FILE")
    (top5, boxes), label_array = read_guesses(path), read_labels(labels)
    counts = {str(path): len(top5), str(labels): len(label_array), "the annotated images": len(names)}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{source}: {count:,}" for source, count in counts.items())
        raise UserError(
            f"different numbers of images: {said}. The file needs one line per image, in the order of their names;"
            " name the images with --images=FILE if other images have boxes too"
        )
    return BoxGuesses(top5, boxes, label_array, np.array(names))


def _numbered(ids: Sequence[str]) -> dict[str, int]:
    """Number images from 1 in the order of their file names, without regard to folders."""
    names = sorted(map(without_ending, ids), key=lambda name: (name.rpartition("/")[2], name))
    return {name: number for number, name in enumerate(names, start=1)}


def _judged(ids: Shaped[np.ndarray, " n"], numbers: Mapping[str, int], blacklist: str | Path | None) -> np.ndarray:
    poor = set() if blacklist is None else set(read_labels(blacklist).tolist())
    unknown = poor - set(numbers.values())
    if unknown:
        raise UserError(
            f"{blacklist}: there is no image {min(unknown)} among the {len(numbers):,} images with guesses"
        )
    image_numbers = [lookup(numbers, name) for name in ids.tolist()]
    missing = [name for name, number in zip(ids.tolist(), image_numbers, strict=True) if number is None]
    if missing:
        raise UserError(f"{len(missing):,} images with guesses are not listed in --images, the first: {missing[0]}")
    judged = np.array([number not in poor for number in image_numbers])
    if not judged.any():
        raise UserError(f"{blacklist} lists every image, so none is left to score")
    return judged


def _notes(guessed: BoxGuesses, judged: np.ndarray, blacklist: str | Path | None) -> tuple[str, ...]:
    notes = []
    if blacklist is not None:
        left_out = int(np.sum(~judged))
        notes.append(f"{left_out:,} images are on the list of poor boxes; only their class counts.")
    if not np.isin(guessed.top5, np.unique(guessed.label)).any():
        notes.append("no guess names the class of any image: are guesses and labels numbered in the same way?")
    return tuple(notes)


def _check_forms(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        kind, dimensions = FORMS[key]
        tail = {"top5": (GUESSES,), "box": (GUESSES, 4)}.get(key, ())
        if array.dtype.kind != kind or array.ndim != dimensions or array.shape[1:] != tail:
            raise UserError(f"{path}: '{key}' is {array.dtype} of shape {array.shape}, not what `localize` writes")
    if len({len(array) for array in arrays.values()}) > 1 or not len(arrays["id"]):
        raise UserError(f"{path}: different numbers of images, or none")
    if len(np.unique(arrays["id"])) < len(arrays["id"]):
        raise UserError(f"{path}: the same id more than once")
