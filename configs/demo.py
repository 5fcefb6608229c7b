"""Systems of the decade on the embedded data set, sized for a laptop's CPU; configs/sweeps/demo.py has the sweep.

    python main.py train --config=configs/demo.py:resnet18 --workdir=runs/resnet18
    python main.py train --config=configs/demo.py:xrce_2011 --workdir=runs/xrce_2011

The images are silhouettes of 64 px (`python main.py prepare silhouettes`); there are ten classes, so random guessing
has a 90 % error rate. All systems see the same images in the same order. The system of 2011 reads them at 64 px, has
32 Gaussians and stores its codes without quantisation. The networks read them at 32 px, ViT at its 64, mirrored and
cropped at random. AlexNet's first convolution has stride 2, not 4, because its maps would otherwise vanish at this
size, and it drops no units, since it sees so few images; the residual branches of ResNet start at zero. Of the
learning rates only AlexNet's was compared with others, on a held-out tenth of the training images.
"""

from ml_collections import ConfigDict

LEARNING_RATES = {"lenet5": 2e-3, "alexnet": 4e-4, "resnet18": 2e-3, "vit_tiny_patch16": 1e-3}
OPTIONS = {
    "lenet5": {},
    "alexnet": {"stem": "small", "dropout": 0.0},
    "resnet18": {"zero_init_last": True},
    "vit_tiny_patch16": {"image_size": 64},
}
COMMON = {
    "budget": "24000img",
    "data": {"name": "silhouettes", "image_size": 64},
    "evaluate_every": "1600img",
    "checkpoint": {"every": "1600img"},
    "log_every": 5,
}


def get_config(system="resnet18"):
    return ConfigDict(COMMON | (_features() if system == "xrce_2011" else _network(system)))


def _network(name):
    return {
        "batch_size": 64,
        "precision": "float32",
        "model": {"name": name, "options": OPTIONS[name]},
        "data": COMMON["data"] | {"image_size": OPTIONS[name].get("image_size", 32)},
        "train_crop": {"name": "inception", "area": (0.7, 1.0)},
        "eval_crop": {"name": "center", "ratio": 1.0},
        "optimizer": {"name": "adamw", "learning_rate": LEARNING_RATES[name]},
        "schedule": {"name": "cosine", "warmup": 0.1},
    }


def _features():
    channel = {
        "patch": 16,
        "step": 4,
        "scales": (0.5, 2**-0.5, 1.0),
        "components": 32,
        "code": {"name": "fisher", "components": 32},
        "pyramid": ("1x1", "3x1"),
        "quantise": 0,
    }
    return {
        "system": "xrce_2011",
        "batch_size": 32,
        "channels": {"sift": channel | {"descriptor": "root_sift"}, "colour": channel | {"descriptor": "colour"}},
        "sample": {"images": 500, "descriptors": 50_000},
        "svm": {"loss": "squared_hinge", "rate": 0.5, "average_from": "1600img"},
    }
