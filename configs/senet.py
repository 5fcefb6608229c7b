"""SENet: Hu et al., "Squeeze-and-excitation networks", 2017 (arXiv 1709.01507, journal version).

    python main.py train --config=configs/senet.py:seresnet50 --workdir=runs/seresnet50

The argument names the network: seresnet50, 101, 152, seresnext50_32x4d, seresnext101_32x4d, senet154. Recipe (section
5.1): SGD, momentum 0.9, batch 1024, rate 0.6 divided by 10 every 30 of 100 epochs, He's initialisation, random crops
of scale and aspect, mirror, means subtracted.

Target: top-1 / top-5 error 23.29 / 6.62 % for SE-ResNet-50 (22.38 / 6.07 % and 21.57 / 5.73 % for 101 and 152), 21.10
/ 5.49 % for SE-ResNeXt-50, 20.70 / 5.01 % for SE-ResNeXt-101, 18.68 / 4.47 % for SENet-154 (released, trained longer),
one crop of 224 (table 2 and the authors' repository). Cost: 3.0e18 FLOP for SE-ResNet-50. Not run on ImageNet here.

Deviation: pixels are also divided by the channels' standard deviations. Guess: decay 1e-4, which the text does not
state. Label smoothing of 0.1 is SENet-154's (appendix) and used for it alone; other parts of the released SENet-154's
training are left out: more epochs, rotation by up to 10 degrees, pixels changed by up to 20, batch norm frozen in the
last epochs. Computed in bfloat16; --config.precision=float32 computes as the paper did.
"""

from ml_collections import ConfigDict


def get_config(network="seresnet50"):
    return ConfigDict(
        {
            "budget": "100ep",
            "batch_size": 1024,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "augment": {"label_smoothing": 0.1 if network == "senet154" else 0.0},
            "optimizer": {"name": "sgd", "learning_rate": 0.6, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "steps", "boundaries": (0.3, 0.6, 0.9)},
        }
    )
