"""ResNet: He et al., "Deep residual learning for image recognition", 2015 (arXiv 1512.03385).

    python main.py train --config=configs/resnet.py:50 --workdir=runs/resnet50
    python main.py train --config=configs/resnet.py:50_v1 --workdir=runs/resnet50_v1

A depth alone (18, 34, 50, 101, 152) is v1.5 in the recipe by which it is usually reproduced: SGD, momentum 0.9, batch
256, rate 0.1 divided by 10 at 30, 60 and 80 of 90 epochs after five of warm-up, decay 1e-4 on all parameters,
random-resized crops, the last scale of each residual branch starting at zero (Goyal et al. 2017, arXiv 1706.02677).
Target: top-1 error 23.8 % for ResNet-50 (30.2, 26.7, 22.6 and 21.7 for 18, 34, 101 and 152), centre 224 of 256, as
timm measures torchvision's V1 weights. Deviation: those weights' recipe drops at 30 and 60 only, without warm-up and
without zero scales. Cost: 2.8e18 FLOP for ResNet-50.

50_v1, 101_v1 and 152_v1 are the paper's networks in its own recipe (section 3.4): shorter side drawn from [256, 480],
PCA colour, pixels from 0 to 255 less their mean, rate 0.1 divided by 10 when the error plateaus, 600,000 steps.
Target: top-1 / top-5 error 24.7 / 7.8 % for ResNet-50 (23.6 / 7.1 and 23.0 / 6.7 for 101 and 152), centre 224 of 256,
which the recipe evaluates (released weights, KaimingHe/deep-residual-networks); the paper has 22.85 / 6.71 % with ten
crops (table 3). Cost: 3.6e18 FLOP for ResNet-50.

Not run on ImageNet here. Deviations from the paper: batch norm's statistics are a moving average of each device's,
where the authors computed them after training; the mean of each channel, not the mean image; plateaus are found by
rule (no better for three evaluations); the momentum does not hold the rate (PyTorch's form, where Caffe's does), which
differs at the drops only. Guess: PCA colour as in AlexNet's paper, the normal number times the eigenvalue; in
Krizhevsky's later code it is times the eigenvalue's root (`--config.augment.pca=cuda_convnet2`). Computed in bfloat16;
--config.precision=float32 computes as the paper did.
"""

from ml_collections import ConfigDict

USUAL = {
    "budget": "90ep",
    "train_crop": {"name": "inception", "antialias": True},
    "schedule": {"name": "steps", "warmup": 5 / 90, "boundaries": (30 / 90, 60 / 90, 80 / 90)},
}
PAPER = {
    "budget": "600000st",
    "train_crop": {"name": "scale_jitter", "resize": (256, 480), "antialias": True},
    "augment": {"pca": "paper", "std": (1 / 255, 1 / 255, 1 / 255)},  # 256 levels less their mean
    "schedule": {"name": "plateau", "factor": 0.1, "patience": 3, "drops": 3},
}


def get_config(depth="50"):
    is_paper_recipe = depth.endswith("_v1")
    return ConfigDict(
        {
            "batch_size": 256,
            "model": {"name": f"resnet{depth}", "options": {} if is_paper_recipe else {"zero_init_last": True}},
            "data": {"name": "imagenet2012", "image_size": 224},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            **(PAPER if is_paper_recipe else USUAL),
        }
    )
