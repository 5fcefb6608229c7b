"""The decade in miniature: four systems from 1998 to 2015 on the embedded data set, under one budget (`make demo`).

    python main.py prepare silhouettes
    python main.py sweep --config=configs/sweeps/demo.py --workdir=runs/demo

The recipes are those of configs/demo.py. Each system sees 24,000 images, so that the sweep takes a few minutes on a
laptop. Systems that train in seconds have three seeds, the others one: enough to tell these checkpoints apart, and too
few to show which recipe is better.

`long` has four times as many training images and ten times the budget: networks need more images than Fisher vectors
do to tell shapes apart. The runs of seed 0 are in results/demo_long; one seed takes three quarters of an hour on two
cores.

    python main.py prepare silhouettes --silhouettes.train_images=2000
    python main.py sweep --config=configs/sweeps/demo.py:long --workdir=runs/demo_long
"""

CHEAP = ("lenet5", "xrce_2011")
SYSTEMS = (*CHEAP, "alexnet", "resnet18")
SIZES = {  # data set, budget, interval of evaluations
    "short": ("silhouettes", "24000img", "8000img"),
    "long": ("silhouettes/n2000_v100_s64", "240000img", "24000img"),
}


def get_config(size="short"):
    data, budget, interval = SIZES[size]
    return {
        "budget": budget,
        "seeds": (0, 1, 2),
        "train_split": "train[:95%]",
        "select_split": "train[95%:]",
        "test_split": "validation",
        "set": {"data": {"name": data}, "evaluate_every": interval, "checkpoint": {"every": interval}},
        "systems": {
            name: {"config": f"configs/demo.py:{name}"} | ({} if name in CHEAP else {"seeds": (0,)})
            for name in SYSTEMS
        },
    }
