"""Write the table of the images for published weights, from timm's and torchvision's own descriptions of them.

    pip install timm torchvision
    python -m tools.published_weights

The table is `imagenet_repro/pretrained/published_weights.csv`. It has a row for each file of weights that these
libraries publish for a network of `imagenet_repro.models`.
"""

import csv
import re
from collections.abc import Iterator
from typing import Any

from imagenet_repro import models
from imagenet_repro.pretrained.published import COLUMNS, STORED

# Networks of timm whose tensors are those of a network here: our name and the options that tell them apart.
_SAME = '{"padding": "same", "norm_epsilon": 0.001}'
_SYMMETRIC = '{"padding": "symmetric", "norm_epsilon": 1e-05}'
_TORCHVISION = {
    "alexnet_owt": "alexnet",
    "googlenet_bn": "googlenet",
    "regnet_y_16gf": "regnet_y_16gf",
    **{f"vit_{size}_patch{patch}": f"vit_{size[0]}_{patch}" for size in ("base", "large") for patch in (16, 32)},
    "vit_huge_patch14": "vit_h_14",
}
_HALF = (0.5, 0.5, 0.5)


def main() -> None:
    """Write the table."""
    rows = sorted([*_timm(), *_torchvision()], key=lambda row: list(models.names()).index(row["network"]))
    with STORED.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{STORED}: {len(rows)} files of weights")


def _architectures() -> dict[str, tuple[str, str]]:
    """Return timm's networks: our name and options for each."""
    architectures = {}
    for name in models.names():
        library, _, theirs = models.spec(name).reference.partition(":")
        if library in ("timm", "torchvision"):
            architectures.setdefault(theirs, (name, _SAME if theirs.startswith("tf_efficientnet_") else ""))
            architectures |= {alias: (name, "") for alias in models.spec(name).aliases if alias not in architectures}
        if name.startswith("efficientnet_"):
            architectures[name] = (name, _SYMMETRIC)
        if re.fullmatch(r"(vit|deit|deit3)_\w+_patch\d+", name):
            architectures[f"{name}_384"] = (name, "")
    return architectures


def _timm() -> Iterator[dict[str, Any]]:
    import timm
    from timm.models import get_pretrained_cfg, list_pretrained

    for tag in list_pretrained():
        name, options = _architectures().get(tag.partition(".")[0], ("", ""))
        images: Any = get_pretrained_cfg(tag)
        if not name or images.crop_mode not in ("center", "squash") or images.input_size[0] != 3:
            continue
        if name == "googlenet_bn":
            continue
        yield {
            "weights": tag,
            "network": name,
            "options": options,
            "size": images.input_size[1],
            "crop": "squash" if images.crop_mode == "squash" else f"{images.crop_pct:g}",
            "kernel": images.interpolation,
            "mean": _triple(images.mean),
            "std": _triple(images.std),
            "file": (images.url or "").rpartition("/")[-1],
            "source": f"timm {timm.__version__}",
        }


def _torchvision() -> Iterator[dict[str, Any]]:
    import torchvision

    for name in models.names():
        library, _, theirs = models.spec(name).reference.partition(":")
        theirs = _TORCHVISION.get(name, theirs if library == "torchvision" or name.startswith("convnext") else "")
        if theirs not in torchvision.models.list_models(module=torchvision.models):
            continue
        for weights in torchvision.models.get_model_weights(theirs):
            images = weights.transforms()
            size, resized = images.crop_size[0], images.resize_size[0]
            # These two normalise again in their first step, which gives pixels from -1 to 1.
            is_twice = theirs in ("googlenet", "inception_v3")
            yield {
                "weights": f"{theirs}.{weights.name}",
                "network": name,
                "options": "",
                "size": size,
                "crop": f"{size / resized:.17g}",
                "kernel": images.interpolation.value,
                "mean": _triple(_HALF if is_twice else images.mean),
                "std": _triple(_HALF if is_twice else images.std),
                "file": weights.url.rpartition("/")[-1],
                "source": f"torchvision {torchvision.__version__.partition('+')[0]}",
            }


def _triple(numbers: Any) -> str:
    return " ".join(f"{number:.10g}" for number in numbers)


if __name__ == "__main__":
    main()
