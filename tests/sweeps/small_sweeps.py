"""Configurations of small sweeps for tests."""

from imagenet_repro.config.sweep import resolve_sweep

DATA = "fractal/c6_n40_v7_s32"  # the data set of conftest.py

LENET = {
    "batch_size": 8,
    "precision": "float32",
    "model": {"name": "lenet5"},
    "data": {"name": DATA, "image_size": 32},
    "eval_crop": {"name": "center", "ratio": 1.0},
    "evaluate_every": "8st",
    "checkpoint": {"every": "4st"},
    "log_every": 1,
}
RATE = {"key": "optimizer.learning_rate", "low": 1e-3, "high": 1e-1, "log": True}


def settings(systems=2, **changes):
    """Return the nested settings of a sweep over `systems` LeNets, named "a", "b" and so on."""
    names = "abcdefghijklmnopqrstuvwxyz"[:systems]
    return {
        "budget": "16st",
        "train_split": "train",
        "select_split": "validation[:50%]",
        "test_split": "validation[50%:]",
        "systems": {name: {"config": "lenet.py", "base": LENET, "search": [RATE]} for name in names},
        **changes,
    }


def sweep(systems=2, **changes):
    """Return the sweep of `settings`."""
    return resolve_sweep(settings(systems, **changes))
