"""NEC-UIUC as it won in 2010: coded HOG and LBP, linear SVMs by averaged descent (Lin et al., "Large-scale image
classification: fast feature extraction and SVM training", CVPR 2011).

    python main.py train --config=configs/nec_uiuc_2010.py --workdir=runs/nec
    python main.py train --config=configs/nec_uiuc_2010.py:small --config.data.name=tiny_imagenet_100 --workdir=runs/tiny
"""

from ml_collections import ConfigDict

SIZES = {"default": (300, (16, 24, 32)), "small": (64, (24,))}


def get_config(variant="default"):
    llc = {"name": "llc", "words": 2048}
    sv = {"name": "super_vector", "words": 128}
    grid = {"step": 4, "scales": (0.5, 0.7071, 1.0, 1.4142), "components": 64, "quantise": 8}
    hog = grid | {"descriptor": "hog", "patch": 24}
    lbp = grid | {"descriptor": "lbp", "patch": 16}
    fine, coarse = ("1x1", "2x2", "3x1"), ("1x1", "3x1")
    return ConfigDict(
        {
            "system": "nec_uiuc_2010",
            "budget": "10ep",
            "batch_size": 128,
            "data": {"name": "imagenet2012", "image_size": 64},
            "eval_crop": {"name": "squash", "antialias": True},
            "channels": {
                "hog_llc": hog | {"code": llc, "pyramid": fine},
                "hog_sv": hog | {"code": sv, "pyramid": coarse},
                "lbp_llc": lbp | {"code": llc, "pyramid": fine},
                "lbp_sv": lbp | {"code": sv, "pyramid": coarse},
            },
            "svm": {"loss": "hinge", "regularisation": 1e-5, "rate": 5.0, "negatives": 5, "average_from": "2ep"},
            "evaluate_every": "5ep",
            "checkpoint": {"every": "1ep"},
        }
    )
