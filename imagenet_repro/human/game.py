"""Labelling game: a person's five guesses on images of a split, stored like the predictions of any other system.

The seed determines the images and their order. Every answer is on disk before the next image is shown, so a game can
be stopped or killed at any moment and resumed later. The player cannot learn the right labels before the end: neither
an image's name nor its metadata is sent, and no answer is marked as right or wrong.

The rules are those of A. Karpathy's study ("What I learned from competing against a ConvNet on ImageNet", 2014;
Russakovsky et al. 2015): five guesses in order of confidence, with 13 training images of any class for reference.
"""

import contextlib
import errno
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagenet_repro.data import thumbnails
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.scoring import class_names
from imagenet_repro.scoring.metrics import GUESSES
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage import files, provenance

GAME = "game.json"
ANSWERS = "answers.jsonl"
SIDE, QUALITY = 640, 92  # largest shorter side of the displayed image in pixels, and its JPEG quality
RECENT = 20  # number of recent answers whose median time predicts the time left
MIN_ANSWERS = 3  # number of answers from which on the time left is predicted


class InvalidAnswerError(Exception):
    """An answer that is rejected; the message is for the player."""


class StaleAnswerError(InvalidAnswerError):
    """An answer for another image than the current one."""


class Game:
    """The guesses of one player in one directory; not safe for use by several threads at once.

    Args:
      split: the labelled split from which images are drawn.
      directory: the directory of the game.
      n_images: number of images to draw; a resumed game may have more or fewer.
      seed: seed of the draw.
      name: name of the player.

    Raises:
      UserError: the directory holds another game or is damaged, or the split has too few images.
      SaveError: the directory cannot be written to.
    """

    def __init__(self, split: Split, directory: Path, *, n_images: int, seed: int, name: str):
        self.split, self.n_images, self.name = split, n_images, name
        self._seed, self._directory = seed, directory
        if not 1 <= n_images <= len(split.records):
            raise UserError(f"--images={n_images}: {split.name} {split.split} has {len(split.records):,} images")
        self._order = np.random.default_rng(seed).permutation(len(split.records))[:n_images]
        self._record_game()
        self._answers = self._read_answers()
        self._jpeg, self._shown_at = b"", None
        self._advance()

    @property
    def position(self) -> int:
        """The position of the current image; equal to `n_images` once all images are answered."""
        return min(len(self._answers), self.n_images)

    @property
    def n_guessed(self) -> int:
        """The number of images with guesses; images that cannot be decoded have none."""
        return len(self._guessed_answers())

    @property
    def seconds_left(self) -> float | None:
        """The predicted seconds until the end, from the median time of recent answers; None if there are too few."""
        recent = [answer["seconds"] for answer in self._guessed_answers() if answer["seconds"] is not None][-RECENT:]
        if len(recent) < MIN_ANSWERS:
            return None
        return statistics.median(recent) * (self.n_images - self.position)

    def current_image(self) -> bytes:
        """Return the current image as JPEG, empty at the end; the first call starts the time of its answer."""
        self._shown_at = self._shown_at or time.monotonic()
        return self._jpeg

    def answer(self, position: int, guesses: Sequence[Any]) -> None:
        """Record the guesses for the image at a position; repeating an earlier answer changes nothing.

        Args:
          position: the position of the image.
          guesses: one to five class indices, the most likely first.

        Raises:
          StaleAnswerError: another image is current, and this one has no answer or another one.
          InvalidAnswerError: the guesses are not one to five different classes.
          SaveError: the guesses could not be written, and are not recorded.
        """
        self._check_guesses(guesses)
        if 0 <= position < self.position and self._answers[position]["guesses"] == list(guesses):
            return
        if position != self.position or position >= self.n_images:
            raise StaleAnswerError(f"image {position + 1} is not the current image; reload the page")
        seconds = round(time.monotonic() - self._shown_at, 1) if self._shown_at else None
        self._append(
            {"position": position, "id": self._record(position).id, "guesses": list(guesses), "seconds": seconds}
        )
        self._advance()

    def predictions(self) -> Predictions:
        """Return the guesses as predictions, with scores from 5 down to 1 in their order, and -inf for others.

        Raises:
          UserError: there are no guesses, or the data set has changed since they were made.
        """
        answers = self._guessed_answers()
        if not answers:
            raise UserError(f"{self._directory}: there are no guesses yet")
        n_classes = self.split.num_classes
        top5 = np.full((len(answers), min(GUESSES, n_classes)), -1, np.int32)
        logits = np.full((len(answers), n_classes), -np.inf, np.float16)
        for row, answer in enumerate(answers):
            n_guesses = len(answer["guesses"])
            top5[row, :n_guesses] = answer["guesses"]
            logits[row, answer["guesses"]] = np.arange(GUESSES, GUESSES - n_guesses, -1)
        labels = np.array([self._label(answer) for answer in answers], np.int32)
        ids = np.array([answer["id"] for answer in answers])
        return Predictions(ids, labels, top5, logits, self._provenance())

    def _record(self, position: int) -> Record:
        return self.split.records[int(self._order[position])]

    def _check_guesses(self, guesses: Sequence[Any]) -> None:
        max_guesses = min(GUESSES, self.split.num_classes)
        are_classes = all(type(guess) is int and 0 <= guess < self.split.num_classes for guess in guesses)
        if not are_classes or not 1 <= len(guesses) <= max_guesses or len(set(guesses)) != len(guesses):
            raise InvalidAnswerError(f"one to {max_guesses} different classes are needed")

    def _advance(self) -> None:
        """Go to the next image that can be decoded, and record those that cannot as answers without guesses."""
        self._jpeg, self._shown_at = b"", None
        while self.position < self.n_images and not self._jpeg:
            record = self._record(self.position)
            self._jpeg = thumbnails.thumbnail(record, SIDE, QUALITY) or b""
            if not self._jpeg:
                self._append({"position": self.position, "id": record.id, "guesses": None, "seconds": None})

    def _guessed_answers(self) -> list[dict[str, Any]]:
        return [answer for answer in self._answers[: self.n_images] if answer["guesses"] is not None]

    def _label(self, answer: dict[str, Any]) -> int:
        record = self._record(answer["position"])
        if record.id != answer["id"]:
            raise UserError(
                f"{self._directory / ANSWERS} has image {answer['id']}, where the data set now has {record.id}"
            )
        if record.label < 0:
            raise UserError(f"{self.split.name} {self.split.split} has no labels; guesses on it cannot be scored")
        return record.label

    def _provenance(self) -> dict[str, Any]:
        seconds = [answer["seconds"] for answer in self._guessed_answers() if answer["seconds"] is not None]
        return {
            "system": "human",
            "name": self.name,
            "data": {"name": self.split.name, "version": self.split.version, "split": self.split.split},
            "seed": self._seed,
            "images": self.n_images,
            "median_seconds": statistics.median(seconds) if seconds else None,
            "classes": list(self.split.class_names),
            "commit": provenance.commit(),
        }

    # --- files of the directory -------------------------------------------------------------------------------

    def _record_game(self) -> None:
        """Write the record of a new game, or check that the recorded game is the same."""
        path = self._directory / GAME
        split = self.split
        game = {"data": split.name, "version": split.version, "split": split.split}
        game |= {"size": len(split.records), "seed": self._seed, "name": self.name}
        if not path.exists():
            recorded = game | {"classes": list(split.class_names)}
            with files.atomic_write(path, "the game") as file:
                file.write(json.dumps(recorded, indent=1).encode() + b"\n")
            return
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            differences = [key for key in game if recorded.get(key) != game[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        if differences:
            lines = "".join(f"\n  {key}: {recorded.get(key)} there, {game[key]} now" for key in differences)
            raise UserError(f"--workdir={self._directory} holds another game:{lines}\nUse another --workdir")
        classes = class_names.of_provenance(recorded)
        if classes and classes != split.class_names:  # the recorded guesses are indices of the recorded classes
            class_names.check_same_order(split.class_names, f"data set {split.name}", classes, f"the game in {path}")

    def _read_answers(self) -> list[dict[str, Any]]:
        """Return the recorded answers, and remove an incomplete last line from their file."""
        path = self._directory / ANSWERS
        try:
            content = path.read_bytes() if path.exists() else b""
            complete_lines = content[: content.rfind(b"\n") + 1]
            if complete_lines != content:
                os.truncate(path, len(complete_lines))
        except OSError as error:
            raise SaveError(f"{path} cannot be read or repaired: {error.strerror}") from error
        return [self._parse_answer(path, number, line) for number, line in enumerate(complete_lines.splitlines())]

    def _parse_answer(self, path: Path, number: int, line: bytes) -> dict[str, Any]:
        try:
            content = json.loads(line)
            answer = {key: content[key] for key in ("position", "id", "guesses", "seconds")}
            if answer["guesses"] is not None:
                self._check_guesses(answer["guesses"])
        except (ValueError, KeyError, TypeError, InvalidAnswerError) as error:
            raise UserError(f"{path}, line {number + 1} is damaged: {error}") from error
        if answer["position"] != number:
            raise UserError(
                f"{path}, line {number + 1} is for image {answer['position']}; a line is missing or duplicated"
            )
        return answer

    def _append(self, answer: dict[str, Any]) -> None:
        path = self._directory / ANSWERS
        try:
            line = json.dumps(answer).encode() + b"\n"
            with path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):  # the first error is the one to report
                        os.truncate(path, size)
                    raise
        except OSError as error:
            raise SaveError(f"could not write the guesses to {path}: {error.strerror or error}") from error
        self._answers.append(answer)
