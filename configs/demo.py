"""Two networks under one budget on the embedded data set, sized for a laptop's CPU; `make demo` runs both.

    python main.py train --config=configs/demo.py:resnet18 --workdir=runs/demo/resnet18

Both networks see the same images in the same order at 64 px; AlexNet's first convolution moves by 2 pixels and not 4,
without which nothing is left of so small an image. They differ in their peak learning rate, since AlexNet has no
batch norm and diverges at ResNet's. Target: the better one below half
the error of chance (95 % for twenty classes) in under three minutes on two cores.
"""

from ml_collections import ConfigDict

LEARNING_RATES = {"alexnet": 0.01, "resnet18": 0.1}
OPTIONS = {"alexnet": {"stem": "small"}, "resnet18": {}}


def get_config(network="resnet18"):
    return ConfigDict(
        {
            "budget": "8000img",
            "batch_size": 64,
            "precision": "float32",
            "model": {"name": network, "options": OPTIONS[network]},
            "data": {"name": "fractal", "image_size": 64},
            "train_crop": {"name": "inception", "area": (0.5, 1.0)},
            "eval_crop": {"name": "center", "ratio": 1.0},
            "optimizer": {
                "name": "sgd",
                "learning_rate": LEARNING_RATES[network],
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 5e-4,
                "decay_mask": "no_norm_bias",
            },
            "schedule": {"name": "cosine", "warmup": 0.1},
            "evaluate_every": "2000img",
            "checkpoint": {"every": "2000img"},
            "log_every": 5,
        }
    )
