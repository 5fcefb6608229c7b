"""One run of a classifier on frozen features: the images that its budget pays for, the classifier, and the result."""

import dataclasses
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from imagenet_repro import models
from imagenet_repro.config import Amount, Augment, Config, FrozenConfig, config_to_dict
from imagenet_repro.data.order import epoch_order
from imagenet_repro.data.sources import Split, Splits
from imagenet_repro.errors import UserError
from imagenet_repro.inference.feature_extractor import FeatureExtractor
from imagenet_repro.probes.stored_features import check_same_network
from imagenet_repro.runs import initial_weights
from imagenet_repro.runs.evaluate import with_evaluated_size
from imagenet_repro.runs.probe_methods import RUN, Features
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage import provenance, user
from imagenet_repro.storage.json_files import read_json, write_json
from imagenet_repro.storage.workdir import RESULT, Workdir
from imagenet_repro.training import memory
from imagenet_repro.training.budget import Spent
from imagenet_repro.training.systems import FrozenSystem, NetworkSystem
from imagenet_repro.training.systems.network import DTYPES, describe_loaded
from imagenet_repro.zoo import counting

FEATURES = "features"  # the subdirectory of features
PASS = "pass.json"  # in it: the seconds that the training images took, for a run that was stopped after them
TIMED = 4  # batches that measure the speed, where a budget is in seconds
LEAST_LIKELY = 2.0**-24  # probability that the cross-entropy counts at least; a class without votes has none


