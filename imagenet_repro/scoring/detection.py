"""The challenge's detection task, scored as its development kit scores it (`eval_detection.m`, 2014 and 2015).

A detection has an image, a class, a confidence and a box. In each image, detections are matched in order of falling
confidence. A detection is right if it overlaps an object of its class, which no earlier detection has matched, with an
intersection over union of at least thr = min(0.5, w h / ((w + 10) (h + 10))) for an object of w x h pixels; it matches
the object that it overlaps most. So boxes of objects under about 25 x 25 pixels may be off by 5 pixels on each side,
and a second detection of an object is wrong. A class that is blacklisted in an image counts there neither as object
nor as detection.

A class is scored by its average precision: the area under precision as a function of recall, with precision made
monotone, at every recall (PASCAL VOC from 2010 on; Everingham et al. 2010, sec. 4.2, has the eleven-point form of the
years before). The winner was first on most classes; the mean over classes was reported too.

The challenge's format is a text file with one line for each detection: "image class confidence xmin ymin xmax ymax",
with the numbers of image and class. Images are numbered by a file like its `val.txt`, classes by its `meta_det.mat`.
The blacklist has lines "image class", the class by its WordNet id. Detections with equal confidence keep the order of
the images, and within an image the order of the file.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from rich.console import Console

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.classification import integer, read_lines
from imagenet_repro.scoring.localization import annotations
from imagenet_repro.scoring.localization.annotations import NO_OBJECTS, AnnotatedObjects, lookup
from imagenet_repro.scoring.localization.boxes import edges, pixel_iou
from imagenet_repro.scoring.terminal import print_lines, print_table, score_table

OVERLAP = 0.5  # required intersection over union for an object that is not small
TOLERANCE = 10  # pixels added to both sides of an object for its threshold
COLUMNS = 7  # columns of a line: image, class, confidence, and four numbers of the box


@dataclasses.dataclass(frozen=True)
class DetectionBoxes:
    """Boxes by first and last pixels, each with the numbers of its image and class: n objects or detections."""

    image: Int[np.ndarray, " n"]
    category: Int[np.ndarray, " n"]
    box: Num[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.image)

    def where(self, chosen: Bool[np.ndarray, " n"]) -> "DetectionBoxes":
        """Return the boxes that are chosen, in their order."""
        return DetectionBoxes(self.image[chosen], self.category[chosen], self.box[chosen])


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """Detection result of one class."""

    name: str
    objects: int
    detections: int
    right: int
    average_precision: float  # in [0, 1]; NaN if there is no object


@dataclasses.dataclass(frozen=True)
class DetectionScore:
    """Results of all classes in the order of their numbers, for one or two entries."""

    entries: tuple[Path, ...]
    categories: tuple[tuple[ClassResult, ...], ...]  # of each entry
    notes: tuple[str, ...] = ()

    def average_precisions(self) -> Float[np.ndarray, "e c"]:
        """Return the average precision of each entry and class."""
        return np.array([[one.average_precision for one in entry] for entry in self.categories])

    def won(self) -> tuple[int, ...]:
        """Return for each entry the number of classes on which it alone has the highest average precision."""
        scores = self.average_precisions()
        first = scores == scores.max(axis=0)
        return tuple((first & (first.sum(axis=0) == 1)).sum(axis=1).tolist())


def thresholds(objects: Num[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Return the intersection over union that a detection needs for each object, given by first and last pixels."""
    sides = (edges(objects)[:, 2:] - objects[:, :2]).astype(np.float64)
    return np.minimum(OVERLAP, np.prod(sides, axis=1) / np.prod(sides + TOLERANCE, axis=1))


