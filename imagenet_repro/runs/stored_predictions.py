"""Stored predictions by the name of their file, or of the finished run that they are the result of."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagenet_repro import models
from imagenet_repro.config import Data, build_section
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocols
from imagenet_repro.scoring import predictions, sets
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage.json_files import require_keys
from imagenet_repro.storage.workdir import RESULT, Workdir


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """Predictions and the file that they are in."""

    path: Path
    predictions: Predictions

    @property
    def network(self) -> str:
        """Name of the network, or of the system before 2012; empty where the file does not say."""
        return model_of(self.predictions).get("system", "")

    @property
    def protocol(self) -> str:
        """By which the system was scored, a name of `main.py evaluate`; empty where the file does not say."""
        return model_of(self.predictions).get("protocol", "")


def load(place: str | Path) -> StoredPredictions:
    """The predictions in a file, or those of a finished run's result, by its workdir.

    Raises:
      UserError: there are none, or the file is damaged.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        workdir = Workdir(path)
        result = workdir.result()
        require_keys(workdir.path / RESULT, result, {"predictions": str})
        path = workdir.path / result["predictions"]
    return StoredPredictions(path, predictions.load(path))


def short_names(places: Sequence[str | Path]) -> tuple[str, ...]:
    """What tells the paths apart: each without the parts that all have in common before and behind.

    Raises:
      UserError: two are the same file.
    """
    resolved = [Path(place).expanduser().resolve() for place in places]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UserError(f"{places[index]} is the same file as {places[resolved.index(path)]}")
    if len(places) == 1:
        return (resolved[0].stem,)
    parts = [path.with_suffix("").parts if path.suffix == ".npz" else path.parts for path in resolved]
    before = _common(parts)
    behind = _common([tuple(reversed(one[before:])) for one in parts])
    return tuple("/".join(one[before : len(one) - behind]) for one in parts)


def _common(parts: Sequence[tuple[str, ...]]) -> int:
    """How many parts all paths begin with alike, leaving each at least one."""
    alike = 0
    for column in list(zip(*parts, strict=False))[: min(map(len, parts)) - 1]:
        if len(set(column)) > 1:
            break
        alike += 1
    return alike


def class_names(stored: StoredPredictions) -> tuple[str, ...]:
    """Names by class index: the file's own, else of the run in whose workdir it lies, of the data set, or numbers."""
    count = stored.predictions.logits.shape[1]
    named = sets.class_names(stored.predictions.provenance) or _of_run(stored.path) or _of_data(stored.predictions)
    return named if len(named) == count else tuple(f"class {index}" for index in range(count))


def _of_run(path: Path) -> tuple[str, ...]:
    try:
        result = json.loads((path.parent.parent / RESULT).read_text())
    except (OSError, ValueError):
        return ()
    names = result.get("classes") if isinstance(result, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _of_data(found: Predictions) -> tuple[str, ...]:
    data = data_of(found)
    if not data:
        return ()
    try:
        config = build_section(Data, data)
        return tuple(sources.open_split(config, config.scored_split).class_names)
    except UserError:  # of another version of this project, or no longer on this machine
        return ()


def data_of(found: Predictions) -> dict[str, Any]:
    """The section `data` of the configuration that made the predictions; empty where the file does not say."""
    return _section(_section(found.provenance, "config"), "data")


def model_of(found: Predictions) -> dict[str, Any]:
    """What tells one scored model from another, as far as a file says it.

    Its `system`, `seed`, `step`, `weights` (a checksum) and `protocol`: without a name of one, the system's own crop.
    """
    config = _section(found.provenance, "config")
    trained = config.get("system") or _section(config, "model").get("name")
    system = trained or found.provenance.get("system")
    facts = {
        "protocol": _section(found.provenance, "protocol").get("name", protocols.OWN_PROTOCOL if trained else None),
        "system": models.canonical(system) if isinstance(system, str) else None,
        "seed": config.get("seed"),
        "step": found.provenance.get("step"),
        "weights": _section(found.provenance, "weights").get("sha256"),
    }
    return {key: value for key, value in facts.items() if value is not None}


def check_same_model(one: StoredPredictions, other: StoredPredictions) -> None:
    """Raises UserError where files say that they are of different models, or scored by different protocols."""
    first, second = model_of(one.predictions), model_of(other.predictions)
    for key in first:
        if first[key] != second.get(key, first[key]):
            raise UserError(
                f"{one.path} and {other.path} must differ in their images alone: {key} {first[key]} and {second[key]}"
            )


def check_not_trained_on(stored: StoredPredictions) -> None:
    """Raises UserError where a file says that it is of images that its model was trained on.

    Only what is beyond doubt counts: the training split was a whole split of the data set, and the predictions are of
    that split or a part of it.
    """
    data = data_of(stored.predictions)
    scored, trained = data.get("eval_split"), data.get("train_split")
    if not isinstance(scored, str) or data.get("test_split"):
        return
    if scored.partition("[")[0] == trained:
        raise UserError(
            f"{stored.path} is of {scored}, and its model was trained on all of {trained}: nothing can be chosen on"
            " images that were learned by heart; hold some out of training, such as --config.data.train_split="
            f"'{trained}[:99%]'"
        )


def _section(settings: Any, key: str) -> dict[str, Any]:
    found = settings.get(key) if isinstance(settings, dict) else None
    return found if isinstance(found, dict) else {}
