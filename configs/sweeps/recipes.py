"""The share of architecture in a decade's progress: each paper's recipe and a modern one for every network.

    python main.py sweep --config=configs/sweeps/recipes.py --workdir=runs/recipes

Every network is trained twice under one budget of 90 epochs: by the recipe that its paper gives, from its own file in
configs/, and by configs/modern.py, three seeds each. Schedules that wait for a plateau are steered by the held-out end
of the training split. Batch sizes are the recipes' own. Not run on ImageNet here.
"""

from configs.sweeps import decade

PAPERS = {  # networks, and the files of their papers' recipes
    "alexnet_2012": "configs/alexnet.py",
    "zfnet": "configs/zfnet.py",
    "vgg16": "configs/vgg.py:16",
    "googlenet": "configs/googlenet.py",
    "resnet50_v1": "configs/resnet.py:50_v1",
    "senet154": "configs/senet.py:senet154",
    "efficientnet_b0": "configs/efficientnet.py:b0",
    "convnext_tiny": "configs/convnext.py:tiny",
    "deit_small_patch16": "configs/deit.py:small",
}


def get_config():
    systems = {}
    for network, paper in PAPERS.items():
        systems[f"{network}_paper"] = {"config": paper, "recipe": "paper"}
        systems[f"{network}_modern"] = {"config": f"configs/modern.py:{network}", "recipe": "modern"}
    return decade.get_config() | {"systems": systems}
