"""XRCE as it won in 2011."""

from ml_collections import ConfigDict


def get_config(argument=None):
    code = {"name": "fisher", "components": 256}
    common = {
        "patch": 16,
        "step": 4,
        "scales": (0.5, 0.7071, 1.0, 1.4142),
        "components": 64,
        "code": code,
        "pyramid": ("1x1", "3x1"),
    }
    return ConfigDict(
        {
            "system": "xrce_2011",
            "budget": "10ep",
            "batch_size": 128,
            "data": {"name": "imagenet2012", "image_size": 64},
            "channels": {"sift": common | {"descriptor": "root_sift"}, "colour": common | {"descriptor": "colour"}},
            "svm": {"loss": "squared_hinge", "rate": 10.0, "regularisation": 1e-5, "average_from": "1ep"},
        }
    )
