"""ObjectNet: its images without borders, and the ImageNet classes of its folders.

ObjectNet (Barbu et al. 2019, "ObjectNet: a large-scale bias-controlled dataset for pushing the limits of object
recognition models") is unpacked from its download to `objectnet-1.0/images/FOLDER/*.png`, 313 folders named after
objects; 113 of these objects are among ImageNet's classes. A red border of one pixel marks the images, on which no
network may be trained; its readme asks to remove the border before evaluation.

Four files beside the images, in `objectnet-1.0/mappings/`, map folders to classes:

| file | content |
|---|---|
| `folder_to_objectnet_label.json` | the object's name for each folder |
| `objectnet_to_imagenet_1k.json` | the words of one or several ImageNet classes, separated by "; ", for each object |
| `imagenet_to_label_2012_v2` | a line of words for each class |
| `pytorch_to_imagenet_2012_id.json` | the line, counted from 0, for each class index |
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Records, Split
from imagenet_repro.errors import UserError
from imagenet_repro.storage import user

BORDER = 1  # pixels
NO_LABEL = -1  # an object may belong to several of ImageNet's classes, or to none


@dataclasses.dataclass(frozen=True)
class BorderlessRecords:
    """The records of ObjectNet without the images' borders and without labels.

    Attributes:
      records: the prepared records.
    """

    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """Read one record; an image that cannot be decoded is returned unchanged, for the loader to report."""
        record = self.records[index]
        return record._replace(image=_without_border(record.image), label=NO_LABEL)


def borderless(split: Split, class_names: Sequence[str]) -> Split:
    """Return ObjectNet without borders and labels, for a network whose classes have these names."""
    return dataclasses.replace(split, class_names=tuple(class_names), records=BorderlessRecords(split.records))


def _without_border(image: bytes) -> bytes:
    try:
        pixels = decode(image)
    except DecodeError:
        return image
    inner = pixels[BORDER:-BORDER, BORDER:-BORDER]
    if inner.size == 0:
        return image
    _, encoded = cv2.imencode(".bmp", cv2.cvtColor(inner, cv2.COLOR_RGB2BGR))  # lossless and fast to decode
    return encoded.tobytes()


def imagenet_classes(mappings: str | Path) -> dict[str, frozenset[int]]:
    """Return the ImageNet classes of each folder, as indices in the order of the WordNet ids.

    Args:
      mappings: the directory of the four files.

    Returns:
      The class indices by folder; folders without a class are absent.

    Raises:
      UserError: a file is missing or damaged, or the files contradict each other.
    """
    directory = user.expand(mappings)
    objects = _read_json(directory / "folder_to_objectnet_label.json")
    words = _read_json(directory / "objectnet_to_imagenet_1k.json")
    lines = {str(line): index for index, line in _read_json(directory / "pytorch_to_imagenet_2012_id.json").items()}
    classes = defaultdict(set)
    for line, text in enumerate(_read_text(directory / "imagenet_to_label_2012_v2").splitlines()):
        if str(line) in lines:
            classes[text.strip()].add(int(lines[str(line)]))
    folders = {name: folder for folder, name in objects.items()}
    classes_by_folder = {}
    for name, class_words in words.items():
        class_texts = [text.strip() for text in class_words.split(";")]
        unknown = [text for text in class_texts if text not in classes]
        if name not in folders or unknown:
            problem = f"no folder is of '{name}'" if name not in folders else f"no class is called '{unknown[0]}'"
            raise UserError(f"the files in {directory} contradict each other: {problem}; unpack them again")
        classes_by_folder[folders[name]] = frozenset(index for text in class_texts for index in classes[text])
    return classes_by_folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); unpack it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; unpack it again")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read: {why}. --mappings=DIR is the directory `mappings` of ObjectNet's download"
        ) from error
