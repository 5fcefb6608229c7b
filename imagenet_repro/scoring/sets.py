"""The sets of images on which networks for ImageNet's 1,000 classes are judged, each by its own rule.

Four rules:

| rule | an image is right when |
|---|---|
| `label` | its label is among the guesses (one, or five); shares over all images |
| `several` | the guess is among its labels; images without any are left out, or of ImageNet's classes none |
| `per class` | the same, but the error is the mean over the classes of the error on their images |
| `corruptions` | its label is the guess; `corruptions.py` makes one number of 75 splits |

All sets count classes as `imagenet_wnids` does, from zero. Where only some classes occur (-A, -R), scores of all
others are -inf before guesses are taken. What tfds' builders say is checked against itself: folders named after
classes against labels (a lexicographic sort of ImageNet-V2's folders 0 to 999 permutes them), several labels against
the challenge's own label of the image (lists that are shifted by one image agree with it by chance alone).
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.scoring.metrics import FINE_DIGITS_FROM, GUESSES, format_rate
from imagenet_repro.scoring.people import PEOPLE
from imagenet_repro.scoring.predictions import NO_LABEL, Predictions
from imagenet_repro.statistics.intervals import binomial_interval, wilson_interval

IMAGENET = re.compile(r"imagenet2012(_side\d+_q\d+)?(:.*)?")  # or one of its smaller copies
CLASSES = 1_000
SHIFTED_BELOW = 0.5  # share of images whose own label is in their list; 0.90 for ReaL, 0.001 for other images' lists
ENOUGH_TO_TELL = 10  # images, from which that share says something

Rule = Literal["label", "several", "per class", "corruptions"]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """One set.

    Attributes:
      name: of `--set`.
      title: in print.
      data: name of the tfds data set with its config; of `corruptions` without.
      split: of it, always whole.
      images: how many count in the official set.
      source: who made it.
      rule: see the module.
      classes: how many occur; fewer than 1,000: the others are masked.
      guesses: with which errors are reported.
      folder: what an image's folder says of its label.
      keys: features that hold its several labels.
      notes: what a reader of its numbers should know.
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
            notes=("A label that the experts call unclear counts as right; problematic images are left out.",),
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
            notes=("Its images were chosen because a ResNet-50 misses them.",),
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
            notes=("tfds makes the corrupted images anew: numbers differ from those on the JPEGs of the release.",),
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
                "Guesses are among all 1,000 classes: one that is no object of ObjectNet is wrong. Objects that are"
                " none of ImageNet's classes are left out.",
            ),
        ),
    )
}


def find_set(name: str) -> EvaluationSet:
    """The set of a name. Raises `UserError` where there is none."""
    if name not in SETS:
        raise UserError(f"--set={name}: no such set; {nearest(name, SETS)}")
    return SETS[name]


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1,000 classes by class index, as in tfds, torchvision and timm: sorted."""
    import tensorflow_datasets as tfds

    return tuple(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())


def check_classes(names: Sequence[str], what: str) -> None:
    """Raises `UserError` where classes are not ImageNet's 1,000 in their order; `what` says whose they are."""
    expected = imagenet_wnids()
    if tuple(names) == expected:
        return
    if len(names) != CLASSES:
        why = f"{len(names):,} of its own"
    elif set(names) == set(expected):
        why = "those in another order"
    else:
        own, theirs = next(pair for pair in zip(names, expected, strict=True) if pair[0] != pair[1])
        why = f"others: '{own}' where ImageNet has '{theirs}'"
    raise UserError(
        f"{what} has not ImageNet's 1,000 classes but {why}; --set is for networks of the 1,000 classes of"
        " imagenet2012. Other splits are scored with --data.name and --data.eval_split"
    )


