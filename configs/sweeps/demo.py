"""The decade in miniature: five systems from 1998 to 2021 on the embedded data set, under one budget (`make demo`).

    python main.py prepare fractal
    python main.py sweep --config=configs/sweeps/demo.py --workdir=runs/demo

The recipes are those of configs/demo.py. Each system sees 2,400 images with one seed, so that the sweep takes a few
minutes on a laptop: enough to see every part work, and far too little to show which system is better."""

SYSTEMS = ("lenet5", "xrce_2011", "alexnet", "resnet18", "vit_tiny_patch16")


def get_config():
    return {
        "budget": "2400img",
        "seeds": (0,),
        "train_split": "train[:95%]",
        "select_split": "train[95%:]",
        "test_split": "validation",
        "set": {"batch_size": 16, "evaluate_every": "800img", "checkpoint": {"every": "800img"}},
        "systems": {name: {"config": f"configs/demo.py:{name}"} for name in SYSTEMS},
    }
