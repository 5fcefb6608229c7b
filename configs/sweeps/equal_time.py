"""The decade again, with the same training time for each system in place of images.

    python main.py sweep --config=configs/sweeps/equal_time.py --workdir=runs/equal_time
    python main.py sweep --config=configs/sweeps/equal_time.py:small --workdir=runs/equal_time64

Everything except the budget is as in decade.py: ten hours; with `small` 20 seconds, with `laptop` 60. Compilation,
evaluation and saving do not count; waiting for images and coding hand-made features do. Give every
worker its own machine or accelerator: workers that share one slow each other down. Not run on ImageNet here.
"""

from configs.sweeps import decade

BUDGETS = {"full": "36000s", "small": "20s", "laptop": "60s"}


def get_config(size="full"):
    return decade.get_config(size) | {"budget": BUDGETS[size]}
