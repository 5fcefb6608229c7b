"""Write the weights of a run as a file that torchvision or timm loads."""

from imagenet_repro import pretrained
from imagenet_repro.config import (
    CenterCrop,
    Config,
    SquashCrop,
)
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs.restore import restore
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, systems
from imagenet_repro.training.systems import NetworkSystem


def export(workdir: str, *, which: str, out: str) -> int:
    """Writes the evaluated weights of a run (the averages where it keeps them) under the reference's names.

    Args:
      workdir: of a run, finished or not; its data set must be there, which says how many classes there are.
      which: "best", "last" or a step.
      out: a `.safetensors`; replaced where it exists.
    """
    place = Workdir(workdir)
    config = systems.require_network(place.config(), place.path, "only networks' weights can be exported")
    devices.start()
    trained = sources.open_split(config.data, config.data.train_split)
    system = NetworkSystem.create(config, trained.num_classes)
    found = restore(place, system, system.initial_state(), which)
    preprocessing = _preprocessing_of(config)
    pretrained.write(system.network.model(*found.state.evaluated), out, preprocessing=preprocessing)
    kind = "averaged weights" if config.ema_decay else "weights"
    print(f"{out}: {kind} of {config.model.name} at step {found.step:,}, {trained.num_classes:,} classes")
    if preprocessing is None:
        crop = config.eval_crop
        print(f"  without preprocessing: the run evaluates with {crop}, and a file can only say 'center' or 'squash'")
    return EXIT_FINISHED


def _preprocessing_of(config: Config) -> Preprocessing | None:
    """How a run prepares the images that it is evaluated on; None where a file cannot say it."""
    crop = config.eval_crop
    if not isinstance(crop, CenterCrop | SquashCrop) or crop.kernel == "area":
        return None
    size = config.data.size_evaluated
    colour = config.augment
    ratio = crop.ratio if isinstance(crop, CenterCrop) else 1.0
    return Preprocessing(size, ratio, crop.kernel, colour.mean, colour.std, crop.antialias, crop.name)
