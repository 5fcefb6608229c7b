"""MSRA, winner of 2015: He et al., "Deep residual learning for image recognition", 2015 (arXiv 1512.03385).

    python main.py ensemble --config=configs/ensembles/msra.py                    # the plan: commands for the members
    python main.py ensemble --config=configs/ensembles/msra.py --members …

Six ResNets of different depth, two of them of 152 layers (section 4.1); each is scored densely at five scales.

Target: top-5 error 3.57 %, test (table 5). Guesses: the other four networks, and that all weigh alike.
"""


def get_config():
    return {
        "entry": "MSRA 2015, 6 ResNets",
        "members": [
            {
                "network": f"resnet{depth}_v1",
                "count": 2,
                "recipe": f"configs/resnet.py:{depth}_v1",
                "protocol": "resnet_dense",
                "stands_for": "" if depth == 152 else "two networks of depths that were not published",
            }
            for depth in (152, 101, 50)
        ],
        "average": "probabilities",
        "weights": "uniform",
        "published": [
            {
                "what": "6 networks, dense at 5 scales",
                "top5": 3.57,
                "images": "test",
                "source": "He et al. 2015, tab. 5",
            }
        ],
        "unknown": [
            {"what": "the depths of four of the six networks", "here": "101, 101, 50 and 50"},
            {"what": "the weights of the networks", "here": "all alike"},
            {"what": "whether scores are averaged before or after the softmax", "here": "after"},
        ],
    }
