"""Optimizers under equal tuning: every one has the same number of trials, the same budget and the same networks.

    python main.py sweep --config=configs/sweeps/optimizers.py --workdir=runs/optimizers
    python main.py sweep --config=configs/sweeps/optimizers.py:small --workdir=runs/optimizers64

ResNet-50 and ViT-S in the recipe of configs/modern.py; only the optimizer differs, and for schedule-free AdamW the
schedule, which has to stay flat after its warm-up. The learning rate and the weight decay of each are searched over a
hundredfold and a thirtyfold range around its published default, with 16 trials at a tenth of the budget, points of one
quasi-random sequence (Sobol) that all share. The best settings are then trained with three seeds under the full
budget, and only those runs score validation. What is not searched, such as momenta, is as published. An update of Muon
costs more operations than one of the others: `budget` in operations (flop) or seconds (s) counts that for it.

Without an argument: ImageNet, 224 px, 90 epochs. `small` and `laptop` are as in decade.py. Not run on ImageNet here.
"""

from configs.sweeps import decade

TRIALS = 16
TENTHS = {"full": "9ep", "small": "5000img", "laptop": "500img"}
NETWORKS = ("resnet50", "vit_small")
OPTIMIZERS = {  # the published rate and decay, in the middle of what is searched
    "sgd": (0.1, 1e-4),
    "adamw": (1e-3, 0.05),
    "lamb": (5e-3, 0.02),
    "rmsprop": (0.016, 1e-5),
    "lion": (1e-4, 0.5),
    "muon": (0.02, 0.01),
    "schedule_free_adamw": (2.5e-3, 0.05),
}
FLAT = {"schedule_free_adamw": {"schedule": {"name": "linear", "warmup": 0.05, "final": 1.0}, "ema_decay": 0.0}}


def get_config(size="full"):
    settings = decade.get_config(size)
    systems = {
        f"{network}_{optimizer}": system(network, optimizer, size) for network in NETWORKS for optimizer in OPTIMIZERS
    }
    return settings | {"systems": systems, "search": {"trials": TRIALS, "budget": TENTHS[size]}}


def system(network, optimizer, size):
    """Return a network in the recipe of the decade with another optimizer, whose rate and decay are searched."""
    shared = decade.network(network, size)
    changed = {"optimizer": {"name": optimizer}} | FLAT.get(optimizer, {})
    rate, decay = OPTIMIZERS[optimizer]
    return shared | {
        "set": shared.get("set", {}) | changed,
        "search": (
            {"key": "optimizer.learning_rate", "low": rate / 10, "high": rate * 10, "log": True},
            {"key": "optimizer.weight_decay", "low": decay / 5.5, "high": decay * 5.5, "log": True},
        ),
    }
