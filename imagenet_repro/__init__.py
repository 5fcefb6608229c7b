"""Every winning system of the ImageNet challenge, and what came after, under one identical budget."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagenet_repro.config import load_config
    from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
    from imagenet_repro.runs.evaluate import evaluate, evaluate_weights
    from imagenet_repro.runs.loaded_network import load
    from imagenet_repro.runs.predict import predict, predict_weights
    from imagenet_repro.runs.train import train
    from imagenet_repro.sweeps.compare import compare

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "evaluate",
    "evaluate_weights",
    "load",
    "load_config",
    "predict",
    "predict_weights",
    "prepare_dataset",
    "train",
]

_MODULES = {
    "compare": "imagenet_repro.sweeps.compare",
    "evaluate": "imagenet_repro.runs.evaluate",
    "evaluate_weights": "imagenet_repro.runs.evaluate",
    "load": "imagenet_repro.runs.loaded_network",
    "load_config": "imagenet_repro.config",
    "predict": "imagenet_repro.runs.predict",
    "predict_weights": "imagenet_repro.runs.predict",
    "prepare_dataset": "imagenet_repro.data.prepare.prepare_dataset",
    "train": "imagenet_repro.runs.train",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first used, so that importing the package stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module 'imagenet_repro' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
