"""Systems that turn images into scores, and the one place that chooses a system for a configuration."""

from collections.abc import Sequence
from typing import Any

from imagenet_repro.config import AnyConfig, Config, ContrastiveConfig, FeatureConfig, FrozenConfig
from imagenet_repro.errors import UserError
from imagenet_repro.training.systems import contrastive, network
from imagenet_repro.training.systems.contrastive import ContrastiveSystem
from imagenet_repro.training.systems.features import FeatureSystem
from imagenet_repro.training.systems.frozen import FrozenSystem
from imagenet_repro.training.systems.network import NetworkSystem
from imagenet_repro.training.systems.system import System

__all__ = [
    "SYSTEMS",
    "ContrastiveSystem",
    "FeatureSystem",
    "FrozenSystem",
    "NetworkSystem",
    "System",
    "check_config",
    "create_system",
    "require_network",
]

SYSTEMS: dict[type, type[Any]] = {
    Config: NetworkSystem,
    ContrastiveConfig: ContrastiveSystem,
    FeatureConfig: FeatureSystem,
    FrozenConfig: FrozenSystem,
}


def create_system(config: AnyConfig, class_names: Sequence[str]) -> System:
    """Return the system that a configuration describes.

    Args:
      config: the configuration of a run.
      class_names: names of the data set's classes; two towers make prompts of them.

    Raises:
      UserError: the system cannot be built.
    """
    if isinstance(config, ContrastiveConfig):
        return ContrastiveSystem.create(config, len(class_names), class_names=class_names)
    return SYSTEMS[type(config)].create(config, len(class_names))


def with_image_size(config: Config) -> Config:
    """Return a configuration whose network is built for the size of the run's images, where it has an option for it.

    A network that starts from weights keeps their size, or its own.
    """
    if isinstance(config, ContrastiveConfig):
        return contrastive.with_image_size(config)
    return network.with_image_size(config)


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
      UserError: the configuration describes a system of features, or two towers.
    """
    if not isinstance(config, Config) or isinstance(config, ContrastiveConfig):
        raise UserError(f"{workdir} holds a run of {config.system_name}; {reason}")
    return config
