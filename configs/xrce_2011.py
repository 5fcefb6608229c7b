"""XRCE as it won in 2011: Fisher vectors and linear SVMs.

Perronnin, Sanchez & Mensink, "Improving the Fisher kernel for large-scale image classification", ECCV 2010; Sanchez &
Perronnin, "High-dimensional signature compression for large-scale image classification", CVPR 2011.

    python main.py train --config=configs/xrce_2011.py --workdir=runs/xrce
    python main.py train --config=configs/xrce_2011.py:published --workdir=runs/xrce_1024
    python main.py train --config=configs/xrce_2011.py:small --config.data.name=tiny_imagenet_100 --workdir=runs/tiny

Two channels, dense SIFT and local colour statistics, each reduced to 64 numbers by PCA; Fisher vectors over 256
Gaussians (1,024 with `published`), signed square roots, unit length, of the whole image and of three strips; product
quantisation of 8 numbers to a byte while the machines train; one against the rest; scores averaged. Patches of 24
pixels every 4, at 5 scales a factor of 0.707 apart, images of at most 100,000 pixels. `small` is for images of 64
pixels: patches of 16, at 4 scales from 1.41 down.

Target: 25.8 % top-5 error, test, of 2011 (image-net.org, results of 2011); the same method on ILSVRC 2010, two kinds
of descriptors, 45.7 / 25.7 % top-1 / top-5 (Krizhevsky et al. 2012, table 1). Not run on ImageNet here.

Named choices, since the sources leave them open or differ: how many Gaussians and systems the entry had; every image
is squashed to a square (the sources keep the aspect), so that all have equal grids; square roots of SIFT
(Arandjelovic & Zisserman 2012, a year later); a squared hinge loss with all negatives, averaged from the second epoch
on, where the entry's SGD sampled them; its regularisation, rate and epochs, which were tuned on a tenth of
tiny-imagenet-100's training images; test images are not quantised.
"""

from ml_collections import ConfigDict

SCALES = tuple(2 ** (-i / 2) for i in (4, 3, 2, 1, 0))
SIZES = {  # pixels: of images, of patches; scales; Gaussians
    "default": (316, 24, SCALES, 256),
    "published": (316, 24, SCALES, 1024),
    "small": (64, 16, (0.5, 0.7071, 1.0, 1.4142), 256),
}


def get_config(variant="default"):
    size, patch, scales, components = SIZES[variant]
    common = {
        "patch": patch,
        "step": 4,
        "scales": scales,
        "components": 64,
        "code": {"name": "fisher", "components": components},
        "pyramid": ("1x1", "3x1"),
        "quantise": 8,
    }
    return ConfigDict(
        {
            "system": "xrce_2011",
            "budget": "5ep",
            "batch_size": 128,
            "data": {"name": "imagenet2012", "image_size": size},
            "eval_crop": {"name": "squash", "antialias": True},
            "channels": {"sift": common | {"descriptor": "root_sift"}, "colour": common | {"descriptor": "colour"}},
            "svm": {"loss": "squared_hinge", "regularisation": 1e-5, "rate": 2.5, "average_from": "1ep"},
            "evaluate_every": "5ep",
            "checkpoint": {"every": "1ep"},
        }
    )
