"""A classifier on a network's frozen features, as a run that a sweep can compare with trainings.

    python main.py train --config=configs/frozen.py:resnet50 --config.model.weights=resnet50.pth \
        --config.data.name=cifar10 --config.data.eval_split=test --workdir=runs/frozen

The argument is any network's name. The classifier is `linear`, the grid of heads of DINOv2's protocol; `knn`, DINO's
weighted vote; or `logistic`. Its settings are selected on held-out training images. Every training image passes
through the network once; `main.py probe` judges features by all methods without a budget.

Target: those of the protocols, which `main.py probe` runs as published. Cost: one pass over the training images.
"""

from ml_collections import ConfigDict


def get_config(network="resnet50"):
    return ConfigDict({"classifier": "linear", "model": {"name": network}})
