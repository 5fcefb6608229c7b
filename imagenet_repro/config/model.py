"""The network, and progressive learning (training/progressive.py)."""

import dataclasses

from imagenet_repro.config.fields import bounded

OPTION_TYPES = {  # of the published networks' options, as which a text on the command line is read
    **dict.fromkeys(("dropout", "auxiliary_dropout", "drop_path", "head_bias", "layer_scale"), float),
    **dict.fromkeys(("norm_epsilon", "norm_momentum"), float),
    **dict.fromkeys(("groups", "image_size"), int),
    "depth": int | None,
    **dict.fromkeys(("auxiliary", "conv_bias", "mask_token", "qkv_bias", "zero_init_last"), bool),
    **dict.fromkeys(("remat", "scan"), bool | None),
    **dict.fromkeys(("padding", "pool", "positions", "shortcut", "stem"), str),
}
OTHER_OPTION = int | float | bool | str | None  # any other option is read as the first of these that its text has


@dataclasses.dataclass(frozen=True)
class Model:
    """The network; `options` are keyword arguments of that network's constructor."""

    name: str = "resnet50"  # a name that `main.py models` lists
    # options of that network, by name
    options: dict = dataclasses.field(default_factory=dict, metadata={"types": OPTION_TYPES, "other": OTHER_OPTION})
    # a file to start from, package:NAME, hub:USER/NAME or the workdir of a run; empty: none (runs/initial_weights.py)
    weights: str = ""


@dataclasses.dataclass(frozen=True)
class Progressive:
    """Sizes and regularisation that grow in stages, each an equal share of the budget (Tan & Le 2021, sec. 4).

    The last stage has the values of the other sections. Stage s of S, counted from 1, has the size `image_size_from` +
    (data.image_size - `image_size_from`) s / S, rounded down; every other value rises evenly from the first stage to
    the last.
    """

    stages: int = bounded(1, 1, 1000)  # 1: off
    image_size_from: int = bounded(128, 1, 65_536)  # pixels; the size of a stage before the first
    magnitude_from: float = bounded(0.0, 0.0, 30.0)  # of augment.policy, where it has a magnitude
    dropout_from: float = bounded(0.0, 0.0, 1.0)  # of the network's option `dropout`
    mixup_from: float = bounded(0.0, 0.0)  # of augment.mixup
    cutmix_from: float = bounded(0.0, 0.0)  # of augment.cutmix
