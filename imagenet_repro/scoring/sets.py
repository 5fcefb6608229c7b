"""Evaluation sets for networks with ImageNet's 1,000 classes, and the rule by which each set is scored.

There are five rules:

| rule | an image is right if |
|---|---|
| `label` | its label is among the guesses (one or five); errors are shares of all images |
| `several` | the guess is among its labels; images without a label, or with none of ImageNet's classes, are left out |
| `per class` | the same, but the error is the mean over classes of the error on their images |
| `corruptions` | its label is the guess; `corruptions.py` combines 75 splits into one number |
| `cues` | among 16 categories, the decision is the shape; `cue_conflict.py` scores it |

All sets count classes as `imagenet_wnids` does, from zero. If only some classes occur (-A, -R), the scores of all
others are set to -inf before guesses are selected. The labels of tfds' builders are checked for consistency: folders
named after classes against labels (sorting ImageNet-V2's folders 0 to 999 as words permutes them), and several labels
against the challenge's own label of the image (lists shifted by one image agree with it only by chance).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.scoring import class_names, predictions
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES, best_classes, format_rate
from imagenet_repro.scoring.people import PEOPLE
from imagenet_repro.scoring.predictions import NO_LABEL, Predictions
from imagenet_repro.statistics.intervals import binomial_interval, wilson_interval
from imagenet_repro.statistics.populations import NEW_IMAGES

IMAGENET = re.compile(r"imagenet2012(_side\d+_q\d+)?(:.*)?")  # or one of its smaller copies
CLASSES = 1_000
SHIFTED_BELOW = 0.5  # share of images whose own label is in their list: 0.90 for ReaL, 0.001 for shifted lists
ENOUGH_TO_TELL = 10  # images from which that share is meaningful

Rule = Literal["label", "several", "per class", "corruptions", "cues"]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """One evaluation set.

    Attributes:
      name: value of `--set`.
      title: name in print.
      data: name of the tfds data set with its config; without config for `corruptions`.
      split: split of the data set, always used completely.
      images: number of images that count in the official set.
      source: paper that introduced the set.
      rule: one of the rules in the module's docstring.
      classes: number of classes that occur; if fewer than 1,000, the others are masked.
      guesses: numbers of guesses for which errors are reported.
      folder: the meaning of the name of an image's folder: class index, WordNet id, or "" for neither.
      keys: features that hold the several labels of an image.
      notes: sentences that a reader of the numbers needs.
    """

    name: str
    title: str
    data: str
    split: str
    images: int
    source: str
    rule: Rule = "label"
    classes: int = CLASSES
    guesses: tuple[int, ...] = (1, GUESSES)
    folder: Literal["", "index", "wnid"] = ""
    keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def masked(self) -> bool:
        """Whether scores of classes that do not occur are left out."""
        return self.classes < CLASSES and self.rule == "label"


_V2 = "Recht et al. 2019, Do ImageNet classifiers generalize to ImageNet?"
_C = "Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and perturbations"
SETS = {
    one.name: one
    for one in (
        EvaluationSet(
            "imagenet", "ImageNet validation", "imagenet2012", "validation", 50_000, "Russakovsky et al. 2015"
        ),
        EvaluationSet(
            "real",
            "ImageNet ReaL",
            "imagenet2012_real",
            "validation",
            46_837,
            "Beyer et al. 2020, Are we done with ImageNet?",
            rule="several",
            guesses=(1,),
            keys=("original_label", "real_label"),
        ),
        EvaluationSet(
            "multilabel",
            "ImageNet multi-label",
            "imagenet2012_multilabel",
            "validation",
            20_000,
            "Shankar et al. 2020, Evaluating machine accuracy on ImageNet",
            rule="per class",
            guesses=(1,),
            keys=("original_label", "correct_multi_labels", "unclear_multi_labels", "is_problematic"),
            notes=("Labels that the experts marked as unclear count as right; problematic images are left out.",),
        ),
        *(
            EvaluationSet(name, title, f"imagenet_v2/{config}", "test", 10_000, _V2, folder="index")
            for name, title, config in (
                ("v2", "ImageNet-V2, matched frequency", "matched-frequency"),
                ("v2_threshold", "ImageNet-V2, threshold 0.7", "threshold-0.7"),
                ("v2_top", "ImageNet-V2, top images", "topimages"),
            )
        ),
        EvaluationSet(
            "a",
            "ImageNet-A",
            "imagenet_a",
            "test",
            7_500,
            "Hendrycks et al. 2021, Natural adversarial examples",
            classes=200,
            notes=("Its images were chosen because a ResNet-50 gets them wrong.",),
        ),
        EvaluationSet(
            "r",
            "ImageNet-R",
            "imagenet_r",
            "test",
            30_000,
            "Hendrycks et al. 2021, The many faces of robustness",
            classes=200,
            folder="wnid",
        ),
        EvaluationSet(
            "sketch",
            "ImageNet-Sketch",
            "imagenet_sketch",
            "test",
            50_889,
            "Wang et al. 2019, Learning robust global representations by penalizing local predictive power",
            folder="wnid",
        ),
        EvaluationSet(
            "c",
            "ImageNet-C",
            "imagenet2012_corrupted",
            "validation",
            50_000,
            _C,
            rule="corruptions",
            guesses=(1,),
            notes=("tfds generates the corrupted images again, so numbers differ from those on the released JPEGs.",),
        ),
        EvaluationSet(
            "objectnet",
            "ObjectNet",
            "objectnet",
            "images",
            18_574,
            "Barbu et al. 2019, ObjectNet",
            rule="several",
            classes=113,
            notes=(
                "Guesses are among all 1,000 classes; one that is not an object of ObjectNet is wrong. Objects that"
                " are not among ImageNet's classes are left out.",
            ),
        ),
        EvaluationSet(
            "cue_conflict",
            "Cue conflict",
            "cue_conflict",
            "train",
            1_280,
            "Geirhos et al. 2019, ImageNet-trained CNNs are biased towards texture",
            rule="cues",
            guesses=(1,),
        ),
    )
}


def find_set(name: str) -> EvaluationSet:
    """Return the set with a name. Raises `UserError` if there is none."""
    if name not in SETS:
        raise UserError(f"--set={name}: there is no such set; {nearest(name, SETS)}")
    return SETS[name]


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of the 1,000 classes by class index, sorted as in tfds, torchvision and timm."""
    import tensorflow_datasets as tfds

    return tuple(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text(encoding="utf-8").split())


