"""GoogLeNet, winner of 2014: Szegedy et al., "Going deeper with convolutions", 2014 (arXiv 1409.4842).

    python main.py ensemble --config=configs/ensembles/googlenet.py               # the plan: commands for the members
    python main.py ensemble --config=configs/ensembles/googlenet.py --members …
    python main.py ensemble --config=configs/ensembles/googlenet.py:1 --members …   # one crop each, or 10

Seven networks, six of one topology and a wider one; the softmax is averaged over 144 crops and over networks (section
7). The argument is the number of crops: 144 (default), 10 or 1.

Target: top-5 error 6.67 %, validation and test; 7.62 % with 10 crops, 8.09 % with one (table 3). Deviations: the wider
network is not described, so a seventh of the same topology replaces it; the networks had the same initial values by an
oversight and differed in sampling and order alone, here a seed changes all three.
"""

PROTOCOLS = {"144": "googlenet144", "10": "10crop", "1": "crop"}
TOP5 = {"144": 6.67, "10": 7.62, "1": 8.09}


def get_config(crops="144"):
    kind = {"network": "googlenet", "recipe": "configs/googlenet.py", "protocol": PROTOCOLS[crops]}
    return {
        "entry": f"GoogLeNet 2014, 7 networks, {crops} crop{'s' * (crops != '1')}",
        "members": [kind | {"count": 6}, kind | {"count": 1, "stands_for": "the wider seventh network"}],
        "average": "probabilities",
        "weights": "uniform",
        "published": [
            {
                "what": f"7 networks, {crops} crop{'s' * (crops != '1')}",
                "top5": TOP5[crops],
                "images": "val and test" if crops == "144" else "val",
                "source": "Szegedy et al. 2014, tab. 3",
            }
        ],
        "unknown": [
            {"what": "the wider seventh network", "here": "a seventh of the same topology"},
            {"what": "batch size, first learning rate and weight decay", "here": "those of configs/googlenet.py"},
            {"what": "how sampling changed in the months before the challenge", "here": "the paper's prescription"},
        ],
    }
