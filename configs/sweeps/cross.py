"""A grid of settings: every network with every combination of learning rates and image sizes.

    python main.py sweep --config=configs/sweeps/cross.py --workdir=runs/cross --dry_run
    python main.py sweep --config=configs/sweeps/cross.py --workdir=runs/cross

`cross` names the values, and every combination becomes a system of its own, such as
`resnet18,learning_rate=0.003,image_size=64`, which the page compares with the others. A transformer has lower rates
than the sweep's, and its own `cross` says so; the combination of its highest rate and its largest images is left out.
The recipe is that of decade.py. Not run here: it is an example of the form, with the laptop's budget and data.

Unlike a search (learning_rate.py), every combination is scored on the test split, so the lowest error of the page is
chosen on those images: take it as the answer to "what changes with the rate and the size", not as a result.
"""

from configs.sweeps import decade

CROSS = {"optimizer.learning_rate": (3e-3, 1e-2), "data.image_size": (64, 128)}
OF_TRANSFORMER = {"optimizer.learning_rate": (3e-4, 1e-3, 3e-3)}
LEFT_OUT = ({"optimizer.learning_rate": 3e-3, "data.image_size": 128},)


def get_config():
    return decade.get_config("laptop") | {
        "systems": {
            "resnet18": network("resnet18"),
            "vit_small": network("vit_small_patch16") | {"cross": OF_TRANSFORMER, "leave_out": LEFT_OUT},
        },
        "cross": CROSS,
    }


def network(name):
    return {"config": f"configs/modern.py:{name}", "set": decade.SMALL | {"precision": "float32"}}