def check_classes(names: Sequence[str], what: str) -> None:
    """Raise `UserError` unless the classes are ImageNet's 1,000 in order; `what` is their owner in the message."""
    expected = imagenet_wnids()
    try:
        matching = class_names.match(names, what, expected, "imagenet2012")
    except UserError:
        matching = None
    if matching and matching.is_same_order and matching.is_checked:
        return
    if len(names) != CLASSES:
        problem = f"it has {len(names):,} classes"
    elif matching and not matching.is_checked:
        problem = "its classes have no names"
    elif matching:
        problem = "it has them in another order"
    else:
        own, theirs = next(pair for pair in zip(names, expected, strict=True) if pair[0] != pair[1])
        problem = f"it has '{own}' where ImageNet has '{theirs}'"
    raise UserError(
        f"{what} does not have ImageNet's 1,000 classes: {problem}. --set is for networks with the 1,000 classes of"
        " imagenet2012; score other splits with --data.name and --data.eval_split"
    )


def has_imagenet_classes(names: Sequence[str]) -> bool:
    """Return whether all of these classes are among ImageNet's 1,000, in any order."""
    try:
        return class_names.match(names, "the data", imagenet_wnids(), "imagenet2012", partial=True).is_checked
    except UserError:
        return False


def with_imagenet_classes(predicted: Predictions, what: str, say: Callable[[str], None] = print) -> Predictions:
    """Return predictions whose class indices count ImageNet's 1,000 classes in order.

    Args:
      predicted: predictions; if their file has no names of classes, the order is taken to be ImageNet's.
      what: name of the predictions in messages.
      say: called with a sentence if classes were reordered, or if they have no names to compare.

    Raises:
      UserError: they have other classes.
    """
    count = predicted.logits.shape[1]
    if count != CLASSES:
        check_classes(class_names.numbered(count), what)
    return predictions.with_classes(predicted, what, imagenet_wnids(), "imagenet2012", say)


def is_of_imagenet(provenance: Mapping[str, Any]) -> bool:
    """Return whether stored predictions are for images of ImageNet 2012 with the challenge's labels."""
    return IMAGENET.fullmatch(predictions.data_name(provenance)) is not None


def human_error_sentences(data: str) -> list[str]:
    """Return sentences on people who took the challenge's test if the data set is ImageNet 2012; otherwise none."""
    return [str(person) for person in PEOPLE] if IMAGENET.fullmatch(data) else []


# --- accepted labels--------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AcceptedLabels:
    """Labels that count as right, by image id.

    Attributes:
      accepted: class indices that are right; empty if every guess is wrong; None if the image is left out.
      group: class index of the image over which errors are averaged; empty if they are not.
    """

    accepted: Mapping[str, frozenset[int] | None]
    group: Mapping[str, int] = dataclasses.field(default_factory=dict)


