"""The decade: every winning kind of system from 2010 to 2017 and later networks, the same number of images for each.

    python main.py sweep --config=configs/sweeps/decade.py --workdir=runs/decade
    python main.py sweep --config=configs/sweeps/decade.py:small --workdir=runs/decade64

The networks have one recipe, configs/modern.py, so that a difference is one of architecture; `recipes.py` beside this
file measures the effect of the years' own recipes. The systems before 2012 have theirs, since nothing of that recipe
applies to them: their images are those that the support vector machines see. Three seeds each; a seed decides initial
values, the order of images, augmentation and vocabularies.

Without an argument: ImageNet, 224 px (the systems before 2012 at their own sizes), 90 epochs. With `small`: 100
classes of ImageNet at 64 px, 50,000 images, batch 128. Every network is adapted to 64 px in one way: it stays as
published, and its final pooling covers the smaller map; where no map would be left, its first convolution has half its
stride (`stem='small'`, AlexNet), and positions are learned for 64 px (ViT). Crops keep at least a quarter of the
image, and neither RandAugment nor mixup is used, since they do not help with so few images. `laptop` is the same for a
fifth of the classes, a tenth of the images, and float32, which is faster on a CPU.

Validation is scored once, at the end of each run; the curves are of the held-out end of the training split.
Not run on ImageNet here.
"""

NETWORKS = {
    "alexnet": "alexnet_owt",
    "zfnet": "zfnet",
    "vgg16_bn": "vgg16_bn",
    "googlenet": "googlenet",
    "resnet50": "resnet50",
    "seresnext50": "seresnext50_32x4d",
    "efficientnet_b0": "efficientnet_b0",
    "convnext_tiny": "convnext_tiny",
    "vit_small": "vit_small_patch16",
}
SMALL_OPTIONS = {"alexnet": {"stem": "small"}, "vit_small": {"image_size": 64}}
SMALL = {
    "batch_size": 128,
    "data": {"image_size": 64},
    "train_crop": {"area": (0.25, 1.0)},
    "eval_crop": {"ratio": 1.0},
    "augment": {"policy": {"name": "none"}, "mixup": 0.0},
}
RHYTHMS = {
    "full": {"evaluate_every": "5ep", "checkpoint": {"every": "1ep"}},
    "small": {"evaluate_every": "12500img", "checkpoint": {"every": "12500img"}},
    "laptop": {"evaluate_every": "1250img", "checkpoint": {"every": "1250img"}},
}
DATA = {"full": "imagenet2012", "small": "tiny_imagenet_100", "laptop": "tiny_imagenet_20"}
BUDGETS = {"full": "90ep", "small": "50000img", "laptop": "5000img"}


def get_config(size="full"):
    small = size != "full"
    return {
        "budget": BUDGETS[size],
        "seeds": (0, 1, 2),
        "train_split": "train[:95%]" if small else "train[:99%]",
        "select_split": "train[95%:]" if small else "train[99%:]",
        "test_split": "validation",
        "set": {"data": {"name": DATA[size]}} | RHYTHMS[size],
        "systems": before_2012(small) | {name: network(name, size) for name in NETWORKS},
    }


def before_2012(small):
    """Return the systems of hand-made features."""
    size = ":small" if small else ""
    return {
        "nec_uiuc_2010": {"config": f"configs/nec_uiuc_2010.py{size}"},
        "xrce_2011": {"config": f"configs/xrce_2011.py{size}"},
    }


def network(name, size):
    """Return a network of `NETWORKS` in the recipe that all of them share."""
    config = f"configs/modern.py:{NETWORKS[name]}"
    if size == "full":
        return {"config": config}
    precision = {"precision": "float32"} if size == "laptop" else {}
    return {"config": config, "set": SMALL | precision | {"model": {"options": SMALL_OPTIONS.get(name, {})}}}
