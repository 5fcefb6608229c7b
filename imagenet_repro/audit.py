"""`main.py audit`: suspects among the labels of a split, and every error rate with and without them."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_repro import config as cfg
from imagenet_repro import wordnet
from imagenet_repro.comparison import audited
from imagenet_repro.comparison.audited import Audit, System
from imagenet_repro.comparison.label_noise import IMAGENET_SHARE
from imagenet_repro.data import sources, thumbnails
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import EXIT_FINISHED, SaveError, UserError
from imagenet_repro.evaluation import audit as auditing
from imagenet_repro.evaluation import predictions as stored
from imagenet_repro.evaluation.ensemble import best_classes
from imagenet_repro.evaluation.predictions import Predictions
from imagenet_repro.workdir import Workdir

SHOWN = 10  # suspects in the terminal
ROWS = 4096  # images sorted at once; 50,000 images of 1,000 classes would be half a gigabyte of order alone


@dataclasses.dataclass(frozen=True)
class _Given:
    """Predictions as the user named them."""

    path: str
    name: str
    predictions: Predictions  # by rising id
    split: str = ""  # that they are of; empty: not known beyond the provenance
    classes: Sequence[str] = ()  # their names, where the run says them


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
        auditing.refuse_trained_on(one.path, one.predictions.provenance, one.split)
    first = auditors[0].predictions
    probable = auditing.probabilities([one.predictions for one in auditors])
    suspects = auditing.find(first.label, probable, filter_by=filter_by, rank_by=rank_by)
    truths = [auditing.given_labels(first.label), auditing.without(first.label, suspects)]
    decided = auditing.read_verdicts(verdicts, probable.shape[1]) if verdicts is not None else {}
    if decided:
        truths.append(auditing.by_verdicts(first.id, first.label, decided))
    split = _split(auditors[0])
    systems = tuple(System(one.name, one.predictions.top5) for one in auditors)
    if len(systems) > 1:
        systems += (System(f"mean of {len(systems)}", _top5(probable)),)
    found = Audit(
        setting=_setting(auditors[0], split, filter_by, rank_by),
        class_names=_class_names(auditors[0], split, probable.shape[1]),
        id=first.id,
        suspects=suspects,
        auditors=systems,
        compared=tuple(System(one.name, one.predictions.top5) for one in compared),
        truths=tuple(truths),
        verdicts=Counter(one.verdict for one in decided.values()),
        wrong_share=wrong_share,
        data=_data(auditors[0]).name,
    )
    pictures = functools.partial(thumbnails.of_images, split) if split else None
    page = audited.write(found, place, pictures)
    _show(found, page)
    return EXIT_FINISHED


# --- reading ----------------------------------------------------------------------------------------------------


def _read(paths: list[str], compare: list[str]) -> tuple[list[_Given], list[_Given]]:
    """Both groups; predictions that are in both are read once."""
    for group in (paths, compare):
        if len({Path(path).resolve() for path in group}) != len(group):
            raise UserError(f"predictions are named twice: {', '.join(group)}")
    every = list({Path(path).resolve(): path for path in (*paths, *compare)}.values())
    read = dict(zip(every, _named([_one(path) for path in every]), strict=True))
    _check_same(list(read.values()))
    by_place = {Path(path).resolve(): one for path, one in read.items()}
    return [by_place[Path(path).resolve()] for path in paths], [by_place[Path(path).resolve()] for path in compare]


def _one(path: str) -> _Given:
    if not Path(path).is_dir():
        return _Given(path, Path(path).stem, _sorted(stored.load(path)))
    place = Workdir(path)
    result = place.result()
    file = place.path / str(result.get("predictions", ""))
    data = cfg.build(cfg.Data, result["provenance"]["config"]["data"])
    read = _sorted(stored.load(file))
    return _Given(path, place.path.name, read, data.scored_split, result.get("classes", ()))


def _sorted(one: Predictions) -> Predictions:
    order = np.argsort(one.id)
    arrays = {key: getattr(one, key)[order] for key in ("id", "label", "top5", "logits")}
    return dataclasses.replace(one, **arrays)


def _named(given: list[_Given]) -> list[_Given]:
    """With names that are all unlike: the whole path where the last part is not enough."""
    names = [one.name for one in given]
    return [one if names.count(one.name) == 1 else dataclasses.replace(one, name=one.path) for one in given]


def _check_same(given: list[_Given]) -> None:
    first, *others = given
    for one in others:
        a, b = first.predictions, one.predictions
        if a.logits.shape[1] != b.logits.shape[1]:
            classes = f"{a.logits.shape[1]:,} classes and {one.path} between {b.logits.shape[1]:,}"
            raise UserError(f"{first.path} chooses between {classes}")
        if not np.array_equal(a.id, b.id):
            only = auditing.some(np.setxor1d(a.id, b.id))
            raise UserError(f"{first.path} and {one.path} are of different images; in one of them alone: {only}")
        if not np.array_equal(a.label, b.label):
            differ = auditing.some(a.id[a.label != b.label])
            raise UserError(f"{first.path} and {one.path} have different labels of {differ}")


def _top5(probable: np.ndarray) -> np.ndarray:
    """Best classes first, ties to the lower class, as `metrics.top5` has it."""
    parts = np.array_split(probable, 1 + len(probable) // ROWS)
    return np.concatenate([best_classes(part) for part in parts])


# --- what they are of -------------------------------------------------------------------------------------------


def _data(given: _Given) -> cfg.Data:
    return next(auditing.data_sections(given.predictions.provenance))


def _split(given: _Given) -> Split | None:
    """The split whose images were predicted, where its data set is still there."""
    data = _data(given)
    try:
        split = sources.open_split(data, given.split or data.scored_split)
    except UserError as error:
        print(f"the page has no images: {error}")
        return None
    return split if split.num_classes == given.predictions.logits.shape[1] else None


def _class_names(given: _Given, split: Split | None, classes: int) -> tuple[str, ...]:
    """For people; numbers where nobody knows better."""
    if split is not None:
        return tuple(wordnet.readable(split.class_names))
    known = given.predictions.provenance.get("classes") or given.classes
    if len(known) == classes:
        return tuple(wordnet.readable([str(name) for name in known]))
    return tuple(f"class {number}" for number in range(classes))


def _setting(given: _Given, split: Split | None, filter_by: str, rank_by: str) -> str:
    data = _data(given)
    name, part = (split.name, split.split) if split else (data.name, given.split or data.scored_split)
    method = f"{filter_by.replace('_', ' ')}, ranked by {rank_by.replace('_', ' ')}"
    return f"{name} {part}, {len(given.predictions):,} images; confident learning (Northcutt et al. 2021), {method}"


# --- the terminal -----------------------------------------------------------------------------------------------


def _show(found: Audit, page: Path) -> None:
    print(audited.verdict(found))
    print()
    names = found.class_names
    columns = (found.suspects.image, found.suspects.given, found.suspects.suggested)
    for image, given, suggested in list(zip(*columns, strict=True))[:SHOWN]:
        print(f"  {found.id[image]}: {names[given]} -> {names[suggested]}")
    print(f"\n{audited.noise_sentence(found)}\n\nsuspects: {page.with_name('suspects.csv')}\nthe page: {page}")
