"""SuperVision, winner of 2012: Krizhevsky et al., "ImageNet classification with deep convolutional networks", 2012.

    python main.py ensemble --config=configs/ensembles/supervision.py             # the plan: commands for the members
    python main.py ensemble --config=configs/ensembles/supervision.py --members …
    python main.py ensemble --config=configs/ensembles/supervision.py:7 --members …

Five AlexNets trained on the challenge's data alone (default), or those and two pre-trained on the Fall 2011 release of
ImageNet (`:7`, which won). Ten crops of each image; the paper averages the predictions of the crops, and of the
networks (section 6).

Target: top-1 / top-5 error 38.1 / 16.4 % with five, 36.7 / 15.4 % with seven, validation (table 2). Deviation: the
pre-trained networks had a sixth convolution and saw 22 thousand classes first; neither is available here.
"""

FIVE = {"network": "alexnet_2012", "count": 5, "recipe": "configs/alexnet.py", "protocol": "10crop"}
PRE_TRAINED = FIVE | {
    "count": 2,
    "stands_for": "two networks with a sixth convolution, pre-trained on the Fall 2011 release of ImageNet",
}
PAPER = "Krizhevsky et al. 2012, tab. 2"
PUBLISHED = {
    "5": [{"what": "5 networks, 10 crops", "top1": 38.1, "top5": 16.4, "images": "val", "source": PAPER}],
    "7": [
        {"what": "7 networks, 10 crops", "top1": 36.7, "top5": 15.4, "images": "val", "source": PAPER},
        {"what": "7 networks, 10 crops", "top5": 15.3, "images": "test", "source": PAPER},
    ],
}
PUBLISHED["5"].append({"what": "5 networks, 10 crops", "top5": 16.4, "images": "test", "source": PAPER})


def get_config(networks="5"):
    return {
        "entry": f"SuperVision 2012, {networks} networks",
        "members": [FIVE, PRE_TRAINED] if networks == "7" else [FIVE],
        "average": "probabilities",
        "weights": "uniform",
        "published": PUBLISHED[networks],
        "unknown": [
            {"what": "in what the five networks differ", "here": "their seeds: initial values, order, augmentation"},
            {"what": "whether networks weigh alike", "here": "they do"},
        ],
    }
