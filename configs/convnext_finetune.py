"""Fine-tuning of ConvNeXt: Liu et al. 2022 (arXiv 2201.03545v2), table 6, with TRAINING.md of the authors' code.

    python main.py train --config=configs/convnext_finetune.py:base --config.model.weights=convnext_base_22k_224.pth
        --workdir=runs/convnext_base_finetune

The argument is tiny, small, base, large or xlarge: from weights of ImageNet-22k, at 224 pixels, or at 384 as base_384;
base_1k_384 and large_1k_384 start from ImageNet-1k. AdamW, batch 512, rate 5e-5, decay 1e-8, 30 epochs of a cosine
down to 1e-6 without warm-up; the rate of a layer is 0.8 of that of the layer after it (0.7 from ImageNet-1k);
RandAugment (9, 0.5), random erasing 0.25, label smoothing 0.1, no mixup, stochastic depth of each size. An average of
0.9999 for xlarge. Nothing is published for tiny and small from ImageNet-1k: table 6 and TRAINING.md have base and
large alone.

Target: top-1 error on ImageNet, one crop: from 22k 17.1 / 15.4 / 14.2 / 13.4 / 13.0 % (tiny to xlarge) at 224 pixels,
15.9 / 14.2 / 13.2 / 12.5 / 12.2 % at 384; from 1k 14.9 / 14.5 % (base, large) at 384 (authors' README). Cost: 3.5e18
FLOP for base at 224. Not run on ImageNet here.

Deviations: from ImageNet-22k the new head starts at zero, while the authors multiply its initial values by 0.001;
from ImageNet-1k the head of the file is kept, while theirs is multiplied, too.
"""

from ml_collections import ConfigDict

DROP_PATH = {
    **{"tiny": 0.0, "small": 0.1, "base": 0.2, "large": 0.3, "xlarge": 0.4},
    **{"base_1k": 0.8, "large_1k": 0.95},
}


def get_config(size="base"):
    start, image_size = (size.removesuffix("_384"), 384) if size.endswith("_384") else (size, 224)
    large = {"name": "squash", "kernel": "bicubic", "antialias": True}
    small = {"name": "center", "ratio": 0.875, "kernel": "bicubic", "antialias": True}
    from_1k = start.endswith("_1k")
    return ConfigDict(
        {
            "budget": "30ep",
            "batch_size": 512,
            "model": {
                "name": f"convnext_{start.removesuffix('_1k')}",
                "options": {"drop_path": DROP_PATH[start]},
            },
            "data": {"name": "imagenet2012", "image_size": image_size},
            "train": {"zero_head": not from_1k},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": large if image_size == 384 else small,
            "augment": {
                "policy": {"name": "randaugment_timm", "magnitude": 9.0, "magnitude_std": 0.5},
                "erasing": 0.25,
                "erasing_fill": "normal",
                "label_smoothing": 0.1,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 5e-5,
                "weight_decay": 1e-8,
                "layer_decay": 0.7 if from_1k else 0.8,
            },
            "schedule": {"name": "cosine", "final": 1e-6 / 5e-5},
            "ema_decay": 0.9999 if start == "xlarge" else 0.0,
        }
    )
