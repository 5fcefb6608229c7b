"""ZFNet: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2013 (arXiv 1311.2901).

    python main.py train --config=configs/zfnet.py --workdir=runs/zfnet
    python main.py train --config=configs/zfnet.py:zfnet_wide --workdir=runs/zfnet_wide

Recipe (section 3): SGD, batch 128, momentum 0.9, rate 0.01 lowered by hand when the validation error plateaus, 70
epochs, dropout 0.5 in the two hidden linear layers, weights of 1e-2, biases of 0; a convolution filter whose root mean
square exceeds 0.1 is scaled back to it; pixels less their mean, in about [-128, 128]; shorter side 256, crops of 224.

Target: top-1 / top-5 error 38.4 / 16.5 % for `zfnet`, 37.5 / 16.0 % for `zfnet_wide`, validation (table 2). Cost:
6.3e17 and 1.3e18 FLOP. Not run on ImageNet here.

Evaluation is one centre crop. Deviations: random crops where the paper took ten fixed ones; the mean of each channel,
not the mean image; the rate drops by rule (no better for three evaluations); computed in bfloat16
(--config.precision=float32 computes as the paper did). Guesses: 1e-2 read as a standard deviation; no weight decay,
since the paper names none; when to drop.
"""

from ml_collections import ConfigDict


def get_config(network="zfnet"):
    return ConfigDict(
        {
            "budget": "70ep",
            "batch_size": 128,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "shorter_side", "resize": 256, "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "augment": {"std": (1 / 255, 1 / 255, 1 / 255)},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0},
            "schedule": {"name": "plateau", "factor": 0.1, "patience": 3, "drops": 3},
            "max_filter_rms": 0.1,
        }
    )
