"""Files that say where objects are: PASCAL VOC's XML as in the challenge's archives, and CSV; and lists about them.

XML: a folder with one file for each image, `X.xml` for `X.JPEG`, in subfolders or not. Of each `object` its `name`
(the WordNet id of its class) and its `bndbox` are read.

CSV: a box a line, of as many lines for an image as it has boxes. The columns `file`, `x_min`, `y_min`, `x_max`,
`y_max` are needed, in any order; `class` is read where it is there, and others, such as `split`, are not.

Boxes are written by their first and last pixels (evaluation/boxes.py). An image is known by its name, without ending:
of XML that of the file, of CSV and lists what they have, with or without folders. A record of a data set, such as
`train/n01440764/n01440764_18.JPEG`, is of the image whose name it ends with: n01440764/n01440764_18, n01440764_18.
"""

import csv
import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.classification import integer, read_lines

CORNERS = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = ("x_min", "y_min", "x_max", "y_max")
ENDINGS = {"jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff"}  # of images
T = TypeVar("T")
NO_CLASS = ""  # of an object of which the file does not say it


@dataclasses.dataclass(frozen=True)
class AnnotatedObjects:
    """The annotated objects of an image: of each the class as the file has it, and the first and last pixels."""

    classes: tuple[str, ...]
    boxes: Float[np.ndarray, "m 4"]


NO_OBJECTS = AnnotatedObjects((), np.zeros((0, 4)))


def without_ending(path: str) -> str:
    """The name of an image or its annotation."""
    stem, dot, ending = path.rpartition(".")
    return stem if dot and ending.lower() in ENDINGS else path


def lookup(found: Mapping[str, T], path: str) -> T | None:
    """What is known of an image: of the names that its path ends with, from whole folders on, the longest one."""
    parts = without_ending(path).split("/")
    names = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((found[name] for name in names if name in found), None)


