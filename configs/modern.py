"""One modern recipe for any network, so that a comparison is of architectures and not of training methods.

    python main.py train --config=configs/modern.py:resnet50 --workdir=runs/modern/resnet50
    python main.py train --config=configs/modern.py:vgg16 --config.budget=2e18flop --workdir=runs/modern/vgg16

The argument is any network's name. AdamW, batch 1024, rate 0.001, decay 0.05 on kernels, a cosine after a twentieth
of the budget of warm-up, gradients clipped at norm 1 (without it, networks without normalisation sometimes
diverge), RandAugment (2 layers, magnitude 9), mixup 0.2, label smoothing 0.1, an average of the weights that warms up.
Nothing in it depends on the network: dropout and stochastic depth are the network's own defaults, the size is 224 px
for all. The rate is the one number that a fair comparison should search, with an equal number of trials for each
network.

Target: none is published for this recipe. Cost: that of the budget, 90 epochs unless set. Not run on ImageNet here.
"""

from ml_collections import ConfigDict


def get_config(network="resnet50"):
    return ConfigDict(
        {
            "budget": "90ep",
            "batch_size": 1024,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.95, "kernel": "bicubic", "antialias": True},
            "augment": {
                "policy": {"name": "randaugment_timm", "magnitude": 9.0, "magnitude_std": 0.5},
                "mixup": 0.2,
                "label_smoothing": 0.1,
            },
            "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "decay_mask": "kernels"},
            "schedule": {"name": "cosine", "warmup": 0.05},
            "clip_norm": 1.0,
            "ema_decay": 0.9999,
            "ema_warmup": True,
        }
    )
