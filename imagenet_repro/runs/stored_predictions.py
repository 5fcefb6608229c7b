"""Stored predictions, loaded from a file or from a finished run, and the provenance in their file."""

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
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.class_names import of_provenance
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.storage import user
from imagenet_repro.storage.json_files import require_keys
from imagenet_repro.storage.workdir import RESULT, Workdir


@dataclasses.dataclass(frozen=True)
class StoredPredictions:
    """Predictions and their file."""

    path: Path
    predictions: Predictions

    @property
    def network(self) -> str:
        """The name of the network, or of the system before 2012; empty if the file does not state it."""
        return model_of(self.predictions).get("system", "")

    @property
    def protocol(self) -> str:
        """The evaluation protocol, as in `main.py evaluate`; empty if the file does not state it."""
        return model_of(self.predictions).get("protocol", "")


def load(path: str | Path) -> StoredPredictions:
    """Return the predictions in a file, or those of the result of a finished run.

    Args:
      path: a file of predictions, or a workdir.

    Raises:
      UserError: there are no predictions, or the file is damaged.
    """
    file = user.expand(path)
    if file.is_dir():
        workdir = Workdir(file)
        result = workdir.result()
        require_keys(workdir.path / RESULT, result, {"predictions": str})
        file = workdir.path / result["predictions"]
    return StoredPredictions(file, predictions.load(file))


def short_names(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """Return short names of paths: each path without the leading and trailing parts that all have in common.

    Raises:
      UserError: two are the same file.
    """
    resolved = [user.expand(path).resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UserError(f"{paths[index]} is the same file as {paths[resolved.index(path)]}")
    if len(paths) == 1:
        return (resolved[0].stem,)
    parts = [path.with_suffix("").parts if path.suffix == ".npz" else path.parts for path in resolved]
    n_first = _count_common(parts)
    n_last = _count_common([tuple(reversed(one[n_first:])) for one in parts])
    return tuple("/".join(one[n_first : len(one) - n_last]) for one in parts)


def _count_common(parts: Sequence[tuple[str, ...]]) -> int:
    """Return the number of leading parts that all paths share, leaving each path at least one part."""
    count = 0
    for column in list(zip(*parts, strict=False))[: min(map(len, parts)) - 1]:
        if len(set(column)) > 1:
            break
        count += 1
    return count


def class_names(stored: StoredPredictions) -> tuple[str, ...]:
    """Return the names of the classes by index.

    They come from the file, otherwise from the run whose workdir contains it, from its data set, or are numbers.
    """
    count = stored.predictions.logits.shape[1]
    names = of_provenance(stored.predictions.provenance)
    names = names or _class_names_of_run(stored.path) or _class_names_of_data(stored.predictions)
    return names if len(names) == count else tuple(f"class {index}" for index in range(count))


def _class_names_of_run(path: Path) -> tuple[str, ...]:
    try:
        result = json.loads((path.parent.parent / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    names = result.get("classes") if isinstance(result, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _class_names_of_data(predicted: Predictions) -> tuple[str, ...]:
    data = data_of(predicted)
    if not data:
        return ()
    try:
        config = build_section(Data, data)
        return tuple(sources.open_split(config, config.scored_split).class_names)
    except UserError:  # the section is from another version of this project, or the data set is not on this machine
        return ()


def data_of(predicted: Predictions) -> dict[str, Any]:
    """Return the section `data` of the configuration of the predictions; empty if the file has none."""
    return _section(_section(predicted.provenance, "config"), "data")


def model_of(predicted: Predictions) -> dict[str, Any]:
    """Return the entries that identify a scored model, as far as the file of its predictions states them.

    These are `system`, `seed`, `step`, `weights` (a checksum) and `protocol`, which is the system's own crop if the
    file names none.
    """
    config = _section(predicted.provenance, "config")
    trained = config.get("system") or _section(config, "model").get("name")
    system = trained or predicted.provenance.get("system")
    facts = {
        "protocol": _section(predicted.provenance, "protocol").get(
            "name", protocols.OWN_PROTOCOL if trained else None
        ),
        "system": models.canonical(system) if isinstance(system, str) else None,
        "seed": config.get("seed"),
        "step": predicted.provenance.get("step"),
        "weights": _section(predicted.provenance, "weights").get("sha256"),
    }
    return {key: value for key, value in facts.items() if value is not None}


def check_same_model(stored: StoredPredictions, other: StoredPredictions) -> None:
    """Raise UserError if two files state different models or different evaluation protocols."""
    first, second = model_of(stored.predictions), model_of(other.predictions)
    for key in first:
        if first[key] != second.get(key, first[key]):
            raise UserError(
                f"{stored.path} and {other.path} must differ only in their images, but have {key} {first[key]} and"
                f" {second[key]}"
            )


def check_not_trained_on(stored: StoredPredictions) -> None:
    """Raise UserError if a file states that its model was trained on the predicted images.

    Only a certain case is an error: the model was trained on a complete split of the data set, and the predictions are
    for that split or a part of it.
    """
    data = data_of(stored.predictions)
    scored, trained = data.get("eval_split"), data.get("train_split")
    if not isinstance(scored, str) or data.get("test_split"):
        return
    if scored.partition("[")[0] == trained:
        raise UserError(
            f"{stored.path} is for {scored}, and its model was trained on all of {trained}: nothing can be chosen on"
            f" training images; hold some out of training, such as --config.data.train_split='{trained}[:99%]'"
        )


def _section(settings: Any, key: str) -> dict[str, Any]:
    section = settings.get(key) if isinstance(settings, dict) else None
    return section if isinstance(section, dict) else {}
