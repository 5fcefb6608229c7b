"""Labels that are probably wrong, by confident learning, and error rates without them.

Northcutt, Jiang & Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", JAIR 70; the code is
cleanlab's. An image counts as confidently of a class where its probability of that class is at least the mean that
images with this label have (eq. 2). From how many images of each label are confidently of each class, the confident
joint (eq. 1), follows how many of each pair of classes to suspect (sec. 3.2).

Probabilities must be of images that the network was not trained on. A suspect is a disagreement between label and
network, and only a look at the image says which of the two is wrong: the worse the network, the more of its own
mistakes are among the suspects. And since what is suspected is what these networks get wrong, their error without the
suspects is too low; it says how much the suspects matter, not how good the networks are. Verdicts of people, on all
suspects and without knowing who said what, are what corrects a rate.
"""

import csv
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped

from imagenet_repro.config import Data, build_section
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.scoring.metrics import GUESSES, ErrorRates
from imagenet_repro.scoring.predictions import Predictions, format_ids

NO_LABEL = -2  # unlike every class and unlike -1, which is no guess
VERDICTS = ("keep", "suggested", "both", "neither")

Filter = Literal["prune_by_noise_rate", "both"]
Rank = Literal["normalized_margin", "self_confidence"]


@dataclasses.dataclass(frozen=True)
class Suspects:
    """Images whose labels are probably wrong, the most suspect first.

    Attributes:
      image: their rows among all images.
      given: their labels.
      suggested: the most probable other class.
      of_given, of_suggested: probabilities of both.
      wrong_share: of all labels, the share that is wrong by the estimated joint distribution of labels and true
        classes; not the share of suspects, though the two are close.
    """

    image: Int32[np.ndarray, " s"]
    given: Int32[np.ndarray, " s"]
    suggested: Int32[np.ndarray, " s"]
    of_given: Float32[np.ndarray, " s"]
    of_suggested: Float32[np.ndarray, " s"]
    wrong_share: float

    def __len__(self) -> int:
        return len(self.image)


