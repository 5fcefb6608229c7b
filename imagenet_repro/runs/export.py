"""Write the weights of a run as a file that torchvision or timm loads."""

import dataclasses
from typing import cast

from imagenet_repro import pretrained
from imagenet_repro.config import CenterCrop, Config, SquashCrop
from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.models.nn import lora
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.models.vit import VisionTransformer, resize_positions
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, systems
from imagenet_repro.training.systems import NetworkSystem


def export(workdir: str, *, which: str, out: str) -> int:
    """Write the weights of a run, averaged if it keeps an average, under the names of the reference implementation.

    Args:
      workdir: the workdir of a run, which need not be finished.
      which: "best", "last" or a step.
      out: a `.safetensors` file, which is replaced if it exists.

    Returns:
      The exit code.

    Raises:
      UserError: the run does not train a network, or has no such checkpoint, or the file has another ending.
      SaveError: the file cannot be written.
    """
    pretrained.require_suffix(out)
    run = Workdir(workdir)
    config = systems.require_network(run.as_computed(run.config()), run.path, "only networks' weights can be exported")
    devices.start()
    classes = trained_classes(run)
    system = NetworkSystem.create(config, len(classes))
    restored = restore(run, system, system.initial_state(), which)
    preprocessing = describe_preprocessing(config)
    network = lora.merge(cast(Network, system.network.model(*restored.state.evaluated)))
    note = _fit_positions(network, config.data.size_evaluated)
    pretrained.write(network, out, preprocessing=preprocessing, class_names=classes)
    kind = "averaged weights" if config.keeps_average else "weights"
    if config.train.lora.rank:
        kind += " with LoRA merged"
    print(f"{out}: {kind} of {config.model.name} at step {restored.step:,}, {len(classes):,} classes")
    if note:
        print(f"  {note}")
    if preprocessing is None:
        crop = config.eval_crop
        print(
            f"  without preprocessing: the run evaluates with {crop}, and a file can only state 'center' or 'squash'"
        )
    return EXIT_FINISHED


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
