"""The place of a file of weights, and what the files beside it say.

A model's directory, as `transformers` and timm write it, has the weights as one file or in shards with an index, and
`config.json` beside them. With `transformers`, `preprocessor_config.json` says how images are prepared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Kernel, Preprocessing
from imagenet_repro.pretrained import hub, packages, published
from imagenet_repro.storage import user

INDEX = ".index.json"  # the end of the name of an index of shards
# Names of the weights in a model's directory, the preferred first.
MODEL_FILES = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", INDEX))
OPEN_CLIP_FILES = tuple(f"open_clip_{name}" for name in ("model.safetensors", "pytorch_model.bin"))
OPEN_CLIP_CONFIG = "open_clip_config.json"
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
_RESIZINGS = ("shortest", "squash")  # open_clip's; "longest" pads
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".th")
_KERNELS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class Stated(NamedTuple):
    """The statements of the files beside the weights.

    Attributes:
      network: our name of the network; empty: it is not stated, or not known here.
      options: of the network.
      preprocessing: of images; None: it is not stated.
      source: where it is stated, as the end of "as stated in".
      notes: a sentence for everything that could not be followed.
    """

    network: str = ""
    options: Mapping[str, Any] = {}
    preprocessing: Preprocessing | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


def locate(path: str | Path) -> Path:
    """Return the path of the file of weights that a text names.

    Args:
      path: of a file, of a model's directory, `package:NAME` for the file of an installed package, or
        `hub:USER/NAME[@REVISION]` for that of a repository on the Hugging Face Hub.

    Raises:
      UserError: the package or its file is missing, a directory has no file of weights, or several, or the repository
        cannot be downloaded.
    """
    if str(path).startswith(hub.PREFIX):
        return _in_directory(hub.download(str(path)))
    if str(path).startswith(packages.PREFIX):
        return packages.find_file(str(path))
    path = user.expand(path)
    try:
        is_directory = path.is_dir()
    except (OSError, ValueError):  # a name that no file can have; opening it says so
        return path
    return _in_directory(path) if is_directory else path


def _in_directory(directory: Path) -> Path:
    for name in (*MODEL_FILES, *OPEN_CLIP_FILES):
        if (directory / name).is_file():
            return directory / name
    files = sorted(file for file in directory.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if len(files) == 1:
        return files[0]
    if (directory / "checkpoints").is_dir():
        raise UserError(
            f"{directory} is the workdir of a run; write its weights first: main.py export --workdir={directory}"
            " --out=FILE.safetensors"
        )
    listed = ", ".join(file.name for file in files[:5]) or "none"
    raise UserError(
        f"{directory} is a directory without {' or '.join(MODEL_FILES[::2])}; name the file of weights in it (files of"
        f" weights there: {listed})"
    )


def shards(index: Path) -> tuple[Path, ...]:
    """Return the files that an index of shards names.

    Raises:
      UserError: it is not an index, a file is missing or is not in the same directory.
    """
    places = _read(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index} has no 'weight_map' from tensors to files; download it again")
    paths = []
    for name in dict.fromkeys(places.values()):
        if Path(name).name != name:
            raise UserError(f"{index} names the file '{name}', which is not beside it; download it again")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name} is missing, which {index.name} names; download it too")
        paths.append(index.parent / name)
    return tuple(paths)


def stated_beside(path: Path) -> Stated:
    """Return what the files beside the weights of a model's directory say; nothing for a file of another name.

    Raises:
      UserError: a file beside them cannot be understood.
    """
    config = path.parent / "config.json"
    if path.name in OPEN_CLIP_FILES or (path.name in MODEL_FILES and not config.is_file()):
        config = path.parent / OPEN_CLIP_CONFIG
    if path.name not in (*MODEL_FILES, *OPEN_CLIP_FILES) or not config.is_file():
        return Stated()
    content = _read(config)
    try:
        if config.name == OPEN_CLIP_CONFIG:
            return _open_clip(content)
        return _timm(content) if "architecture" in content else _transformers(content, path.parent)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{config} cannot be understood ({reason}); download it again, or move it away") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object; download it again")
    return content


def _timm(config: Mapping[str, Any]) -> Stated:
    architecture, images = str(config["architecture"]), config.get("pretrained_cfg") or config
    row = published.by_architecture(architecture)
    preprocessing = None
    if "input_size" in images and images.get("crop_mode", "center") in ("center", "squash"):
        is_squash = images.get("crop_mode") == "squash"
        preprocessing = Preprocessing(
            image_size=int(images["input_size"][-1]),
            crop_ratio=1.0 if is_squash else float(images.get("crop_pct") or 0.875),
            kernel=_kernel(str(images.get("interpolation") or "bicubic")),
            mean=_triple(images["mean"]),
            std=_triple(images["std"]),
            crop="squash" if is_squash else "center",
        )
    network, options = (row.network, row.options) if row else ("", {})
    return Stated(network, options, preprocessing, f"config.json, which names timm's {architecture}")


def _open_clip(config: Mapping[str, Any]) -> Stated:
    model, images = config["model_cfg"], config.get("preprocess_cfg") or {}
    # A tower of timm is SigLIP's, whose activation is that of big_vision.
    options = {} if "timm_model_name" in model["vision_cfg"] else {"activation": _open_clip_activation(model)}
    size = model["vision_cfg"]["image_size"]
    preprocessing = None
    if "mean" in images and images.get("resize_mode", "shortest") in _RESIZINGS:
        preprocessing = Preprocessing(
            image_size=int(size[0] if isinstance(size, list) else size),
            crop_ratio=1.0,
            kernel=_kernel(str(images.get("interpolation") or "bicubic")),
            mean=_triple(images["mean"]),
            std=_triple(images["std"]),
            crop="squash" if images.get("resize_mode") == "squash" else "center",
        )
    return Stated("", options, preprocessing, OPEN_CLIP_CONFIG)


def _open_clip_activation(model: Mapping[str, Any]) -> str:
    return "quick_gelu" if model.get("quick_gelu", False) else "gelu"


def _transformers(config: Mapping[str, Any], directory: Path) -> Stated:
    options = {}
    if config.get("model_type") in ("vit", "deit", "dinov2", "dinov2_with_registers") and "layer_norm_eps" in config:
        options["norm_epsilon"] = float(config["layer_norm_eps"])
    if config.get("model_type") in ("clip", "siglip"):
        usual = "quick_gelu" if config["model_type"] == "clip" else "gelu_pytorch_tanh"  # where it is not stated
        towers = {"activation": "vision_config", "text_activation": "text_config"}
        options |= {
            key: _ACTIVATIONS[(config.get(tower) or {}).get("hidden_act", usual)] for key, tower in towers.items()
        }
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return Stated("", options, None, "config.json")
    images = _read(path)
    if not (images.get("do_resize", True) and images.get("do_normalize", True)):
        return Stated("", options, None, "", (f"{path.name} leaves out a step and is not followed",))
    preprocessing = _processor(images)
    if preprocessing is None:
        note = f"{path.name} resizes to a square and crops that, which is not offered here, so that it is not followed"
        return Stated("", options, None, "", (note,))
    return Stated("", options, preprocessing, path.name)


def _processor(images: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of one of the library's processors; None where no crop here equals it."""
    size = images["size"]
    is_clip = "CLIP" in str(images.get("image_processor_type") or images.get("feature_extractor_type"))
    sides = (
        size if isinstance(size, dict) else {"shortest_edge" if "crop_pct" in images or is_clip else "height": size}
    )
    colours = {"mean": _triple(images["image_mean"]), "std": _triple(images["image_std"])}
    common: dict[str, Any] = colours | {"kernel": _kernel(_KERNELS.get(images.get("resample", 2), "bilinear"))}
    shorter = sides.get("shortest_edge")
    cropped = images.get("crop_size") if images.get("do_center_crop") else None
    cropped = cropped.get("height") if isinstance(cropped, dict) else cropped
    if shorter is not None and "crop_pct" in images:  # of ConvNeXt: large images are squashed
        if shorter >= 384:
            return Preprocessing(int(shorter), 1.0, crop="squash", **common)
        return Preprocessing(int(shorter), float(images["crop_pct"] or 224 / 256), **common)
    if shorter is not None and cropped is not None:
        return Preprocessing(int(cropped), int(cropped) / int(shorter), **common)
    height = sides.get("height")
    if height is None or sides.get("width", height) != height or cropped not in (None, height):
        return None
    return Preprocessing(int(height), 1.0, crop="squash", **common)


def _triple(numbers: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, numbers)
    return red, green, blue


def _kernel(name: str) -> Kernel:
    if name not in _KERNELS.values():
        raise ValueError(f"the kernel '{name}' is not known")
    return cast(Kernel, name)
