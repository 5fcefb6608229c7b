"""The specification of a network: its builder, and the preprocessing of images for its published weights."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

Kernel = Literal["nearest", "bilinear", "bicubic"]


OWN = "own"  # the reference of a network that is no published one

# The `std` of papers that only subtract the mean, so that pixels stay on their scale of 256 levels.
LEVELS = (1 / 255, 1 / 255, 1 / 255)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of the images on which a network's published weights were measured."""

    image_size: int = 224  # pixels, square
    crop_ratio: float = 0.875  # crop size / resized shorter side
    kernel: Kernel = "bilinear"  # of the resizing
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    antialias: bool = True  # the kernel widens when shrinking, as Pillow's does
    # center: the shorter side is resized, and the central square is cut out; squash: the image is resized to a square.
    crop: Literal["center", "squash"] = "center"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The arguments that a network was built with, enough to build it again."""

    name: str
    num_classes: int
    # Flax hashes a network's attributes, and a dictionary has no hash.
    options: dict[str, Any] = dataclasses.field(hash=False)


@dataclasses.dataclass(frozen=True)
class Spec:
    """One row of a family's table of variants.

    `builder(*sizes, rngs=, num_classes=, dtype=, **options)` makes the network. Positional arguments distinguish the
    variant and come from this table; a user may choose the keyword-only ones. Published facts about the network, such
    as its year and its errors, are in `imagenet_repro.zoo.published`.
    """

    # The implementation that it equals in parameter names and results; "paper", where that is all there is; or "own",
    # a network that nobody else has. All others have rows in the tables of published facts and counts.
    reference: str
    builder: Callable[..., Any]
    sizes: tuple[Any, ...] = ()
    num_classes: int = 1000  # of the published weights; 0: they are a backbone without a head
    preprocessing: Preprocessing = Preprocessing()
    aliases: tuple[str, ...] = ()
    # Returns, for a network, the function from a parameter's name to its layer, from 0 at the input, as layer-wise
    # decay of the learning rate counts; None where no publication defines it, and models/depth.py counts blocks.
    layers: Callable[[Any], Callable[[str], int]] | None = None

    @property
    def is_published(self) -> bool:
        """Whether the network is one of a publication, and not an own one."""
        return self.reference != OWN

    @property
    def options(self) -> dict[str, Any]:
        """Name and default of every option that a user may set; a builder that is a `partial` has its own defaults."""
        builder, fixed = self.builder, {}
        if isinstance(builder, functools.partial):
            builder, fixed = builder.func, builder.keywords
        defaults = _keyword_defaults(builder)
        return defaults | {name: value for name, value in fixed.items() if name in defaults}


def _keyword_defaults(builder: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of every keyword argument; a class with `**options` has those of its base too."""
    is_class = isinstance(builder, type)
    parameters = inspect.signature(builder.__init__ if is_class else builder).parameters.values()
    common = ("rngs", "num_classes", "dtype")
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in common}
    if isinstance(builder, type) and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return _keyword_defaults(builder.__mro__[1]) | own
    return own
