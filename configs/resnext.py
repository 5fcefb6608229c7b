"""ResNeXt: Xie et al., "Aggregated residual transformations for deep neural networks", 2016 (arXiv 1611.05431).

    python main.py train --config=configs/resnext.py:50_32x4d --workdir=runs/resnext50

The argument names the variant: 50_32x4d, 101_32x4d, 101_64x4d, 101_32x8d (torchvision's, not the paper's). Recipe
(section 4, with the authors' code, which is fb.resnet.torch's): SGD, momentum 0.9, decay 1e-4, batch 256 over 8
devices, rate 0.1 divided by 10 three times, random-resized crops, brightness, contrast, saturation and PCA colour as
in fb.resnet.torch, bicubic resizing that samples the same few pixels at any scale.

Target: top-1 error 22.2 % (50), 21.2 % (101, 32x4d), 20.4 % (101, 64x4d), centre 224 of 256 (authors' repository).
Cost: 3.3e18 FLOP for ResNeXt-50. Not run on ImageNet here. Guess: 100 epochs; that the rate drops every 30 is the
code's rule.

Deviations: the authors' code has Nesterov's momentum (`--config.optimizer.nesterov=true`), which the paper does not
name; brightness, contrast and saturation come in this order and are cut to [0, 1] after each, in fb.resnet.torch in an
order drawn anew for each image and uncut; crops have aspects of 3/4 to 4/3, there of 9/16 to 16/9, since its code
multiplies one side by the number drawn and divides the other by it. Computed in bfloat16; --config.precision=float32
computes as the paper did.
"""

from ml_collections import ConfigDict


def get_config(variant="50_32x4d"):
    return ConfigDict(
        {
            "budget": "100ep",
            "batch_size": 256,
            "model": {"name": f"resnext{variant}"},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "kernel": "bicubic"},
            "eval_crop": {"name": "center", "ratio": 0.875, "kernel": "bicubic"},
            "augment": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "pca": "paper"},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "steps", "boundaries": (0.3, 0.6, 0.9)},
        }
    )
