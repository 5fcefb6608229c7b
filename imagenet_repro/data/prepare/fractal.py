"""A data set of textures: fractals, one iterated function system for each category (Kataoka et al., ACCV 2020)."""

import dataclasses
import re

from imagenet_repro.data.prepare import drawn, ifs


@dataclasses.dataclass(eq=False, kw_only=True)
class FractalConfig(drawn.DrawnConfig):
    """The parameters of a fractal data set.

    The name follows from the parameters; those after the first four are left out where they have their defaults.
    `perturbation` (every parameter of a map is multiplied by a factor from [1 - x, 1 + x]) and `turn` (largest
    rotation, as a share of half a turn) set how hard the data set is.
    """

    name: str = ""
    categories: int = 10
    train_images: int = 500  # for each category
    validation_images: int = 100  # for each category
    size: int = 64  # pixels
    seed: int = 0
    perturbation: float = ifs.Look.perturbation
    turn: float = ifs.Look.turn

    RANGES = {  # noqa: RUF012 (declared in the base class)
        "categories": (1, 100_000),
        "train_images": (0, 10_000_000),
        "validation_images": (0, 10_000_000),
        "size": (8, 4096),
        "seed": (0, drawn.MAX_SEED),
        "perturbation": (0, 1),
        "turn": (0, 1),
    }

    def __post_init__(self):
        parts = [f"c{self.categories}", f"n{self.train_images}", f"v{self.validation_images}", f"s{self.size}"]
        parts += [f"seed{self.seed}"] if self.seed else []
        parts += [f"p{self.perturbation:g}"] if self.perturbation != ifs.Look.perturbation else []
        parts += [f"t{self.turn:g}"] if self.turn != ifs.Look.turn else []
        self.name = "_".join(parts)
        self.description = f"{self.categories} categories, {self.train_images} + {self.validation_images} images each."

    def class_names(self) -> list[str]:
        """Return the names of the categories, `ifs_000` and so on."""
        return [f"ifs_{category:03d}" for category in range(self.categories)]

    def job(self, split: str, start: int, stop: int) -> drawn.Job:
        """Return the job that draws images `start` to `stop` of a split."""
        return ifs.DrawingJob(self.seed, drawn.SPLITS.index(split), self.categories, start, stop, self.look)

    @classmethod
    def from_name(cls, name: str) -> "FractalConfig":
        """Return the configuration of a name such as `c20_n500_v100_s64_seed3`.

        Raises:
            ValueError: the name does not have the form of a configuration's name.
        """
        match = re.fullmatch(r"(?a)c(\d+)_n(\d+)_v(\d+)_s(\d+)(?:_seed(\d+))?(?:_p([\d.e-]+))?(?:_t([\d.e-]+))?", name)
        if not match:
            raise ValueError(f"{name!r} is not of the form {cls().name}[_seed1][_p0.2][_t0.5]")
        *integers, perturbation, turn = match.groups()
        categories, train_images, validation_images, size, seed = (int(group or 0) for group in integers)
        return cls(
            categories=categories,
            train_images=train_images,
            validation_images=validation_images,
            size=size,
            seed=seed,
            perturbation=float(perturbation) if perturbation else ifs.Look.perturbation,
            turn=float(turn) if turn else ifs.Look.turn,
        )

    @property
    def look(self) -> ifs.Look:
        """The parameters of the drawing."""
        return ifs.Look(size=self.size, perturbation=self.perturbation, turn=self.turn)


class Fractal(drawn.DrawnBuilder):
    """The builder of a fractal data set."""

    BUILDER_CONFIGS = [FractalConfig()]  # noqa: RUF012 (tfds reads it as a list)
    DESCRIPTION = "Iterated-function-system fractals drawn by the chaos game, one system to a category."
    CITATION = "Kataoka et al., Pre-training without Natural Images, ACCV 2020"
