"""Predict the classes of image files by a run's checkpoint or by published weights."""

import contextlib
import csv
import dataclasses
import io
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from imagenet_repro import pretrained
from imagenet_repro.config import AnyConfig, replace_keys
from imagenet_repro.data import image_files
from imagenet_repro.data.prepare import names
from imagenet_repro.data.sources import Split
from imagenet_repro.data.thumbnails import thumbnail
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.inference import protocols
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.inference.protocol_evaluator import even_batch_size
from imagenet_repro.report import predictions_page
from imagenet_repro.report.predictions_page import ShownImage
from imagenet_repro.report.progress import show_progress
from imagenet_repro.runs.evaluate import configure_evaluation, with_divisible_batch, with_evaluated_size
from imagenet_repro.runs.loaded_network import count_classes
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.runs.results import PredictionResult
from imagenet_repro.scoring import class_names, sets, wordnet
from imagenet_repro.storage import files
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, state, systems
from imagenet_repro.training.systems import NetworkSystem, System
from imagenet_repro.training.systems.network import describe_loaded

_DATA_KEYS = ("eval_batch_size", "eval_image_size", "threads", "workers")
_PRINTED = 1_000  # images on the terminal
_PRINTED_WITH_FILE = 20  # of them where a file has all
_NAMED = 20  # files that the message about unreadable ones names


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The forms in which predictions are written.

    Attributes:
      top: the number of classes for each image.
      csv: path of a table of all images; None: no table.
      page: path of an HTML page; None: no page.
    """

    top: int
    csv: str | None
    page: str | None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A system that predicts, in the state that does it.

    Attributes:
      system: with the configuration that prepares images.
      train_state: on the devices.
      classes: names by class index.
      title: what it is, for a person.
    """

    system: System
    train_state: state.TrainState
    classes: tuple[str, ...]
    title: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The predicted classes of an image.

    Attributes:
      path: of the file.
      classes: indices, the most probable first.
      shares: probabilities, or scores of a system whose scores are no logits.
      problem: why there are none; empty where there are.
    """

    path: str
    classes: Sequence[int] = ()
    shares: Sequence[float] = ()
    problem: str = ""


def predict(
    workdir: str | Path,
    images: Sequence[str | Path],
    *,
    which: str = "last",
    top: int = 5,
    csv: str | None = None,
    page: str | None = None,
    data: Mapping[str, str] | None = None,
) -> PredictionResult:
    """Predict the classes of images by a checkpoint of a run; print, write and return them.

    Args:
      workdir: the workdir of a run, which need not be finished.
      images: paths of files and folders.
      which: "best", "last" or a step.
      top: the number of classes for each image.
      csv: path of a table of all images; None: no table.
      page: path of an HTML page; None: no page.
      data: keys of the section `data` to replace, as texts: those on how images are read.

    Raises:
      UserError: there is no image, or the run lacks the checkpoint.
      SaveError: a file cannot be written.
    """
    found = image_files.find(list(map(str, images)))
    run = Workdir(workdir)
    config = _configured(run.config(), data or {}, len(found.paths))
    classes = trained_classes(run)
    system = systems.create_system(run.as_computed(config), classes)
    restored = restore(run, system, system.initial_state(), which)
    title = f"step {restored.step:,} of the run in {run.path}"
    predictor = Predictor(system, system.scoring_state(system.spread.put_state(restored.state)), classes, title)
    return _predict(predictor, found, Outputs(top, csv, page))


def predict_weights(
    path: str,
    images: Sequence[str | Path],
    *,
    name: str = "",
    options: dict[str, Any] | None = None,
    preprocess: dict[str, str] | None = None,
    top: int = 5,
    csv: str | None = None,
    page: str | None = None,
    data: Mapping[str, str] | None = None,
) -> PredictionResult:
    """Predict the classes of images by a file of weights, computed in float32; print, write and return them.

    Args:
      path: a file of weights, a model's directory, `package:NAME` or `hub:USER/NAME`.
      images: paths of files and folders.
      name: the network, or published weights of it; empty: the one that the file states, with its options.
      options: options of the network, which override those of the file.
      preprocess: keys of the images' preprocessing to replace, as texts (pretrained/preprocessing.py).
      top: as `predict`.
      csv: as `predict`.
      page: as `predict`.
      data: as `predict`.

    Raises:
      UserError: there is no image, or the file cannot be read, is of another network, or has no classes.
      SaveError: a file cannot be written.
    """
    found = image_files.find(list(map(str, images)))
    weights = pretrained.read(path)
    network = pretrained.select(weights, name, options, preprocess)
    config = configure_evaluation(network.name, network.options, network.preprocessing)
    config = with_evaluated_size(_configured(config, data or {}, len(found.paths)))
    count = count_classes(weights, network.name, config.model.options)
    if not count:
        raise UserError(f"{path} has no classes: its network ends in features. `main.py probe` judges these")
    classes, note = weights.class_names, ""
    if not classes:
        is_imagenet = count == sets.CLASSES
        classes = sets.imagenet_wnids() if is_imagenet else class_names.numbered(count)
        note = (
            pretrained.IMAGENET_ORDER if is_imagenet else f"{path} names no classes; they are called by their numbers"
        )
    system = NetworkSystem.create(config, count, weights)
    assert system.loaded is not None, "weights were given"
    for line in (describe_loaded(system.loaded), note, f"{network.name}; {network.describe_images()}"):
        if line:
            print(line)
    predictor = Predictor(system, system.initial_state(), tuple(classes), f"{network.name}, {path}")
    return _predict(predictor, found, Outputs(top, csv, page))


def _configured(config: AnyConfig, data: Mapping[str, str], n_images: int) -> Any:
    """Return a configuration that reads files: any number may be unreadable, and a batch is no larger than needed.

    As many images as a batch of the run are scored in its batches, and so with the same bits as by `evaluate`.
    """
    for key in data:
        if key not in _DATA_KEYS:
            raise UserError(f"--data.{key} has no effect on image files; {nearest(key, _DATA_KEYS)}")
    keys = {f"data.{key}": value for key, value in data.items()} | {"data.max_bad_share": "1.0"}
    config = replace_keys(config, keys)
    devices.start()
    config = with_divisible_batch(config)
    largest = config.data.eval_batch_size or config.batch_size
    batch = even_batch_size(n_images, largest, jax.device_count()) if n_images < largest else largest
    return replace_keys(config, {"data.eval_batch_size": str(batch)})


def _predict(predictor: Predictor, found: image_files.Found, outputs: Outputs) -> PredictionResult:
    """Predict, print, write, and return the predictions of all images."""
    readable = tuple(map(names.printable, wordnet.readable_names(predictor.classes)))
    split = image_files.as_split(found.paths, predictor.classes)
    left_out = [names.printable(one) for one in found.unreadable]
    printed: list[Prediction] = []
    shown: list[ShownImage] = []
    collected = _Collected(min(outputs.top, len(predictor.classes)))
    limit = _PRINTED_WITH_FILE if outputs.csv else _PRINTED
    is_share = predictor.system.scores_are_logits
    began = time.perf_counter()
    with show_progress("predicting", split.num_examples) as show, _table(outputs, is_share) as write_row:
        evaluator = _create_evaluator(predictor.system, split, show)
        for index, prediction in enumerate(_predictions(predictor, evaluator, outputs.top)):
            write_row(prediction, readable)
            if prediction.problem:
                left_out.append(f"{names.printable(prediction.path)}: {prediction.problem}")
                continue
            collected.add(prediction)
            if len(printed) < limit:
                printed.append(prediction)
            if outputs.page and len(shown) < predictions_page.SHOWN:
                guesses = _guesses(prediction, readable, is_share)
                shown.append(ShownImage(names.printable(prediction.path), thumbnail(split.records[index]), guesses))
    seconds = time.perf_counter() - began - evaluator.compilation_seconds
    n_images = len(collected.paths)
    _print(printed, readable, is_share)
    if n_images > len(printed):
        print(f"… and {n_images - len(printed):,} more images" + ("" if outputs.csv else "; --csv=FILE has all"))
    if outputs.page:
        predictions_page.write(Path(outputs.page), shown, n_images=n_images, title=predictor.title, left_out=left_out)
    _summarise(predictor.title, n_images, seconds, found, outputs)
    _report_left_out(left_out)
    return collected.result(predictor, tuple(left_out))


class _Collected:
    """The predictions of all images, in 12 bytes for each class of an image besides the paths.

    Args:
      width: the number of classes for each image.
    """

    def __init__(self, width: int):
        self._width = width
        self.paths: list[str] = []
        self._classes, self._shares = array("i"), array("d")

    def add(self, prediction: Prediction) -> None:
        """Add the prediction of one more image."""
        self.paths.append(prediction.path)
        self._classes.extend(prediction.classes)
        self._shares.extend(prediction.shares)

    def result(self, predictor: Predictor, left_out: tuple[str, ...]) -> PredictionResult:
        """Return the predictions of the images so far."""
        classes, shares = (
            np.array(values, kind).reshape(-1, self._width)
            for values, kind in ((self._classes, np.int32), (self._shares, np.float64))
        )
        names_of_classes = tuple(wordnet.readable_names(predictor.classes))
        return PredictionResult(predictor.title, tuple(self.paths), classes, shares, names_of_classes, left_out)


def _create_evaluator(system: System, split: Split, show: Callable[[int], None]) -> Evaluator:
    """Return the evaluator that `evaluate` uses without another protocol, for image files."""
    parts = protocols.parse(protocols.OWN_PROTOCOL)
    parts = parts if system.scores_are_logits else protocols.for_scores(parts)
    return Evaluator(
        system.config,
        protocols.scorer(parts, system, 1.0),
        system.spread,
        split,
        lambda line: None,  # the reasons are given together, at the end
        crop=protocols.host_crops(parts, system.config, 1.0),
        show=show,
    )


def _predictions(predictor: Predictor, evaluator: Evaluator, top: int) -> Iterator[Prediction]:
    """Yield the prediction for each file, in order, batch by batch."""
    for batch, scores in evaluator.scores(predictor.train_state):
        classes, shares = most_probable(scores, top, predictor.system.scores_are_logits)
        for row in np.flatnonzero(batch["index"] >= 0):
            path = str(batch["id"][row])
            if batch["weight"][row]:
                yield Prediction(path, classes[row].tolist(), shares[row].tolist())
            else:
                yield Prediction(path, problem=image_files.problem(path) or "it could not be read, and can be now")


def most_probable(scores: Float[np.ndarray, "b c"], top: int, are_logits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the classes with the highest scores, [b, k], and their probabilities, or their scores.

    Ties go to the lower class.

    Args:
      scores: of every class.
      top: the number of classes, k; fewer if there are not as many.
      are_logits: whether the softmax of the scores is a probability.
    """
    values = scores.astype(np.float64)
    best = np.argsort(-values, axis=1, kind="stable")[:, :top]
    if are_logits:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return best, np.take_along_axis(values, best, axis=1)


