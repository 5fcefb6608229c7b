"""ConvNeXt: Liu et al., "A ConvNet for the 2020s", 2022 (arXiv 2201.03545).

    python main.py train --config=configs/convnext.py:tiny --workdir=runs/convnext_tiny

The argument is tiny, small, base, large or xlarge, which has no published result without ImageNet-22k. Recipe
(appendix A.1, with the authors' code): AdamW, batch 4096, rate 0.004, decay 0.05, 300 epochs with 20 of warm-up, a
cosine down to 1e-6; RandAugment (9, 0.5), mixup 0.8, CutMix 1.0, random erasing 0.25, label smoothing 0.1, stochastic
depth of each size, LayerScale of 1e-6, an average of 0.9999.

Target: top-1 error 17.9 % (tiny), 16.9 (small), 16.2 (base), 15.7 (large), one crop of 224 (authors' repository).
Cost: 1.0e19 FLOP for tiny. Not run on ImageNet here.

Deviations: mixup and CutMix draw for each pair of images, not for each batch.
"""

from ml_collections import ConfigDict


def get_config(size="tiny"):
    return ConfigDict(
        {
            "budget": "300ep",
            "batch_size": 4096,
            "model": {"name": f"convnext_{size}"},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "kernel": "bicubic", "antialias": True},
            "augment": {
                "policy": {"name": "randaugment_timm", "magnitude": 9.0, "magnitude_std": 0.5},
                "mixup": 0.8,
                "cutmix": 1.0,
                "erasing": 0.25,
                "erasing_fill": "normal",
                "label_smoothing": 0.1,
            },
            "optimizer": {"name": "adamw", "learning_rate": 4e-3, "weight_decay": 0.05},
            "schedule": {"name": "cosine", "warmup": 20 / 300, "final": 1e-6 / 4e-3},
            "ema_decay": 0.9999,
        }
    )
