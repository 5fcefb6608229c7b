"""VGG: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (1409.1556).

    python main.py train --config=configs/vgg.py:16 --workdir=runs/vgg16

The argument is a depth: 11, 13, 16, 19, each also as `16_bn`, or `16c`, the paper's configuration C. Recipe (section
3.1): SGD, batch 256, momentum 0.9, decay 5e-4, dropout 0.5, rate 0.01 divided by 10 three times when the validation
error stops falling, 74 epochs; shorter side drawn from [256, 512], random crop of 224, mirror, PCA colour.

Target: top-1 / top-5 error 25.6 / 8.1 % for VGG-16, validation, one scale, dense evaluation (table 3); torchvision's
weights have 28.4 / 9.6 %, one crop. Cost: 8.8e18 FLOP for VGG-16. Not run on ImageNet here.

Deviations: trained in one go from random weights (the paper started deep networks from net A, and scale jitter from
weights trained at 384, and says that Glorot's initialisation makes the former unnecessary); torchvision's
initialisation, and with it pixels divided by the channels' standard deviations, where the paper only subtracts the
mean; the momentum does not hold the rate (PyTorch's form, where Caffe's does), which differs at the drops only; the
rate drops by rule (no better for three evaluations). Evaluation here is one centre crop, 224 of shorter side 256.
Computed in bfloat16; --config.precision=float32 computes as the paper did.

Guess: PCA colour is the normal number times the eigenvalue, as in AlexNet's paper; Krizhevsky's later code
multiplies by its root (`--config.augment.pca=cuda_convnet2`).
"""

from ml_collections import ConfigDict


def get_config(depth="16"):
    return ConfigDict(
        {
            "budget": "74ep",
            "batch_size": 256,
            "model": {"name": f"vgg{depth}"},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "scale_jitter", "resize": (256, 512), "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "augment": {"pca": "paper"},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "plateau", "factor": 0.1, "patience": 3, "drops": 3},
        }
    )
