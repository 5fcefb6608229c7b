"""Vision transformers trained on ImageNet-1k alone, in two recipes of Google's.

    python main.py train --config=configs/vit.py:baseline --workdir=runs/vit_s16
    python main.py train --config=configs/vit.py:augreg --workdir=runs/vit_b16

`baseline`: Beyer, Zhai & Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022 (arXiv 2205.01580): S/16 with
mean pooling and fixed sine positions, Adam, batch 1024, rate 0.001 after 10,000 steps of warm-up, decay 1e-4
(multiplied by the schedule, not by the rate), cosine, clipping at norm 1, RandAugment (2, 10), mixup 0.2, pixels in
[-1, 1]. Target: top-1 error 23.5 % after 90 epochs, resized to 256, centre 224 (authors' repository). Cost: 3.2e18
FLOP.

`augreg`: Steiner et al., "How to train your ViT?", 2021 (arXiv 2106.10270): B/16 with a class token, 300 epochs,
batch 4096, sigmoid cross-entropy with the head's bias starting at -6.9. Target: top-1 error 20.8 % (timm's
measurement of the authors' B/16 weights from ImageNet-1k alone). Cost: 4.0e19 FLOP. Guesses: rate 0.001, decay 1e-4,
warm-up 10,000 steps, RandAugment (2, 15), mixup 0.2, dropout and stochastic depth 0.1, which of the paper's many
settings that weight had.

Not run on ImageNet here. Deviation: the first moment is kept in float32, not bfloat16. Guess: the head is one linear
layer in both.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167  # of the training set


def get_config(recipe="baseline"):
    return ConfigDict(_common() | {"baseline": _baseline, "augreg": _augreg}[recipe]())


def _common():
    return {
        "data": {"name": "imagenet2012", "image_size": 224},
        "train_crop": {"name": "inception", "area": (0.05, 1.0)},
        "eval_crop": {"name": "center", "ratio": 0.875},
        "clip_norm": 1.0,
    }


def _augment(magnitude):
    return {
        "policy": {"name": "randaugment", "magnitude": magnitude},
        "mixup": 0.2,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }


def _adam(rate):
    # The optimizer here multiplies the decay by the rate.
    return {"name": "adamw", "learning_rate": rate, "weight_decay": 1e-4 / rate, "decay_mask": "kernels"}


def _warmup(epochs, batch_size):
    return 10_000 * batch_size / (epochs * IMAGES)


def _baseline():
    return {
        "budget": "90ep",
        "batch_size": 1024,
        "model": {"name": "vit_small_patch16", "options": {"pool": "avg", "positions": "sincos2d"}},
        "augment": _augment(10.0),
        "optimizer": _adam(1e-3),
        "schedule": {"name": "cosine", "warmup": _warmup(90, 1024)},
    }


def _augreg():
    return {
        "budget": "300ep",
        "batch_size": 4096,
        "model": {"name": "vit_base_patch16", "options": {"head_bias": -6.9, "dropout": 0.1, "drop_path": 0.1}},
        "augment": _augment(15.0),
        "loss": {"name": "sigmoid", "reduction": "sum"},
        "optimizer": _adam(1e-3),
        "schedule": {"name": "cosine", "warmup": _warmup(300, 4096)},
    }
