"""The weights that a run starts from: a file, an installed package, or another run."""

import hashlib

import numpy as np

from imagenet_repro import models, pretrained
from imagenet_repro.config import Model
from imagenet_repro.pretrained import tensors
from imagenet_repro.runs import loaded_network
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir


def read_source(source: str) -> pretrained.Weights:
    """Return the weights of a source.

    Args:
      source: a file, `package:NAME`, `hub:USER/NAME`, or the workdir of a run, whose best checkpoint is taken.

    Raises:
      UserError: as `pretrained.read`, or the run does not train a network or has no checkpoint.
    """
    if not loaded_network.is_run(source):
        return pretrained.read(source)
    net = loaded_network.load(source)
    # The batch counters of published files are no parameters here, so nothing is missing.
    arrays = {name: np.asarray(array) for name, array in tensors.to_torch(net.network).items()}
    return pretrained.Weights(
        Workdir(source).path,
        arrays,
        notes=net.notes,
        preprocessing=net.preprocessing,
        origin=net.network.known_origin,
        class_names=net.classes,
    )


def describe_source(source: str) -> dict[str, str]:
    """Return `path` and `sha256` of a source: of the file, or of a run's best weights.

    Raises:
      UserError: as `read_source`.
    """
    weights = read_source(source)
    if not loaded_network.is_run(source):
        return provenance.of_file(weights.path)
    digest = hashlib.sha256()
    for name in sorted(weights.tensors):
        array = np.ascontiguousarray(weights.tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return {"path": str(weights.path), "sha256": digest.hexdigest()}


def check_fits(source: str, model: Model) -> None:
    """Check that a source can be read and that its tensors fit a network, but for the classes of its head.

    Raises:
      UserError: as `read_source` and `pretrained.load`.
    """
    weights = read_source(source)
    stated = weights.origin.options if weights.origin and "image_size" in weights.origin.options else {}
    options = {"image_size": stated["image_size"]} | model.options if stated else model.options
    count = loaded_network.count_classes(weights, model.name, options)
    pretrained.load(models.abstract(model.name, count, **options), weights)
