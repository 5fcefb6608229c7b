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
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.report import audit_page, html_page
from imagenet_repro.report.audit_page import AuditedSystem, LabelAudit
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import class_names, label_audit, wordnet
from imagenet_repro.scoring.metrics import best_classes
from imagenet_repro.scoring.predictions import Predictions, align
from imagenet_repro.statistics.label_noise import IMAGENET_SHARE

MAX_PRINTED = 10  # suspects in the terminal
ROWS_PER_CHUNK = 4096  # images sorted at once; the order of 1,000 classes for 50,000 images would take half a gigabyte


@dataclasses.dataclass(frozen=True)
class _NamedPredictions:
    """Predictions with a short name for tables.

    Attributes:
      name: the part of the path that distinguishes them from the others.
      stored: the predictions, in the order of images that all share.
      split: the split that they are for; empty: only known from the provenance.
    """

    name: str
    stored: StoredPredictions
    split: str

    @property
    def predictions(self) -> Predictions:
        return self.stored.predictions

    @property
    def system(self) -> AuditedSystem:
        return AuditedSystem(self.name, self.predictions.top5)


def audit(
    paths: Sequence[str],
    *,
    compare: Sequence[str] = (),
    verdicts: str | None = None,
    out: str | None = None,
    filter_by: label_audit.Filter = "prune_by_noise_rate",
    rank_by: label_audit.Rank = "normalized_margin",
    wrong_share: float = IMAGENET_SHARE,
) -> int:
    """Write the suspect labels and their page, and print the most suspect ones.

    Args:
      paths: files of predictions, or workdirs of finished runs, all for one split; their probabilities are averaged.
      compare: other predictions for the same images, whose error rates are restated and compared in pairs, but which
        do not decide which labels are suspect.
      verdicts: a file of human verdicts on suspects; see `label_audit.read_verdicts`.
      out: the directory for the page; None: the first run's workdir, otherwise the current directory.
      filter_by: see `label_audit.find_suspects`.
      rank_by: see `label_audit.find_suspects`.
      wrong_share: the share of wrong labels, for their effect on a comparison.

    Returns:
      The exit code.

    Raises:
      UserError: predictions are missing, for different images or labels, or for images that were trained on.
      SaveError: the page or a table cannot be written.
    """
    if not 0 < wrong_share < 0.5:
        raise UserError(f"--wrong_share={wrong_share:g}: a share between 0 and 0.5, such as 0.0583, is needed")
    directory = Path(out) if out else Path(paths[0]) if Path(paths[0]).is_dir() else Path()
    html_page.require_place(directory, out, audit_page.PAGE, (html_page.TABLES,))
    auditors, compared = _read([*paths], [*compare])
    for auditor in auditors:
        label_audit.check_not_trained_on(str(auditor.stored.path), auditor.predictions.provenance, auditor.split)
    first = auditors[0].predictions
    probabilities = label_audit.mean_probabilities([auditor.predictions for auditor in auditors])
    suspects = label_audit.find_suspects(first.label, probabilities, filter_by=filter_by, rank_by=rank_by)
    truths = [label_audit.given_labels(first.label), label_audit.without_suspects(first.label, suspects)]
    names = _class_names(auditors[0])
    decisions = label_audit.read_verdicts(verdicts, names) if verdicts is not None else {}
    if decisions:
        truths.append(label_audit.corrected_by_verdicts(first.id, first.label, decisions))
    split = _open_split(auditors[0])
    systems = tuple(auditor.system for auditor in auditors)
    if len(systems) > 1:
        systems += (AuditedSystem(f"mean of {len(systems)}", _top5(probabilities)),)
    result = LabelAudit(
        setting=_describe_setting(auditors[0], split, filter_by, rank_by),
        class_names=names,
        id=first.id,
        suspects=suspects,
        auditors=systems,
        compared=tuple(other.system for other in compared),
        truths=tuple(truths),
        verdicts=Counter(decision.verdict for decision in decisions.values()),
        wrong_share=wrong_share,
        data=_data(first).name,
    )
    images = functools.partial(thumbnails.thumbnails_by_id, split) if split else None
    _print(result)
    page = audit_page.write(result, directory, images)
    print(f"suspects: {page.with_name('suspects.csv')}\nthe page: {page}")
    return EXIT_FINISHED


def _read(paths: list[str], compare: list[str]) -> tuple[list[_NamedPredictions], list[_NamedPredictions]]:
    """Return both groups of predictions in one order of images; predictions that are in both are read once."""
    for group in (paths, compare):
        if len({Path(path).resolve() for path in group}) != len(group):
            raise UserError(f"predictions are named twice: {', '.join(group)}")
    path_by_resolved = {Path(path).resolve(): path for path in (*paths, *compare)}
    stored = [stored_predictions.load(path) for path in path_by_resolved.values()]
    names = stored_predictions.short_names(list(path_by_resolved.values()))
    by_path = {}
    for path, name, one in zip(path_by_resolved, names, stored, strict=True):
        aligned = align(stored[0].predictions, names[0], one.predictions, name)
        data = stored_predictions.data_of(aligned) if path.is_dir() else {}
        split = data.get("test_split") or data.get("eval_split") or ""
        by_path[path] = _NamedPredictions(name, dataclasses.replace(one, predictions=aligned), split)
    return [by_path[Path(path).resolve()] for path in paths], [by_path[Path(path).resolve()] for path in compare]


def _top5(probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable classes first, with ties to the lower class, as `metrics.top5` does."""
    chunks = np.array_split(probabilities, 1 + len(probabilities) // ROWS_PER_CHUNK)
    return np.concatenate([best_classes(chunk) for chunk in chunks])


def _data(predicted: Predictions) -> Data:
    return next(label_audit.data_sections(predicted.provenance))


def _open_split(auditor: _NamedPredictions) -> Split | None:
    """Return the split whose images were predicted, or None if its data set is no longer on this machine."""
    data = _data(auditor.predictions)
    try:
        split = sources.open_split(data, auditor.split or data.scored_split)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None
    try:
        names = stored_predictions.class_names(auditor.stored)
        class_names.match(split.class_names, f"data set {split.name}", names, auditor.name, partial=True)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None
    return split


def _class_names(auditor: _NamedPredictions) -> tuple[str, ...]:
    """Return names of the classes that people can read."""
    return tuple(wordnet.readable_names(stored_predictions.class_names(auditor.stored)))


def _describe_setting(auditor: _NamedPredictions, split: Split | None, filter_by: str, rank_by: str) -> str:
    data = _data(auditor.predictions)
    name, part = (split.name, split.split) if split else (data.name, auditor.split or data.scored_split)
    method = f"{filter_by.replace('_', ' ')}, ranked by {rank_by.replace('_', ' ')}"
    return f"{name} {part}, {len(auditor.predictions):,} images; confident learning (Northcutt et al. 2021), {method}"


def _print(result: LabelAudit) -> None:
    print(audit_page.verdict(result))
    print()
    names = result.class_names
    columns = (result.suspects.image, result.suspects.given, result.suspects.suggested)
    for image, given, suggested in list(zip(*columns, strict=True))[:MAX_PRINTED]:
        print(f"  {result.id[image]}: {names[given]} -> {names[suggested]}")
    print(f"\n{audit_page.noise_sentence(result)}\n")
