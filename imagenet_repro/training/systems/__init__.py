"""Systems that turn images into scores, and the one place that chooses a system for a configuration."""

from typing import Any

from imagenet_repro.config import AnyConfig, Config, FeatureConfig, FrozenConfig
from imagenet_repro.errors import UserError
from imagenet_repro.training.systems.features import FeatureSystem
from imagenet_repro.training.systems.frozen import FrozenSystem
from imagenet_repro.training.systems.network import NetworkSystem
from imagenet_repro.training.systems.system import System

__all__ = [
    "SYSTEMS",
    "FeatureSystem",
    "FrozenSystem",
    "NetworkSystem",
    "System",
    "check_config",
    "create_system",
    "require_network",
]

SYSTEMS: dict[type, type[Any]] = {Config: NetworkSystem, FeatureConfig: FeatureSystem, FrozenConfig: FrozenSystem}


def create_system(config: AnyConfig, num_classes: int) -> System:
    """Return the system that a configuration describes.

    Args:
      config: the configuration of a run.
      num_classes: the number of classes of the data set.

    Raises:
      UserError: the system cannot be built.
    """
    return SYSTEMS[type(config)].create(config, num_classes)


def check_config(config: AnyConfig, path: str = "config") -> None:
    """Check a configuration as far as possible before its system is built.

    Args:
      config: the configuration of a run.
      path: the dotted key that precedes the keys in a message.

    Raises:
      UserError: there is no such network.
    """
    SYSTEMS[type(config)].check_config(config, path)


def require_network(config: AnyConfig, workdir: object, reason: str) -> Config:
    """Return `config` if it describes a network.

    Args:
      config: the configuration of a run.
      workdir: the directory of the run, for the message.
      reason: why a network is needed, for the message.

    Raises:
      UserError: the configuration describes a system of features.
    """
    if not isinstance(config, Config):
        raise UserError(f"{workdir} holds a run of {config.system_name}; {reason}")
    return config