def class_names(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes that stored predictions are of; none where an older version stored them."""
    names = provenance.get("classes")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def data_name(provenance: Mapping[str, Any]) -> str:
    """Name of the data set that stored predictions are of; empty where they do not say."""
    return _at(provenance, "config", "data", "name") or _at(provenance, "data", "name")  # the latter of a person's


def _at(found: Any, *keys: str) -> str:
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return str(found or "")


def is_of_imagenet(provenance: Mapping[str, Any]) -> bool:
    """Whether stored predictions are of images of ImageNet 2012 with the challenge's labels."""
    return IMAGENET.fullmatch(data_name(provenance)) is not None


def human_error_sentences(data: str) -> list[str]:
    """Sentences on people who took the challenge's test, where errors are on images of ImageNet's; else none."""
    return [str(person) for person in PEOPLE] if IMAGENET.fullmatch(data) else []


# --- what is right ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AcceptedLabels:
    """What is right for each image, by its id.

    Attributes:
      accepted: class indices that are right, none where every guess is wrong; None: the image is left out.
      group: class index of the image, over which errors are averaged; empty where they are not.
    """

    accepted: Mapping[str, frozenset[int] | None]
    group: Mapping[str, int] = dataclasses.field(default_factory=dict)


def accepted_labels(chosen: EvaluationSet, features: Mapping[str, Mapping[str, Sequence[int]]]) -> AcceptedLabels:
    """What is right in a set of several labels an image.

    Args:
      chosen: `real` or `multilabel`.
      features: the values of `chosen.keys` by id, as `data.sources.integers` reads them.

    Raises `UserError` where the lists are not those of these images.
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
    """Raises `UserError` where most images' own label is not in their list: the lists are those of other images."""
    inside = sum(label in labels for label, labels in pairs)
    if len(pairs) >= ENOUGH_TO_TELL and inside < SHIFTED_BELOW * len(pairs):
        raise UserError(
            f"{title}: the lists hold the image's own label for {inside:,} of {len(pairs):,} images alone, where nine"
            " of ten are usual. They are shifted against the images, whose numbers begin with 1, or of other ones"
        )


def accepted_by_folder(ids: Sequence[str], classes: Mapping[str, frozenset[int]]) -> AcceptedLabels:
    """What is right where the folder of an image says it; images in other folders are left out."""
    return AcceptedLabels({name: classes.get(_folder(name)) for name in ids})


def check_folders(chosen: EvaluationSet, predicted: Predictions) -> None:
    """Raises `UserError` where an image's label is not what its folder says: the folders were counted otherwise."""
    if not chosen.folder:
        return
    named = imagenet_wnids()
    for name, label in zip(predicted.id.tolist(), predicted.label.tolist(), strict=True):
        folder = _folder(name)
        if chosen.folder == "index" and folder.isdecimal() and int(folder) != label:
            raise UserError(
                f"{chosen.title}: the image {name} has the label {label}, but its folder's name is the label. Folders"
                " were sorted as words (0, 1, 10, 100, …) and not as numbers; prepare the data set as tfds does:\n"
                f"  python main.py prepare {chosen.data}"
            )
        if chosen.folder == "wnid" and folder in named and named[label] != folder:
            raise UserError(
                f"{chosen.title}: the image {name} has the label {label}, which is {named[label]}. Its classes were"
                " counted among themselves and not among ImageNet's 1,000; prepare the data set as tfds does:\n"
                f"  python main.py prepare {chosen.data}"
            )


def _folder(name: str) -> str:
    return PurePosixPath(name).parent.name


# --- the mask ---------------------------------------------------------------------------------------------------


def occurring_classes(labels: Int[np.ndarray, " n"] | Sequence[int]) -> Bool[np.ndarray, " c"]:
    """Which of the 1,000 classes occur among labels. Raises `UserError` for a label outside of them."""
    labels = np.asarray(labels)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= CLASSES:
        raise UserError(f"labels are needed among {CLASSES:,} classes, of at least one image")
    found = np.zeros(CLASSES, bool)
    found[labels] = True
    return found


def mask_classes(predicted: Predictions, scored: Bool[np.ndarray, " c"]) -> Predictions:
    """Predictions with scores of -inf for all but some classes, and guesses among those.

    Guesses that keep to those classes stay; else all are taken anew from the stored scores, which float16 may have
    made equal (ties to the lower class).
    """
    guessed = predicted.top5
    logits = np.where(scored, predicted.logits, -np.inf).astype(np.float16)
    if np.all(scored[guessed] | (guessed < 0)):
        return dataclasses.replace(predicted, logits=logits)
    best = np.argsort(-logits.astype(np.float32), axis=1, kind="stable")[:, :GUESSES].astype(np.int32)
    return dataclasses.replace(predicted, logits=logits, top5=np.where(guessed[:, :1] < 0, -1, best))


# --- scores -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SetError:
    """One error of a set.

    Attributes:
      what: such as "top-1 error".
      error: in [0, 1], or above for a ratio of errors.
      low, high: 95 % interval.
      images: that counted.
      wrong: of them; None where the error is no share of them.
      dropped: images that the rule leaves out.
      how: what `error` is, where it is no share of the images.
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
        return f"{self.what} {error} %, 95 % interval {low_to_high} ({counted}{left_out})"


def score_set(chosen: EvaluationSet, predicted: Predictions, known: AcceptedLabels | None = None) -> list[SetError]:
    """The errors of a set of one split by its rule.

    Args:
      chosen: not `c`, which `corruptions.py` scores.
      predicted: of its images; of a masked set, masked.
      known: what is right, where that is not the label.

    Raises `UserError` where no image counts.
    """
    if known is None:
        known = AcceptedLabels({name: frozenset([label]) for name, label in _labels(predicted)})
        check_folders(chosen, predicted)
    rows = [i for i, name in enumerate(predicted.id.tolist()) if known.accepted.get(name) is not None]
    dropped = sum(known.accepted.get(name, _ABSENT) is None for name in predicted.id.tolist())
    if not rows:
        raise UserError(f"{chosen.title}: none of the images counts; are the predictions of its images?")
    ids = predicted.id[rows].tolist()
    accepted = [known.accepted[name] for name in ids]
    found = []
    for k in chosen.guesses:
        wrong = np.array(
            [labels.isdisjoint(row) for labels, row in zip(accepted, predicted.top5[rows, :k].tolist(), strict=True)]
        )
        if chosen.rule == "per class":
            groups = np.array([known.group[name] for name in ids])
            error, low, high = mean_over_classes(wrong, groups)
            how = f"mean over {len(np.unique(groups)):,} classes"
            found.append(SetError(f"top-{k} error", error, low, high, len(rows), dropped=dropped, how=how))
        else:
            found.append(_share(f"top-{k} error", wrong, dropped))
    return found


_ABSENT = frozenset()  # an image that the set does not have, unlike one that it leaves out


def _labels(predicted: Predictions) -> list[tuple[str, int]]:
    if np.any(predicted.label == NO_LABEL):
        raise UserError("these predictions are of images without labels")
    return list(zip(predicted.id.tolist(), predicted.label.tolist(), strict=True))


def _share(what: str, wrong: Bool[np.ndarray, " n"], dropped: int) -> SetError:
    count, images = int(wrong.sum()), len(wrong)
    return SetError(what, count / images, *binomial_interval(count, images), images, count, dropped)


def mean_over_classes(wrong: Bool[np.ndarray, " n"], classes: Int[np.ndarray, " n"]) -> tuple[float, float, float]:
    """The mean over classes of the share that is wrong, and its 95 % interval, images drawn within each class.

    The interval is Wilson's with as many images as would give a plain share the same variance (Franco et al. 2019,
    "Comparative study of confidence intervals for proportions in complex sample surveys"); a class of one image
    varies as all images do.
    """
    _, index, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    shares = np.bincount(index, wrong) / sizes
    error = float(shares.mean())
    within: Float[np.ndarray, " c"] = np.where(
        sizes > 1, shares * (1 - shares) / np.maximum(sizes - 1, 1), error * (1 - error)
    )
    variance = float(within.sum()) / len(sizes) ** 2
    effective = error * (1 - error) / variance if variance > 0 else float(len(wrong))
    return error, *wilson_interval(error, effective)


def completeness_notes(chosen: EvaluationSet, counted: int, classes: int | None = None) -> list[str]:
    """A sentence where images or classes are not as many as the official set has."""
    found = []
    if counted != chosen.images:
        found.append(f"{counted:,} images and not the {chosen.images:,} of the official set")
    if classes is not None and classes != chosen.classes:
        found.append(f"{classes:,} classes and not {chosen.classes:,}")
    return [f"{chosen.title}: {', '.join(found)}."] if found else []
