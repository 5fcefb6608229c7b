"""The default data set: ten classes of objects that have their shape in common, and neither colour nor texture.

It has what photographs have and textures lack; `scenes.py` lists the properties and `outlines.py` draws the classes.
The properties were written down, and their ranges fixed, before any system was trained on these images.
"""

import dataclasses
import re
from typing import NamedTuple

from imagenet_repro.data.prepare import drawn, jpeg, scenes
from imagenet_repro.data.prepare.outlines import CLASSES


@dataclasses.dataclass(eq=False, kw_only=True)
class SilhouettesConfig(drawn.DrawnConfig):
    """The parameters of a data set of silhouettes; the name leaves out the seed 0."""

    name: str = ""
    train_images: int = 500  # for each class
    validation_images: int = 100  # for each class
    size: int = 64  # pixels
    seed: int = 0

    RANGES = {  # noqa: RUF012 (declared in the base class)
        "train_images": (0, 10_000_000),
        "validation_images": (0, 10_000_000),
        "size": (16, 1024),
        "seed": (0, drawn.MAX_SEED),
    }

    def __post_init__(self):
        seed = f"_seed{self.seed}" if self.seed else ""
        self.name = f"n{self.train_images}_v{self.validation_images}_s{self.size}{seed}"
        self.description = f"{self.categories} classes, {self.train_images} + {self.validation_images} images each."

    @property
    def categories(self) -> int:
        """The number of classes."""
        return len(CLASSES)

    def class_names(self) -> list[str]:
        """Return the names of the classes in alphabetical order."""
        return [one.name for one in CLASSES]

    def job(self, split: str, start: int, stop: int) -> drawn.Job:
        """Return the job that draws images `start` to `stop` of a split."""
        return DrawingJob(self.seed, drawn.SPLITS.index(split), start, stop, self.size)

    @classmethod
    def from_name(cls, name: str) -> "SilhouettesConfig":
        """Return the configuration of a name such as `n500_v100_s64_seed3`; raises ValueError for other names."""
        match = re.fullmatch(r"(?a)n(\d+)_v(\d+)_s(\d+)(?:_seed(\d+))?", name)
        if not match:
            raise ValueError(f"{name!r} is not of the form {cls().name}[_seed1]")
        train_images, validation_images, size, seed = (int(group or 0) for group in match.groups())
        return cls(train_images=train_images, validation_images=validation_images, size=size, seed=seed)


class DrawingJob(NamedTuple):
    """Consecutive images of a split."""

    seed: int
    split: int
    start: int
    stop: int
    size: int

    def __call__(self) -> list[bytes]:
        """Draw and encode the images."""
        scene = scenes.Scene(size=self.size)
        images = []
        for index in range(self.start, self.stop):
            instance, label = divmod(index, len(CLASSES))
            images.append(scenes.draw_scene(self.seed, self.split, label, instance, scene))
        return jpeg.encode(images)


class Silhouettes(drawn.DrawnBuilder):
    """The builder of a data set of silhouettes."""

    BUILDER_CONFIGS = [SilhouettesConfig()]  # noqa: RUF012 (tfds reads it as a list)
    DESCRIPTION = "Objects of ten classes that share a shape and not a texture, in drawn scenes with clutter."
