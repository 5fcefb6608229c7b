"""Find suspect labels of a split, and report every error rate with and without them."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_repro.config import Data
from imagenet_repro.data import sources, thumbnails
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import EXIT_FINISHED, SaveError, UserError
from imagenet_repro.report import audit_page
from imagenet_repro.report.audit_page import AuditedSystem, LabelAudit
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import label_audit as auditing
from imagenet_repro.scoring import wordnet
from imagenet_repro.scoring.metrics import best_classes
from imagenet_repro.scoring.predictions import Predictions, align
from imagenet_repro.statistics.label_noise import IMAGENET_SHARE

SHOWN = 10  # suspects in the terminal
ROWS = 4096  # images sorted at once; 50,000 images of 1,000 classes would be half a gigabyte of order alone


@dataclasses.dataclass(frozen=True)
class _Given:
    """Predictions as the user named them."""

    name: str
    stored: StoredPredictions
    split: str  # that they are of; empty: not known beyond the provenance

    @property
    def predictions(self) -> Predictions:
        return self.stored.predictions

    @property
    def path(self) -> str:
        return str(self.stored.path)


def audit(
    paths: Sequence[str],
    *,
    compare: Sequence[str] = (),
    verdicts: str | None = None,
    out: str | None = None,
    filter_by: auditing.Filter = "prune_by_noise_rate",
    rank_by: auditing.Rank = "normalized_margin",
    wrong_share: float = IMAGENET_SHARE,
) -> int:
    """Writes the suspects and their page, and prints what was found; returns the exit code.

    Args:
      paths: files of predictions, or workdirs of finished runs, all of one split; their probabilities are averaged.
      compare: others of the same images, which are restated and compared pair by pair, and suspect nothing.
      verdicts: a file of people's verdicts on suspects; see `auditing.read_verdicts`.
      out: the directory for the page; None: the first run's workdir, or here.
      filter_by, rank_by: see `auditing.find`.
      wrong_share: of the labels, for what wrong labels do to a comparison.

    Raises:
      UserError: predictions are missing, of different images or labels, or of images that were trained on.
      SaveError: something cannot be written.
    """
    if not 0 < wrong_share < 0.5:
        raise UserError(f"--wrong_share={wrong_share:g}: a share between 0 and 0.5, such as 0.0583, is needed")
    place = Path(out) if out else Path(paths[0]) if Path(paths[0]).is_dir() else Path()
    if out and place.exists() and not place.is_dir():
        raise SaveError(f"--out={place} is a file; a directory is needed")
    auditors, compared = _read([*paths], [*compare])
    for one in auditors:
        auditing.check_not_trained_on(one.path, one.predictions.provenance, one.split)
    first = auditors[0].predictions
    probable = auditing.mean_probabilities([one.predictions for one in auditors])
    suspects = auditing.find_suspects(first.label, probable, filter_by=filter_by, rank_by=rank_by)
    truths = [auditing.given_labels(first.label), auditing.without_suspects(first.label, suspects)]
    decided = auditing.read_verdicts(verdicts, probable.shape[1]) if verdicts is not None else {}
    if decided:
        truths.append(auditing.corrected_by_verdicts(first.id, first.label, decided))
    split = _split(auditors[0])
    systems = tuple(AuditedSystem(one.name, one.predictions.top5) for one in auditors)
    if len(systems) > 1:
        systems += (AuditedSystem(f"mean of {len(systems)}", _top5(probable)),)
    found = LabelAudit(
        setting=_setting(auditors[0], split, filter_by, rank_by),
        class_names=_class_names(auditors[0], split),
        id=first.id,
        suspects=suspects,
        auditors=systems,
        compared=tuple(AuditedSystem(one.name, one.predictions.top5) for one in compared),
        truths=tuple(truths),
        verdicts=Counter(one.verdict for one in decided.values()),
        wrong_share=wrong_share,
        data=_data(first).name,
    )
    pictures = functools.partial(thumbnails.thumbnails_by_id, split) if split else None
    page = audit_page.write(found, place, pictures)
    _show(found, page)
    return EXIT_FINISHED


# --- reading ----------------------------------------------------------------------------------------------------


def _read(paths: list[str], compare: list[str]) -> tuple[list[_Given], list[_Given]]:
    """Both groups, all in one order of images; predictions that are in both are read once."""
    for group in (paths, compare):
        if len({Path(path).resolve() for path in group}) != len(group):
            raise UserError(f"predictions are named twice: {', '.join(group)}")
    every = {Path(path).resolve(): path for path in (*paths, *compare)}
    opened = [stored_predictions.load(path) for path in every.values()]
    names = stored_predictions.short_names(list(every.values()))
    read = {}
    for place, name, one in zip(every, names, opened, strict=True):
        found = align(opened[0].predictions, names[0], one.predictions, name)
        data = stored_predictions.data_of(found) if place.is_dir() else {}
        split = data.get("test_split") or data.get("eval_split") or ""
        read[place] = _Given(name, dataclasses.replace(one, predictions=found), split)
    return [read[Path(path).resolve()] for path in paths], [read[Path(path).resolve()] for path in compare]


def _top5(probable: np.ndarray) -> np.ndarray:
    """Best classes first, ties to the lower class, as `metrics.top5` has it."""
    parts = np.array_split(probable, 1 + len(probable) // ROWS)
    return np.concatenate([best_classes(part) for part in parts])


# --- what they are of -------------------------------------------------------------------------------------------


def _data(found: Predictions) -> Data:
    return next(auditing.data_sections(found.provenance))


def _split(given: _Given) -> Split | None:
    """The split whose images were predicted, where its data set is still there."""
    data = _data(given.predictions)
    try:
        split = sources.open_split(data, given.split or data.scored_split)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None
    return split if split.num_classes == given.predictions.logits.shape[1] else None


def _class_names(given: _Given, split: Split | None) -> tuple[str, ...]:
    """For people."""
    return tuple(
        wordnet.readable_names(
            split.class_names if split is not None else stored_predictions.class_names(given.stored)
        )
    )


def _setting(given: _Given, split: Split | None, filter_by: str, rank_by: str) -> str:
    data = _data(given.predictions)
    name, part = (split.name, split.split) if split else (data.name, given.split or data.scored_split)
    method = f"{filter_by.replace('_', ' ')}, ranked by {rank_by.replace('_', ' ')}"
    return f"{name} {part}, {len(given.predictions):,} images; confident learning (Northcutt et al. 2021), {method}"


# --- the terminal -----------------------------------------------------------------------------------------------


def _show(found: LabelAudit, page: Path) -> None:
    print(audit_page.verdict(found))
    print()
    names = found.class_names
    columns = (found.suspects.image, found.suspects.given, found.suspects.suggested)
    for image, given, suggested in list(zip(*columns, strict=True))[:SHOWN]:
        print(f"  {found.id[image]}: {names[given]} -> {names[suggested]}")
    print(f"\n{audit_page.noise_sentence(found)}\n\nsuspects: {page.with_name('suspects.csv')}\nthe page: {page}")