@contextlib.contextmanager
def _table(outputs: Outputs, is_share: bool) -> Iterator[Any]:
    """Yield a function that writes the row of an image to the CSV file, if there is one.

    Columns are `file`, then `class_1`, `index_1` and `probability_1` (or `score_1`) and so on, and `error`.
    """
    if not outputs.csv:
        yield lambda prediction, readable: None
        return
    value = "probability" if is_share else "score"
    columns = [f"{name}_{rank + 1}" for rank in range(outputs.top) for name in ("class", "index", value)]
    with files.atomic_write(Path(outputs.csv), "the table of predictions") as file:
        # Paths keep their bytes, which need not be UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text)
        writer.writerow(["file", *columns, "error"])

        def write(prediction: Prediction, readable: Sequence[str]) -> None:
            pairs = zip(prediction.classes, prediction.shares, strict=True)
            cells = [cell for one, share in pairs for cell in (readable[one], one, f"{share:.6g}")]
            padding = [""] * (len(columns) - len(cells))
            writer.writerow([prediction.path, *cells, *padding, prediction.problem])

        yield write
        text.flush()
        text.detach()


def _guesses(prediction: Prediction, readable: Sequence[str], is_share: bool) -> list[tuple[str, str]]:
    pairs = zip(prediction.classes, prediction.shares, strict=True)
    return [(readable[one], f"{100 * share:.1f} %" if is_share else f"{share:.3g}") for one, share in pairs]


