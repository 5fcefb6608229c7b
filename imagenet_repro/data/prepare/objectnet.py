"""ObjectNet: its images without their borders, and which of ImageNet's classes its folders are.

ObjectNet (Barbu et al. 2019, "ObjectNet: a large-scale bias-controlled dataset for pushing the limits of object
recognition models") is unpacked from its download to `objectnet-1.0/images/FOLDER/*.png`, 313 folders named after
objects, of which 113 are among ImageNet's classes. A red border of one pixel marks every image as one that no network
may be trained on; its readme asks to cut it off before an image is judged.

Which folder is which class stands in four files beside the images, `objectnet-1.0/mappings/`:

| file | what |
|---|---|
| `folder_to_objectnet_label.json` | the object's name by the folder's |
| `objectnet_to_imagenet_1k.json` | the words of one or several ImageNet classes, separated by "; ", by object's name |
| `imagenet_to_label_2012_v2` | a line of words for each class |
| `pytorch_to_imagenet_2012_id.json` | the line, counted from 0, by class index |
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError

BORDER = 1  # pixels
NO_LABEL = -1  # an object may be several of ImageNet's classes, or none


@dataclasses.dataclass(frozen=True)
class Borderless(Sequence):
    """The records of ObjectNet without the images' borders and without labels.

    Attributes:
      records: as they were prepared.
    """

    records: Sequence[Record]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """Reads one record; an image that cannot be decoded stays as it is, for the loader to report."""
        record = self.records[index]
        return record._replace(image=_without_border(record.image), label=NO_LABEL)


def borderless(split: Split, class_names: Sequence[str]) -> Split:
    """ObjectNet as a network for other classes, of these names, is to see it."""
    return dataclasses.replace(split, class_names=tuple(class_names), records=Borderless(split.records))


def _without_border(image: bytes) -> bytes:
    try:
        pixels = decode(image)
    except DecodeError:
        return image
    inner = pixels[BORDER:-BORDER, BORDER:-BORDER]
    if inner.size == 0:
        return image
    _, encoded = cv2.imencode(".bmp", cv2.cvtColor(inner, cv2.COLOR_RGB2BGR))  # lossless, and decoded at once
    return encoded.tobytes()


def imagenet_classes(mappings: str | Path) -> dict[str, frozenset[int]]:
    """The class indices (WordNet ids sorted) that an object is, by its folder; folders of no class are absent.

    Args:
      mappings: the directory of the four files.

    Raises:
      UserError: a file is missing, damaged, or names what another does not know.
    """
    place = Path(mappings).expanduser()
    objects = _json(place / "folder_to_objectnet_label.json")
    words = _json(place / "objectnet_to_imagenet_1k.json")
    lines = {str(line): index for index, line in _json(place / "pytorch_to_imagenet_2012_id.json").items()}
    classes = defaultdict(set)
    for line, text in enumerate(_text(place / "imagenet_to_label_2012_v2").splitlines()):
        if str(line) in lines:
            classes[text.strip()].add(int(lines[str(line)]))
    folders = {name: folder for folder, name in objects.items()}
    found = {}
    for name, several in words.items():
        each = [text.strip() for text in several.split(";")]
        unknown = [text for text in each if text not in classes]
        if name not in folders or unknown:
            what = f"no folder is of '{name}'" if name not in folders else f"no class is called '{unknown[0]}'"
            raise UserError(f"the files in {place} contradict each other: {what}; unpack them again")
        found[folders[name]] = frozenset(index for text in each for index in classes[text])
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); unpack it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; unpack it again")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read: {why}. --mappings=DIR is the directory `mappings` of ObjectNet's download"
        ) from error
