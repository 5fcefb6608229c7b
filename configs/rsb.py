"""ResNet strikes back: Wightman, Touvron & Jegou, 2021 (arXiv 2110.00476): procedures A1, A2 and A3.

    python main.py train --config=configs/rsb.py:a2 --workdir=runs/rsb_a2
    python main.py train --config=configs/rsb.py:a1,resnet152 --workdir=runs/rsb_a1_152

The argument is a1, a2 or a3; the network is ResNet-50 unless named after a comma. Recipe (table 2): LAMB, batch 2048,
a cosine with five epochs of warm-up, binary cross-entropy, mixup and CutMix 1.0, RandAugment; A1: 600 epochs, rate
0.005, decay 0.01, smoothing 0.1, stochastic depth 0.05, repeated augmentation, (7, 0.5), mixup 0.2; A2: 300 epochs,
decay 0.02, mixup 0.1, the rest as A1 without smoothing; A3: 100 epochs at 160 px, rate 0.008, decay 0.02, (6, 0.5),
mixup 0.1. A class's target is 1 where its share of the mixed and smoothed image is above 0.2, else 0 (timm's
`bce_target_thresh`), so A1's smoothing only moves the threshold, as in timm. The last scale of each residual
branch starts at zero, as timm trains.

Target: top-1 error 19.6 % (A1), 20.2 (A2), 21.9 (A3) for ResNet-50 at 224 px, crop ratio 0.95. Cost: 1.9e19, 9.4e18
and 1.6e18 FLOP. Not run on ImageNet here.

Deviations: mixup and CutMix draw for each pair of images, not for each batch; the warm-up starts from zero and the
cosine ends there, in timm at rates of 1e-4 and 1e-6; another sampler of repeats (data/order.py); gradients are not
clipped, while timm's LAMB clips them at norm 1 by default (`--config.clip_norm=1`).
"""

from ml_collections import ConfigDict

from imagenet_repro import models

PROCEDURES = {
    "a1": {"epochs": 600, "rate": 5e-3, "decay": 0.01, "magnitude": 7.0, "mixup": 0.2, "smoothing": 0.1, "size": 224},
    "a2": {"epochs": 300, "rate": 5e-3, "decay": 0.02, "magnitude": 7.0, "mixup": 0.1, "smoothing": 0.0, "size": 224},
    "a3": {"epochs": 100, "rate": 8e-3, "decay": 0.02, "magnitude": 6.0, "mixup": 0.1, "smoothing": 0.0, "size": 160},
}


def get_config(argument="a2"):
    procedure, _, network = argument.partition(",")
    network = network or "resnet50"
    p = PROCEDURES[procedure]
    regularised = procedure != "a3"
    options = {"drop_path": 0.05} if regularised else {}
    if "zero_init_last" in models.spec(network).options:
        options["zero_init_last"] = True
    return ConfigDict(
        {
            "budget": f"{p['epochs']}ep",
            "batch_size": 2048,
            "model": {"name": network, "options": options},
            "data": {
                "name": "imagenet2012",
                "image_size": p["size"],
                "eval_image_size": 224,
                "repeats": 3 if regularised else 1,
            },
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.95, "kernel": "bicubic", "antialias": True},
            "augment": {
                "policy": {"name": "randaugment_timm", "magnitude": p["magnitude"], "magnitude_std": 0.5},
                "mixup": p["mixup"],
                "cutmix": 1.0,
                "label_smoothing": p["smoothing"],
            },
            "loss": {"name": "sigmoid", "reduction": "mean", "threshold": 0.2},
            "optimizer": {"name": "lamb", "learning_rate": p["rate"], "weight_decay": p["decay"]},
            "schedule": {"name": "cosine", "warmup": 5 / p["epochs"]},
        }
    )