def read(path: str | Path) -> dict[str, AnnotatedObjects]:
    """The objects of every annotated image by its name, from a folder of XML files or from a CSV file.

    Raises:
      UserError: with the file, and the line of a CSV, where it cannot be read, is of another form, has a box that ends
        before it begins, or names two images alike.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_csv(path)


def read_classes(path: str | Path) -> dict[str, int]:
    """Number of each class by its WordNet id: from the challenge's `meta*.mat`, or a text of lines "NUMBER ID …".

    Raises `UserError` where the file is absent or of another form, or gives an id or a number twice.
    """
    path = Path(path)
    pairs = _synsets(path) if path.suffix == ".mat" else _class_lines(path)
    for what, values in zip(("class", "number"), zip(*pairs, strict=True), strict=True):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise UserError(f"{path}: the {what} {twice[0]} occurs more than once")
    return dict(pairs)


def read_images(path: str | Path) -> dict[str, int]:
    """Number of each image by its name: lines "NAME NUMBER", as in the challenge's `val.txt`, or of names alone,
    which are numbered from 1.

    Raises `UserError`, with the line, for other lines and for names or numbers that occur twice.
    """
    found: dict[str, int] = {}
    numbers: set[int] = set()
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if len(words) not in (1, 2):
            raise UserError(f"{path}, line {line}: 'NAME' or 'NAME NUMBER' is expected, not '{text[:40]}'")
        name, number = without_ending(words[0]), integer(words[1], path, line) if len(words) == 2 else line
        if name in found or number in numbers:
            raise UserError(f"{path}, line {line}: the image {name} or its number {number} occurs a second time")
        found[name] = number
        numbers.add(number)
    return found


# --- XML -------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> dict[str, AnnotatedObjects]:
    found: dict[str, AnnotatedObjects] = {}
    for file in sorted(folder.rglob("*.xml")):
        if file.stem in found:
            raise UserError(f"{folder} has several annotations of {file.stem}, the second one in {file.parent}")
        found[file.stem] = _read_xml(file)
    if not found:
        raise UserError(f"{folder} holds no .xml file")
    return found


def _read_xml(file: Path) -> AnnotatedObjects:
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise UserError(f"could not read {file}: {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise UserError(f"{file} is not XML: {error}") from error
    if root.tag != "annotation":
        raise UserError(f"{file} is not an annotation of PASCAL VOC: it begins with <{root.tag}>")
    found = [_xml_object(one, file) for one in root.iter("object")]
    return _objects(found)


def _xml_object(element: ElementTree.Element, file: Path) -> tuple[str, list[float]]:
    texts = [element.findtext(f"bndbox/{corner}", "") for corner in CORNERS]
    name = element.findtext("name", "").strip()
    if not name:
        raise UserError(f"{file}: an object has no name")
    return name, parse_box(texts, f"{file}: the box of {name}")


# --- CSV -------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> dict[str, AnnotatedObjects]:
    lines = read_lines(path)
    head = next(csv.reader(lines[:1]))
    missing = [column for column in ("file", *COLUMNS) if column not in head]
    if missing:
        raise UserError(f"{path}: the first line lacks the columns {', '.join(missing)}; it has {', '.join(head)}")
    found: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
    files: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(csv.DictReader(lines), start=2):
        where = f"{path}, line {number}"
        name = without_ending(row["file"] or "")
        file = (row.get("split") or "", row["file"])
        if not name or files.setdefault(name, file) != file:
            problem = f"{row['file']} and {'/'.join(files[name])} have the same name" if name else "no file is named"
            raise UserError(f"{where}: {problem}")
        found[name].append((row.get("class") or NO_CLASS, parse_box([row[column] or "" for column in COLUMNS], where)))
    if not found:
        raise UserError(f"{path} holds no box")
    return {name: _objects(objects) for name, objects in found.items()}


def _objects(found: Sequence[tuple[str, list[float]]]) -> AnnotatedObjects:
    classes, boxes = zip(*found, strict=True) if found else ((), ())
    return AnnotatedObjects(tuple(classes), np.array(boxes, np.float64).reshape(-1, 4))


def parse_box(texts: Sequence[str], where: str) -> list[float]:
    """The four numbers of a box; raises `UserError`, which says `where`, unless it ends where it begins or later."""
    try:
        box = [float(text) for text in texts]
    except ValueError:
        raise UserError(f"{where}: '{' '.join(texts)[:60]}' are not the four numbers of a box") from None
    if not np.all(np.isfinite(box)) or box[2] < box[0] or box[3] < box[1]:
        raise UserError(f"{where}: the box {' '.join(texts)} ends before it begins, or is not finite")
    return box


# --- classes ---------------------------------------------------------------------------------------------------


def _class_lines(path: Path) -> list[tuple[str, int]]:
    pairs = []
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if len(words) < 2:
            raise UserError(f"{path}, line {line}: 'NUMBER ID' is expected, such as '1 n02119789', not '{text[:40]}'")
        pairs.append((words[1], integer(words[0], path, line)))
    return pairs


def _synsets(path: Path) -> list[tuple[str, int]]:
    """(id, number) of each entry of the challenge's array `synsets`."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        synsets = loadmat(path, simplify_cells=True)["synsets"]
        number = next(key for key in synsets[0] if key.startswith("ILSVRC") and key.endswith("ID"))
        return [(str(one["WNID"]), int(one[number])) for one in synsets]
    except (MatReadError, KeyError, TypeError, IndexError, StopIteration, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not the challenge's meta file, with an array 'synsets' that has WNID and ILSVRC…_ID: {error!r}"
        ) from error


def class_numbers(objects: AnnotatedObjects, classes: Mapping[str, int], image: str) -> list[int]:
    """The number of each object's class. Raises `UserError` for a class that `classes` lacks."""
    unknown = [name for name in objects.classes if name not in classes]
    if unknown:
        what = f"the class '{unknown[0]}'" if unknown[0] else "an object of which the file does not say the class"
        raise UserError(f"the annotation of {image} has {what}, which the file of --classes does not number")
    return [classes[name] for name in objects.classes]
