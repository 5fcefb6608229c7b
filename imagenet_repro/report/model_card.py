"""The files that describe exported weights in a repository: the model card, `config.json` and the recipe.

A card states a result only where it was measured on the exported checkpoint, with its interval and its images.
"""

import dataclasses
import json
import pprint
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from imagenet_repro import __version__
from imagenet_repro.config import Config, config_to_dict
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import hub, preprocessing
from imagenet_repro.report.text import quantity, seconds
from imagenet_repro.scoring import wordnet
from imagenet_repro.statistics.intervals import binomial_interval
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

UNKNOWN_LICENSE = "unknown"  # an identifier of the Hub
RECIPE = "recipe.py"
MOST_CLASSES = 10  # that the card names; config.json has all
TOP5_CLASSES = 6  # with fewer, five guesses say little or nothing


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The error rates of an exported checkpoint.

    Attributes:
      data: name of the data set.
      split: of the images.
      images: number of images.
      top1_wrong: number of images that are wrong with one guess.
      top5_wrong: the same with five guesses.
      evaluations: the number of evaluations on these images among which the checkpoint may have been chosen; 1: it was
        not chosen by them.
    """

    data: str
    split: str
    images: int
    top1_wrong: int
    top5_wrong: int
    evaluations: int = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """Exported weights and the run that they come from.

    Attributes:
      config: the recorded configuration of the run.
      options: of the network as it was written.
      parameters: number of them.
      classes: names by index.
      step: of the checkpoint.
      weights: words for the kind of weights, such as "averaged weights".
      images: how images are prepared; None: no file can state it.
      measurement: of this checkpoint; None: there is none.
      spent: images, epochs and seconds of the complete training, where the checkpoint is its last one.
      provenance: of the run: versions, commit, devices, and `weights` where it started from some.
      sha256: of the file of weights.
    """

    config: Config
    options: Mapping[str, Any]
    parameters: int
    classes: Sequence[str]
    step: int
    weights: str
    images: Preprocessing | None
    measurement: Measurement | None
    spent: Mapping[str, float] | None
    provenance: Mapping[str, Any]
    sha256: str

    @property
    def system(self) -> str:
        """The name of the system in tables."""
        return self.config.name or self.config.system_name


def model_json(model: Model) -> str:
    """Return the content of `config.json`: network, options, classes, images, the configuration and the result."""
    content = {
        "library_name": hub.LIBRARY,
        "library_version": __version__,
        "network": model.config.model.name,
        "options": dict(model.options),
        "num_classes": len(model.classes),
        "classes": list(model.classes),
        "preprocessing": dataclasses.asdict(model.images) if model.images else None,
        "parameters": model.parameters,
        "step": model.step,
        "sha256": model.sha256,
        "result": dataclasses.asdict(model.measurement) if model.measurement else None,
        "training": without_places(config_to_dict(model.config)),
        "provenance": without_places(dict(model.provenance)),
    }
    return json.dumps(content, indent=1, default=str) + "\n"


def recipe(model: Model) -> str:
    """Return a recipe with the keys of the run's configuration, for `main.py train --config=recipe.py`.

    Those of directories and trackers are left out, since they are the author's.
    """
    keys = {key: value for key, value in config_to_dict(model.config).items() if key != "log"}
    settings = pprint.pformat(without_places(keys), width=110, sort_dicts=False)
    return (
        f'"""The complete configuration of {model.system}: main.py train --config={RECIPE} --workdir=DIR."""\n\n'
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict(\n{_indented(settings, 8)}\n    )\n"
    )


def card(model: Model, repository: hub.Repository, license_id: str) -> str:
    """Return the model card, `README.md`, in Markdown with the Hub's YAML before it."""
    parts = [
        f"---\n{_yaml(_metadata(model, license_id))}---\n",
        f"# {repository.name.partition('/')[2]}\n",
        _introduction(model),
        "## Result\n",
        _result(model),
        "## Use\n",
        _use(repository),
        "## Images\n",
        _images(model),
        "## Training\n",
        _training(model),
        "## License\n",
        "The author has not stated a license.\n" if license_id == UNKNOWN_LICENSE else f"{license_id}\n",
    ]
    return "\n".join(parts)


