"""A comparison in which every system has its own learning rate, from the same number of trials for each.

    python main.py sweep --config=configs/sweeps/learning_rate.py --workdir=runs/learning_rate
    python main.py sweep --config=configs/sweeps/learning_rate.py --workdir=runs/tpe --config.search.sampler=tpe

The networks of decade.py in its recipe, 16 trials each: points of one quasi-random sequence (Sobol), the same for
all, each mapped onto the network's own ranges of the learning rate and the weight decay. A trial has a tenth of the
budget, and is evaluated on the held-out end of the training split; the best settings of each network are then trained
with three seeds under the full budget, and only those runs score validation. `small` and `laptop` are as in decade.py.
Networks without any normalisation get rates that are ten times lower. Not run on ImageNet here.
"""

from configs.sweeps import decade

TRIALS = 16
RATES = {"alexnet": (3e-5, 3e-3), "zfnet": (3e-5, 3e-3)}  # only local response normalisation
USUAL = (3e-4, 3e-2)
TENTHS = {"full": "9ep", "small": "5000img", "laptop": "500img"}


def get_config(size="full"):
    settings = decade.get_config(size)
    systems = {name: decade.network(name, size) | {"search": search(name)} for name in decade.NETWORKS}
    return settings | {"systems": systems, "search": {"trials": TRIALS, "budget": TENTHS[size]}}


def search(name):
    low, high = RATES.get(name, USUAL)
    return (
        {"key": "optimizer.learning_rate", "low": low, "high": high, "log": True},
        {"key": "optimizer.weight_decay", "low": 0.005, "high": 0.5, "log": True},
    )
