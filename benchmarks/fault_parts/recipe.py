"""The runs that benchmarks/faults.py kills: `recipe.py:KIND,DATA_DIR`, on fractals of 32 pixels, in a few steps."""

from ml_collections import ConfigDict

CATEGORIES, TRAIN_IMAGES, VALIDATION_IMAGES = 4, 64, 4  # images for each category
DATA_SET = f"fractal/c{CATEGORIES}_n{TRAIN_IMAGES}_v{VALIDATION_IMAGES}_s32"
NETWORK, AVERAGED, FEATURES = "network", "averaged", "features"
STEPS = 8


def get_config(argument):
    """Return the configuration of KIND,DATA_DIR."""
    kind, _, data_dir = argument.partition(",")
    common = {
        "data": {"name": DATA_SET, "data_dir": data_dir, "image_size": 32, "threads": 1, "workers": 0},
        "log_every": 1,
    }
    return ConfigDict(common | {NETWORK: _network, AVERAGED: _averaged, FEATURES: _features}[kind]())


def _network():
    return {
        "budget": f"{STEPS}st",
        "batch_size": 8,
        "precision": "float32",
        "model": {"name": "lenet5"},
        "eval_crop": {"name": "center", "ratio": 1.0},
        "optimizer": {"name": "sgd", "learning_rate": 0.02},
        "schedule": {"name": "cosine", "warmup": 0.25},
        "evaluate_every": "4st",
        "checkpoint": {"every": "2st"},
    }


def _averaged():
    """Gradient accumulation, weight averaging and augmentation."""
    return _network() | {
        "accumulate": 2,
        "ema_decay": 0.9,
        "augment": {"brightness": 0.2, "mixup": 0.4, "erasing": 0.5},
    }


def _features():
    code = {"name": "fisher", "components": 2, "iterations": 2}
    return {
        "system": "small_features",
        "budget": f"{STEPS}st",
        "batch_size": 8,
        "channels": {"edges": {"descriptor": "sift", "patch": 16, "components": 4, "code": code, "quantise": 4}},
        "sample": {"images": 24, "descriptors": 300, "codes": 256},
        "svm": {"loss": "squared_hinge", "rate": 0.2, "average_from": "4st"},
        "evaluate_every": "4st",
        "checkpoint": {"every": "2st"},
    }
