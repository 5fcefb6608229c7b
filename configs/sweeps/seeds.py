"""The share of chance in a difference: two networks, twelve seeds each.

    python main.py sweep --config=configs/sweeps/seeds.py --workdir=runs/seeds

A seed decides initial values, the order of images and augmentation alike. Six paired seeds are the fewest from which
a test of sign flips can find a difference significant at 5 %; twelve can detect smaller differences. ResNet-50 and
ConvNeXt-T in the recipe of decade.py; `small` and `laptop` as there. Seeds can be added to a sweep that was begun:
--config.seeds with all of them. Not run on ImageNet here.
"""

from configs.sweeps import decade

NETWORKS = ("resnet50", "convnext_tiny")


def get_config(size="full"):
    systems = {name: decade.network(name, size) for name in NETWORKS}
    return decade.get_config(size) | {"seeds": tuple(range(12)), "systems": systems}
