"""What the registry knows of one network before it is built."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

Kernel = Literal["nearest", "bilinear", "bicubic"]


# As a deviation: what a paper has that subtracts the mean alone, leaving pixels on their scale of 256 levels.
LEVELS = (1 / 255, 1 / 255, 1 / 255)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the images were prepared on which a network's published weights were measured."""

    image_size: int = 224  # pixels, square
    crop_ratio: float = 0.875  # crop size / resized shorter side
    kernel: Kernel = "bilinear"  # of the resizing
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    antialias: bool = True  # the kernel widens when shrinking, as Pillow's does
    # center: the shorter side is resized, and the central square of it taken; squash: the whole image is made square.
    crop: Literal["center", "squash"] = "center"


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a network was asked for: enough to build it again."""

    name: str
    num_classes: int
    options: dict[str, Any] = dataclasses.field(
        hash=False
    )  # a network's attributes are hashed, a dictionary cannot be


@dataclasses.dataclass(frozen=True)
class Spec:
    """One row of a family's table of variants.

    `builder(*sizes, rngs=, num_classes=, dtype=, **options)` makes the module: what distinguishes the variant is
    positional and comes from this table, what a user may choose is keyword-only.
    """

    reference: str  # the implementation whose parameter names and results it has
    builder: Callable[..., Any]
    sizes: tuple[Any, ...] = ()
    num_classes: int = 1000  # of the published weights; 0: they are a backbone without a head
    preprocessing: Preprocessing = Preprocessing()
    aliases: tuple[str, ...] = ()
    # From a network to each parameter's place in its depth, by the parameter's name, from 0 at the input; None where
    # nobody defined it.
    layers: Callable[[Any], Callable[[str], int]] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Name and default of every option a user may set; a builder that is a `partial` brings its own defaults."""
        builder, fixed = self.builder, {}
        if isinstance(builder, functools.partial):
            builder, fixed = builder.func, builder.keywords
        names = _keywords(builder)
        return names | {name: value for name, value in fixed.items() if name in names}


def _keywords(builder: Callable[..., Any]) -> dict[str, Any]:
    """What a builder takes by keyword, with its default; a class that hands the rest on takes its base's too."""
    parameters = inspect.signature(builder.__init__ if inspect.isclass(builder) else builder).parameters.values()
    given = ("rngs", "num_classes", "dtype")
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}
    hands_on = inspect.isclass(builder) and any(p.kind is p.VAR_KEYWORD for p in parameters)
    return _keywords(builder.__mro__[1]) | own if hands_on else own
