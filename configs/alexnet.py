"""The one-tower AlexNet (Krizhevsky 2014, arXiv 1404.5997) with the training of 2012 (Krizhevsky et al., NIPS 2012).

    python main.py train --config=configs/alexnet.py --workdir=runs/alexnet

Recipe (2012, section 5): SGD, batch 128, momentum 0.9, decay 5e-4 on all parameters, rate 0.01 divided by 10 three
times over 90 epochs, dropout 0.5; shorter side 256, centre square, random 224 crop, mirror, PCA colour with standard
deviation 0.1. Target: top-1 / top-5 error 43.5 / 20.9 %, one centre crop, of torchvision's published weights for
this network; the paper's 40.7 / 18.2 % is the two-tower network with ten crops. Not run here: no ImageNet at hand.

Deviations: one tower without response normalisation; the drops of the rate come at fixed quarters of the budget,
where the paper dropped it by hand; mean and deviation of each channel instead of the mean image; PyTorch's
initialisation instead of normal(0, 0.01) with biases of one.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "budget": "90ep",
            "batch_size": 128,
            "model": {"name": "alexnet"},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "shorter_side", "resize": 256, "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "augment": {"pca": "paper"},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "steps", "boundaries": (0.25, 0.5, 0.75)},
            "evaluate_every": "1ep",
            "checkpoint": {"every": "1ep"},
        }
    )
