"""The results that `train`, `evaluate` and `predict` return in Python."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from imagenet_repro.inference.protocols import ProtocolResult
from imagenet_repro.scoring.metrics import ErrorRates, format_rate
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.storage.workdir import PREDICTIONS, Workdir, system_name
from imagenet_repro.training import hosts, log
from imagenet_repro.training.budget import Spent


@dataclasses.dataclass(frozen=True)
class ErrorRate:
    """The error of one checkpoint with one guess or with five.

    Attributes:
      wrong: the number of wrong images.
      images: the number of scored images.
    """

    wrong: int
    images: int

    @property
    def error(self) -> float:
        """The share of the images that are wrong, in [0, 1]."""
        return self.wrong / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the error, in [0, 1], for new images and this checkpoint."""
        return binomial_interval(self.wrong, self.images)

    def __str__(self) -> str:
        error, interval = format_rate(self.wrong, self.images)
        return f"{error} % {interval}"

    def to_dict(self) -> dict[str, Any]:
        """Return counts, error and interval as JSON values."""
        return {"wrong": self.wrong, "images": self.images, "error": self.error, "interval": list(self.interval)}


class _WithRates:
    """Both error rates of a result that has `rates`."""

    rates: ErrorRates

    @property
    def top1(self) -> ErrorRate:
        """The top-1 error."""
        return ErrorRate(self.rates.top1_wrong, self.rates.images)

    @property
    def top5(self) -> ErrorRate:
        """The top-5 error."""
        return ErrorRate(self.rates.top5_wrong, self.rates.images)