def match_detections(
    detections: DetectionBoxes, confidence: Float[np.ndarray, " n"], objects: DetectionBoxes
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return the order in which detections are matched, and whether each, in that order, matches an object."""
    order = np.lexsort((detections.image, -confidence))  # stable: equal ones stay in the file's order
    limits = thresholds(objects.box)
    rows = _rows_by_place(objects)
    free = np.ones(len(objects), bool)
    right = np.zeros(len(detections), bool)
    places = zip(detections.image[order].tolist(), detections.category[order].tolist(), strict=True)
    for rank, (index, place) in enumerate(zip(order, places, strict=True)):
        candidates = rows.get(place)
        if candidates is None:
            continue
        overlap = pixel_iou(detections.box[index : index + 1], objects.box[candidates])[0]
        overlap[~free[candidates] | (overlap < limits[candidates])] = -1
        best = int(np.argmax(overlap))
        if overlap[best] >= 0:
            right[rank], free[candidates[best]] = True, False
    return order, right


def precision_recall(
    right: Bool[np.ndarray, " n"], objects: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return precision and recall after each detection of one class, in the order in which they are matched."""
    n_right = np.cumsum(right)
    return n_right / np.arange(1, len(right) + 1), n_right / objects


def average_precision(precision: Float[np.ndarray, " n"], recall: Float[np.ndarray, " n"]) -> float:
    """Return the area under the highest precision at each recall or above (`VOCap.m`)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def score_classes(
    detections: DetectionBoxes, confidence: Float[np.ndarray, " n"], objects: DetectionBoxes, names: Mapping[int, str]
) -> tuple[ClassResult, ...]:
    """Return the result of every class.

    Args:
      detections: the detections, in the order of the file.
      confidence: confidence of each detection.
      objects: objects of the scored images.
      names: names of the classes, by their numbers.
    """
    order, right = match_detections(detections, confidence, objects)
    category = detections.category[order]
    results = []
    for number, name in sorted(names.items()):
        hits, total = right[category == number], int(np.sum(objects.category == number))
        score = average_precision(*precision_recall(hits, total)) if total else float("nan")
        results.append(ClassResult(name, total, len(hits), int(hits.sum()), score))
    return tuple(results)


def score(
    entries: Sequence[str | Path],
    boxes: str | Path,
    classes: str | Path,
    *,
    images: str | Path | None = None,
    blacklist: str | Path | None = None,
) -> DetectionScore:
    """Score one or two files of detections in the challenge's format.

    Args:
      entries: the files.
      boxes: a folder of XML files, or a CSV file with the column `class` (see `localization.annotations`).
      classes: the challenge's `meta_det.mat`, or a text file with lines "NUMBER ID".
      images: file with lines "NAME NUMBER"; an image without annotation has no object. None: all annotated images,
        numbered from 1 in the order of their names.
      blacklist: file with lines "IMAGE ID", the classes that are not scored in an image.

    Raises:
      UserError: a file is absent or has another format, or names an unknown image or class; or nothing is annotated.
    """
    annotated = annotations.read(boxes)
    numbers = {name: i for i, name in enumerate(sorted(annotated), start=1)} if images is None else {}
    if images is not None:
        numbers = annotations.read_images(images)
    ids = annotations.read_classes(classes)
    if not any(lookup(annotated, name) for name in numbers):
        raise UserError(f"{boxes} annotates none of the {len(numbers):,} images of {images}")
    objects = _objects(annotated, numbers, ids)
    skipped = _blacklist(blacklist, numbers, ids)
    objects = objects.where(~_listed(objects, skipped))
    if not len(objects):
        raise UserError(f"{boxes}: the scored images have no object")
    names = {number: name for name, number in ids.items()}
    read = [_judged(path, numbers, names, skipped) for path in entries]
    categories = tuple(score_classes(*detections, objects, names) for detections in read)
    return DetectionScore(
        tuple(map(Path, entries)), categories, tuple(_notes(annotated, numbers, categories[0], skipped))
    )


def read_detections(path: str | Path) -> tuple[DetectionBoxes, Float[np.ndarray, " n"]]:
    """Read boxes and confidences in the challenge's format, in the order of the file.

    Raises:
      UserError: with the line if possible, for a file of another format, numbers of images or classes that are not
        integers, confidences that are NaN, and boxes that end before they begin.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # warns about a file without data
            table = np.loadtxt(path, ndmin=2, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (ValueError, UserWarning, OSError) as error:
        raise UserError(f"{path} is not a table of numbers: {error}") from error
    if table.shape[1] != COLUMNS:
        raise UserError(
            f"{path} has {table.shape[1]} columns; expected are image, class, confidence, xmin, ymin, xmax, ymax"
        )
    whole = np.all(table[:, :2] == np.rint(table[:, :2]), axis=1)
    ordered = np.all(table[:, 5:] >= table[:, 3:5], axis=1) & np.all(np.isfinite(table[:, 3:]), axis=1)
    good = whole & ordered & ~np.isnan(table[:, 2])
    if not good.all():
        first = int(np.argmin(good))
        raise UserError(
            f"{path}, detection {first + 1}: {' '.join(f'{x:g}' for x in table[first])} is not a detection: image"
            " and class are integers, the confidence is a number, and a box does not end before it begins"
        )
    image, category = table[:, :2].astype(np.int64).T
    return DetectionBoxes(image, category, table[:, 3:]), table[:, 2]


def print_score(card: DetectionScore, console: Console | None = None) -> None:
    """Print the average precision of every class, mean and median; for two entries also the classes that each won."""
    console = console or Console()
    scores = 100 * card.average_precisions()
    heads = ["average precision %"] if len(scores) == 1 else [f"{path.name} %" for path in card.entries]
    rows = []
    for number, of_class in enumerate(zip(*card.categories, strict=True)):
        counts = (_counts(of_class, key) for key in ("detections", "right"))
        cells = (f"{x:.1f}" if np.isfinite(x) else "–" for x in scores[:, number])
        rows.append((of_class[0].name, f"{of_class[0].objects:,}", *counts, *cells))
    print_table(score_table(("class", "objects", "detections", "right", *heads), rows), console)
    print_lines((*_verdict(card, scores), *(f"Note: {note}" for note in card.notes)), console)


# --- words -----------------------------------------------------------------------------------------------------


def _counts(of_class: Sequence[ClassResult], key: str) -> str:
    return " / ".join(f"{getattr(one, key):,}" for one in of_class)


def _verdict(card: DetectionScore, scores: Float[np.ndarray, "e c"]) -> Iterator[str]:
    judged = int(np.isfinite(scores[0]).sum())
    for path, row in zip(card.entries, scores, strict=True):
        mean, median = np.nanmean(row), np.nanmedian(row)
        yield f"{path}: mean average precision {mean:.1f} %, median {median:.1f} %, over {judged:,} classes"
    if len(scores) == 1:
        return
    one, other = card.won()
    first, second = card.entries
    ahead = "neither wins more" if one == other else f"{(first if one > other else second).name} wins"
    yield f"classes won: {first.name} {one:,}, {second.name} {other:,}, equal {judged - one - other:,}: {ahead}"


def _notes(
    annotated: Mapping[str, AnnotatedObjects],
    numbers: Mapping[str, int],
    categories: Sequence[ClassResult],
    skipped: set[tuple[int, int]],
) -> Iterator[str]:
    unannotated = sum(lookup(annotated, name) is None for name in numbers)
    if unannotated:
        yield f"{unannotated:,} of {len(numbers):,} images have no annotation and count as images without objects."
    empty = sum(one.objects == 0 for one in categories)
    if empty:
        yield f"{empty:,} classes have no object and no average precision; the mean leaves them out."
    if skipped:
        yield f"{len(skipped):,} pairs of image and class are blacklisted."


# --- reading ---------------------------------------------------------------------------------------------------


def _objects(
    annotated: Mapping[str, AnnotatedObjects], numbers: Mapping[str, int], ids: Mapping[str, int]
) -> DetectionBoxes:
    image, category, box = [], [], [np.zeros((0, 4))]
    for name, number in numbers.items():
        objects = lookup(annotated, name) or NO_OBJECTS
        category += annotations.class_numbers(objects, ids, name)
        image += [number] * len(objects.classes)
        box.append(objects.boxes)
    return DetectionBoxes(np.array(image, np.int64), np.array(category, np.int64), np.concatenate(box))


def _blacklist(path: str | Path | None, numbers: Mapping[str, int], ids: Mapping[str, int]) -> set[tuple[int, int]]:
    pairs = set()
    known = set(numbers.values())
    if path is None:
        return pairs
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if len(words) != 2 or words[1] not in ids or integer(words[0], path, line) not in known:
            raise UserError(f"{path}, line {line}: '{text[:40]}' is not the number of an image and the id of a class")
        pairs.add((int(words[0]), ids[words[1]]))
    return pairs


def _judged(
    path: str | Path, numbers: Mapping[str, int], names: Mapping[int, str], skipped: set[tuple[int, int]]
) -> tuple[DetectionBoxes, Float[np.ndarray, " n"]]:
    """Return detections and confidences without those that are blacklisted."""
    detections, confidence = read_detections(path)
    for what, values, known in (
        ("image", detections.image, np.array(list(numbers.values()))),
        ("class", detections.category, np.array(list(names))),
    ):
        unknown = ~np.isin(values, known)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise UserError(f"{path}, detection {row + 1}: there is no {what} {values[row]}; {len(known):,} are known")
    is_scored = ~_listed(detections, skipped)
    return detections.where(is_scored), confidence[is_scored]


def _listed(boxes: DetectionBoxes, pairs: set[tuple[int, int]]) -> Bool[np.ndarray, " n"]:
    places = zip(boxes.image.tolist(), boxes.category.tolist(), strict=True)
    return np.fromiter((place in pairs for place in places), bool, len(boxes))


def _rows_by_place(objects: DetectionBoxes) -> dict[tuple[int, int], Int[np.ndarray, " m"]]:
    """Return the rows of the objects of each image and class."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(objects.image.tolist(), objects.category.tolist(), strict=True)):
        rows.setdefault(key, []).append(row)
    return {key: np.array(indices) for key, indices in rows.items()}
