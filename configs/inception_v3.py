"""Inception-v3: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015 (arXiv 1512.00567).

    python main.py train --config=configs/inception_v3.py --workdir=runs/inception_v3
    python main.py train --config=configs/inception_v3.py:inception_v4 --workdir=runs/inception_v4

The argument may be inception_v3 (default), bn_inception, inception_v4 or inception_resnet_v2. Recipe (section 8):
RMSProp with decay 0.9 and epsilon 1, batch 50 x 32, rate 0.045 times 0.94 every two epochs, 100 epochs, gradients
clipped at norm 2, label smoothing 0.1, an average of the weights evaluated; the auxiliary head weighs 0.4.

The recipe is v3's, and for the other three names that is a deviation. BN-Inception (1502.03167, section 4.2) had other
rates and no RMSProp. The paper of v4 and Inception-ResNet-v2 (1602.07261) states this optimizer and rate, with 20
replicas and not 50; the rest is v3's.

Target: top-1 / top-5 error 21.2 / 5.6 %, one crop, on the validation images that are not blacklisted (table 3); about
0.2 / 0.1 more on all. BN-Inception: 25.2 / 7.82 %, one crop (1709.01507, table 2). Inception-v4: 20.0 / 5.0 %,
Inception-ResNet-v2: 19.9 / 4.9 %, both one crop without the blacklisted images; on all of them 19.9 / 5.0 % and 19.6 /
4.7 %, as timm measures the released weights. Cost: 4.4e18 FLOP for v3. Not run on ImageNet here.

Guesses, after the authors' code as others report it: decay 4e-5, momentum 0.9, an average of 0.9999; ours: mirror and
colour as GoogLeNet's. Deviations: 50 asynchronous replicas of batch 32 become one batch of 1,600; crops of 8 to 100 %
of the area as GoogLeNet's, in the authors' code 5 to 100 %; running statistics of batch norm move by 0.1 at each step,
there by 0.0003; one centre crop of ratio 0.875 is evaluated, resized with an antialiased bicubic kernel, as timm does.
Computed in bfloat16; --config.precision=float32 computes as the paper did.
"""

from ml_collections import ConfigDict

SIZES = {"inception_v3": 299, "bn_inception": 224, "inception_v4": 299, "inception_resnet_v2": 299}


def get_config(network="inception_v3"):
    return ConfigDict(
        {
            "budget": "100ep",
            "batch_size": 1600,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": SIZES[network]},
            "train_crop": {"name": "inception"},
            "eval_crop": {"name": "center", "ratio": 0.875, "kernel": "bicubic", "antialias": True},
            "augment": {
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "label_smoothing": 0.1,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
            },
            "optimizer": {
                "name": "rmsprop",
                "learning_rate": 0.045,
                "decay": 0.9,
                "momentum": 0.9,
                "eps": 1.0,
                "weight_decay": 4e-5,
            },
            "schedule": {"name": "exponential", "every": 2 / 100, "factor": 0.94},
            "clip_norm": 2.0,
            "ema_decay": 0.9999,
            "ema_warmup": True,
        }
    )
