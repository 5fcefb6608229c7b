"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2014 (arXiv 1409.4842).

    python main.py train --config=configs/googlenet.py --workdir=runs/googlenet
    python main.py train --config=configs/googlenet.py:googlenet_bn --workdir=runs/googlenet_bn

Recipe (section 6): SGD, momentum 0.9, rate times 0.96 every 8 epochs, an average of the weights evaluated; crops of 8
to 100 % of the area at aspects of 3/4 to 4/3, a resizing kernel drawn at random, photometric distortion; two auxiliary
heads that weigh 0.3, dropout 0.7 in them and 0.4 before the last layer (0.2 in `googlenet_bn`).

Target: top-5 error 10.07 %, one network, one crop (table 3). For `googlenet_bn` top-1 / top-5 error 30.22 / 10.47 %,
one centre crop, of torchvision's weights, which were ported from TensorFlow; their training
recipe is not published. Cost: 3.0e18 FLOP. Not run on ImageNet here.

The paper does not state the batch, the first rate, the weight decay, the length, the strength of the distortions or
the weights of the average. Guesses, after the BVLC's reimplementation: batch 32, rate 0.01, decay 2e-4, 250 epochs;
ours: brightness, contrast and saturation by up to 0.4, an exponential average of 0.9999 in place of Polyak's.
Deviation: one synchronous optimizer, where the paper's was asynchronous. Computed in bfloat16;
--config.precision=float32 computes as the paper did.
"""

from ml_collections import ConfigDict

# The original has no normalisation after its layers and needs pixels in about [-128, 128].
STD = {"googlenet": (1 / 255, 1 / 255, 1 / 255), "googlenet_bn": (0.229, 0.224, 0.225)}


def get_config(network="googlenet"):
    return ConfigDict(
        {
            "budget": "250ep",
            "batch_size": 32,
            "model": {"name": network},
            "data": {"name": "imagenet2012", "image_size": 224},
            "train_crop": {"name": "inception", "kernel": "random"},
            "eval_crop": {"name": "center", "ratio": 0.875, "antialias": True},
            "augment": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "std": STD[network]},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 2e-4},
            "schedule": {"name": "exponential", "every": 8 / 250, "factor": 0.96},
            "ema_decay": 0.9999,
            "ema_warmup": True,
        }
    )
