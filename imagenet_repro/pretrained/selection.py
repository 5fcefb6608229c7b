"""The network, its options and the preprocessing of images that go with a file of weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from imagenet_repro import models
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import forms, preprocessing, published
from imagenet_repro.pretrained.files import Weights
from imagenet_repro.pretrained.published import Published


@dataclasses.dataclass(frozen=True)
class Selection:
    """The result of `select`.

    Attributes:
      name: of the network, as `models.spec` knows it.
      options: of the network.
      preprocessing: of images for these weights.
      source: where the preprocessing is from, in words.
    """

    name: str
    options: dict[str, Any]
    preprocessing: Preprocessing
    source: str

    def describe_images(self) -> str:
        """Return the preprocessing and its source in one line."""
        return f"images: {preprocessing.describe(self.preprocessing)} ({self.source})"


def select(
    weights: Weights,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Selection:
    """Return the network and the preprocessing for a file of weights.

    Options of the user come before those that the name stands for, these before those that the file states or shows.
    Preprocessing is that of the name if it names published weights, else as the file or a file beside it states, as
    published for a file of this name, as is usual for its publisher, else as published for the network.

    Args:
      weights: the content of a file.
      name: a network or an alias of it, or published weights such as "resnet50.a1_in1k"; empty: as the file states.
      options: of the network, as the user states them.
      settings: keys of the preprocessing to replace, as texts (`preprocessing.KEYS`).

    Raises:
      UserError: the file does not state its network, an unknown name or key, or the network has forms that nothing
        tells apart.
    """
    by_name = _published(name)
    network = by_name.network if by_name else name
    chosen: dict[str, Any] = {}
    if not network or _is_stated(weights, network):
        network, stated = _stated(weights)
        chosen |= stated
    known = models.spec(network).options
    shown = {key: value for key, value in weights.options.items() if key in known}
    chosen |= shown | dict(by_name.options if by_name else {}) | dict(options or {})
    if weights.origin is None:
        forms.check_known(network, chosen, str(weights.path))
    images, source = _preprocessing(weights, network, by_name if by_name and by_name.weights == name else None)
    if settings:
        images = preprocessing.change(images, settings)
        source = f"{', '.join(settings)} as given; the rest {source}"
    return Selection(network, chosen, images, source)


def _published(name: str) -> Published | None:
    """Return the published weights that a name stands for, or the first of a network that has this name elsewhere."""
    row = published.by_name(name)
    if row is not None or name in models.names():
        return row._replace(weights=name) if row else None
    row = published.by_architecture(name)
    if row is None and "." in name:
        raise UserError(f"no published weights are called '{name}': {nearest(name, published.names())}")
    return row


def _is_stated(weights: Weights, network: str) -> bool:
    """Return whether the file states this network, so that the options that it states belong to it."""
    known = (*models.names(), *models.aliases())
    stated = weights.origin
    return stated is not None and stated.name in known and models.spec(network) is models.spec(stated.name)


def _stated(weights: Weights) -> tuple[str, dict[str, Any]]:
    if weights.origin is not None:
        return weights.origin.name, dict(weights.origin.options)
    if "text.token_embedding.weight" in weights.tensors:
        raise UserError(
            f"{weights.path} has an image tower and a text tower, and no classifier; score it by texts about the"
            " classes: main.py evaluate --protocol=zeroshot"
        )
    if not weights.network:
        raise UserError(f"{weights.path} does not state its network; add --model=NAME (`main.py models` lists all)")
    return weights.network, {}


def _preprocessing(weights: Weights, network: str, named: Published | None) -> tuple[Preprocessing, str]:
    if named is not None:
        return named.preprocessing, f"as {named.source} has it for {named.weights}"
    if weights.preprocessing is not None:
        return weights.preprocessing, weights.source or "as the file states"
    usual = f"usual for {models.canonical(network)}; weights of others may need other images: --preprocess.KEY=VALUE"
    return models.spec(network).preprocessing, usual