def _print(predictions: Sequence[Prediction], readable: Sequence[str], is_share: bool) -> None:
    """Print a table with a line for each image and class."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", box=None, pad_edge=False)
    table.add_column("probability" if is_share else "score", justify="right")
    for prediction in predictions:
        name = names.printable(prediction.path)
        for guess, share in _guesses(prediction, readable, is_share):
            table.add_row(Text(name, overflow="fold"), Text(guess, overflow="fold"), share)
            name = ""
    if predictions:
        Console().print(table)


def _summarise(title: str, n_images: int, seconds: float, found: image_files.Found, outputs: Outputs) -> None:
    written = [place for place in (outputs.csv, outputs.page) if place]
    after = f"; written: {', '.join(written)}" if written else ""
    print(
        f"{title}: {n_images:,} images in {seconds:,.1f} s, {n_images / seconds:,.1f} images/s without compilation"
        + after
    )
    if found.n_ignored:
        print(f"{found.n_ignored:,} files have no ending of an image file and were left out", file=sys.stderr)


def _report_left_out(left_out: Sequence[str]) -> None:
    """Print the files that could not be read."""
    if not left_out:
        return
    more = f"\n  … and {len(left_out) - _NAMED:,} more" if len(left_out) > _NAMED else ""
    named = "".join(f"\n  {one}" for one in left_out[:_NAMED])
    unread = f"{len(left_out):,} files or folders" if len(left_out) > 1 else "1 file or folder"
    print(f"{unread} could not be read and have no prediction:{named}{more}", file=sys.stderr)
