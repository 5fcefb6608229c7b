"""The four methods of `main.py probe`: each fits, selects on held-out images, and scores a split."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from imagenet_repro.config.probe import Probe
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.inference.feature_extractor import FeatureExtractor
from imagenet_repro.probes import knn, linear_heads, logistic, ridge, stored_head
from imagenet_repro.probes.device_blocks import DeviceBlocks
from imagenet_repro.probes.head_checkpoint import HeadCheckpoint
from imagenet_repro.probes.linear_heads import HeadGrid, Params
from imagenet_repro.probes.stored_features import FeatureRows, StoredFeatures, take
from imagenet_repro.probes.stored_head import StoredHead
from imagenet_repro.report.progress import show_progress
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates, best_classes, is_wrong
from imagenet_repro.scoring.predictions import Predictions, to_float16
from imagenet_repro.statistics import crossed_effects
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, NEW_IMAGES_AND_DRAWS
from imagenet_repro.storage import user

METHODS = ("linear", "knn", "logistic", "fewshot")


@dataclasses.dataclass(frozen=True)
class Scored:
    """One classifier on the scored split.

    Attributes:
      setting: what distinguishes it from the method's others, such as "k = 20".
      rates: on the scored split; of a mean over draws, those of all draws together.
      held_out: wrong images and all images of the held-out part, top-1; None where nothing was selected.
      predictions: of the scored split; None where they are not kept. One for each draw.
      wrong_by_draw: of several draws, whether each image is wrong with one guess and with five, [2, draws, images];
        None for a single classifier.
    """

    setting: str
    rates: ErrorRates
    held_out: tuple[int, int] | None = None
    predictions: tuple[Predictions, ...] = ()
    wrong_by_draw: Bool[np.ndarray, "2 r n"] | None = None

    def to_json(self, files: Sequence[str]) -> dict[str, Any]:
        """Return the row of the file of results; `files` are the names of the files of predictions.

        The intervals of several draws are for new images and new draws (`statistics.crossed_effects`), the others for
        new images; the entry `interval_population` says so.
        """
        rates = self.rates
        wrong = (rates.top1_wrong, rates.top5_wrong)
        if self.wrong_by_draw is not None and self.wrong_by_draw.shape[1] > 1:
            population = NEW_IMAGES_AND_DRAWS
            intervals = [
                crossed_effects.error_intervals(crossed_effects.summarize([one]))[0].tolist()
                for one in self.wrong_by_draw
            ]
        else:
            population = NEW_IMAGES
            intervals = [list(binomial_interval(count, rates.images)) for count in wrong]
        row: dict[str, Any] = {"setting": self.setting, "predictions": list(files), "images": rates.images}
        row["interval_population"] = population
        for name, count, interval in zip(("top1", "top5"), wrong, intervals, strict=True):
            row |= {f"{name}_wrong": count, f"{name}_error": count / rates.images, f"{name}_interval": interval}
        if self.held_out is not None:
            row["held_out_wrong"], row["held_out_images"] = self.held_out
        if self.wrong_by_draw is not None:
            row["draws"] = [float(share) for share in self.wrong_by_draw[0].mean(axis=1)]
        return row


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """The result of a method.

    Attributes:
      layer: of the features that were read; of the selected head for `linear`.
      scored: the classifiers that the table shows.
      selected: the number among them of the one that held-out images selected; None where nothing is selected.
      tried: the number of classifiers that were compared for the selection.
      claimed: wrong images, top-1, of the classifier that the scored split itself would have selected.
      claimed_setting: what distinguishes that classifier.
      details: more numbers, as JSON values.
      head: the selected linear head, to be stored.
    """

    layer: str
    scored: tuple[Scored, ...]
    selected: int | None = None
    tried: int = 1
    claimed: int | None = None
    claimed_setting: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    head: StoredHead | None = None

    def to_json(self, files: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Return the entry of the file of results; `files` are the names of each classifier's files of predictions."""
        entry: dict[str, Any] = {
            "layer": self.layer,
            "rows": [one.to_json(names) for one, names in zip(self.scored, files, strict=True)],
        }
        if self.selected is not None:
            entry |= {
                "selected": self.selected,
                "tried": self.tried,
                "claimed_wrong": self.claimed,
                "claimed_setting": self.claimed_setting,
                "selected_wrong": self.details.get("wrong_before_refit", self.scored[self.selected].rates.top1_wrong),
            }
        return entry | self.details


