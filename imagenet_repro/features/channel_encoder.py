"""One channel of a system before 2012: images to local descriptors, and descriptors to codes over a vocabulary.

A vocabulary is a flat dictionary of arrays: `pca.mean`, `pca.components` and `pca.variances` where descriptors are
reduced; `mixture.weights`, `mixture.means` and `mixture.variances` for Fisher vectors, or `codebook` for other codes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from imagenet_repro.config import Channel, FisherVector, Llc, SuperVector
from imagenet_repro.errors import UserError
from imagenet_repro.features.descriptors import hog, lbp, sift
from imagenet_repro.features.descriptors.colour import colour
from imagenet_repro.features.descriptors.grid import Grid, describe
from imagenet_repro.features.encoding import codebook_codes, fisher, kmeans, mixture, pca, pyramid
from imagenet_repro.features.encoding.mixture import Mixture
from imagenet_repro.features.encoding.pca import Pca

Vocabulary = dict[str, Any]  # arrays by name

# For each name, the descriptors that are concatenated, and whether each reads luma (otherwise RGB).
DESCRIPTORS = {
    "sift": ((sift.sift, True),),
    "root_sift": ((sift.root_sift, True),),
    "hog": ((hog.hog, False),),
    "lbp": ((lbp.lbp, True),),
    "hog_lbp": ((hog.hog, False), (lbp.lbp, True)),
    "colour": ((colour, False),),
}
MAX_INTERMEDIATE = 2**23  # numbers in the intermediate results of the images that are encoded together


class ChannelEncoder:
    """The descriptors and codes of a channel at one image size.

    Args:
      channel: its configuration.
      image_size: side of the images in pixels.

    Attributes:
      points: descriptors of an image.
      numbers: of a descriptor.
      reduced: numbers of a reduced descriptor.
      features: numbers of a code.

    Raises:
      UserError: the images are smaller than a patch, a descriptor does not support patches of this size, it has
        fewer numbers than principal components, or the length of a code is not a multiple of `quantise`.
    """

    def __init__(self, channel: Channel, image_size: int):
        self.channel = channel
        self._grid = Grid(channel.patch, channel.step, channel.scales)
        places = self._grid.places(image_size, image_size)
        self._layout = pyramid.layout(pyramid.Pyramid.parse(channel.pyramid).members(places))
        one = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.uint8)
        self.points, self.numbers = jax.eval_shape(self.describe, one).shape[1:]
        pca.check(self.numbers, channel.components)
        self.reduced = channel.components or self.numbers
        self.features = self._cell_features() * len(self._layout.parts)
        if channel.quantise and self.features % channel.quantise:
            raise UserError(f"codes of {self.features:,} numbers cannot be cut into parts of {channel.quantise}")

    def describe(self, images: UInt8[Array, "n h w 3"]) -> Float[Array, "n t d"]:
        """Return the descriptors of images, not reduced."""
        parts = [
            describe(images, self._grid, descriptor, luma=luma)
            for descriptor, luma in DESCRIPTORS[self.channel.descriptor]
        ]
        return jnp.concatenate(parts, axis=-1)

    def reduce(self, moments: pca.Moments) -> Vocabulary:
        """Return the part of the vocabulary that reduces descriptors, from the moments of a sample."""
        if not self.channel.components:
            return {}
        fitted = pca.fit(moments, self.channel.components)
        return {"pca.mean": fitted.mean, "pca.components": fitted.components, "pca.variances": fitted.variances}

    def project(self, x: Float[Array, "*n d"], vocabulary: Vocabulary) -> Float[Array, "*n r"]:
        """Return descriptors reduced to `reduced` numbers."""
        if not self.channel.components:
            return x
        parts = (vocabulary[f"pca.{name}"] for name in ("mean", "components", "variances"))
        return pca.project(x, Pca(*parts), whiten=self.channel.whiten)

    def learn(self, x: Float[Array, "n r"], key: Key[Array, ""]) -> Vocabulary:
        """Learn the Gaussians or words of the vocabulary from a sample of reduced descriptors.

        Raises:
          UserError: there are fewer descriptors than Gaussians or words.
        """
        code = self.channel.code
        if isinstance(code, FisherVector):
            fitted = mixture.fit(x, code.components, key, iterations=code.iterations, restarts=code.restarts)
            return {
                "mixture.weights": fitted.weights,
                "mixture.means": fitted.means,
                "mixture.variances": fitted.variances,
            }
        return {"codebook": kmeans.fit(x, code.words, key, iterations=code.iterations, batch=code.batch)}

    def blank(self) -> Vocabulary:
        """Return a vocabulary of zeros."""
        reduction, words = {}, self._words
        if self.channel.components:
            shapes = {
                "mean": (self.numbers,),
                "components": (self.reduced, self.numbers),
                "variances": (self.reduced,),
            }
            reduction = {f"pca.{name}": jnp.zeros(shape) for name, shape in shapes.items()}
        if not isinstance(self.channel.code, FisherVector):
            return reduction | {"codebook": jnp.zeros((words, self.reduced))}
        shapes = {"weights": (words,), "means": (words, self.reduced), "variances": (words, self.reduced)}
        return reduction | {f"mixture.{name}": jnp.zeros(shape) for name, shape in shapes.items()}

    def encode(self, images: UInt8[Array, "n h w 3"], vocabulary: Vocabulary) -> Float[Array, "n f"]:
        """Return the codes of images: those of the pyramid's cells in order, each of unit length or zero."""
        batch = self._batch_size(len(images))
        parts = images.reshape(-1, batch, *images.shape[1:])
        return jax.lax.map(functools.partial(self._encode, vocabulary=vocabulary), parts).reshape(-1, self.features)

    def _batch_size(self, images: int) -> int:
        """Return the largest divisor of the number of images with intermediate results below `MAX_INTERMEDIATE`."""
        largest = max(1, MAX_INTERMEDIATE // (self.points * max(self.numbers, self._words)))
        return next(count for count in range(min(largest, images), 0, -1) if images % count == 0)

    def _encode(self, images: Array, vocabulary: Vocabulary) -> Array:
        x = self.project(self.describe(images), vocabulary)[:, self._layout.order]
        return self._code(x, vocabulary).reshape(len(images), -1)

    def _code(self, x: Float[Array, "n t r"], vocabulary: Vocabulary) -> Float[Array, "n cells f"]:
        code, layout = self.channel.code, self._layout
        if isinstance(code, FisherVector):
            parts = (vocabulary[f"mixture.{name}"] for name in ("weights", "means", "variances"))
            return fisher.encode(x, Mixture(*parts), layout, with_weights=code.weights, power=code.power)
        codebook = vocabulary["codebook"]
        if isinstance(code, SuperVector):
            codes = codebook_codes.super_vector(x, codebook, layout, constant=code.constant)
        elif isinstance(code, Llc):
            codes = codebook_codes.llc(x, codebook, layout, neighbours=min(code.neighbours, code.words))
        else:
            words = (
                codebook_codes.soft(x, codebook, sigma=code.sigma) if code.sigma else codebook_codes.hard(x, codebook)
            )
            codes = codebook_codes.bag(words, layout)
        return fisher.improve(codes, power=code.power)

    @property
    def _words(self) -> int:
        code = self.channel.code
        return code.components if isinstance(code, FisherVector) else code.words

    def _cell_features(self) -> int:
        code = self.channel.code
        if isinstance(code, FisherVector):
            return code.components * (2 * self.reduced + code.weights)
        return code.words * (self.reduced + 1) if isinstance(code, SuperVector) else code.words
