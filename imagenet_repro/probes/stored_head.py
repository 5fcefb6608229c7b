"""A linear head on disk, as `main.py probe --method=linear` writes the selected one: weights, and what they fit.

A file is a NumPy archive: `weight` float32 [d, c], `bias` float32 [c], and `origin`, a JSON object with the `layer`,
the `learning_rate`, the names of the `classes`, and the key `network`: a hash of what the features depend on.
"""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names
from imagenet_repro.storage import files


@dataclasses.dataclass(frozen=True)
class StoredHead:
    """A linear head.

    Attributes:
      weight: [d, c].
      bias: [c].
      layer: of the features that it reads.
      learning_rate: with which it was trained, for a batch of 256 images.
      classes: their names by index.
      network: a hash of the network's parameters and of the preparation of its images.
    """

    weight: Float32[np.ndarray, "d c"]
    bias: Float32[np.ndarray, " c"]
    layer: str
    learning_rate: float
    classes: tuple[str, ...]
    network: str

    def save(self, path: Path) -> None:
        """Write the head; raises SaveError."""
        origin = {key: getattr(self, key) for key in ("layer", "learning_rate", "classes", "network")}
        with files.atomic_write(path, "the head") as file:
            np.savez(file, weight=self.weight, bias=self.bias, origin=np.asarray(json.dumps(origin)))

    def fitted_to(
        self, path: Path, widths: dict[str, int], network: str, name: str, classes: Sequence[str]
    ) -> "StoredHead":
        """Return the head with its classes in the order of a data set's.

        Args:
          path: the file, for messages.
          widths: the length of each layer of the network's features.
          network: the hash of the network.
          name: of the network, for messages.
          classes: of the data set.

        Raises:
          UserError: the head is of another network, layer, width or other classes.
        """
        if self.layer not in widths:
            raise UserError(f"{path} reads the features '{self.layer}', which {name} does not have")
        if len(self.weight) != widths[self.layer]:
            raise UserError(
                f"{path} does not fit: it reads {len(self.weight)} numbers, and '{self.layer}' of {name} has"
                f" {widths[self.layer]}"
            )
        if self.network != network:
            raise UserError(
                f"{path} was trained on features of other weights, options or preparation of images than {name} has"
                " here; use it with what it was trained on"
            )
        match = class_names.match(self.classes, str(path), classes, "the data set")
        weight, bias = np.empty_like(self.weight), np.empty_like(self.bias)
        weight[:, match.index], bias[match.index] = self.weight, self.bias
        return dataclasses.replace(self, weight=weight, bias=bias, classes=tuple(classes))

    def scores(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n c"]:
        """Return the logits of images."""
        return features.astype(np.float32) @ self.weight + self.bias


def load(path: Path) -> StoredHead:
    """Read a head.

    Raises:
      UserError: the file is missing, damaged or no head.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            weight, bias, origin = (file[key] for key in ("weight", "bias", "origin"))
        stated = json.loads(str(origin))
        head = StoredHead(
            weight.astype(np.float32),
            bias.astype(np.float32),
            str(stated["layer"]),
            float(stated["learning_rate"]),
            tuple(map(str, stated["classes"])),
            str(stated["network"]),
        )
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file of a head; `probe --method=linear` writes one") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or not a head that `probe --method=linear` wrote ({error})") from error
    if head.weight.ndim != 2 or head.weight.shape[1:] != head.bias.shape or len(head.classes) != len(head.bias):
        raise UserError(f"{path} is not a head: weight {head.weight.shape}, bias {head.bias.shape}")
    return head
