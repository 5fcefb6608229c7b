"""Transfer of ViT-B/32 as in google-research/big_vision: Steiner et al. 2021 (arXiv 2106.10270), configs/transfer.py.

    for seed in 0 1 2 3 4; do
        python main.py train --config=configs/big_vision_transfer.py:cifar10 --config.model.weights=B_32.npz
            --config.seed=$seed --workdir=runs/transfer/cifar10_$seed
    done

The argument is a data set: imagenet2012, cifar10, cifar100, oxford_iiit_pet or oxford_flowers102. SGD with
momentum 0.9, batch 512, no decay, gradients clipped at norm 1, a cosine to zero; 10,000 steps for CIFAR, 20,000 for
ImageNet, 500 for Pets and Flowers, with 500 (100) of warm-up; the head starts at zero; crops of 384 pixels, from the
shorter side of 448 for CIFAR, else random-resized; evaluation on the central 384 of 448. The rate is the one that the
authors selected on the held-out part of the training split, which is `eval_split` here; `test_split` is scored once.

Target: mean and range over five repeats, top-1 accuracy in %: ImageNet 83.27 [83.22, 83.33], CIFAR-10 98.55 [98.46,
98.60], CIFAR-100 91.35 [91.09, 91.62], Pets 93.78 [93.62, 94.00], Flowers 99.43 [99.42, 99.45], from the weights
"recommended" for ImageNet-21k. Cost: 4.0e17 FLOP for CIFAR. Not run here: a repeat is a seed, five of them are five
runs, and their lowest and highest error is the range.

Deviations: the momentum is kept in float32, theirs in bfloat16.
"""

from ml_collections import ConfigDict

# Steps, warm-up steps, rate, share of the training split that trains, split for the result.
DATA_SETS = {
    "imagenet2012": (20_000, 500, 0.03, 99, "validation"),
    "cifar10": (10_000, 500, 0.003, 98, "test"),
    "cifar100": (10_000, 500, 0.01, 98, "test"),
    "oxford_iiit_pet": (500, 100, 0.003, 90, "test"),
    "oxford_flowers102": (500, 100, 0.003, 90, "test"),
}
HALF = (0.5, 0.5, 0.5)


def get_config(data_set="cifar10"):
    steps, warmup, rate, share, test = DATA_SETS[data_set]
    small = {"name": "scale_jitter", "resize": (448, 448), "antialias": True}
    return ConfigDict(
        {
            "budget": f"{steps}st",
            "batch_size": 512,
            "model": {"name": "vit_base_patch32", "options": {"image_size": 384}},
            "data": {
                "name": data_set,
                "image_size": 384,
                "train_split": f"train[:{share}%]",
                "eval_split": f"train[{share}%:]",
                "test_split": test,
            },
            "train": {"zero_head": True},
            "train_crop": small if data_set.startswith("cifar") else {"name": "inception", "area": (0.05, 1.0)},
            "eval_crop": {"name": "center", "ratio": 384 / 448, "antialias": True},
            "augment": {"mean": HALF, "std": HALF},
            "optimizer": {"name": "sgd", "learning_rate": rate, "momentum": 0.9, "weight_decay": 0.0},
            "schedule": {"name": "cosine", "warmup": warmup / steps},
            "clip_norm": 1.0,
            "evaluate_every": f"{steps // 5}st",
            "checkpoint": {"every": f"{steps // 5}st"},
        }
    )