@dataclasses.dataclass(frozen=True)
class ReferenceLabels:
    """What counts as right.

    Attributes:
      name: for a table.
      labels: of each image one that is right; a second one where two are, else -2.
      counted: which images count at all.
    """

    name: str
    labels: Int32[np.ndarray, "n 2"]
    counted: Bool[np.ndarray, " n"]

    def wrong(self, top5: Int32[np.ndarray, "n k"], guesses: int) -> Bool[np.ndarray, " m"]:
        """Whether each image that counts has none of its labels among the first guesses."""
        right = (top5[:, :guesses, None] == self.labels[:, None]).any(axis=(1, 2))
        return ~right[self.counted]

    def rates(self, top5: Int32[np.ndarray, "n k"]) -> ErrorRates:
        """Both error rates over the images that count; raises UserError where none does."""
        return ErrorRates(int(self.counted.sum()), *(int(self.wrong(top5, k).sum()) for k in (1, GUESSES)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What people decided on one image; `suggested` is the class that they were shown beside the label."""

    verdict: str
    suggested: int


# --- suspects ---------------------------------------------------------------------------------------------------


def mean_probabilities(members: Sequence[Predictions]) -> Float32[np.ndarray, "n c"]:
    """The mean of the members' probabilities; their images are the same and in one order.

    Raises:
      UserError: scores of an image hold NaN, or are all -inf.
    """
    total = np.zeros(members[0].logits.shape, np.float32)
    for one in members:
        scores = one.logits.astype(np.float32)
        with np.errstate(invalid="ignore"):  # of rows that are all -inf
            scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        bad = ~np.isfinite(scores).all(axis=1)
        if bad.any():
            raise UserError(
                f"no probabilities follow from the scores of {format_ids(one.id[bad])}: they hold NaN or no score"
            )
        total += scores
    return total / np.float32(len(members))


def find_suspects(
    labels: Int32[np.ndarray, " n"],
    probable: Float32[np.ndarray, "n c"],
    *,
    filter_by: Filter = "prune_by_noise_rate",
    rank_by: Rank = "normalized_margin",
) -> Suspects:
    """Suspects by confident learning.

    Args:
      labels: class indices, at least two different ones.
      probable: probabilities of every class, of images that were not trained on.
      filter_by: `prune_by_noise_rate` suspects for each pair of classes as many images as the confident joint has, by
        rising margin between the two; `both` only those of them that are also among the least probable of their
        label (Northcutt et al. 2021, sec. 3.2).
      rank_by: `normalized_margin` is the probability of the label less that of the best other class,
        `self_confidence` the former alone (sec. 3.2); lowest first.

    Raises:
      UserError: the labels do not allow it.
    """
    from cleanlab import count, filter  # two seconds of import

    _check_labels(labels)
    joint = count.compute_confident_joint(labels, probable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a line for each class that has no image
        image = filter.find_label_issues(
            labels, probable, confident_joint=joint, filter_by=filter_by, return_indices_ranked_by=rank_by, n_jobs=1
        )
    image = np.asarray(image, np.int32)
    rows = probable[image]  # a copy
    each, given = np.arange(len(image)), labels[image]
    of_given = rows[each, given]
    rows[each, given] = -1.0
    suggested = rows.argmax(axis=1).astype(np.int32)
    share = 1.0 - float(np.trace(joint) / joint.sum())
    return Suspects(image, given, suggested, of_given, rows[each, suggested], share)


def _check_labels(labels: Int32[np.ndarray, " n"]) -> None:
    if np.any(labels < 0):
        raise UserError("these predictions are of images without labels, which nobody can have got wrong")
    if len(np.unique(labels)) < 2:
        raise UserError("all images have one label; confident learning needs two classes at least")


# --- what they are of -------------------------------------------------------------------------------------------


def check_not_trained_on(where: str, provenance: dict[str, Any], scored: str = "") -> None:
    """Raises UserError where images of predictions may be among those that the network was trained on.

    Parts of one split, such as train[:90%] and train[90%:], are told apart where the data set is prepared here.

    Args:
      where: names the predictions.
      provenance: of them; of an ensemble's members all are looked at.
      scored: the split of the images; empty: any that the configuration evaluates.
    """
    configs = list(data_sections(provenance))
    if not configs:
        raise UserError(
            f"{where} does not say which images its network was trained on; `main.py evaluate` writes that"
        )
    for config in configs:
        scored_splits = (
            [scored] if scored else [config.eval_split, *([config.test_split] if config.test_split else [])]
        )
        for split in scored_splits:
            _refuse_shared(where, config, split)


def data_sections(value: Any) -> Iterator[Data]:
    """Of every configuration that provenance holds, at any depth."""
    if isinstance(value, list):
        for one in value:
            yield from data_sections(one)
    if not isinstance(value, dict):
        return
    config = value.get("config")
    if isinstance(config, dict) and isinstance(config.get("data"), dict):
        yield build_section(Data, config["data"])
        return
    for one in value.values():
        yield from data_sections(one)


def _refuse_shared(where: str, data: Data, scored: str) -> None:
    if not _whole_splits(data.train_split) & _whole_splits(scored):
        return
    try:
        shared = sources.overlap(data, data.train_split, scored)
    except UserError as error:
        raise UserError(f"whether {where} is of images that were trained on cannot be told: {error}") from error
    if shared:
        raise UserError(
            f"{where} is of {scored}, and the network was trained on {data.train_split}: of images that a network has"
            " learned it says what their labels say. Audit predictions of a validation split, or of a part of the"
            " training split that was held out"
        )


def _whole_splits(split: str) -> set[str]:
    """The splits that an expression such as `train[:90%]+test` takes parts of."""
    return {part.strip() for part in re.sub(r"\[[^]]*\]", "", split).split("+")}


# --- what counts as right ---------------------------------------------------------------------------------------


def given_labels(labels: Int32[np.ndarray, " n"]) -> ReferenceLabels:
    """The labels as they are."""
    return ReferenceLabels("labels as given", _with_second(labels), np.ones(len(labels), bool))


def without_suspects(labels: Int32[np.ndarray, " n"], suspects: Suspects) -> ReferenceLabels:
    """The labels as they are, of images that are not suspects."""
    counted = np.ones(len(labels), bool)
    counted[suspects.image] = False
    return ReferenceLabels("without suspects", _with_second(labels), counted)


def corrected_by_verdicts(
    ids: Shaped[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], verdicts: dict[str, Verdict]
) -> ReferenceLabels:
    """The labels as people corrected them; of images without a verdict as they are.

    `keep`: the label is right; `suggested`: the class shown beside it; `both`: either; `neither`: the image does not
    count (the answers of Northcutt, Athalye & Mueller 2021, "Pervasive label errors in test sets").

    Raises:
      UserError: a verdict is of an image that is not there.
    """
    places = {id: row for row, id in enumerate(ids.tolist())}
    unknown = np.array([id for id in verdicts if id not in places])
    if len(unknown):
        raise UserError(f"verdicts on images that these predictions are not of: {format_ids(unknown)}")
    corrected, counted = _with_second(labels), np.ones(len(labels), bool)
    for id, one in verdicts.items():
        row = places[id]
        counted[row] = one.verdict != "neither"
        if one.verdict == "suggested":
            corrected[row, 0] = one.suggested
        if one.verdict == "both":
            corrected[row, 1] = one.suggested
    return ReferenceLabels("by verdicts", corrected, counted)


def _with_second(labels: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, "n 2"]:
    return np.stack([labels, np.full_like(labels, NO_LABEL)], axis=1)


def read_verdicts(path: str | Path, classes: int) -> dict[str, Verdict]:
    """By id, a CSV with the columns `id`, `suggested` (class index) and `verdict`; rows without a verdict count not.

    That is `suspects.csv` of an audit with a column more; other columns are not read.

    Raises:
      UserError: the file cannot be read, lacks a column, names an image twice, or has another verdict or class.
    """
    found: dict[str, Verdict] = {}
    for line, row in _rows(path):
        verdict = row["verdict"].strip().lower()
        if not verdict:
            continue
        if verdict not in VERDICTS:
            raise UserError(f"{path}, line {line}: verdict '{verdict[:40]}'; {nearest(verdict, VERDICTS)}")
        if row["id"] in found:
            raise UserError(f"{path}, line {line}: a second verdict on {row['id']}")
        suggested = row["suggested"].strip()
        if not re.fullmatch(r"[0-9]{1,9}", suggested) or int(suggested) >= classes:
            raise UserError(f"{path}, line {line}: suggested '{suggested[:40]}' is not one of the {classes:,} classes")
        found[row["id"]] = Verdict(verdict, int(suggested))
    if not found:
        raise UserError(f"{path} holds no verdict; its column 'verdict' takes {', '.join(VERDICTS)}")
    return found


def _rows(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of each line after the heading."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the verdicts {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    reader = csv.DictReader(io.StringIO(text), restval="")
    missing = [name for name in ("id", "suggested", "verdict") if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; suspects.csv has all but 'verdict'")
    for row in reader:
        yield reader.line_num, row