@dataclasses.dataclass(frozen=True)
class Features:
    """Everything that a method reads.

    Attributes:
      extractor: the network.
      settings: of the command.
      split: the training images.
      train: their stored features; only the first rows are there if random crops alone need them.
      scored: the stored features of the scored split.
      provenance: of predictions.
    """

    extractor: FeatureExtractor
    settings: Probe
    split: Split
    train: StoredFeatures
    scored: StoredFeatures
    provenance: dict[str, Any]

    @property
    def layer(self) -> str:
        """The layer that is read by all methods but `linear`.

        Raises UserError where the network has no such layer.
        """
        layers, name = self.extractor.layers, self.settings.layer or "pooled"
        if name not in layers:
            network = self.extractor.config.model.name
            raise UserError(f"--probe.layer={name}: {network} has no such features; {nearest(name, layers)}")
        return name

    @property
    def n_held_out(self) -> int:
        """The number of training rows, from the first on, that are held out."""
        return n_held_out(self.settings, self.split.num_examples)

    def train_rows(self, parts: Sequence[str] = ()) -> FeatureRows:
        """Return all training rows."""
        return self.train.rows(parts or self.extractor.layers[self.layer])

    def fitted_rows(self, parts: Sequence[str] = ()) -> FeatureRows:
        """Return the training rows that are not held out."""
        return self.train.rows(parts or self.extractor.layers[self.layer], start=self.n_held_out)

    def held_out_rows(self, parts: Sequence[str] = ()) -> FeatureRows:
        """Return the held-out training rows."""
        return self.train.rows(parts or self.extractor.layers[self.layer], stop=self.n_held_out)

    def scored_rows(self, parts: Sequence[str] = ()) -> FeatureRows:
        """Return the rows of the scored split."""
        return self.scored.rows(parts or self.extractor.layers[self.layer])


def n_held_out(settings: Probe, images: int) -> int:
    """Return the number of training images that are held out.

    Raises:
      UserError: none would be held out, or none would be left.
    """
    count = round(settings.held_out * images)
    if not 0 < count < images:
        raise UserError(
            f"--probe.held_out={settings.held_out:g} of {images} training images is {count}: both parts need some"
        )
    return count


