"""EfficientNetV2 with progressive learning: Tan & Le, "Smaller models and faster training", 2021 (2104.00298).

    python main.py train --config=configs/efficientnetv2.py:s --workdir=runs/efficientnetv2_s

The argument is s, m, l or xl, which has no published result without ImageNet-21k. Recipe (section 4 and the authors'
code): RMSProp as EfficientNet, batch 4096, rate 0.016 per 256 images times 0.97 every 2.4 epochs after five of
warm-up, 350 epochs, decay 1e-5 but not on norms and biases, label smoothing 0.1, stochastic depth rising to 0.2, an
average of 0.9999 that warms up; four stages of equal length in which the images grow to the training size and
RandAugment, mixup, CutMix and dropout grow stronger.

Target: top-1 error 16.1 % (s), 14.8 (m), 14.3 (l); s at 384, m and l at 480 px, whole images (authors' repository).
Cost: about 9e18 FLOP for s. Not run on ImageNet here.

Deviations: a pair of images draws mixup or CutMix by a fair coin, where the authors' code gives each to half the
batch; pixels x become (x - 127.5) / 127.5, there (x - 128) / 128; norms take their statistics over all devices.
"""

from ml_collections import ConfigDict

# Training size, evaluation size, and the last stage's dropout, RandAugment magnitude and mixup.
VARIANTS = {
    "s": (300, 384, 0.2, 10.0, 0.0),
    "m": (384, 480, 0.3, 15.0, 0.2),
    "l": (384, 480, 0.4, 20.0, 0.5),
    "xl": (384, 512, 0.4, 20.0, 0.5),
}
BATCH = 4096
EPOCHS = 350


def get_config(variant="s"):
    size, eval_size, dropout, magnitude, mixup = VARIANTS[variant]
    return ConfigDict(
        {
            "budget": f"{EPOCHS}ep",
            "batch_size": BATCH,
            "cross_device_norm": True,
            "model": {"name": f"efficientnetv2_{variant}", "options": {"dropout": dropout}},
            "data": {"name": "imagenet2012", "image_size": size, "eval_image_size": eval_size},
            "train_crop": {"name": "inception", "area": (0.05, 1.0)},
            "eval_crop": {"name": "squash"},
            "augment": {
                "policy": {"name": "randaugment", "magnitude": magnitude},
                "mixup": mixup,
                "cutmix": mixup,
                "label_smoothing": 0.1,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
            },
            "progressive": {"stages": 4, "image_size_from": 128, "magnitude_from": 5.0},
            "optimizer": {
                "name": "rmsprop",
                "learning_rate": 0.016 * BATCH / 256,
                "decay": 0.9,
                "momentum": 0.9,
                "eps": 1e-3,
                "weight_decay": 1e-5,
                "decay_mask": "no_norm_bias",
            },
            "schedule": {"name": "exponential", "warmup": 5 / EPOCHS, "every": 2.4 / EPOCHS, "factor": 0.97},
            "ema_decay": 0.9999,
            "ema_warmup": True,
        }
    )