class FrozenRun:
    """One call of `train` for a classifier on frozen features.

    Args:
      config: the configuration of the run.
      workdir: the run's directory, locked by this process.
      splits: the images for training, evaluation and the result.

    Raises:
      UserError: the source of weights cannot be read or does not fit the network, or there are several processes.
    """

    def __init__(self, config: FrozenConfig, workdir: Workdir, splits: Splits):
        if jax.process_count() > 1:
            raise UserError(
                f"frozen features are computed in one process, over its devices; here are {jax.process_count()}"
            )
        FrozenSystem.check_config(config)
        self._config, self._workdir, self._splits = config, workdir, splits
        weights = initial_weights.read_source(config.model.weights)
        self._network_config = with_evaluated_size(_network_config(config))
        system = NetworkSystem.create(self._network_config, 0, weights)
        assert system.loaded is not None, "weights were given"
        print(describe_loaded(system.loaded))
        model = self._network_config.model
        self._network = models.abstract(model.name, 0, DTYPES[config.precision], **model.options)
        self._extractor = FeatureExtractor(
            self._network_config, self._network, system.network.params, system.network.stats
        )

    def go(self) -> None:
        """Compute the features, fit the classifier, and write the result."""
        config, splits = self._config, self._splits
        train = self._paid_images(splits.train)
        own = self._workdir.path / FEATURES
        shared = user.expand(config.cache_dir) if config.cache_dir else own
        stored = self._extractor.open(train, own)
        done = self._extractor.extract(train, stored, train.num_examples)
        seconds = _seconds_of_pass(stored.directory / PASS, done.images, done.seconds)
        scored = self._extractor.open(splits.scored, shared)
        self._extractor.extract(splits.scored, scored, splits.scored.num_examples)
        check_same_network(stored, scored)
        source = provenance.collect() | self._workdir.weights() | {"config": config_to_dict(config), "step": 0}
        source |= {"classes": list(splits.train.class_names)}
        probe = dataclasses.replace(config.probe, seed=config.seed)
        began = time.perf_counter()
        judgement = RUN[config.classifier](Features(self._extractor, probe, train, stored, scored, source))
        seconds += time.perf_counter() - began
        chosen = judgement.scored[judgement.selected or 0]
        print(f"{config.classifier}: {chosen.setting}, selected on held-out training images")
        flops = train.num_examples * self._flops_per_image
        epochs = train.num_examples / splits.train.num_examples
        self._finish(chosen.predictions[0], Spent(0, train.num_examples, epochs, flops, seconds), chosen.setting)

    @property
    def _flops_per_image(self) -> int:
        return 2 * counting.multiply_adds(self._network, self._network_config.data.size_evaluated)

    def _paid_images(self, train: Split) -> Split:
        """Return the part of the training split that the budget pays for, all of it where the budget is larger."""
        amount, every = Amount.parse(self._config.budget), train.num_examples
        images = {
            "img": lambda: amount.value,
            "ep": lambda: amount.value * every,
            "st": lambda: amount.value * self._config.batch_size,
            "flop": lambda: amount.value / self._flops_per_image,
            "s": lambda: amount.value * self._images_per_second(train),
        }[amount.unit]()
        count = min(every, int(images))
        if count < 2:
            raise UserError(
                f"config.budget: {self._config.budget} pays for {count} training images, and a classifier needs some"
                " to fit and some to select its settings; give more"
            )
        print(f"budget {self._config.budget}: {count:,} of {every:,} training images, each once")
        return train.subset(np.sort(epoch_order(self._config.seed, 0, every)[:count]).tolist())

    def _images_per_second(self, train: Split) -> float:
        """Return the speed of a few batches, after one that is not timed because it compiles."""
        few = train.subset(range(min(train.num_examples, TIMED * self._config.batch_size)))
        with tempfile.TemporaryDirectory() as directory:
            done = self._extractor.extract(few, self._extractor.open(few, Path(directory)), few.num_examples)
        return done.images / done.seconds

    def _finish(self, predicted: Predictions, spent: Spent, setting: str) -> None:
        config, scored = self._config, self._splits.scored
        rates = dataclasses.replace(predicted.error_rates(), cross_entropy=_cross_entropy(predicted))
        print(
            f"{scored.name} {scored.split}: top-1 error {100 * rates.top1_error:.2f} %, top-5 error"
            f" {100 * rates.top5_error:.2f} % of {rates.images:,} images"
        )
        path = self._workdir.predictions(config.data, config.data.scored_split)
        predictions.save(path, predicted)
        shapes = models.abstract(config.model.name, 0, **self._network_config.model.options)
        write_json(
            self._workdir.path / RESULT,
            {
                "system": config.model.name,
                "parameters": counting.parameter_count(shapes),
                "multiply_adds": self._flops_per_image // 2,
                "classifier": {"name": config.classifier, "setting": setting},
                "budget": config.budget,
                "spent": dataclasses.asdict(spent),
                "compilation_seconds": self._extractor.compilation_seconds,
                "rates": dataclasses.asdict(rates) | {"top1_error": rates.top1_error, "top5_error": rates.top5_error},
                "peak_memory": memory.peak(),
                "left_out": {"training": 0, "scored": scored.num_examples - rates.images},
                "classes": list(self._splits.train.class_names),
                "predictions": str(path.relative_to(self._workdir.path)),
                "provenance": predicted.provenance,
            },
        )


def _network_config(config: FrozenConfig) -> Config:
    """Return the configuration of the network whose features are computed."""
    return Config(
        batch_size=config.batch_size,
        precision=config.precision,
        model=config.model,
        data=config.data,
        eval_crop=config.eval_crop,
        augment=Augment(mean=config.mean, std=config.std),
    )


def _seconds_of_pass(path: Path, images: int, seconds: float) -> float:
    """Return the seconds of a pass over the training images, also of the part that an earlier process computed."""
    before = read_json(path, "train writes it")["seconds"] if path.exists() else 0.0
    if images:
        write_json(path, {"seconds": before + seconds})
    return before + seconds * bool(images)


def _cross_entropy(predicted: Predictions) -> float:
    """Return the mean cross-entropy in nats, with probabilities of at least `LEAST_LIKELY`."""
    scores = predicted.logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    likelihood = shares[np.arange(len(predicted)), predicted.label] / shares.sum(axis=1)
    return float(-np.log(np.maximum(likelihood, LEAST_LIKELY)).mean())
