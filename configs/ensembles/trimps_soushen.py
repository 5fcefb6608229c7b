"""Trimps-Soushen, winner of 2016, who published no paper.

    python main.py ensemble --config=configs/ensembles/trimps_soushen.py          # the plan: commands for the members
    python main.py ensemble --config=configs/ensembles/trimps_soushen.py --members … --select …

Five kinds of networks, as reports of the team's talk at ECCV 2016 list them: Inception-v3, Inception-v4,
Inception-ResNet-v2, pre-activation ResNet-200 and a wide ResNet of 68 layers; several scales and mirrors of each
image. By an account of the result page, the models' accuracies were their weights; so each member weighs in proportion
to its top-1 accuracy on held-out images, which `--select` names.

Target: top-5 error 2.99 %, test (Hu et al. 2017, which cites the result). Guesses: everything in `unknown`. ResNet-200
and the wide ResNet train by configs/modern.py, as their recipes were not published.
"""

RECIPES = {
    "inception_v3": "configs/inception_v3.py",
    "inception_v4": "configs/inception_v3.py:inception_v4",
    "inception_resnet_v2": "configs/inception_v3.py:inception_resnet_v2",
    "resnetv2_200": "configs/modern.py:resnetv2_200",
    "wide_resnet68_2": "configs/modern.py:wide_resnet68_2",
}
STANDS_FOR = {"wide_resnet68_2": "a wide ResNet of 68 layers whose layout was not published"}


def get_config():
    return {
        "entry": "Trimps-Soushen 2016, five kinds of networks",
        "members": [
            {"network": name, "recipe": recipe, "protocol": "multiscale", "stands_for": STANDS_FOR.get(name, "")}
            for name, recipe in RECIPES.items()
        ],
        "average": "probabilities",
        "weights": "accuracy",
        "published": [{"what": "the fused networks", "top5": 2.99, "images": "test", "source": "Hu et al. 2017"}],
        "unknown": [
            {"what": "how many networks of each kind", "here": "one"},
            {
                "what": "which accuracy makes the weights, and in which several ways models were fused",
                "here": "one average, weights in proportion to top-1 accuracy on held-out images",
            },
            {
                "what": "the wide ResNet: its layout, and whether it is 2 or 3 times as wide",
                "here": "2, a layout of ours",
            },
            {"what": "how each network was trained", "here": "the recipes of their papers, else configs/modern.py"},
            {"what": "which scales", "here": "those of the protocol `multiscale`"},
        ],
    }
