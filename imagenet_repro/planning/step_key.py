"""Keys of configurations: those with equal keys have training steps of equal cost, so that one stands for all.

The learning rate is an argument of the compiled step, and other numbers are constants in it: changing them changes no
operation, unless one of them is zero, which switches something off. Every key that is not named here counts as one
that changes the cost.
"""

import json
from typing import Any

from imagenet_repro.config import AnyConfig, Config, config_to_dict, flatten_settings

# Keys of a network's run that no operation of its step depends on. A section stands for all its keys.
WITHOUT_EFFECT = ("name", "seed", "schedule", "optimizer.learning_rate")
# Keys whose numbers are constants of the step; 0, or for the second group 1, leaves out operations.
OFF_AT_ZERO = (
    "ema_decay", "clip_norm", "max_filter_rms", "augment.label_smoothing", "augment.erasing", "augment.brightness",
    "augment.contrast", "augment.saturation", "optimizer.momentum", "optimizer.weight_decay", "optimizer.b1",
    "optimizer.b2", "optimizer.decay", "optimizer.eps", "optimizer.adam_learning_rate", "optimizer.adam_b1",
    "optimizer.adam_b2", "optimizer.adam_eps",
)  # fmt: skip
OFF_AT_ONE = ("optimizer.layer_decay", "optimizer.b1", "optimizer.b2", "optimizer.momentum", "ema_decay")
# Keys that a run depends on beside its step: how long it is, which images it reads, and what it writes.
OF_THE_RUN = (
    "budget", "evaluate_every", "log_every", "log", "checkpoint", "train_crop", "eval_crop", "data.data_dir",
    "data.train_split", "data.eval_split", "data.test_split", "data.eval_image_size", "data.eval_batch_size",
    "data.repeats", "data.threads", "data.workers", "data.max_bad_share",
)  # fmt: skip


def run_key(config: AnyConfig) -> str:
    """Return a text that is equal for configurations whose runs cost the same, in time, operations and memory."""
    return json.dumps(_key(config), sort_keys=True)


def step_key(config: Config) -> str:
    """Return a text that is equal for configurations whose compiled steps are one program, but for constants."""
    key = {name: value for name, value in _key(config).items() if not _is_in(name, OF_THE_RUN)}
    return json.dumps(key, sort_keys=True)


def _key(config: AnyConfig) -> dict[str, Any]:
    settings = flatten_settings(config_to_dict(config))
    if not isinstance(config, Config):
        return {name: value for name, value in settings.items() if name not in ("name", "seed")}
    key = {}
    for name, value in settings.items():
        if _is_in(name, WITHOUT_EFFECT):
            continue
        is_off = (name in OFF_AT_ZERO and value == 0) or (name in OFF_AT_ONE and value == 1)
        key[name] = "some" if name in (*OFF_AT_ZERO, *OFF_AT_ONE) and not is_off else value
    return key


def _is_in(name: str, sections: tuple[str, ...]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)
