"""Options of a network that a file of weights needs, where names and shapes of the tensors do not show them.

Some networks have two widely used forms with the same tensors: EfficientNet's padding and epsilon, and the side on
which option A of CIFAR's ResNets pads channels. The wrong form loads and gives wrong answers. What tells the forms
apart is the naming scheme of the publisher, or the count of batches that PyTorch keeps beside running statistics.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.efficientnet import EfficientNet
from imagenet_repro.models.resnet_cifar import CifarResNet

TENSORFLOW = {"padding": "same", "norm_epsilon": 1e-3}  # EfficientNets of Google, and of timm as `tf_efficientnet_*`
TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5}  # EfficientNets that timm trained
COUNT = "num_batches_tracked"
FLAT_EFFICIENTNET = "EfficientNet-PyTorch"
LINEAR_RESNET = "ResNets for CIFAR with `linear`"
HUGGINGFACE_VIT = "transformers, ViT"
OPENAI_CLIP = "OpenAI's CLIP and open_clip"


def options(
    tensors: Mapping[str, np.ndarray],
    scheme: str,
    originals: Mapping[str, np.ndarray],
    *,
    is_program: bool = False,
) -> dict[str, Any]:
    """Return the options that a file of weights shows, by name; options that it does not show are left out.

    Args:
      tensors: by our names, in PyTorch's layout.
      scheme: the title of the naming scheme of the file; empty: its names are ours.
      originals: by the names of the file.
      is_program: whether the file is a TorchScript program; of CLIP, only OpenAI published such files.
    """
    if scheme == OPENAI_CLIP and is_program:
        return {"activation": "quick_gelu"}
    if scheme == HUGGINGFACE_VIT:
        return _huggingface_vit(tensors)
    if "blocks.0.attn.q_bias" in tensors:
        return {"qkv_bias": True}
    if "conv_stem.weight" in tensors:
        return _efficientnet(scheme, originals)
    if "conv1.weight" in tensors and "layer3.0.conv1.weight" in tensors:
        return _resnet(tensors, scheme)
    return {}


def check_known(network: str, given: Mapping[str, Any], path: str) -> None:
    """Check that nothing is left open that the tensors of a network do not show.

    Args:
      network: a name or an alias of a network.
      given: options that the file shows or the user states.
      path: of the file, for messages.

    Raises:
      UserError: the network has two forms, and no option says which.
    """
    option, first, second = _forms(network)
    if not option or option in given:
        return
    name = models.canonical(network)
    raise UserError(
        f"{path} does not show which form of {name} it is of, and the wrong one would give wrong answers without an"
        f" error: {_text(first)} or {_text(second)}. Add one of them as options of the network, on the command line"
        f' --options="{_literal(first)}", in a configuration model.options'
    )


def check_fits(network: str, shown: Mapping[str, Any], stated: Mapping[str, Any], path: str) -> None:
    """Check that a network is built in the form that a file shows, unless its options state another on purpose.

    Args:
      network: a name or an alias of a network.
      shown: options that the file shows.
      stated: options that the network was built with.
      path: of the file, for messages.

    Raises:
      UserError: the file shows another form than the network's own, and no option states one.
    """
    option, *_ = _forms(network)
    defaults = models.spec(network).options
    wrong = {key: value for key, value in shown.items() if key in defaults and defaults[key] != value}
    if option and option in wrong and option not in stated:
        raise UserError(
            f"{path} is of {models.canonical(network)} with {_text(shown)}, and the network was built without; build"
            f" it with these options, in a configuration model.options={_literal(wrong)}"
        )


def _forms(network: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Return the option that tells two forms of a network apart, and the options of both; empty where it has one."""
    builder = models.spec(network).builder
    builder = getattr(builder, "func", builder)
    if not isinstance(builder, type):
        return "", {}, {}
    if issubclass(builder, EfficientNet) and not models.canonical(network).startswith("efficientnetv2"):
        return "padding", TENSORFLOW, TIMM
    if issubclass(builder, CifarResNet):
        return "shortcut", {"shortcut": "A"}, {"shortcut": "A_symmetric"}
    return "", {}, {}


def _text(options: Mapping[str, Any]) -> str:
    names = {repr(TENSORFLOW): " (Google's, timm's tf_efficientnet_*)", repr(TIMM): " (timm's efficientnet_*)"}
    listed = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return listed + names.get(repr(options), "")


def _literal(options: Mapping[str, Any]) -> str:
    return repr(dict(options))


def _huggingface_vit(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the options of `transformers`: ViT and DeiT have another epsilon; DINOv2 has LayerScale and its own."""
    if "blocks.0.ls1.gamma" not in tensors:
        return {"norm_epsilon": 1e-12}
    head, token = tensors.get("head.weight"), tensors.get("cls_token")
    is_double = head is not None and token is not None and head.shape[1:] == (2 * token.shape[-1],)
    return {"pool": "token_and_avg"} if is_double else {}


def _efficientnet(scheme: str, originals: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return TensorFlow's form for converted weights, whose batches PyTorch has not counted.

    Weights that PyTorch has trained may be of either form.
    """
    counts = [array for name, array in originals.items() if name.endswith(COUNT)]
    is_converted = bool(counts) and not any(np.any(array) for array in counts)
    return dict(TENSORFLOW) if scheme == FLAT_EFFICIENTNET or is_converted else {}


def _resnet(tensors: Mapping[str, np.ndarray], scheme: str) -> dict[str, Any]:
    is_cifar = tensors["conv1.weight"].shape == (16, 3, 3, 3) and "layer4.0.conv1.weight" not in tensors
    if is_cifar and "layer2.0.downsample.0.weight" in tensors:
        return {"shortcut": "C" if "layer1.0.downsample.0.weight" in tensors else "B"}
    if scheme != LINEAR_RESNET:
        return {}
    return {"shortcut": "A_symmetric"} if is_cifar else {"stem": "small"}
