"""WMW, winner of 2017: Hu et al., "Squeeze-and-excitation networks", 2017 (arXiv 1709.01507).

    python main.py ensemble --config=configs/ensembles/wmw.py                     # the plan: commands for the members
    python main.py ensemble --config=configs/ensembles/wmw.py --members …

"A small ensemble" of SENets with several scales and crops of each image; SENet-154 is the member that the paper
describes.

Target: top-5 error 2.25 %, test. Guesses: every member but SENet-154, their number, their weights, the scales.
"""

OTHERS = ("seresnext101_32x4d", "seresnet152")


def get_config():
    members = [{"network": "senet154", "recipe": "configs/senet.py:senet154", "protocol": "multiscale"}]
    for name in OTHERS:
        members.append(
            {
                "network": name,
                "recipe": f"configs/senet.py:{name}",
                "protocol": "multiscale",
                "stands_for": "members that were not published",
            }
        )
    return {
        "entry": "WMW 2017, a small ensemble of SENets",
        "members": members,
        "average": "probabilities",
        "weights": "uniform",
        "published": [{"what": "a small ensemble", "top5": 2.25, "images": "test", "source": "Hu et al. 2017"}],
        "unknown": [
            {"what": "how many members, and which beside SENet-154", "here": "SE-ResNeXt-101 and SE-ResNet-152"},
            {"what": "their weights", "here": "all alike"},
            {"what": "scales and crops", "here": "those of the protocol `multiscale`"},
        ],
    }
