"""A recipe of a system of features for tests: two channels on 32-pixel fractals, trained for a few steps.

The argument names the data directory.
"""

from ml_collections import ConfigDict


def get_config(data_dir):
    code = {"name": "fisher", "components": 4, "iterations": 3}
    words = {"name": "llc", "words": 16, "iterations": 3}
    return ConfigDict(
        {
            "system": "small_features",
            "budget": "3ep",
            "batch_size": 32,
            "data": {"name": "fractal/c6_n50_v7_s32", "data_dir": data_dir, "image_size": 32, "threads": 2},
            "channels": {
                "edges": {"descriptor": "sift", "patch": 16, "components": 8, "code": code, "pyramid": ("1x1", "3x1")},
                "texture": {"descriptor": "lbp", "patch": 16, "step": 8, "code": words, "quantise": 0},
            },
            "sample": {"images": 100, "descriptors": 2000, "codes": 256},
            "svm": {"loss": "squared_hinge", "rate": 0.2, "average_from": "1ep"},
            "evaluate_every": "1ep",
            "checkpoint": {"every": "1ep"},
            "log_every": 1,
        }
    )
