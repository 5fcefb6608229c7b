"""The decade in miniature: four systems from 1998 to 2015 on the embedded data set, under one budget (`make demo`).

    python main.py prepare silhouettes
    python main.py sweep --config=configs/sweeps/demo.py --workdir=runs/demo

The recipes are those of configs/demo.py. Each system sees 24,000 images, so that the sweep takes a few minutes on a
laptop. Systems that train in seconds have three seeds, the others one: enough to tell these checkpoints apart, and too
few to show which recipe is better.
"""

CHEAP = ("lenet5", "xrce_2011")
SYSTEMS = (*CHEAP, "alexnet", "resnet18")


def get_config():
    return {
        "budget": "24000img",
        "seeds": (0, 1, 2),
        "train_split": "train[:95%]",
        "select_split": "train[95%:]",
        "test_split": "validation",
        "set": {"evaluate_every": "8000img", "checkpoint": {"every": "8000img"}},
        "systems": {
            name: {"config": f"configs/demo.py:{name}"} | ({} if name in CHEAP else {"seeds": (0,)})
            for name in SYSTEMS
        },
    }
