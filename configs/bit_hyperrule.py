"""BiT-HyperRule: Kolesnikov et al., "Big transfer (BiT)", 2020 (arXiv 1912.11370), section 3.3.

    python main.py train --config=configs/bit_hyperrule.py:resnetv2_50,50000,32 --config.data.name=cifar10
        --config.data.eval_split=test --config.model.weights=resnetv2_50.pth --workdir=runs/bit_cifar10

The argument is the network, the number of training images of the data set, and the side of its images in pixels,
which decide everything else. Fewer than 20,000 images: 500 steps, no mixup; fewer than 500,000: 10,000 steps, mixup
0.1; more: 20,000 steps, mixup 0.1. Images of less than 96 x 96 pixels are resized to 160 and cropped to 128, others to
512 and 480. SGD, momentum 0.9, batch 512, rate 0.003 without decay, divided by 10 at 30, 60 and 90 %; the head
starts at zero. The boundaries and the warm-up of 500 steps (100 of the shortest schedule) are those of the authors'
code (google-research/big_transfer, bit_hyperrule.py): 3,000, 6,000 and 9,000 of 10,000 steps, 6,000, 12,000 and 18,000
of 20,000, and 200, 300 and 400 of 500.

Target: from ImageNet-21k, ResNet-152x4 (BiT-M): top-1 error 14.61 % on ImageNet, 1.09 % on CIFAR-10, 7.83 % on
CIFAR-100, 5.53 % on Pets, 0.70 % on Flowers-102, one crop (table 1). Cost: 4.1e16 FLOP for CIFAR-10 and ResNet-50.
Not run here.

Deviations: BiT's networks have group normalisation and standardised weights, and the networks here batch
normalisation, which trains in batches of a device's share; the shorter side is resized, not the image to a square,
before the random crop.
"""

from ml_collections import ConfigDict

SMALL, MEDIUM = 20_000, 500_000  # images below which a data set is small or medium
SUPPORTS = {  # steps: warm-up, three drops, end
    "small": (100, 200, 300, 400, 500),
    "medium": (500, 3_000, 6_000, 9_000, 10_000),
    "large": (500, 6_000, 12_000, 18_000, 20_000),
}


def get_config(argument="resnetv2_50,50000,32"):
    network, images, side = argument.split(",")
    size = "small" if int(images) < SMALL else "medium" if int(images) < MEDIUM else "large"
    warmup, *drops, steps = SUPPORTS[size]
    resize, crop = (160, 128) if int(side) < 96 else (512, 480)
    return ConfigDict(
        {
            "budget": f"{steps}st",
            "batch_size": 512,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": crop},
            "train": {"zero_head": True},
            "train_crop": {"name": "scale_jitter", "resize": (resize, resize), "antialias": True},
            "eval_crop": {"name": "squash", "antialias": True},
            "augment": {
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
                "mixup": 0.0 if size == "small" else 0.1,
            },
            "optimizer": {"name": "sgd", "learning_rate": 0.003, "momentum": 0.9, "weight_decay": 0.0},
            "schedule": {
                "name": "steps",
                "warmup": warmup / steps,
                "boundaries": tuple(step / steps for step in drops),
            },
            "evaluate_every": f"{steps // 5}st",
            "checkpoint": {"every": f"{steps // 5}st"},
        }
    )
