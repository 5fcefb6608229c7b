"""Keys of contrastive training: the loss of pairs, the captions, the image tower, and the zero-shot classifier."""

import dataclasses

from imagenet_repro.config.fields import bounded

PROMPT = "a photo of a {name}."  # CLIP's single template (Radford et al. 2021, sec. 3.1.4)


@dataclasses.dataclass(frozen=True)
class SoftmaxPairs:
    """Cross-entropy over all texts for each image, and over all images for each text (CLIP, arXiv 2103.00020)."""

    name: str = "softmax"
    scale: float = bounded(1 / 0.07, 1.0, 1000.0)  # initial inverse temperature; weights bring their own
    max_scale: float = bounded(100.0, 1.0, 1e6)  # the scale is clipped to [1, max_scale] after every step


@dataclasses.dataclass(frozen=True)
class SigmoidPairs:
    """Binary cross-entropy of every image with every text (SigLIP, arXiv 2303.15343)."""

    name: str = "sigmoid"
    scale: float = bounded(10.0, 1.0, 1000.0)  # initial inverse temperature; weights bring their own
    bias: float = bounded(-10.0)  # initial bias, about the logarithm of the share of positives


PairsLoss = SoftmaxPairs | SigmoidPairs


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """A sentence with the name of an image's class, for any classification data set."""

    name: str = "class_names"
    templates: tuple[str, ...] = (PROMPT,)  # one is drawn for each use of an image; {name} or {} is the class


@dataclasses.dataclass(frozen=True)
class StoredCaptions:
    """Captions that are stored with the images; of several, one is drawn for each use of the image."""

    name: str = "stored"
    data: str = ""  # the prepared data set with the pairs; empty: data.name
    split: str = "train"  # of it, in tfds' syntax
    feature: str = "captions"  # the text or list of texts, such as captions/text of coco_captions


Captions = ClassNames | StoredCaptions


@dataclasses.dataclass(frozen=True)
class ImageTower:
    """The image tower, where it is to be another, to start from weights of its own, or to be locked."""

    model: str = ""  # a network that `main.py models` lists; empty: the image tower of model.name
    options: dict = dataclasses.field(default_factory=dict)  # of that network
    weights: str = ""  # a file, package:NAME or the workdir of a run, for all but the tower's head; empty: none
    locked: bool = False  # train the text tower and the image tower's head alone (LiT, arXiv 2111.07991)


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """The classifier that is evaluated: the features of each class's prompts, averaged over the templates."""

    templates: tuple[str, ...] = (PROMPT,)  # {name} or {} is the class
