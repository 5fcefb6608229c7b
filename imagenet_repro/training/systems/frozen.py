"""Classifiers on frozen features as a kind of system: what can be checked before a run; there is nothing to train."""

from typing import NoReturn

from imagenet_repro import models
from imagenet_repro.config import FrozenConfig
from imagenet_repro.errors import UserError


class FrozenSystem:
    """A network's features with a classifier that is fitted at once, not in steps; see `runs/frozen_run.py`."""

    @classmethod
    def create(cls, config: FrozenConfig, num_classes: int) -> NoReturn:
        """Raise UserError: such a run keeps predictions, and no checkpoint to evaluate or steps to measure."""
        del num_classes
        raise UserError(
            f"a {config.classifier} classifier on frozen features of {config.model.name} has no steps and no"
            " checkpoints; its run stores its predictions, and `main.py probe` judges features on other data"
        )

    @classmethod
    def check_config(cls, config: FrozenConfig, path: str = "config") -> None:
        """Raise UserError, with the key below `path`, if there is no such network, or no weights for it."""
        try:
            models.spec(config.model.name)
        except UserError as error:
            raise UserError(f"{path}.model.name: {error}") from error
        if not config.model.weights:
            raise UserError(f"{path}.model.weights: frozen features need a source of weights; name one")