def without_places(value: Any) -> Any:
    """Return settings without the directories of this machine: of an absolute path, only the last part is kept."""
    if isinstance(value, Mapping):
        return {key: "" if key in ("data_dir", "cache_dir") else without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _metadata(model: Model, license_id: str) -> dict[str, Any]:
    """Return the entries of the card that the Hub reads, with the errors that were measured."""
    entries: dict[str, Any] = {
        "library_name": hub.LIBRARY,
        "license": license_id,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "flax"],
    }
    measured = model.measurement
    if measured is not None:
        metrics = [{"type": "error", "name": "top-1 error", "value": measured.top1_wrong / measured.images}]
        if len(model.classes) >= TOP5_CLASSES:
            metrics += [{"type": "error", "name": "top-5 error", "value": measured.top5_wrong / measured.images}]
        data = {"name": measured.data, "type": measured.data, "split": measured.split}
        results = [{"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}]
        entries["model-index"] = [{"name": model.system, "results": results}]
    return entries


def _yaml(entries: Mapping[str, Any]) -> str:
    """Return entries as JSON, which is valid YAML too."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())


def _introduction(model: Model) -> str:
    names = wordnet.readable_names(list(model.classes))
    more = f", … ({len(names):,} in `{hub.CONFIG}`)" if len(names) > MOST_CLASSES else ""
    return (
        f"An image classifier: `{model.config.model.name}`, {quantity(model.parameters)} parameters,"
        f" {len(model.classes):,} classes ({', '.join(names[:MOST_CLASSES])}{more}). `{hub.WEIGHTS}` has the"
        f" {model.weights} of step {model.step:,} under the reference implementation's names.\n"
    )


def _result(model: Model) -> str:
    measured = model.measurement
    if measured is None:
        return f"None was measured on the checkpoint of step {model.step:,}.\n"
    interval = interval_heading(NEW_IMAGES)
    rows = [("top-1", measured.top1_wrong)]
    if len(model.classes) >= TOP5_CLASSES:
        rows.append(("top-5", measured.top5_wrong))
    lines = [f"| | images | error [%] | {interval} |", "|---|---:|---:|---:|"]
    for name, wrong in rows:
        low, high = (100 * bound for bound in binomial_interval(wrong, measured.images))
        error = 100 * wrong / measured.images
        lines.append(f"| {name} | {measured.images:,} | {error:.2f} | [{low:.2f}, {high:.2f}] |")
    seed = f"One training, seed {model.config.seed}. Intervals are Wilson's, for new images."
    chosen = ""
    if measured.evaluations > 1:
        chosen = (
            f" Training evaluated {measured.evaluations:,} times on these images. If that chose this checkpoint, its"
            " error is optimistic."
        )
    where = f"Data set `{measured.data}`, split `{measured.split}`."
    return "\n".join(lines) + f"\n\n{where} {seed}{chosen}\n"


def _use(repository: hub.Repository) -> str:
    return (
        f"```\npip install 'imagenet_repro[hub]'\nimagenet-repro predict --weights={repository} photo.jpg\n```\n\n"
        f'```python\nimport imagenet_repro\n\nnet = imagenet_repro.load("{repository}")\n'
        'print(net.top(net(["photo.jpg"])))\n```\n'
    )


def _images(model: Model) -> str:
    if model.images is None:
        return f"The run evaluates with {model.config.eval_crop}, which a file of weights cannot state.\n"
    return f"{preprocessing.describe(model.images)}.\n"


def _training(model: Model) -> str:
    config, provenance = model.config, model.provenance
    lines = [
        f"Trained on `{config.data.name}`, split `{config.data.train_split}`, with a budget of {config.budget},"
        f" batches of {config.batch_size:,}, {config.optimizer.name} and the schedule {config.schedule.name}.",
    ]
    if model.spent is not None:
        epochs, images, time = (model.spent[key] for key in ("epochs", "images", "seconds"))
        lines.append(f"It saw {images:,.0f} images ({epochs:,.4g} epochs) in {seconds(time)} s of training.")
    if start := provenance.get("weights"):
        source = config.model.weights if ":" in config.model.weights else PurePath(start["path"]).name
        lines.append(f"It started from `{source}` (SHA-256 {start['sha256']}).")
    devices = dict(provenance.get("devices", {}))
    platform = devices.pop("platform", "")
    cards = ", ".join(f"{count} x {kind}" for kind, count in devices.items())
    version, commit = provenance.get("imagenet_repro", __version__), provenance.get("commit", "unknown")
    lines.append(f"imagenet_repro {version}, commit {commit}, on {cards or platform or 'unknown devices'}.")
    command = f"```\nimagenet-repro train --config={RECIPE} --workdir=DIR --config.data.data_dir=DATA\n```\n"
    about = f"`{RECIPE}` has its configuration without the author's directories and trackers."
    return f"{' '.join(lines)}\n\n{about}\n\n{command}"


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line for line in text.splitlines())
