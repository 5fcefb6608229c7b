"""Write the weights of a run as a file that torchvision or timm loads, and upload them to the Hugging Face Hub."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from imagenet_repro import pretrained
from imagenet_repro.config import CenterCrop, Config, SquashCrop
from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.models.nn import lora
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.models.vit import VisionTransformer, resize_positions
from imagenet_repro.pretrained import hub
from imagenet_repro.report import model_card
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.storage.provenance import of_file
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, log, systems
from imagenet_repro.training.systems import NetworkSystem
from imagenet_repro.zoo import counting


@dataclasses.dataclass(frozen=True)
class _Exported:
    """A network that is ready to be written, and what is said of it."""

    network: Network
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    step: int
    weights: str  # words for the kind of weights
    notes: tuple[str, ...]


def export(
    workdir: str,
    *,
    which: str,
    out: str = "",
    repository: hub.Repository | None = None,
    private: bool = False,
    license_id: str = model_card.UNKNOWN_LICENSE,
) -> int:
    """Write the weights of a run, averaged if it keeps an average, under the names of the reference implementation.

    Args:
      workdir: the workdir of a run, which need not be finished.
      which: "best", "last" or a step.
      out: a `.safetensors` file, which is replaced if it exists; empty: none is written.
      repository: on the Hugging Face Hub, which receives the weights with a model card; None: nothing is uploaded.
      private: whether a new repository can be read by its owner alone.
      license_id: the Hub's identifier of the license of the weights.

    Returns:
      The exit code.

    Raises:
      UserError: the run does not train a network, or has no such checkpoint, the file has another ending, or the Hub
        cannot be used.
      SaveError: the file cannot be written.
    """
    if out:
        pretrained.require_suffix(out)
    if repository is not None:
        hub.require_access(repository)
    run = Workdir(workdir)
    exported = _restore(run, which)
    about = f"{exported.weights} of {exported.network.known_origin.name} at step {exported.step:,}"
    if out:
        _write(exported, out)
        print(f"{out}: {about}, {len(exported.classes):,} classes")
    if repository is not None:
        with tempfile.TemporaryDirectory() as directory:
            _write_repository(run, exported, Path(directory), repository, license_id)
            print(f"uploading {', '.join(sorted(path.name for path in Path(directory).iterdir()))}")
            address = hub.push(Path(directory), repository, private=private, message=f"Upload {about}")
        print(f"{repository}: {about}, {len(exported.classes):,} classes\n  {address}")
    for note in exported.notes:
        print(f"  {note}")
    return EXIT_FINISHED


def _restore(run: Workdir, which: str) -> _Exported:
    """Return the network of a run's checkpoint."""
    config = systems.require_network(run.as_computed(run.config()), run.path, "only networks' weights can be exported")
    devices.start()
    classes = trained_classes(run)
    system = NetworkSystem.create(config, len(classes))
    restored = restore(run, system, system.initial_state(), which)
    preprocessing = describe_preprocessing(config)
    network = lora.merge(cast(Network, system.network.model(*restored.state.evaluated)))
    notes = [_fit_positions(network, config.data.size_evaluated)]
    if preprocessing is None:
        notes.append(
            f"without preprocessing: the run evaluates with {config.eval_crop}, and a file can only state 'center' or"
            " 'squash'"
        )
    kind = "averaged weights" if config.keeps_average else "weights"
    if config.train.lora.rank:
        kind += " with LoRA merged"
    return _Exported(network, preprocessing, classes, restored.step, kind, tuple(filter(None, notes)))


def _write(exported: _Exported, path: str | Path) -> None:
    pretrained.write(exported.network, path, preprocessing=exported.preprocessing, class_names=exported.classes)


def _write_repository(
    run: Workdir, exported: _Exported, directory: Path, repository: hub.Repository, license_id: str
) -> None:
    """Write the files of a repository: weights, their description, the recipe and the model card."""
    weights = directory / hub.WEIGHTS
    _write(exported, weights)
    config, provenance = run.config(), run.provenance()
    assert isinstance(config, Config), "only networks' weights are exported"
    result = run.result() if run.is_finished else None
    is_result = result is not None and result["provenance"].get("step") == exported.step
    model = model_card.Model(
        config=config,
        options=exported.network.known_origin.options,
        parameters=counting.parameter_count(exported.network),
        classes=exported.classes,
        step=exported.step,
        weights=exported.weights,
        images=exported.preprocessing,
        measurement=_measured(run, config, exported.step, result if is_result else None),
        spent=result["spent"] if result is not None and is_result else None,
        provenance={key: value for key, value in provenance.items() if key != "classes"},
        sha256=of_file(weights)["sha256"],
    )
    texts = {
        hub.CONFIG: model_card.model_json(model),
        model_card.RECIPE: model_card.recipe(model),
        hub.CARD: model_card.card(model, repository, license_id),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


def _measured(
    run: Workdir, config: Config, step: int, result: Mapping[str, Any] | None
) -> model_card.Measurement | None:
    """Return the errors of a checkpoint: of the result if it is the run's last one, else of its own evaluation."""
    if result is not None:
        rates, split, evaluations = result["rates"], config.data.scored_split, 1
    else:
        rows = [row for row in log.read_rows(run.metrics) if row["kind"] == "eval"]
        rates = next((row for row in rows if row["step"] == step), None)
        if rates is None or not rates.get("evaluated"):
            return None
        rates, split, evaluations = rates | {"images": rates["evaluated"]}, config.data.eval_split, len(rows)
    return model_card.Measurement(
        config.data.name, split, rates["images"], rates["top1_wrong"], rates["top5_wrong"], evaluations
    )


def _fit_positions(network: Network, size: int) -> str:
    """Give a transformer the positions that it has for images of a size, in place; return a sentence about it.

    A run computes them from those of its `image_size` at every step (`vit.resize_positions`). The file has them as
    they are, so that other libraries build the network for images of this size.
    """
    if not isinstance(network, VisionTransformer) or network.pos_embed is None or size % network.patch:
        return ""
    old, new = network.grid, (size // network.patch, size // network.patch)
    if old == new:
        return ""
    network.pos_embed.set_value(resize_positions(network.pos_embed[...], old, new))
    network.grid, origin = new, network.known_origin
    network.origin = dataclasses.replace(origin, options=origin.options | {"image_size": size})
    return (
        f"positions of {size} px, {new[0]} x {new[1]} patches, as the run used them; its own are {old[0]} x {old[1]}"
    )


def describe_preprocessing(config: Config) -> Preprocessing | None:
    """Return how a run prepares the images that it is evaluated on, or None if a file cannot state it."""
    crop = config.eval_crop
    if not isinstance(crop, CenterCrop | SquashCrop) or crop.kernel == "area":
        return None
    size = config.data.size_evaluated
    colour = config.augment
    ratio, name = (crop.ratio, "center") if isinstance(crop, CenterCrop) else (1.0, "squash")
    return Preprocessing(size, ratio, crop.kernel, colour.mean, colour.std, crop.antialias, name)
