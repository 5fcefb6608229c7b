"""Labels that are probably wrong, found by confident learning, and error rates without them.

Northcutt, Jiang & Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", JAIR 70; the
implementation is cleanlab's. An image counts as confidently of a class if its probability of that class is at least
the mean over the images with this label (eq. 2). The confident joint (eq. 1) counts how many images of each label are
confidently of each class, and gives how many of each pair of classes to suspect (sec. 3.2).

Probabilities must be for images that the network was not trained on. A suspect is a disagreement between label and
network, and only looking at the image shows which of the two is wrong: the worse the network, the more suspects are
its own mistakes. Because suspects are images that these networks get wrong, their error without the
suspects is too low. It shows how much the suspects matter, not how good the networks are. Only verdicts of people
on all suspects, who do not know each system's guess, correct an error rate.
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

NO_SECOND_LABEL = -2  # differs from every class and from -1, which is no guess
VERDICTS = ("keep", "suggested", "both", "neither")

Filter = Literal["prune_by_noise_rate", "both"]
Rank = Literal["normalized_margin", "self_confidence"]


@dataclasses.dataclass(frozen=True)
class Suspects:
    """Images whose labels are probably wrong, the most suspect first.

    Attributes:
      image: row of each suspect among all images.
      given: label of each suspect.
      suggested: most probable other class.
      of_given, of_suggested: probabilities of both classes.
      wrong_share: share of all labels that is wrong by the estimated joint distribution of labels and true classes. It
        is close to the share of suspects but not the same.
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
    """Labels against which error rates are counted.

    Attributes:
      name: name for a table.
      labels: a right label of each image, and a second one if two are right, else -2.
      counted: whether each image counts at all.
    """

    name: str
    labels: Int32[np.ndarray, "n 2"]
    counted: Bool[np.ndarray, " n"]

    def wrong(self, top5: Int32[np.ndarray, "n k"], guesses: int) -> Bool[np.ndarray, " m"]:
        """Return whether each image that counts has none of its labels among the first guesses."""
        right = (top5[:, :guesses, None] == self.labels[:, None]).any(axis=(1, 2))
        return ~right[self.counted]

    def rates(self, top5: Int32[np.ndarray, "n k"]) -> ErrorRates:
        """Return both error rates over the images that count; raise UserError if none does."""
        return ErrorRates(int(self.counted.sum()), *(int(self.wrong(top5, k).sum()) for k in (1, GUESSES)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict of people on one image; `suggested` is the class that they were shown beside the label."""

    verdict: str
    suggested: int


# --- suspects ---------------------------------------------------------------------------------------------------


def mean_probabilities(members: Sequence[Predictions]) -> Float32[np.ndarray, "n c"]:
    """Return the mean of the members' probabilities; their images are the same and in one order.

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
                f"the scores of {format_ids(one.id[bad])} give no probabilities: they hold NaN, or all are -inf"
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
    """Find labels that are probably wrong, by confident learning.

    Args:
      labels: class indices, with at least two different ones.
      probable: probabilities of every class, for images that were not trained on.
      filter_by: `prune_by_noise_rate` suspects the number of images of each pair of classes that the confident joint
        gives, by rising margin between the two. `both` suspects only those of them that are also among the least
        probable of their label (Northcutt et al. 2021, sec. 3.2).
      rank_by: `normalized_margin` ranks by the label's probability minus that of the best other class,
        `self_confidence` by the label's probability alone (sec. 3.2); lowest first.

    Raises:
      UserError: labels are missing, or all are the same.
    """
    from cleanlab import count, filter  # its import takes two seconds

    _check_labels(labels)
    joint = np.asarray(count.compute_confident_joint(labels, probable))
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
        raise UserError("these predictions are for images without labels, so there are no labels to audit")
    if len(np.unique(labels)) < 2:
        raise UserError("all images have the same label; confident learning needs at least two classes")


# --- images trained on-----------------------------------------------------------------------------------------


def check_not_trained_on(where: str, provenance: dict[str, Any], scored: str = "") -> None:
    """Raise UserError if images of predictions may be among those that the network was trained on.

    Parts of one split, such as train[:90%] and train[90%:], can be distinguished if the data set is prepared on this
    machine.

    Args:
      where: name of the predictions in messages.
      provenance: their provenance; for an ensemble all members are checked.
      scored: split of the images; empty: any split that the configuration evaluates.
    """
    configs = list(data_sections(provenance))
    if not configs:
        raise UserError(
            f"{where} does not state which images its network was trained on; files of `main.py evaluate` do"
        )
    for config in configs:
        scored_splits = (
            [scored] if scored else [config.eval_split, *([config.test_split] if config.test_split else [])]
        )
        for split in scored_splits:
            _refuse_shared(where, config, split)


def data_sections(value: Any) -> Iterator[Data]:
    """Yield the data section of every configuration in provenance, at any depth."""
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
        raise UserError(f"cannot check whether {where} has images that were trained on: {error}") from error
    if shared:
        raise UserError(
            f"{where} is of {scored}, and the network was trained on {data.train_split}: on images that it has"
            " learned, a network repeats their labels. Audit predictions for a validation split, or for a part of"
            " the training split that was held out"
        )


def _whole_splits(split: str) -> set[str]:
    """Return the splits that an expression such as `train[:90%]+test` takes parts of."""
    return {part.strip() for part in re.sub(r"\[[^]]*\]", "", split).split("+")}


# --- reference labels ---------------------------------------------------------------------------------------


def given_labels(labels: Int32[np.ndarray, " n"]) -> ReferenceLabels:
    """Return the labels as they are."""
    return ReferenceLabels("labels as given", _with_second(labels), np.ones(len(labels), bool))


def without_suspects(labels: Int32[np.ndarray, " n"], suspects: Suspects) -> ReferenceLabels:
    """Return the labels as they are, for images that are not suspects."""
    counted = np.ones(len(labels), bool)
    counted[suspects.image] = False
    return ReferenceLabels("without suspects", _with_second(labels), counted)


def corrected_by_verdicts(
    ids: Shaped[np.ndarray, " n"], labels: Int32[np.ndarray, " n"], verdicts: dict[str, Verdict]
) -> ReferenceLabels:
    """Return the labels as people corrected them; images without a verdict keep theirs.

    `keep`: the label is right. `suggested`: the class shown beside it is right. `both`: either is right. `neither`:
    the image does not count. These are the answers of Northcutt, Athalye & Mueller 2021, "Pervasive label errors in
    test sets".

    Raises:
      UserError: a verdict is for an unknown image.
    """
    places = {id: row for row, id in enumerate(ids.tolist())}
    unknown = np.array([id for id in verdicts if id not in places])
    if len(unknown):
        raise UserError(f"verdicts for images without predictions: {format_ids(unknown)}")
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
    return np.stack([labels, np.full_like(labels, NO_SECOND_LABEL)], axis=1)


def read_verdicts(path: str | Path, class_names: Sequence[str]) -> dict[str, Verdict]:
    """Read verdicts by image id from a CSV file with the columns `id`, `suggested` (class index) and `verdict`.

    Rows without a verdict are ignored. The file is an audit's `suspects.csv` with one more column. If it still has the
    column `suggested_name`, the class is the one of that name, since another audit may have counted the classes in
    another order.

    Args:
      path: the file.
      class_names: readable names of the classes by index, as in the page of the audit.

    Raises:
      UserError: the file cannot be read, lacks a column, names an image twice, or has another verdict or class.
    """
    index = {name: number for number, name in enumerate(class_names)}
    verdicts: dict[str, Verdict] = {}
    for line, row in _rows(path):
        verdict = row["verdict"].strip().lower()
        if not verdict:
            continue
        if verdict not in VERDICTS:
            raise UserError(f"{path}, line {line}: verdict '{verdict[:40]}'; {nearest(verdict, VERDICTS)}")
        if row["id"] in verdicts:
            raise UserError(f"{path}, line {line}: a second verdict on {row['id']}")
        suggested, name = row["suggested"].strip(), row.get("suggested_name", "")
        if name == f"class {suggested}":  # the predictions that were audited had no names of classes
            name = ""
        if not re.fullmatch(r"[0-9]{1,9}", suggested) or int(suggested) >= len(class_names):
            classes = f"the {len(class_names):,} classes"
            raise UserError(f"{path}, line {line}: suggested '{suggested[:40]}' is not one of {classes}")
        if name and name not in index:
            raise UserError(f"{path}, line {line}: the predictions have no class '{name}'; were others audited?")
        verdicts[row["id"]] = Verdict(verdict, index[name] if name else int(suggested))
    if not verdicts:
        raise UserError(f"{path} holds no verdict; the column 'verdict' takes {', '.join(VERDICTS)}")
    return verdicts


def _rows(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells of each row after the heading."""
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
