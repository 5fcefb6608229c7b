"""Write goldens of timm's networks from 2022 on: logits or features under known weights, in the form of README.md.

    python tests/goldens/write_towers.py                    small goldens of each family, into this folder
    python tests/goldens/write_towers.py --all --out=DIR    every network at its full size, one image, into DIR

It needs torch and timm. `NETWORKS` has, for each of our networks, timm's name and arguments, and our options. The
small goldens have few blocks, small images and ten classes, so that a file takes one to three kB. The full-size ones
are for `benchmarks/zoo_table.py`.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.goldens.formula import formula, image

HERE = Path(__file__).parent
# Our name, timm's name, the size of full-size images in pixels, and for a small golden: the size of its images,
# arguments of timm's network, and options of ours; None, where no option makes ours as small, and a test builds it.
V2 = [(f"convnextv2_{size}", f"convnextv2_{size}", 224) for size in ("femto", "pico", "nano", "tiny", "base", "large")]
EVA02 = ({"img_size": 56, "depth": 2}, {"image_size": 56, "depth": 2})
DINOV3 = ({"num_classes": 0, "global_pool": "token", "depth": 2}, {"depth": 2})
MAXVIT = {
    "img_size": 64,
    "depths": (1, 1, 2, 1),
    "embed_dim": (32, 64, 128, 256),
    "stem_width": 16,
    "head_hidden_size": 256,
}
NETWORKS = [
    ("convnextv2_atto", "convnextv2_atto", 224, 32, {}, {}),
    *V2,
    ("convnextv2_huge", "convnextv2_huge", 224),
    ("eva02_tiny_patch14", "eva02_tiny_patch14_336", 336, 56, *EVA02),
    ("eva02_small_patch14", "eva02_small_patch14_336", 336),
    ("eva02_base_patch14", "eva02_base_patch14_448", 448, 56, *EVA02),
    ("eva02_large_patch14", "eva02_large_patch14_448", 448),
    ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3", 256, 48, *DINOV3),
    ("vit_small_plus_patch16_dinov3", "vit_small_plus_patch16_dinov3", 256, 48, *DINOV3),
    ("maxvit_tiny", "maxvit_tiny_tf_224", 224, 64, MAXVIT, None),
    *((f"maxvit_{size}", f"maxvit_{size}_tf_224", 224) for size in ("small", "base", "large", "xlarge")),
    *((f"vit_{size}_patch16_dinov3", f"vit_{size}_patch16_dinov3", 256) for size in ("base", "large", "huge_plus")),
]


def main():
    """Write the goldens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every network at full size")
    parser.add_argument("--out", type=Path, default=HERE, help="a folder")
    parser.add_argument("--networks", default="", help="only networks whose name contains this")
    arguments = parser.parse_args()
    arguments.out.mkdir(exist_ok=True, parents=True)
    for ours, theirs, size, *small in NETWORKS:
        if arguments.networks not in ours or not (arguments.all or small):
            continue
        if arguments.all:
            head = {"global_pool": "token"} if "dinov3" in ours else {"num_classes": 1000}  # 21,843 in MaxViT-XL
            write(arguments.out / f"{ours}.npz", theirs, size, head, None)
        else:
            path = f"{ours}.npz" if small[2] is not None else "peers/maxvit.npz"
            write(arguments.out / path, theirs, small[0], {"num_classes": 10} | small[1], small[2] or {})


def write(path, theirs, size, arguments, options):
    """Write a golden; `options` of our network are stored where they are given."""
    import timm

    network = timm.create_model(theirs, **arguments).eval()
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    weights = {n: torch.from_numpy(np.asarray(formula(renamed(n), shape))) for n, shape in shapes.items()}
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        logits = network(torch.from_numpy(image(0, size, 1))).numpy()
    print(path.name, logits.shape, logits.std(), flush=True)
    stored = {} if options is None else {"options": json.dumps({"num_classes": arguments["num_classes"]} | options)}
    np.savez_compressed(
        path,
        names=np.array([renamed(name) for name in shapes]),
        shapes=np.array([json.dumps(linear(name, shape)) for name, shape in shapes.items()]),
        logits=logits,
        image_size=size,
        seed=0,
        salt=0,
        reference=f"timm {timm.__version__}",
        **stored,
    )


def renamed(name):
    """Return our name of a tensor of timm: LayerScale of DINOv3 has the names of its authors."""
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)


def linear(name, shape):
    """Return the shape that a layer of an MLP has here, where timm has a 1x1 convolution in small ConvNeXts."""
    return shape[:2] if ".mlp.fc" in name else shape


if __name__ == "__main__":
    main()
