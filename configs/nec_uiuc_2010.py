"""NEC-UIUC as it won in 2010: coded HOG and LBP, and linear SVMs by averaged descent.

Lin, Lv, Zhu, Yang, Cour, Yu, Cao & Huang, "Large-scale image classification: fast feature extraction and SVM
training", CVPR 2011.

    python main.py train --config=configs/nec_uiuc_2010.py --workdir=runs/nec
    python main.py train --config=configs/nec_uiuc_2010.py:small --config.data.name=tiny_imagenet_100 \\
        --workdir=runs/tiny

Four channels: HOG and LBP of patches of 16, 24 and 32 pixels, each coded in two ways, by locality-constrained linear
coding with 5 neighbours, the largest coefficient of each word, and by super-vectors; spatial pyramids; one SVM a
channel, one class against the rest, hinge loss, averaged stochastic descent for about 5 epochs; scores averaged.
Images of 500 pixels. `small` is for images of 64 pixels.

Target: 28.2 % top-5 and 47.1 % top-1 error, test, of 2010, an average over six such models (Krizhevsky et al. 2012,
table 1). Not run on ImageNet here.

Named choices, since the sources leave them open or differ: HOG, of the paper, where the entry's own description says
SIFT; which four of the six models' features; every codebook's size, the pyramids, regularisation, rate and when
averaging begins; HOG as the 31 numbers of Felzenszwalb et al. 2010 of the middle 2 x 2 of 4 x 4 cells of a patch; PCA
to 64 numbers before coding; images squashed to a square; the hinge of the class and of a few others drawn anew at
each step (Perronnin et al. 2012), for with all of them it converged slowly; product quantisation, which is of 2011.
They were tuned on a tenth of tiny-imagenet-100's training images.
"""

from ml_collections import ConfigDict

# Pixels: of images, between patches; patches and scales of HOG (which keeps the middle half of a patch) and of LBP;
# words of local coding and of super-vectors.
SIZES = {
    "default": (500, 6, (16, (0.5, 2 / 3, 1.0)), (16, (0.5, 2 / 3, 1.0)), 8192, 512),
    "small": (64, 4, (24, (0.5, 2**-0.5, 1.0, 2**0.5)), (16, (0.5, 2**-0.5, 1.0, 2**0.5)), 2048, 128),
}


def get_config(variant="default"):
    size, step, hog, lbp, words, super_words = SIZES[variant]
    codes = {
        "llc": {"code": {"name": "llc", "words": words}, "pyramid": ("1x1", "2x2", "3x1")},
        "sv": {"code": {"name": "super_vector", "words": super_words}, "pyramid": ("1x1", "3x1")},
    }
    channels = {}
    for descriptor, (patch, scales) in {"hog": hog, "lbp": lbp}.items():
        grid = {"patch": patch, "step": step, "scales": scales, "components": 64}
        channels |= {f"{descriptor}_{name}": grid | {"descriptor": descriptor} | code for name, code in codes.items()}
    return ConfigDict(
        {
            "system": "nec_uiuc_2010",
            "budget": "5ep",
            "batch_size": 128,
            "data": {"name": "imagenet2012", "image_size": size},
            "eval_crop": {"name": "squash", "antialias": True},
            "channels": channels,
            "svm": {"loss": "hinge", "regularisation": 1e-5, "rate": 5.0, "negatives": 5, "average_from": "2ep"},
            "evaluate_every": "5ep",
            "checkpoint": {"every": "1ep"},
        }
    )