def accepted_labels(chosen: EvaluationSet, features: Mapping[str, Mapping[str, Sequence[int]]]) -> AcceptedLabels:
    """Return the accepted labels of a set with several labels per image.

    Args:
      chosen: `real` or `multilabel`.
      features: values of `chosen.keys` by image id, as `data.sources.integers` reads them.

    Raises:
      UserError: the lists belong to other images.
    """
    original = {name: one["original_label"][0] for name, one in features.items()}
    several = _real if chosen.rule == "several" else _multilabel
    accepted = {name: several(one) for name, one in features.items()}
    check_not_shifted(chosen.title, [(original[name], labels) for name, labels in accepted.items() if labels])
    return AcceptedLabels(accepted, original if chosen.rule == "per class" else {})


def _real(one: Mapping[str, Sequence[int]]) -> frozenset[int] | None:
    return frozenset(one["real_label"]) or None


def _multilabel(one: Mapping[str, Sequence[int]]) -> frozenset[int] | None:
    if any(one["is_problematic"]):
        return None
    return frozenset(one["correct_multi_labels"]) | frozenset(one["unclear_multi_labels"])


def check_not_shifted(title: str, pairs: Sequence[tuple[int, frozenset[int]]]) -> None:
    """Raise `UserError` if most lists lack their image's own label, as lists of other images do."""
    inside = sum(label in labels for label, labels in pairs)
    if len(pairs) >= ENOUGH_TO_TELL and inside < SHIFTED_BELOW * len(pairs):
        raise UserError(
            f"{title}: only {inside:,} of {len(pairs):,} lists contain their image's own label; nine of ten usually"
            " do. The lists are shifted against the images, whose numbers begin with 1, or belong to other images"
        )


def accepted_by_folder(ids: Sequence[str], classes: Mapping[str, frozenset[int]]) -> AcceptedLabels:
    """Return labels that follow from each image's folder; images in other folders are left out."""
    return AcceptedLabels({name: classes.get(_folder(name)) for name in ids})


def check_folders(chosen: EvaluationSet, predicted: Predictions) -> None:
    """Raise `UserError` if an image's label differs from its folder's: folders were counted in another order."""
    if not chosen.folder:
        return
    wnids = imagenet_wnids()
    for name, label in zip(predicted.id.tolist(), predicted.label.tolist(), strict=True):
        folder = _folder(name)
        if chosen.folder == "index" and folder.isdecimal() and int(folder) != label:
            raise UserError(
                f"{chosen.title}: the image {name} has the label {label}, but its folder's name is the label. The"
                " folders were sorted as words (0, 1, 10, 100, …) and not as numbers; prepare the data set as tfds"
                " does:\n"
                f"  python main.py prepare {chosen.data}"
            )
        if chosen.folder == "wnid" and folder in wnids and wnids[label] != folder:
            raise UserError(
                f"{chosen.title}: the image {name} has the label {label}, which is {wnids[label]}. The set's classes"
                " were numbered on their own and not within ImageNet's 1,000; prepare the data set as tfds does:\n"
                f"  python main.py prepare {chosen.data}"
            )


def _folder(name: str) -> str:
    return PurePosixPath(name).parent.name


# --- the mask ---------------------------------------------------------------------------------------------------


def occurring_classes(labels: Int[np.ndarray, " n"] | Sequence[int]) -> Bool[np.ndarray, " c"]:
    """Return whether each of the 1,000 classes occurs among labels. Raises `UserError` for a label out of range."""
    labels = np.asarray(labels)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= CLASSES:
        raise UserError(f"at least one label is needed, and all must be among {CLASSES:,} classes")
    occurs = np.zeros(CLASSES, bool)
    occurs[labels] = True
    return occurs


def mask_classes(predicted: Predictions, scored: Bool[np.ndarray, " c"]) -> Predictions:
    """Return predictions with scores of -inf for all but some classes, and guesses among those.

    Guesses that are all among those classes stay. Otherwise every image's guesses are computed again from the stored
    scores, which float16 may have made equal (ties go to the lower class).
    """
    guessed = predicted.top5
    logits = np.where(scored, predicted.logits, -np.inf).astype(np.float16)
    if np.all(scored[guessed] | (guessed < 0)):
        return dataclasses.replace(predicted, logits=logits)
    best = best_classes(logits.astype(np.float32))
    return dataclasses.replace(predicted, logits=logits, top5=np.where(guessed[:, :1] < 0, -1, best))