class _Scores:
    """Gathers the scores of one classifier, block by block, and returns them in the order of the split."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(
        self, label: Int[np.ndarray, " n"], index: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n c"]
    ) -> None:
        self._parts.append((label, index, best_classes(scores), to_float16(scores)))

    def scored(self, setting: str, features: Features, held_out: tuple[int, int] | None = None) -> Scored:
        predictions = self.predictions(features, setting)
        return Scored(setting, predictions.error_rates(), held_out, (predictions,))

    def predictions(self, features: Features, setting: str) -> Predictions:
        label, index, top5, logits = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        order = np.argsort(index)
        ids = _ids(features.scored)[index[order]]
        source = features.provenance | {"probe": setting, "left_out": features.scored.images - len(label)}
        return Predictions(ids, label[order].astype(np.int32), top5[order], logits[order], source)


def _ids(stored: StoredFeatures) -> np.ndarray:
    """Return the id of every image by its number in the split."""
    parts = [stored.read(shard, ("index", "id")) for shard in range(stored.shards)]
    index, ids = (np.concatenate([part[name] for part in parts]) for name in ("index", "id"))
    return ids[np.argsort(index)]


# --- linear ----------------------------------------------------------------------------------------------------


def linear(features: Features) -> MethodResult:
    """Train the grid of heads, select one on held-out images, and score it; or score a stored head."""
    settings, extractor = features.settings.linear, features.extractor
    if settings.head:
        return _score_stored_head(features)
    layers, parts = grid_layers(extractor.layers)
    held_out, scored = features.held_out_rows(parts), features.scored_rows(parts)
    columns = {name: held_out.columns(layer) for name, layer in layers.items()}
    grid = HeadGrid(columns, settings.learning_rates, features.split.num_classes, features.settings.seed)
    checkpoint = _checkpoint(features, grid)
    params = _train_heads(features, grid, parts, checkpoint)
    on_held_out, on_scored = (linear_heads.score(grid, params, rows) for rows in (held_out, scored))
    best, optimistic = on_held_out.best, int(np.argmin(on_scored.wrong[:, 0]))
    head = grid.heads[best]
    part, weight, bias = linear_heads.one_head(grid, params, best)
    scores = _Scores()
    for block in scored.blocks():
        scores.add(block.label, block.index, _affine(block.features[:, part], weight, bias))
    checkpoint.remove()
    heads = [
        {
            "layer": one.layer,
            "learning_rate": one.learning_rate,
            "held_out_wrong": int(on_held_out.wrong[number, 0]),
            "wrong": int(on_scored.wrong[number, 0]),
        }
        for number, one in enumerate(grid.heads)
    ]
    return MethodResult(
        head.layer,
        (
            scores.scored(
                f"rate {head.learning_rate:g}", features, (int(on_held_out.wrong[best, 0]), on_held_out.images)
            ),
        ),
        selected=0,
        tried=len(grid.heads),
        claimed=int(on_scored.wrong[optimistic, 0]),
        claimed_setting=str(grid.heads[optimistic]),
        details={"heads": heads},
        head=StoredHead(
            weight, bias, head.layer, head.learning_rate, features.split.class_names, features.train.network_hash
        ),
    )


def _checkpoint(features: Features, grid: HeadGrid) -> HeadCheckpoint:
    """Return the checkpoint of a training, beside the features that it reads."""
    settings = features.settings.linear
    dependencies = {
        "features": features.train.description,
        "held_out": features.n_held_out,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "momentum": settings.momentum,
        "crops": settings.crops,
    }
    return HeadCheckpoint(features.train.directory, grid, dependencies)


def _train_heads(features: Features, grid: HeadGrid, parts: Sequence[str], checkpoint: HeadCheckpoint) -> Params:
    """Return the trained heads; a training that was interrupted continues from its checkpoint."""
    settings, seed = features.settings.linear, features.settings.seed
    start = checkpoint.load() or grid.initial_state()
    first, n_left, state = start.step, settings.steps - start.step, start
    if first:
        print(f"linear: continues after step {first:,} of {settings.steps:,} from {checkpoint.path}")
    if settings.crops == "random":
        batches: Iterator[Any] = features.extractor.random_batches(
            features.split,
            parts,
            batch_size=settings.batch_size,
            seed=seed,
            first_row=features.n_held_out,
            steps=n_left,
            start_step=first,
        )
    else:
        batches = linear_heads.shuffled_batches(features.fitted_rows(parts), settings.batch_size, seed, first)
    with show_progress(f"linear: {len(grid.heads)} heads", n_left, "steps") as show:
        for state in linear_heads.train(
            grid,
            batches,
            steps=settings.steps,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            start=start,
        ):
            show(1)
            checkpoint.save_if_due(state)
    return state.params


def _score_stored_head(features: Features) -> MethodResult:
    """Score the head in a file."""
    path, extractor = user.expand(features.settings.linear.head), features.extractor
    widths = {name: sum(extractor.widths[part] for part in parts) for name, parts in extractor.layers.items()}
    network = extractor.config.model.name
    head = stored_head.load(path).fitted_to(
        path, widths, features.scored.network_hash, network, features.split.class_names
    )
    scores = _Scores()
    for block in features.scored_rows(extractor.layers[head.layer]).blocks():
        scores.add(block.label, block.index, head.scores(block.features))
    scored = scores.scored(f"rate {head.learning_rate:g}", features)
    return MethodResult(head.layer, (scored,), details={"head": str(path)})


def grid_layers(layers: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return the layers on which heads are trained, and the parts that all of them together read, in order.

    With a class token they are the last block and the last four, each without and with the mean of the patches, as in
    DINOv2's evaluation; without one the pooled features alone.
    """
    with_tokens = {name: layer for name, layer in layers.items() if name.startswith("class_token")}
    chosen = with_tokens or {"pooled": layers["pooled"]}
    return chosen, max(chosen.values(), key=len)


def _affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.asarray(logistic.logits(jnp.asarray(weight), jnp.asarray(bias), jnp.asarray(x)))


# --- k-NN ------------------------------------------------------------------------------------------------------


def nearest_neighbours(features: Features) -> MethodResult:
    """Score the weighted vote for every k; held-out images select one k."""
    settings, classes = features.settings.knn, features.split.num_classes
    knn.check(settings, len(features.fitted_rows().labels()[0]))
    wrong, images = dict.fromkeys(settings.k, 0), 0
    fitted, held_out = features.fitted_rows(), features.held_out_rows()
    with show_progress("knn: held-out images", features.n_held_out) as show:
        for votes in knn.votes(fitted, held_out, settings, classes, show):
            images += len(votes.label)
            for k, scores in votes.scores.items():
                wrong[k] += int(is_wrong(best_classes(scores), votes.label, 1).sum())
    gathered = {k: _Scores() for k in settings.k}
    with show_progress("knn: scored images", features.scored.images) as show:
        for votes in knn.votes(features.train_rows(), features.scored_rows(), settings, classes, show):
            for k, scores in votes.scores.items():
                gathered[k].add(votes.label, votes.index, scores)
    scored = tuple(gathered[k].scored(f"k = {k}", features, (wrong[k], images)) for k in settings.k)
    selected = min(range(len(scored)), key=lambda number: wrong[settings.k[number]])
    return MethodResult(features.layer, scored, selected, len(scored), *_claim(scored))


def _claim(scored: Sequence[Scored]) -> tuple[int, str]:
    best = min(scored, key=lambda one: one.rates.top1_wrong)
    return best.rates.top1_wrong, best.setting


# --- logistic regression ---------------------------------------------------------------------------------------


