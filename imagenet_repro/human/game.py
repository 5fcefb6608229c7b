"""The human as one more system: a person's five guesses on images of a split, stored like any other predictions.

Which images, and in which order, follows from the seed. Every answer is on the disk before the next image is shown, so
that a game may be left, or killed, at any moment and gone on with. Whoever plays learns nothing of the right labels
before the end: not from an image's name, not from its metadata, and not from being told.

The rules are those of A. Karpathy's study ("What I learned from competing against a ConvNet on ImageNet", 2014;
Russakovsky et al. 2015): five guesses by falling confidence, 13 images of any class from the training split
at hand.
"""

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagenet_repro.data import thumbnails
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage import files, provenance

SETTING = "game.json"
ANSWERS = "answers.jsonl"
SIDE, QUALITY = 640, 92  # of the image shown: pixels of the shorter side at most, and of JPEG
RECENT = 20  # answers, from whose median time the time left follows
ENOUGH = 3  # answers, before it is told


class RefusedError(Exception):
    """An answer that is not taken; the message is for the person."""


class LateError(RefusedError):
    """An answer on another image than the one that is shown."""


class Game:
    """One person's guesses in one directory; not for several threads at once.

    Args:
      split: of the images, with labels.
      place: the directory.
      images: how many are drawn; a game may be gone on with for more or for fewer.
      seed: draws them.
      name: of the person.

    Raises:
      UserError: the directory holds another game, or is damaged; the split has no labels or not so many images.
      SaveError: it cannot be written.
    """

    def __init__(self, split: Split, place: Path, *, images: int, seed: int, name: str):
        self.split, self.images, self.name = split, images, name
        self._seed, self._place = seed, place
        if not 1 <= images <= len(split.records):
            raise UserError(f"--images={images}: {split.name} {split.split} has {len(split.records):,} images")
        self._order = np.random.default_rng(seed).permutation(len(split.records))[:images]
        self._settle()
        self._answers = self._read()
        self._image, self._shown_at = b"", None
        self._advance()

    @property
    def position(self) -> int:
        """Of the image that is to be guessed next; equal to `images` at the end."""
        return min(len(self._answers), self.images)

    @property
    def guessed(self) -> int:
        """Images with guesses; those that could not be decoded have none."""
        return len(self._taken())

    @property
    def seconds_left(self) -> float | None:
        """By the median of the last answers; None as long as there are too few."""
        recent = [one["seconds"] for one in self._taken() if one["seconds"] is not None][-RECENT:]
        if len(recent) < ENOUGH:
            return None
        return statistics.median(recent) * (self.images - self.position)

    def image(self) -> bytes:
        """The image to be guessed, as JPEG; empty at the end. A person's time counts from the first call."""
        self._shown_at = self._shown_at or time.monotonic()
        return self._image

    def answer(self, position: int, guesses: Sequence[Any]) -> None:
        """Takes the guesses on the image at a position, class indices, best first; the same ones again change nothing.

        Raises:
          LateError: another image is shown, or this one has other guesses already.
          RefusedError: they are not one to five different classes.
          SaveError: they could not be written, and are not taken.
        """
        self._check(guesses)
        if 0 <= position < self.position and self._answers[position]["guesses"] == list(guesses):
            return
        if position != self.position or position >= self.images:
            raise LateError(f"image {position + 1} is not the one to be guessed now; reload the page")
        record = self.split.records[int(self._order[position])]
        seconds = round(time.monotonic() - self._shown_at, 1) if self._shown_at else None
        self._append({"position": position, "id": record.id, "guesses": list(guesses), "seconds": seconds})
        self._advance()

    def predictions(self) -> Predictions:
        """The guesses as stored predictions: scores of 5 to 1 in their order, -inf for all other classes.

        Raises:
          UserError: nothing was guessed, or an image is not the one that was guessed.
        """
        taken = self._taken()
        if not taken:
            raise UserError(f"{self._place}: nothing was guessed yet")
        classes = self.split.num_classes
        top5 = np.full((len(taken), min(GUESSES, classes)), -1, np.int32)
        logits = np.full((len(taken), classes), -np.inf, np.float16)
        for row, one in enumerate(taken):
            count = len(one["guesses"])
            top5[row, :count] = one["guesses"]
            logits[row, one["guesses"]] = np.arange(GUESSES, GUESSES - count, -1)
        labels = np.array([self._label(one) for one in taken], np.int32)
        return Predictions(np.array([one["id"] for one in taken]), labels, top5, logits, self._provenance())

    def _check(self, guesses: Sequence[Any]) -> None:
        most = min(GUESSES, self.split.num_classes)
        known = all(type(one) is int and 0 <= one < self.split.num_classes for one in guesses)
        if not known or not 1 <= len(guesses) <= most or len(set(guesses)) != len(guesses):
            raise RefusedError(f"one to {most} different classes are needed")

    def _advance(self) -> None:
        """To the next image that can be decoded; others are noted as passed over."""
        self._image, self._shown_at = b"", None
        while self.position < self.images and not self._image:
            record = self.split.records[int(self._order[self.position])]
            self._image = thumbnails.thumbnail(record, SIDE, QUALITY) or b""
            if not self._image:
                self._append({"position": self.position, "id": record.id, "guesses": None, "seconds": None})

    def _taken(self) -> list[dict[str, Any]]:
        return [one for one in self._answers[: self.images] if one["guesses"] is not None]

    def _label(self, answer: dict[str, Any]) -> int:
        record = self.split.records[int(self._order[answer["position"]])]
        if record.id != answer["id"]:
            raise UserError(f"{self._place / ANSWERS} has {answer['id']} where the data set now has {record.id}")
        if record.label < 0:
            raise UserError(f"{self.split.name} {self.split.split} has no labels; guesses on it cannot be scored")
        return record.label

    def _provenance(self) -> dict[str, Any]:
        seconds = [one["seconds"] for one in self._taken() if one["seconds"] is not None]
        return {
            "system": "human",
            "name": self.name,
            "data": {"name": self.split.name, "version": self.split.version, "split": self.split.split},
            "seed": self._seed,
            "images": self.images,
            "median_seconds": statistics.median(seconds) if seconds else None,
            "classes": list(self.split.class_names),
            "commit": provenance.commit(),
        }

    # --- the directory ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Writes what the game is, or refuses to go on with another."""
        path = self._place / SETTING
        split = self.split
        setting = {"data": split.name, "version": split.version, "split": split.split}
        setting |= {"size": len(split.records), "seed": self._seed, "name": self.name}
        if not path.exists():
            with files.whole(path, "the game") as file:
                file.write(json.dumps(setting, indent=1).encode() + b"\n")
            return
        try:
            before = json.loads(path.read_text())
            differ = [key for key in setting if before.get(key) != setting[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        if differ:
            lines = "".join(f"\n  {key}: {before.get(key)} there, {setting[key]} now" for key in differ)
            raise UserError(f"--workdir={self._place} holds another game:{lines}\nUse another --workdir")

    def _read(self) -> list[dict[str, Any]]:
        """Answers so far; a last line that was cut short is taken off the file."""
        path = self._place / ANSWERS
        try:
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(path, len(whole))
        except OSError as error:
            raise SaveError(f"{path} cannot be read or mended: {error.strerror}") from error
        return [self._parsed(path, number, line) for number, line in enumerate(whole.splitlines())]

    def _parsed(self, path: Path, number: int, line: bytes) -> dict[str, Any]:
        try:
            one = json.loads(line)
            answer = {key: one[key] for key in ("position", "id", "guesses", "seconds")}
            if answer["guesses"] is not None:
                self._check(answer["guesses"])
        except (ValueError, KeyError, TypeError, RefusedError) as error:
            raise UserError(f"{path}, line {number + 1} is damaged: {error}") from error
        if answer["position"] != number:
            raise UserError(
                f"{path}, line {number + 1} is of image {answer['position']}; a line is missing or doubled"
            )
        return answer

    def _append(self, answer: dict[str, Any]) -> None:
        path = self._place / ANSWERS
        try:
            with path.open("ab") as file:
                before = file.tell()
                try:
                    file.write(json.dumps(answer).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(path, before)
                    raise
        except OSError as error:
            raise SaveError(f"could not write the guesses to {path}: {error.strerror or error}") from error
        self._answers.append(answer)
