"""The ResNets of CIFAR-10: He et al. 2015 (arXiv 1512.03385), section 4.2.

    python main.py prepare cifar10
    python main.py train --config=configs/resnet_cifar.py:20 --workdir=runs/cifar20

The argument is the depth: 20, 32, 44, 56, 110 or 1202. Recipe: SGD, batch 128, momentum 0.9, decay 1e-4, rate 0.1
divided by 10 at 32,000 and 48,000 of 64,000 steps; pixels from 0 to 255 less their mean; padding by 4 and a random
crop of 32, mirror. 110 and deeper warm up.

Target: error 8.75, 7.51, 7.17, 6.97, 6.43 and 7.93 % on the test set, one view (table 6). Cost: 2.0e15 FLOP for 20
layers. Not run to the end here. Deviations: the mean of each channel, not the mean image; the padding is black, the
paper's has the mean's colour; the warm-up rises linearly for 400 steps, where the paper trained at 0.01 until the
training error was below 80 %; trained on all 50,000 images. Computed in bfloat16; --config.precision=float32 computes
as the paper did.
"""

from ml_collections import ConfigDict


def get_config(depth="20"):
    warmup = 400 / 64_000 if int(depth) >= 110 else 0.0
    return ConfigDict(
        {
            "budget": "64000st",
            "batch_size": 128,
            "model": {"name": f"resnet{depth}_cifar"},
            "data": {"name": "cifar10", "eval_split": "test", "image_size": 32},
            "train_crop": {"name": "pad", "padding": 4},
            "eval_crop": {"name": "center", "ratio": 1.0},
            "augment": {"mean": (0.4914, 0.4822, 0.4465), "std": (1 / 255, 1 / 255, 1 / 255)},  # the set's own mean
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "steps", "warmup": warmup, "boundaries": (0.5, 0.75)},
        }
    )
