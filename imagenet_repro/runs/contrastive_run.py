"""One run of two towers on image-text pairs: its captions, and the weights of its towers."""

import functools
from typing import Any

from imagenet_repro import pretrained
from imagenet_repro.config import Config, ContrastiveConfig
from imagenet_repro.data.sources import Splits
from imagenet_repro.models.nn.network import Network
from imagenet_repro.runs import loaded_network
from imagenet_repro.runs.network_run import NetworkRun
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import log
from imagenet_repro.training.budget import Budget, Spent
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems.contrastive import ContrastiveSystem, PreparedCaptions, check_config


class ContrastiveRun(NetworkRun):
    """One call of `train` for two towers; the arguments are those of `Run`.

    Raises:
      UserError: as `NetworkRun`, or captions are missing, empty, or cannot be made of the classes.
    """

    config: ContrastiveConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    system: ContrastiveSystem  # pyright: ignore[reportIncompatibleVariableOverride]

    def _create_system(self, config: Config, workdir: Workdir, splits: Splits) -> ContrastiveSystem:
        """Return the system, with the weights of its towers where the run is new."""
        assert isinstance(config, ContrastiveConfig)
        check_config(config)
        self._tower_notes: tuple[str, ...] = ()
        weights = tower = None
        if not workdir.has_checkpoints:
            weights = pretrained.read(config.model.weights) if config.model.weights else None
            tower = self._load_tower(config) if config.image.weights else None
        classes = splits.train.class_names
        return ContrastiveSystem.create(config, len(classes), class_names=classes, weights=weights, image_tower=tower)

    def _load_tower(self, config: ContrastiveConfig) -> Network:
        """Return the network that the image tower starts from; a run states which one it is."""
        image = config.image
        stated = {} if loaded_network.is_run(image.weights) else {"model": image.model, "options": image.options}
        loaded = loaded_network.load(image.weights, **stated)
        self._tower_notes = loaded.notes
        return loaded.network

    @functools.cached_property
    def _captions(self) -> PreparedCaptions:
        return self.system.captions(self.train_split)

    def _introduce(self, run_log: log.RunLog, budget: Budget, spent: Spent, train_state: TrainState) -> None:
        super()._introduce(run_log, budget, spent, train_state)
        classes, templates, length = self.system.prompt_tokens.shape
        run_log.say(
            f"captions: {self.config.captions.name}, {length} tokens; evaluated zero-shot on {classes:,} classes with"
            f" {templates} template(s)"
        )
        if self._captions.truncated:
            run_log.say(
                f"{self._captions.truncated:,} of {self._captions.examined:,} captions examined are longer than"
                f" {length} tokens and are cut"
            )
        for note in self._tower_notes:
            run_log.say(f"image tower: {note}")

    def _summary(self) -> dict[str, Any]:
        counts = {"truncated": self._captions.truncated, "examined": self._captions.examined}
        return super()._summary() | {"captions": counts}