@dataclasses.dataclass(frozen=True)
class TrainingResult(_WithRates):
    """The result of a finished run, which `result.json` in its workdir holds.

    Attributes:
      workdir: the directory of the run.
      name: the name that the user gave the system; without one, that of the network or of the challenge's entry.
      system: the network, or the entry.
      parameters: the number of trainable parameters.
      multiply_adds: of one image at the evaluated size.
      budget: the budget of the run, such as "90ep".
      spent: the amounts that training used, in every unit.
      rates: the counts of both error rates, and the cross-entropy in nats.
      compilation_seconds: the seconds of compilation, which no budget counts.
      energy: the energy of the training seconds in joules with its source; None: not measured.
      peak_memory: the largest memory, in bytes, and of what.
      left_out: the numbers of records of each split that could not be decoded.
      best_checkpoint: the evaluation that selected the best checkpoint; None: none was selected.
      classes: the names of the classes by index.
      predictions: the file of the predictions that the rates are counted from.
      provenance: configuration, commit, versions and devices.
    """

    workdir: Path
    name: str
    system: str
    parameters: int
    multiply_adds: int
    budget: str
    spent: Spent
    rates: ErrorRates
    compilation_seconds: float
    energy: Mapping[str, Any] | None
    peak_memory: Mapping[str, Any]
    left_out: Mapping[str, int]
    best_checkpoint: Mapping[str, Any] | None
    classes: tuple[str, ...]
    predictions: Path
    provenance: Mapping[str, Any] = dataclasses.field(repr=False)
    _content: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def read(cls, workdir: str | Path) -> "TrainingResult":
        """Return the result of the finished run in a workdir.

        Raises:
          UserError: the run has not finished, or its result is damaged.
        """
        run = Workdir(workdir)
        return cls._of(run.path, run.result())

    @classmethod
    def from_first_process(cls, workdir: Workdir) -> "TrainingResult":
        """Return the result in every process of a run; only the first one needs to see the file."""
        import jax

        return cls._of(workdir.path, hosts.from_first(workdir.result() if jax.process_index() == 0 else None))

    @classmethod
    def _of(cls, path: Path, content: Mapping[str, Any]) -> "TrainingResult":
        rates = {field.name: content["rates"][field.name] for field in dataclasses.fields(ErrorRates)}
        known = {field.name for field in dataclasses.fields(Spent)}
        return cls(
            workdir=path,
            name=system_name(content),
            system=content["system"],
            parameters=content["parameters"],
            multiply_adds=content["multiply_adds"],
            budget=content["provenance"]["config"]["budget"],
            spent=Spent(**{key: value for key, value in content["spent"].items() if key in known}),
            rates=ErrorRates(**rates),
            compilation_seconds=content.get("compilation_seconds", 0.0),
            energy=content.get("energy"),
            peak_memory=content.get("peak_memory", {}),
            left_out=content.get("left_out", {}),
            best_checkpoint=content.get("best_checkpoint"),
            classes=tuple(content.get("classes", ())),
            predictions=path / content.get("predictions", PREDICTIONS),
            provenance=content["provenance"],
            _content=content,
        )

    def curves(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl`: of kind "train" with a `loss`, of kind "eval" with both errors."""
        return log.read_rows(self.workdir / log.METRICS)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `result.json`."""
        return dict(self._content)

    def __str__(self) -> str:
        return (
            f"{self.name}: top-1 error {self.top1}, top-5 error {self.top5} on {self.rates.images:,} images, after"
            f" {self.spent.images:,} images and {self.spent.seconds:,.0f} s of training"
        )


@dataclasses.dataclass(frozen=True)
class EvaluationResult(_WithRates):
    """The errors of a checkpoint, or of a file of weights, by one protocol or several.

    Attributes:
      title: the checkpoint or the network that was scored.
      protocols: the result of each protocol, in the order in which they were asked for.
      selection: a sentence that calls the error optimistic, where the scored images chose the checkpoint; else empty.
    """

    title: str
    protocols: tuple[ProtocolResult, ...]
    selection: str = ""

    @property
    def rates(self) -> ErrorRates:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The counts of both error rates by the only protocol, or by the first one."""
        return self.protocols[0].rates

    @property
    def predictions(self) -> tuple[Path, ...]:
        """The files of predictions of that protocol; several for a set of several data sets."""
        return self.protocols[0].predictions

    def __getitem__(self, protocol: str) -> "EvaluationResult":
        """Return the result of one of several protocols by its name."""
        chosen = tuple(one for one in self.protocols if one.name == protocol)
        if not chosen:
            raise KeyError(protocol)
        return dataclasses.replace(self, protocols=chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        rows = [
            dataclasses.asdict(one)
            | {"top1": self[one.name].top1.to_dict(), "top5": self[one.name].top5.to_dict()}
            | {"predictions": list(map(str, one.predictions))}
            for one in self.protocols
        ]
        return {"title": self.title, "protocols": rows, "selection": self.selection}

    def __str__(self) -> str:
        rows = (
            f"{one.name}: top-1 error {self[one.name].top1}, top-5 error {self[one.name].top5}"
            f" on {one.rates.images:,} images"
            for one in self.protocols
        )
        return f"{self.title}\n" + "\n".join(rows)


@dataclasses.dataclass(frozen=True)
class PredictionResult:
    """The most probable classes of images, one row for each image that could be read.

    Attributes:
      title: the checkpoint or the weights that predicted.
      paths: the file of each image.
      classes: indices of classes, best first, [n, k].
      probabilities: of these classes, [n, k]; scores, for a system whose scores are no logits.
      class_names: the names of all classes by index.
      left_out: what could not be read, with the reason where there is one.
    """

    title: str
    paths: tuple[str, ...]
    classes: Int32[np.ndarray, "n k"] = dataclasses.field(repr=False)
    probabilities: Float64[np.ndarray, "n k"] = dataclasses.field(repr=False)
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Yield the path of each image with its guesses."""
        return ((path, self.guesses(row)) for row, path in enumerate(self.paths))

    def guesses(self, row: int) -> list[tuple[str, float]]:
        """Return the names of the best classes of an image with their probabilities, best first."""
        pairs = zip(self.classes[row].tolist(), self.probabilities[row].tolist(), strict=True)
        return [(self.class_names[index], value) for index, value in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return the guesses by path, and what could not be read, as JSON values."""
        return {
            "title": self.title,
            "images": {path: [list(guess) for guess in guesses] for path, guesses in self},
            "left_out": list(self.left_out),
        }
