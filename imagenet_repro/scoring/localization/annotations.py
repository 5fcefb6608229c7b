"""Files of annotated objects (PASCAL VOC's XML as in the challenge's archives, and CSV), and lists about them.

XML: a folder with one file for each image, `X.xml` for `X.JPEG`, possibly in subfolders. The `name` (the WordNet id of
the class) and the `bndbox` of each `object` are read.

CSV: one box per line, so an image has one line for each of its boxes. The columns `file`, `x_min`, `y_min`, `x_max`,
`y_max` are required, in any order; `class` is read if it exists, and other columns, such as `split`, are ignored.

Boxes are written by their first and last pixels (see `boxes`). An image is identified by its name without file
extension: the file's name for XML, the given name, with or without folders, for CSV and lists. A record of a data set,
such as `train/n01440764/n01440764_18.JPEG`, belongs to the image whose name it ends with: n01440764/n01440764_18 or
n01440764_18.
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
ENDINGS = {"jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff"}  # extensions of images
T = TypeVar("T")
NO_CLASS = ""  # class of an object for which the file does not have one


@dataclasses.dataclass(frozen=True)
class AnnotatedObjects:
    """Annotated objects of an image: the class of each as written in the file, and its first and last pixels."""

    classes: tuple[str, ...]
    boxes: Float[np.ndarray, "m 4"]


NO_OBJECTS = AnnotatedObjects((), np.zeros((0, 4)))


def without_ending(path: str) -> str:
    """Return the path of an image or its annotation without the extension of an image."""
    stem, dot, ending = path.rpartition(".")
    return stem if dot and ending.lower() in ENDINGS else path


def lookup(entries: Mapping[str, T], path: str) -> T | None:
    """Return the entry whose name, in whole folders, is the longest ending of an image's path, or None."""
    parts = without_ending(path).split("/")
    names = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((entries[name] for name in names if name in entries), None)


def read(path: str | Path) -> dict[str, AnnotatedObjects]:
    """Read the objects of every annotated image by its name, from a folder of XML files or from a CSV file.

    Raises:
      UserError: with the file, and the line of a CSV, if it cannot be read or has another form, a box ends before it
        begins, or two images have the same name.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_csv(path)


def read_classes(path: str | Path) -> dict[str, int]:
    """Read the number of each class by WordNet id, from the challenge's `meta*.mat` or from text lines "NUMBER ID …".

    Raises:
      UserError: the file is absent or has another form, or an id or a number occurs twice.
    """
    path = Path(path)
    pairs = _synsets(path) if path.suffix == ".mat" else _class_lines(path)
    for column, values in zip(("class", "number"), zip(*pairs, strict=True), strict=True):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise UserError(f"{path}: the {column} {twice[0]} occurs more than once")
    return dict(pairs)


def read_images(path: str | Path) -> dict[str, int]:
    """Read the number of each image by name: lines "NAME NUMBER", as in the challenge's `val.txt`, or "NAME".

    Lines without a number are numbered from 1.

    Raises:
      UserError: with the line, for other lines, and for names or numbers that occur twice.
    """
    images: dict[str, int] = {}
    numbers: set[int] = set()
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if len(words) not in (1, 2):
            raise UserError(f"{path}, line {line}: expected 'NAME' or 'NAME NUMBER', not '{text[:40]}'")
        name, number = without_ending(words[0]), integer(words[1], path, line) if len(words) == 2 else line
        if name in images or number in numbers:
            raise UserError(f"{path}, line {line}: the image {name} or its number {number} occurs a second time")
        images[name] = number
        numbers.add(number)
    return images


# --- XML -------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> dict[str, AnnotatedObjects]:
    objects: dict[str, AnnotatedObjects] = {}
    for file in sorted(path for path in folder.rglob("*.xml") if path.is_file()):  # a pipe would never end
        if file.stem in objects:
            raise UserError(f"{folder} has several annotations of {file.stem}, the second one in {file.parent}")
        objects[file.stem] = _read_xml(file)
    if not objects:
        raise UserError(f"{folder} holds no .xml file")
    return objects


def _read_xml(file: Path) -> AnnotatedObjects:
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise UserError(f"could not read {file}: {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise UserError(f"{file} is not XML: {error}") from error
    if root.tag != "annotation":
        raise UserError(f"{file} is not an annotation of PASCAL VOC: it begins with <{root.tag}>")
    objects = [_xml_object(one, file) for one in root.iter("object")]
    return _objects(objects)


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
    listed: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
    files: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(csv.DictReader(lines), start=2):
        where = f"{path}, line {number}"
        name = without_ending(row["file"] or "")
        file = (row.get("split") or "", row["file"])
        if not name or files.setdefault(name, file) != file:
            problem = f"{row['file']} and {'/'.join(files[name])} have the same name" if name else "no file is named"
            raise UserError(f"{where}: {problem}")
        listed[name].append(
            (row.get("class") or NO_CLASS, parse_box([row[column] or "" for column in COLUMNS], where))
        )
    if not listed:
        raise UserError(f"{path} holds no box")
    return {name: _objects(objects) for name, objects in listed.items()}


def _objects(pairs: Sequence[tuple[str, list[float]]]) -> AnnotatedObjects:
    classes, boxes = zip(*pairs, strict=True) if pairs else ((), ())
    return AnnotatedObjects(tuple(classes), np.array(boxes, np.float64).reshape(-1, 4))


def parse_box(texts: Sequence[str], where: str) -> list[float]:
    """Parse the four numbers of a box; raise `UserError`, which names `where`, if it ends before it begins."""
    try:
        box = [float(text) for text in texts]
    except ValueError:
        raise UserError(f"{where}: '{' '.join(texts)[:60]}' is not the four numbers of a box") from None
    if not np.all(np.isfinite(box)) or box[2] < box[0] or box[3] < box[1]:
        raise UserError(f"{where}: the box {' '.join(texts)} ends before it begins, or is not finite")
    return box


# --- classes ---------------------------------------------------------------------------------------------------


def _class_lines(path: Path) -> list[tuple[str, int]]:
    pairs = []
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if len(words) < 2:
            raise UserError(f"{path}, line {line}: expected 'NUMBER ID', such as '1 n02119789', not '{text[:40]}'")
        pairs.append((words[1], integer(words[0], path, line)))
    return pairs


def _synsets(path: Path) -> list[tuple[str, int]]:
    """Return (id, number) of each entry of the challenge's array `synsets`."""
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
    """Return the number of each object's class. Raises `UserError` for a class that is not in `classes`."""
    unknown = [name for name in objects.classes if name not in classes]
    if unknown:
        subject = f"the class '{unknown[0]}'" if unknown[0] else "an object without a class"
        raise UserError(f"the annotation of {image} has {subject}, which is not in the file of --classes")
    return [classes[name] for name in objects.classes]
