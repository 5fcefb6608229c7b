"""ResNet v1.5 on ImageNet (He et al. 2015, arXiv 1512.03385), at the depth given: 18, 34, 50, 101 or 152.

    python main.py train --config=configs/resnet.py:50 --workdir=runs/resnet50

Recipe: SGD, momentum 0.9, batch 256, rate 0.1 divided by 10 at 30, 60 and 80 of 90 epochs, decay 1e-4 on all
parameters (paper, section 3.4); random-resized crops as fb.resnet.torch and torchvision have them, instead of the
paper's scale jitter in [256, 480]. Target: top-1 / top-5 error 23.9 / 7.1 % for ResNet-50, one centre crop
(torchvision's published weights, which this architecture reproduces). Not run here: no ImageNet was at hand.

Deviations from the paper: stride in the 3x3 convolution (v1.5); crops as above; PCA colour left out; drops of the
rate at fixed times, where the paper waited for a plateau; last scale of each block starts at zero (Goyal et al. 2017).
"""

from ml_collections import ConfigDict


def get_config(depth="50"):
    return ConfigDict(
        {
            "budget": "90ep",
            "batch_size": 256,
            "model": {"name": f"resnet{depth}", "options": {"zero_init_last": True}},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "steps", "warmup": 5 / 90, "boundaries": (30 / 90, 60 / 90, 80 / 90)},
            "evaluate_every": "1ep",
            "checkpoint": {"every": "1ep"},
        }
    )
