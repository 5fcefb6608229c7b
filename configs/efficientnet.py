"""EfficientNet: Tan & Le, "Rethinking model scaling for convolutional neural networks", 2019 (arXiv 1905.11946).

    python main.py train --config=configs/efficientnet.py:b0 --workdir=runs/efficientnet_b0

The argument is b0 to b7. Recipe (section 5.2, with the authors' code): RMSProp with decay 0.9, momentum 0.9 and
epsilon 0.001, rate 0.016 per 256 images times 0.97 every 2.4 epochs after five of warm-up, 350 epochs, batch 4096,
decay 1e-5, label smoothing 0.1, an average of the weights of 0.9999 that warms up, drop connect rising to 0.2,
AutoAugment.

Target with AutoAugment: top-1 error 23.1 % (b0), 21.2 (b1), 19.9 (b2), 18.4 (b3), 17.0 (b4), 16.3 (b5), 15.9 (b6),
15.6 (b7), one crop, as timm measures the authors' weights. Cost: 1.0e18 FLOP for b0. Not run on ImageNet here.

Deviations: batch 4096, with the rate in proportion, where the authors' code has 218,949 steps of 2048 by default; the
authors decay everything but the variables of batch norm, so the biases of squeeze-and-excitation and of the last layer
too; here no bias decays. Batch norm takes its statistics over all devices, which is nearer to the authors' groups than
each device's own; crops need not hold a tenth of a labelled object.
"""

from ml_collections import ConfigDict

SIZES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}
BATCH = 4096
EPOCHS = 350


def get_config(variant="b0"):
    size = SIZES[variant]
    return ConfigDict(
        {
            "budget": f"{EPOCHS}ep",
            "batch_size": BATCH,
            "cross_device_norm": True,
            "model": {"name": f"efficientnet_{variant}"},
            "data": {"name": "imagenet2012", "image_size": size},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": size / (size + 32), "kernel": "bicubic", "antialias": True},
            "augment": {"policy": {"name": "autoaugment"}, "label_smoothing": 0.1},
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
