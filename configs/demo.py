"""Two networks under one budget on the embedded data set, sized for a laptop's CPU; `make demo` runs both.

    python main.py train --config=configs/demo.py:resnet18 --workdir=runs/demo/resnet18

Both networks see the same images in the same order at 64 px. AlexNet's first convolution moves by 2 pixels and not 4,
without which nothing is left of so small an image; the residual branches of ResNet start at zero, and each network
has the learning rate that suits it. Ten fractals; target: the better network below half the error of chance (90 %).
"""

from ml_collections import ConfigDict

LEARNING_RATES = {"alexnet": 3e-4, "resnet18": 1e-3}
OPTIONS = {"alexnet": {"stem": "small"}, "resnet18": {"zero_init_last": True}}


def get_config(network="resnet18"):
    return ConfigDict(
        {
            "budget": "6400img",
            "batch_size": 32,
            "precision": "float32",
            "model": {"name": network, "options": OPTIONS[network]},
            "data": {"name": "fractal", "image_size": 64},
            "train_crop": {"name": "inception", "area": (0.7, 1.0)},
            "eval_crop": {"name": "center", "ratio": 1.0},
            "optimizer": {"name": "adamw", "learning_rate": LEARNING_RATES[network]},
            "schedule": {"name": "cosine", "warmup": 0.1},
            "evaluate_every": "1600img",
            "checkpoint": {"every": "1600img"},
            "log_every": 5,
        }
    )
