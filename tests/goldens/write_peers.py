"""Write goldens of weights of others: logits of small networks, built by the code of their publishers.

    python tests/goldens/write_peers.py --cifar=DIR

It needs torch, torchvision, timm and transformers, and DIR, a clone of akamaster/pytorch_resnet_cifar10. Weights and
images follow from names and seeds (`formula.py`), so a file of `peers/` has names, shapes and results alone:

    efficientnet_same, efficientnet_symmetric: two stages of timm's EfficientNet in both of its forms
    resnet8_cifar: a ResNet of the clone with one block a stage, which pads new channels on both sides
    vit_transformers, vit_timm: one block of ViT-Ti, with small embeddings, so that the epsilon matters: 1e-12, 1e-6
    regnet_y: a RegNetY of two stages and three blocks, of torchvision
    images: pixels after the preprocessing of published weights, by their names, averaged to 8 x 8
"""

import argparse
import functools
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.goldens.formula import formula, image, photograph

PEERS = Path(__file__).parent / "peers"
TIMM = (
    *(
        "resnet18.a1_in1k",
        "resnet50.a1_in1k",
        "resnet50.ram_in1k",
        "tf_efficientnetv2_m.in1k",
        "convnext_tiny.fb_in1k",
    ),
    *("vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_small_patch14_dinov2.lvd142m", "regnety_160.deit_in1k"),
)
TORCHVISION = (
    *("resnet50.IMAGENET1K_V1", "resnet50.IMAGENET1K_V2", "inception_v3.IMAGENET1K_V1", "vit_b_16.IMAGENET1K_V1"),
    *("vit_l_16.IMAGENET1K_V1", "convnext_tiny.IMAGENET1K_V1", "regnet_y_16gf.IMAGENET1K_SWAG_E2E_V1"),
)


def main():
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="clone of akamaster/pytorch_resnet_cifar10")
    arguments = parser.parse_args()
    PEERS.mkdir(exist_ok=True)
    write("efficientnet_same", efficientnet("same", 1e-3), 32)
    write("efficientnet_symmetric", efficientnet("", 1e-5), 32)
    sys.path.insert(0, str(arguments.cifar))
    resnet = importlib.import_module("resnet")
    write("resnet8_cifar", resnet.ResNet(resnet.BasicBlock, [1, 1, 1]), 16)
    write("vit_transformers", vit(1e-12), 32, small="embeddings.")
    write("vit_timm", vit(1e-6), 32, small="embeddings.")  # under the names of transformers
    write("regnet_y", regnet(), 32)
    np.savez_compressed(PEERS / "images.npz", **images())


def efficientnet(padding, epsilon):
    """Return the first two stages of EfficientNet-B0, in TensorFlow's form or in timm's own."""
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.efficientnet import EfficientNet

    stages = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e6_c24_se0.25"]]
    norm = functools.partial(torch.nn.BatchNorm2d, eps=epsilon)
    settings = {"stem_size": 32, "num_features": 64, "num_classes": 10, "norm_layer": norm, "pad_type": padding}
    return EfficientNet(decode_arch_def(stages), act_layer=torch.nn.SiLU, round_chs_fn=round, **settings)


def vit(epsilon):
    """Return one block of ViT-Ti for 32 pixels, of transformers, whose own epsilon is 1e-12."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 768}
    config = ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=10, layer_norm_eps=epsilon)
    return ViTForImageClassification(config)


def regnet():
    """Return a small RegNetY of torchvision."""
    from torchvision.models.regnet import BlockParams, RegNet

    rule = {"depth": 3, "w_0": 24, "w_a": 12.0, "w_m": 2.0, "group_width": 8, "se_ratio": 0.25}
    return RegNet(BlockParams.from_init_params(**rule), num_classes=10)


def write(name, network, size, small=None):
    """Write the logits of a network in evaluation mode; tensors with `small` in their name are a thousandth."""
    network.eval()
    given = {n: tuple(t.shape) for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    scales = {n: 1e-3 if small and small in n else 1.0 for n in given}
    weights = {
        n: torch.from_numpy(np.asarray(formula(n, shape) * np.float32(scales[n]))) for n, shape in given.items()
    }
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        logits = network(torch.from_numpy(image(0, size)))
    logits = getattr(logits, "logits", logits).numpy()
    print(name, logits.std(), logits[0, :3])
    np.savez_compressed(
        PEERS / f"{name}.npz",
        names=np.array(list(given)),
        shapes=np.array([json.dumps(shape) for shape in given.values()]),
        scales=np.array([scales[n] for n in given], np.float32),
        image_size=size,
        logits=logits,
    )


def images():
    """Return pixels [8, 8, 3] of a drawn photograph for each published name, normalised as the publisher does."""
    picture = Image.fromarray(photograph())
    return {name: averaged(prepare(picture)) for name, prepare in (*timm_preparations(), *torchvision_preparations())}


def timm_preparations():
    """Yield each of `TIMM` with the function that prepares an image for it."""
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    for name in TIMM:
        settings = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict())
        yield name, create_transform(**settings)


def torchvision_preparations():
    """Yield each of `TORCHVISION` with the function that prepares an image for it.

    Two networks of torchvision normalise their input again in their first step; it is part of the preparation here.
    """
    from torchvision import models

    for name in TORCHVISION:
        network, _, tag = name.partition(".")
        transform = models.get_model_weights(network)[tag].transforms()
        again = models.inception_v3(weights=None, transform_input=True, init_weights=False)._transform_input
        if network == "inception_v3":
            yield name, lambda picture, transform=transform, again=again: again(transform(picture)[None])[0]
        else:
            yield name, transform


def averaged(pixels):
    """Return the means of 8 x 8 windows of [3, side, side], as [8, 8, 3]."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 8).numpy().transpose(1, 2, 0)


if __name__ == "__main__":
    main()
