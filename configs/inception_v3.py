"""Inception-v3: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015 (arXiv 1512.00567).

    python main.py train --config=configs/inception_v3.py --workdir=runs/inception_v3

The argument may be inception_v3 (default), bn_inception, inception_v4 or inception_resnet_v2, which followed the same
recipe or were trained alike (1602.07261, section 4). Recipe (section 8): RMSProp with decay 0.9 and epsilon 1, batch
50 x 32, rate 0.045 times 0.94 every two epochs, 100 epochs, gradients clipped at norm 2, label smoothing 0.1, an
average of the weights evaluated; the auxiliary head weighs 0.4.

Target: top-1 / top-5 error 21.2 / 5.6 %, one crop, on the validation images that are not blacklisted (table 4); about
0.2 / 0.1 more on all. Cost: 4.4e18 FLOP. Not run on ImageNet here.

Guesses, after the authors' code as others report it: decay 4e-5, momentum 0.9, an average of 0.9999; ours: mirror and
colour as GoogLeNet's. Deviation: 50 asynchronous replicas of batch 32 become one batch of 1,600.
"""

from ml_collections import ConfigDict

SIZES = {"inception_v3": 299, "bn_inception": 224, "inception_v4": 299, "inception_resnet_v2": 299}


def get_config(network="inception_v3"):
    return ConfigDict(
        {
            "budget": "100ep",
            "batch_size": 1600,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": SIZES[network]},
            "train_crop": {"name": "inception"},
            "eval_crop": {"name": "center", "ratio": 0.875, "kernel": "bicubic", "antialias": True},
            "augment": {
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "label_smoothing": 0.1,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
            },
            "optimizer": {
                "name": "rmsprop",
                "learning_rate": 0.045,
                "decay": 0.9,
                "momentum": 0.9,
                "eps": 1.0,
                "weight_decay": 4e-5,
            },
            "schedule": {"name": "exponential", "every": 2 / 100, "factor": 0.94},
            "clip_norm": 2.0,
            "ema_decay": 0.9999,
            "ema_warmup": True,
        }
    )
