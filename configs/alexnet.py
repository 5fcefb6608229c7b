"""AlexNet as it won in 2012: Krizhevsky et al., "ImageNet classification with deep convolutional networks", NIPS 2012.

    python main.py train --config=configs/alexnet.py --workdir=runs/alexnet
    python main.py train --config=configs/alexnet.py:alexnet_owt --workdir=runs/alexnet_owt

Recipe (section 5): SGD, batch 128, momentum 0.9, decay 5e-4, rate 0.01 divided by 10 three times when the validation
error stops falling, about 90 epochs; dropout 0.5; shorter side 256, centre square, random crop, mirror, PCA colour
with standard deviation 0.1; weights from N(0, 0.01), biases of 1 in conv2, conv4, conv5, fc6, fc7.

Target: top-1 / top-5 error 40.7 / 18.2 %, validation, one network, ten crops (table 2); for the one-tower network 43.5
/ 20.9 %, one crop, of torchvision's weights. Cost: 5.0e17 FLOP. Not run on ImageNet here.

Deviations: the mean of each channel, not the mean image; crops of 227, since the published sizes of the maps need
them; the rate drops by rule (no better for three evaluations), where the paper did it by hand; the momentum does not
hold the rate (PyTorch's form), which differs at the three drops only. Evaluation is one centre crop. The one-tower
network trains by the paper's recipe, its target by torchvision's: random-resized crops, no PCA colour, batch 256,
decay 1e-4, the rate divided by 10 every 30 of 90 epochs. Computed in bfloat16; --config.precision=float32 computes as
the paper did.

Guesses: biases decay too, though the paper's rule is for "weights"; PCA colour is the normal number times the
eigenvalue, as in the paper's text; Krizhevsky's later code multiplies by its root
(`--config.augment.pca=cuda_convnet2`).
"""

from ml_collections import ConfigDict

SIZES = {"alexnet_2012": 227, "alexnet_owt": 224}
# Initial weights of 0.01 need pixels in about [-128, 128], as in the paper; torchvision's need unit variance.
STD = {"alexnet_2012": (1 / 255, 1 / 255, 1 / 255), "alexnet_owt": (0.229, 0.224, 0.225)}


def get_config(network="alexnet_2012"):
    size = SIZES[network]
    return ConfigDict(
        {
            "budget": "90ep",
            "batch_size": 128,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": size},
            "train_crop": {"name": "shorter_side", "resize": 256, "antialias": True},
            "eval_crop": {"name": "center", "ratio": size / 256, "antialias": True},
            "augment": {"pca": "paper", "std": STD[network]},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "plateau", "factor": 0.1, "patience": 3, "drops": 3},
        }
    )
