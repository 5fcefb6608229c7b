"""The decade again, with the same number of floating-point operations for each system in place of images.

    python main.py sweep --config=configs/sweeps/equal_flops.py --workdir=runs/equal_flops
    python main.py sweep --config=configs/sweeps/equal_flops.py:small --workdir=runs/equal_flops64

Everything except the budget is as in decade.py: 2.8e18 operations, those of ResNet-50's 90 epochs of ImageNet at
224 px; with `small` or `laptop` 1e14 or 1e13, near what ResNet-50 takes for 50,000 or 5,000 images of 64 px. A small
network sees more images, a large one fewer. Operations are counted from the step before any optimisation, and of
hand-made features together with their coding. Not run on ImageNet here.
"""

from configs.sweeps import decade

BUDGETS = {"full": "2.8e18flop", "small": "1e14flop", "laptop": "1e13flop"}


def get_config(size="full"):
    return decade.get_config(size) | {"budget": BUDGETS[size]}
