"""The decade once more, with the same training time for each system in place of images.

    python main.py sweep --config=configs/sweeps/equal_time.py --workdir=runs/equal_time
    python main.py sweep --config=configs/sweeps/equal_time.py:small --workdir=runs/equal_time64

Everything is as in decade.py but for the budget: ten hours; with `small` 20 seconds, with `laptop` 60. Compilation,
evaluation and saving do not count; waiting for images and coding hand-made features do. Give every
worker a machine or accelerator of its own: workers that share one take each other's time. Not run on ImageNet here.
"""

from configs.sweeps import decade

BUDGETS = {"full": "36000s", "small": "20s", "laptop": "60s"}


def get_config(size="full"):
    return decade.get_config(size) | {"budget": BUDGETS[size]}
