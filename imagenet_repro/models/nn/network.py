"""The base class of every architecture, and the parts in which a network computes its logits.

A network is three functions, one after the other, as timm's `forward_features` and `forward_head` are:

    features = network.features(images)  # [b, h, w, c], the last map; of a transformer [b, n, c], its tokens
    pooled = network.pool(features)      # the input of the head, for most networks [b, c]
    logits = network.head(pooled)        # float32 [b, classes]; without a head the pooled features in float32

Evaluation at many positions and localization (`imagenet_repro.inference.maps`) call these parts.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.layers import global_avg_pool
from imagenet_repro.models.spec import Origin, Preprocessing


class WithAuxiliary(NamedTuple):
    """Logits of a network with auxiliary heads in training mode; in evaluation mode it returns the logits alone."""

    logits: Float[Array, "b classes"]  # float32, of the main head
    auxiliary: tuple[Float[Array, "b classes"], ...]  # float32, one for each auxiliary head
    weight: float  # of the loss of each auxiliary head; that of the main head is 1
    is_distilled: bool = False  # whether the one auxiliary head is there to learn from a teacher


class Network(nnx.Module):
    """A network from images to logits, built of `features`, `pool` and `head`.

    Every architecture defines `features` and `head`; `pool` is the mean over the map unless the architecture defines
    another. The parts work in either mode; an auxiliary head acts in `__call__` alone.

    A submodule whose name in the published weights is that of one of the three methods has an underscore after it
    here, such as `features_` of VGG; `tensor_name` leaves the underscore out. Blocks that have the names b1, b2 and so
    on in the published weights are a list named `b_from_1` here.
    """

    origin: Origin | None = None  # set by `models.build`
    preprocessing: Preprocessing | None = None  # of the file of weights that was loaded last, where it states one
    class_names: tuple[str, ...] = ()  # of the classes of the head that was loaded last, where they are known

    def features(self, images: Float[Array, "b h w c"]) -> Float[Array, "b ..."]:
        """Return the last feature map [b, h, w, c], or a transformer's normalised tokens [b, n, c].

        Args:
          images: normalised, float, NHWC.

        Raises:
          UserError: the images have another shape than the network takes, or are too small for it.
        """
        raise NotImplementedError

    def pool(self, features: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Return the input of the head: the mean over the map, computed in float32, in the type of the features."""
        return global_avg_pool(features)

    def head(self, pooled: Float[Array, "b ..."]) -> Float[Array, "b classes"]:
        """Return float32 logits, or, where the network has no head, the features that it would read as float32."""
        raise NotImplementedError

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b classes"] | WithAuxiliary:
        """Return float32 logits, in training mode with those of the auxiliary heads where there are any.

        Raises:
          UserError: the images have another shape than the network takes, or are too small for it.
        """
        return self.head(self.pool(self.features(images)))

    @property
    def feature_layers(self) -> dict[str, tuple[str, ...]]:
        """The names of the features that a classifier may read, and the parts that each is a concatenation of.

        Every network has "pooled", the input of its last linear layer.
        """
        return {"pooled": ("pooled",)}

    def feature_parts(self, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b n"]]:
        """Return the parts of all `feature_layers` by name, in float32.

        The network is in evaluation mode and without a head (`num_classes=0`), so that its output is its features.
        """
        return {"pooled": self.head(self.pool(self.features(images)))}

    @property
    def known_origin(self) -> Origin:
        """The arguments that `models.build` made the network with; ValueError for a network that it did not make."""
        if self.origin is None:
            raise ValueError(f"this {type(self).__name__} was not made by models.create or models.abstract")
        return self.origin

    @property
    def pools_by_mean(self) -> bool:
        """Whether `pool` is the mean over the whole map, so that the mean over a window can take its place."""
        return type(self).pool is Network.pool

    def split_at_map(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b mh mw d"], Callable[[Float[Array, "b mh mw d"]], Float[Array, "b classes"]]]:
        """Return the map that localization looks at, and the function that computes the logits from it.

        For a convolutional network it is the last map, and for one whose features are the tokens of a square of
        patches, these as a map. For a transformer with a class token it is the map of the patch tokens before the last
        block: after that block the head reads only the class token. The network is in evaluation mode.

        Raises:
          UserError: the features are neither a map nor a square of tokens.
        """
        features = self.features(images)
        if features.ndim == 4:
            return features, lambda features: self.head(self.pool(features))
        side = math.isqrt(features.shape[1]) if features.ndim == 3 else 0
        if not side or side**2 != features.shape[1]:
            raise UserError(
                f"{type(self).__name__} has features of shape {features.shape[1:]}, which are no map; localization"
                " needs a method `split_at_map` of it"
            )
        last_map = features.reshape(len(features), side, side, -1)
        return last_map, lambda patches: self.head(self.pool(patches.reshape(len(patches), side**2, -1)))

    # Flax's own methods return None; returning the network lets calls be chained.
    def train(self, **attributes: Any) -> "Network":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Switch to training mode, in place; return the network."""
        super().train(**attributes)
        return self

    def eval(self, **attributes: Any) -> "Network":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Switch to evaluation mode, in place; return the network."""
        super().eval(**attributes)
        return self


_FROM_ONE = "_from_1"


def tensor_name(path: Iterable[Hashable]) -> str:
    """Return the name that a parameter or statistic has in the published weights: its path, joined by dots.

    An underscore after an attribute's name distinguishes it from a method of `Network` and is left out. The items of
    a list whose name ends in `_from_1` are called by the rest of that name and their number: `b_from_1.0` is `b1`.
    """
    parts, prefix = [], None
    for part in path:
        text = str(part)
        if prefix is not None:
            parts.append(f"{prefix}{int(text) + 1}")
            prefix = None
        elif text.endswith(_FROM_ONE):
            prefix = text.removesuffix(_FROM_ONE)
        else:
            parts.append(text.removesuffix("_"))
    return ".".join(parts)