def logistic_regression(features: Features) -> MethodResult:
    """Search for the strength of regularisation on held-out images, fit all training images with it, and score."""
    settings, classes = features.settings.logistic, features.split.num_classes
    fitted = DeviceBlocks(features.fitted_rows(), is_split=True)

    def fit_one(strength: float, start: logistic.Fit | None) -> logistic.Fit:
        return logistic.fit(fitted, strength, settings, num_classes=classes, start=start)

    def error_of(fit: logistic.Fit) -> int:
        return _count_wrong(features.held_out_rows(), fit)

    fits, errors = [], []
    with show_progress("logistic: search for the strength", logistic.n_fits(settings), "fits") as show:
        for fit, error in logistic.search(fit_one, error_of, settings):
            fits.append(fit)
            errors.append(error)
            show(1)
    chosen = fits[logistic.select(errors, [fit.strength for fit in fits])]
    images = len(features.held_out_rows().labels()[0])
    scored_wrong = [_count_wrong(features.scored_rows(), fit) for fit in fits]
    optimistic = int(np.argmin(scored_wrong))
    every = DeviceBlocks(features.train_rows(), is_split=True)
    final = logistic.fit(every, chosen.strength, settings, num_classes=classes, start=chosen)
    scores = _Scores()
    for block in features.scored_rows().blocks():
        scores.add(block.label, block.index, final.scores(block.features))
    searched = [
        {
            "strength": fit.strength,
            "iterations": fit.iterations,
            "has_converged": fit.has_converged,
            "held_out_wrong": error,
            "wrong": wrong,
        }
        for fit, error, wrong in zip(fits, errors, scored_wrong, strict=True)
    ]
    return MethodResult(
        features.layer,
        (scores.scored(f"lambda = {final.strength:.3g}", features, (min(errors), images)),),
        selected=0,
        tried=len(fits),
        claimed=scored_wrong[optimistic],
        claimed_setting=f"lambda = {fits[optimistic].strength:.3g}",
        details={
            "search": searched,
            "final": {"iterations": final.iterations, "has_converged": final.has_converged},
            "wrong_before_refit": scored_wrong[fits.index(chosen)],
        },
    )


def _count_wrong(rows: FeatureRows, fit: logistic.Fit) -> int:
    return sum(
        int(is_wrong(best_classes(fit.scores(block.features)), block.label, 1).sum()) for block in rows.blocks()
    )


# --- few shots -------------------------------------------------------------------------------------------------


def few_shots(features: Features) -> MethodResult:
    """Fit ridge regressions on a few images of each class, in several draws, and score them."""
    settings, split = features.settings.fewshot, features.split
    labels, index = features.train_rows().labels()
    order = np.argsort(index)
    labels, index = labels[order], index[order]
    runs = [(shots, seed) for shots in settings.shots for seed in range(settings.draws)]
    chosen = {run: ridge.draw(labels, *run, split.class_names) for run in runs}
    needed = np.unique(np.concatenate(list(chosen.values())))
    rows = take(features.train_rows(), index[needed])
    fits = {}
    with show_progress("fewshot: fits", len(runs), "fits") as show:
        for run, places in chosen.items():
            drawn = rows[np.searchsorted(needed, places)]
            fits[run] = ridge.fit(drawn, labels[places], split.num_classes, settings.l2)
            show(1)
    gathered = {run: _Scores() for run in runs}
    with show_progress("fewshot: scored images", features.scored.images) as show:
        for block in features.scored_rows().blocks():
            for run, fit in fits.items():
                gathered[run].add(block.label, block.index, fit.scores(block.features))
            show(len(block.label))
    return MethodResult(
        features.layer, tuple(_mean_of_draws(shots, settings.draws, gathered, features) for shots in settings.shots)
    )


def _mean_of_draws(shots: int, draws: int, gathered: dict[tuple[int, int], _Scores], features: Features) -> Scored:
    """Return the draws of one number of shots; their rates are counted over all draws together."""
    setting = f"{shots} shot{'s' if shots > 1 else ''}"
    predictions = tuple(
        gathered[shots, seed].predictions(features, f"{setting}, draw {seed}") for seed in range(draws)
    )
    rates = [one.error_rates() for one in predictions]
    together = ErrorRates(
        *(sum(getattr(rate, key) for rate in rates) for key in ("images", "top1_wrong", "top5_wrong"))
    )
    wrong = np.stack([[is_wrong(one.top5, one.label, guesses) for one in predictions] for guesses in (1, GUESSES)])
    return Scored(setting, together, None, predictions, wrong)


RUN: dict[str, Callable[[Features], MethodResult]] = {
    "linear": linear,
    "knn": nearest_neighbours,
    "logistic": logistic_regression,
    "fewshot": few_shots,
}
