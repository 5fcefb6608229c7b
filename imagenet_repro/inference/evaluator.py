"""Evaluation of a system on a split: every image exactly once, with predictions per image."""

import collections
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from imagenet_repro.config import AnyConfig, Data
from imagenet_repro.data import crops, image_index, loader
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import SCORING_KEYS, Batch, padding
from imagenet_repro.data.crops import CropSpec
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Split
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.predictions import Collector, Predictions, merge
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import EvalStep

IN_FLIGHT = 2  # batches given to the devices before the results of the oldest are read; few, to bound their memory


class Evaluator:
    """Evaluates states of one system on one split; compiles at the first call, or before, and reuses the program.

    Args:
      config: the run's configuration.
      score: function of parameters, statistics and uint8 images that returns the scores of every class.
      spread: distribution of batches over devices.
      split: the images.
      say: called with one line of text about records that cannot be decoded.
      crop: crop of each image; None: the configuration's `eval_crop`.
      show: called after every batch with its number of images, over all processes.

    Attributes:
      batch_size: images of a batch over all devices.
      compilation_seconds: seconds spent on compilation; 0 before the first call.
    """

    def __init__(
        self,
        config: AnyConfig,
        score: Callable[..., Any],
        spread: Spread,
        split: Split,
        say: Callable[[str], None] = print,
        *,
        crop: CropSpec | None = None,
        show: Callable[[int], None] | None = None,
    ):
        self._config, self._split, self._crop = config, split, crop or config.eval_crop
        self.score, self.spread, self.say = score, spread, say
        self._show = show or (lambda images: None)
        self.compilation_seconds = 0.0
        self._read_images: list[tuple[np.ndarray, ...]] = []  # index, id and size of each batch
        self._step = EvalStep(score)
        self._compiled: Callable | None = None
        self.batch_size = config.data.eval_batch_size or config.batch_size
        spread.check_batch_size(self.batch_size, 1, "data.eval_batch_size")

    def on(self, split: Split, data: Data, show: Callable[[int], None]) -> "Evaluator":
        """Return an evaluator for another split, read as `data` says, that reuses the compiled program."""
        other = copy.copy(self)
        other._split, other._show, other._read_images = split, show, []
        other._config = dataclasses.replace(self._config, data=data)
        return other

    def compile(self, state: TrainState) -> Callable:
        """Return the compiled step, which later evaluations use.

        Args:
          state: a state, or its shapes.

        Raises:
          jax.errors.JaxRuntimeError: the compiler says that the step needs more memory than there is.
        """
        return self._compiled or self._compile(state, self.blank_batch(self.batch_size))

    def compile_for(self, state: TrainState, batch_size: int) -> Callable:
        """Return the step compiled for another number of images, which no evaluation uses; see `compile`."""
        return self.spread.compile_evaluation(self._step, state, self.blank_batch(batch_size))

    def blank_batch(self, batch_size: int) -> dict[str, jax.Array]:
        """Return a batch of black images on the devices, with the shapes of the split's batches."""
        shape = crops.output_shape(self._crop, self._config.data.size_evaluated)
        batch = padding(batch_size // jax.process_count(), shape)
        return self.spread.put_batch({name: batch[name] for name in SCORING_KEYS})

    def rates(self, state: TrainState) -> dict[str, Any]:
        """Return both error rates of a state, as a row of `metrics.jsonl`."""
        began = time.perf_counter()
        return metrics_row(self._evaluate(state, None), time.perf_counter() - began, self._split)

    def predict(self, state: TrainState, provenance: dict[str, Any]) -> tuple[ErrorRates, Predictions]:
        """Return both error rates, and the predictions for all processes' images in the order of the split.

        The provenance of the predictions also holds the names of the classes, under `classes`, and the number of
        records that could not be decoded and have no prediction, under `left_out`. The index of the split's images
        is stored on the way, since it takes no further reading.
        """
        collector = Collector()
        self._read_images.clear()
        rates = self._evaluate(state, collector)
        left_out = self._split.num_examples - rates.images
        share = collector.predictions(provenance | {"classes": list(self._split.class_names), "left_out": left_out})
        self._store_index()
        if jax.process_count() == 1:
            return rates, share
        return rates, _merge_processes(share)

    def scores(self, state: TrainState) -> Iterator[tuple[Batch, Float[np.ndarray, "b c"]]]:
        """Yield each batch, without its images, with the scores of every class for this process's rows.

        Rows of weight 0 are padding or could not be decoded, and their scores mean nothing.
        """
        for host, counts, predictions in self._results(state, collected=True):
            yield host, np.asarray(self.spread.local_rows(predictions["logits"]))
            self._show(int(counts["images"]) + int((host["replaced"] >= 0).sum()))

    def _store_index(self) -> None:
        """Store the index of the images that all processes have read, if that is the whole split."""
        columns = [np.concatenate(column) for column in zip(*self._read_images, strict=True)]
        self._read_images.clear()
        if image_index.stored_records(self._split) is None:
            return
        if jax.process_count() > 1:
            shares = _gather(columns)
            columns = [np.concatenate(column) for column in zip(*shares, strict=True)]
        positions, ids, sizes = columns
        order = np.argsort(positions)
        is_complete = np.array_equal(positions[order], np.arange(self._split.num_examples))
        if is_complete and jax.process_index() == 0:
            image_index.store(self._split, image_index.ImageIndex(ids[order], sizes[order]))

    def _evaluate(self, state: TrainState, collector: Collector | None) -> ErrorRates:
        totals: dict[str, float] = {}
        for host, counts, predictions in self._results(state, collected=collector is not None):
            for name, value in jax.device_get(counts).items():
                totals[name] = totals.get(name, 0) + value.item()
            if collector is not None:
                self._collect(collector, host, predictions)
            self._show(int(counts["images"]))
        return ErrorRates.from_counts(totals, totals["cross_entropy"])

    def _results(self, state: TrainState, *, collected: bool) -> Iterator[tuple[Batch, Any, Any]]:
        """Yield each batch with its counts and its predictions, while the devices work on the batches after it.

        `collected` says whether the predictions are read as well as the counts.
        """
        params, stats = state.evaluated
        bad = BadRecords(self._split, self._config.data, self.say)
        pending: collections.deque = collections.deque()
        for host, device in self._batches():
            compiled = self._compiled or self._compile(state, device)
            counts, predictions = compiled(params, stats, device)
            for array in jax.tree.leaves((counts, predictions if collected else ())):
                array.copy_to_host_async()
            bad.update(host)
            bad.check()
            pending.append((host, counts, predictions))
            if len(pending) > IN_FLIGHT:
                yield pending.popleft()
        yield from pending

    def _compile(self, state: TrainState, batch: dict[str, jax.Array]) -> Callable:
        began = time.perf_counter()
        self._compiled = self.spread.compile_evaluation(self._step, state, batch)
        self.compilation_seconds = time.perf_counter() - began
        return self._compiled

    def _batches(self) -> Iterator[tuple[Batch, dict[str, jax.Array]]]:
        batches = loader.eval_batches(
            self._split,
            self._config.data,
            self._crop,
            batch_size=self.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return prefetch_to_device(
            batches, lambda batch: self.spread.put_batch({name: batch[name] for name in SCORING_KEYS})
        )

    def _collect(self, collector: Collector, host: Batch, predictions: dict[str, jax.Array]) -> None:
        is_read = host["index"] >= 0
        self._read_images.append((host["index"][is_read], host["id"][is_read], host["size"][is_read]))
        top5, logits = (self.spread.local_rows(predictions[name]) for name in ("top5", "logits"))
        collector.add(host["id"].tolist(), host["label"], top5, logits, host["weight"])


def metrics_row(rates: ErrorRates, seconds: float, split: Split) -> dict[str, Any]:
    """Return error rates on a split that took `seconds` to measure, as a row of `metrics.jsonl`."""
    return {
        "top1_error": rates.top1_error,
        "top5_error": rates.top5_error,
        "cross_entropy": rates.cross_entropy,
        "top1_wrong": rates.top1_wrong,
        "top5_wrong": rates.top5_wrong,
        "evaluated": rates.images,
        "left_out": split.num_examples - rates.images,
        "evaluation_seconds": seconds,
    }


def _merge_processes(share: Predictions) -> Predictions:
    """Return all processes' predictions on every process."""
    gathered = _gather([share.id, share.label, share.top5, share.logits])
    return merge([Predictions(ids, label, top5, logits, share.provenance) for ids, label, top5, logits in gathered])


def _gather(columns: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Return the arrays of each process on every process; they are padded to one length for the transfer."""
    lengths = multihost_utils.process_allgather(np.asarray(len(columns[0])))
    longest = int(lengths.max())

    def gather(array: np.ndarray) -> list[np.ndarray]:
        if array.dtype.kind == "U":
            return gather_texts(array)
        padded = np.zeros((longest, *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        everywhere = multihost_utils.process_allgather(padded)
        return [one[:length] for one, length in zip(everywhere, lengths, strict=True)]

    def gather_texts(texts: np.ndarray) -> list[np.ndarray]:
        width = int(multihost_utils.process_allgather(np.asarray(texts.dtype.itemsize)).max()) // 4
        letters = gather(texts.astype(f"U{width}").view(np.uint32).reshape(len(texts), width))
        return [np.ascontiguousarray(one).view(f"U{width}").reshape(len(one)) for one in letters]

    return [list(of_process) for of_process in zip(*map(gather, columns), strict=True)]