# --- scores -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SetError:
    """One error of a set.

    Attributes:
      what: name of the error, such as "top-1 error".
      error: in [0, 1], or above 1 for a ratio of errors.
      low, high: 95 % interval for new images and these checkpoints.
      images: number of images that count.
      wrong: number of wrong images; None if the error is not a share of images.
      dropped: number of images that the rule leaves out.
      how: definition of `error`, if it is not a share of images.
    """

    what: str
    error: float
    low: float
    high: float
    images: int
    wrong: int | None = None
    dropped: int = 0
    how: str = ""

    def __str__(self) -> str:
        if self.wrong is None:
            digits = 2 if self.images >= FINE_DIGITS_FROM else 1
            error, low, high = (f"{100 * value:.{digits}f}" for value in (self.error, self.low, self.high))
            low_to_high, counted = f"[{low}, {high}]", f"{self.how}, {self.images:,} images"
        else:
            error, low_to_high = format_rate(self.wrong, self.images)
            counted = f"{self.wrong:,} of {self.images:,} images wrong"
        left_out = f", {self.dropped:,} left out" if self.dropped else ""
        return f"{self.what} {error} %, 95 % interval {low_to_high} for {NEW_IMAGES} ({counted}{left_out})"


def score_set(chosen: EvaluationSet, predicted: Predictions, known: AcceptedLabels | None = None) -> list[SetError]:
    """Return the errors of a set with one split, by its rule.

    Args:
      chosen: any set except `c` and `cue_conflict`, which modules of their own score.
      predicted: predictions for its images; masked if the set is.
      known: accepted labels, if they are not the stored labels.

    Raises:
      UserError: no image counts.
    """
    if known is None:
        known = AcceptedLabels({name: frozenset([label]) for name, label in _labels(predicted)})
        check_folders(chosen, predicted)
    rows = [i for i, name in enumerate(predicted.id.tolist()) if known.accepted.get(name) is not None]
    dropped = sum(known.accepted.get(name, _ABSENT) is None for name in predicted.id.tolist())
    if not rows:
        raise UserError(f"{chosen.title}: none of the images counts; are the predictions for its images?")
    ids = predicted.id[rows].tolist()
    accepted = [known.accepted[name] or frozenset() for name in ids]
    results = []
    for k in chosen.guesses:
        wrong = np.array(
            [labels.isdisjoint(row) for labels, row in zip(accepted, predicted.top5[rows, :k].tolist(), strict=True)]
        )
        if chosen.rule == "per class":
            groups = np.array([known.group[name] for name in ids])
            error, low, high = mean_over_classes(wrong, groups)
            how = f"mean over {len(np.unique(groups)):,} classes"
            results.append(SetError(f"top-{k} error", error, low, high, len(rows), dropped=dropped, how=how))
        else:
            results.append(_share(f"top-{k} error", wrong, dropped))
    return results


_ABSENT = frozenset()  # stands for an image that is not in the set, unlike one that the set leaves out


def _labels(predicted: Predictions) -> list[tuple[str, int]]:
    if np.any(predicted.label == NO_LABEL):
        raise UserError("these predictions are for images without labels")
    return list(zip(predicted.id.tolist(), predicted.label.tolist(), strict=True))


def _share(what: str, wrong: Bool[np.ndarray, " n"], dropped: int) -> SetError:
    count, images = int(wrong.sum()), len(wrong)
    return SetError(what, count / images, *binomial_interval(count, images), images, count, dropped)


def mean_over_classes(wrong: Bool[np.ndarray, " n"], classes: Int[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Return the mean over classes of the share of wrong images, and its 95 % interval for new images.

    Images are drawn within each class. The interval is Wilson's for the number of images that would give a plain share
    the same variance (Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex sample
    surveys"). A class with one image gets the variance of all images.
    """
    _, index, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    shares = np.bincount(index, wrong) / sizes
    error = float(shares.mean())
    within: Float[np.ndarray, " c"] = np.where(
        sizes > 1, shares * (1 - shares) / np.maximum(sizes - 1, 1), error * (1 - error)
    )
    variance = float(within.sum()) / len(sizes) ** 2
    effective = error * (1 - error) / variance if variance > 0 else float(len(wrong))
    low, high = wilson_interval(error, effective)
    return error, float(low), float(high)


def completeness_notes(chosen: EvaluationSet, counted: int, classes: int | None = None) -> list[str]:
    """Return a sentence if the number of images or classes differs from the official set's."""
    differences = []
    if counted != chosen.images:
        differences.append(f"{counted:,} images instead of the {chosen.images:,} of the official set")
    if classes is not None and classes != chosen.classes:
        differences.append(f"{classes:,} classes instead of {chosen.classes:,}")
    return [f"{chosen.title}: {', '.join(differences)}."] if differences else []
