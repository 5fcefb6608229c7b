"""A recipe for tests: a small ResNet on 32-pixel fractals, trained for a few steps.

The argument names the data directory.
"""

from ml_collections import ConfigDict


def get_config(data_dir):
    return ConfigDict(
        {
            "budget": "12st",
            "batch_size": 8,
            "precision": "float32",
            "model": {"name": "resnet20_cifar"},
            "data": {"name": "fractal/c6_n20_v7_s32", "data_dir": data_dir, "image_size": 32, "threads": 2},
            "augment": {"brightness": 0.2, "cutmix": 1.0, "erasing": 0.5},
            "optimizer": {"name": "sgd", "learning_rate": 0.02},
            "schedule": {"name": "cosine", "warmup": 0.25},
            "ema_decay": 0.9,
            "evaluate_every": "6st",
            "checkpoint": {"every": "2st"},
            "log_every": 1,
        }
    )
