"""The settings of a run that may change its numbers, as comparisons and names of systems read them."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from imagenet_repro.config import config_to_dict, flatten_settings, resolve_config
from imagenet_repro.config.run import choose_schema
from imagenet_repro.errors import UserError
from imagenet_repro.storage.workdir import FREE_KEYS

WEIGHTS = "model.weights"
SEED = "seed"
CHECKPOINT = "checkpoint."  # begins keys that say what is kept on the disk
ABSENT = None  # stands for a key that a configuration does not have, since the values of its keys are never None
EMPTY = (ABSENT, "", {}, [])


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The file that a run started from. Two files with the same content are equal, wherever they are.

    Attributes:
      content: the file's SHA-256, or its path where no checksum was recorded.
      path: the value of the configuration.
    """

    content: str
    path: str = dataclasses.field(compare=False)

    def __str__(self) -> str:
        return self.path


def of_run(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that may change its numbers, by dotted key, with all defaults filled in.

    The seed, the run's name, and keys that say where and how fast it works are left out, and so are empty sections.

    Args:
      config: the nested configuration.
      provenance: that of the run, whose checksum of the initial weights says which files are equal.
    """
    settings = dict(_with_defaults(json.dumps({key: value for key, value in config.items() if key != SEED})))
    if settings.get(WEIGHTS):
        recorded = provenance.get("weights")
        digest = recorded.get("sha256") if isinstance(recorded, Mapping) else None
        settings[WEIGHTS] = WeightsFile(str(digest or settings[WEIGHTS]), str(settings[WEIGHTS]))
    return settings


@functools.lru_cache(maxsize=4096)
def _with_defaults(config: str) -> Mapping[str, Any]:
    nested = json.loads(config)
    try:
        nested = config_to_dict(resolve_config(nested))
    except UserError:  # of a version with other keys
        nested = _merged(config_to_dict(choose_schema(nested)()), nested)
    return {key: value for key, value in flatten_settings(nested).items() if _may_matter(key, value)}


def _merged(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings over their defaults; a section of another `name` has none of the defaults."""
    merged = dict(defaults)
    for key, value in settings.items():
        default = defaults.get(key)
        if isinstance(default, dict) and isinstance(value, dict):
            is_same = value.get("name", default.get("name")) == default.get("name")
            merged[key] = _merged(default, value) if is_same else value
        else:
            merged[key] = value
    return merged


def _may_matter(key: str, value: Any) -> bool:
    return key != SEED and key not in FREE_KEYS and not key.startswith(CHECKPOINT) and value != {}


def identity(settings: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=lambda weights: weights.content)


def differing_keys(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values are not all equal, in the order of the configuration.

    An empty value counts as one that is absent.
    """
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    first = all_settings[0] if all_settings else {}
    return [key for key in keys if any(filled(one.get(key)) != filled(first.get(key)) for one in all_settings)]


def filled(value: Any) -> Any:
    """Return a value; `ABSENT` in place of an empty one."""
    return ABSENT if value in EMPTY else value


def as_text(value: Any) -> str:
    """Return a value as a configuration shows it; nothing for one that is absent or empty."""
    if value in EMPTY:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | bool | int | WeightsFile):
        return str(value)
    return json.dumps(value)


def file_name(value: Any) -> str:
    """Return the last part of the path of a file of weights; other values as `as_text` gives them."""
    text = as_text(value)
    return PurePath(text).name or text if isinstance(value, WeightsFile) and ":" not in text else text
