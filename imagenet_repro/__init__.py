"""Every winning system of the ImageNet challenge, and what came after, under one identical budget."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagenet_repro.runs.loaded_network import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used, so that importing the package stays light."""
    if name != "load":
        raise AttributeError(f"module 'imagenet_repro' has no attribute '{name}'")
    from imagenet_repro.runs.loaded_network import load

    return load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
