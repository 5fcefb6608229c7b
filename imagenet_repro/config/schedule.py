"""Learning-rate schedules (training/learning_rate.py)."""

import dataclasses

from imagenet_repro.config.fields import bounded


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up, then half a cosine down to `final`; all as shares of the budget and of the rate."""

    name: str = "cosine"
    warmup: float = bounded(0.0, 0.0, 1.0)  # share of the budget
    final: float = bounded(0.0, 0.0, 1.0)  # share of the peak at the end


@dataclasses.dataclass(frozen=True)
class LinearSchedule:
    """Linear warm-up, then a straight line down to `final`."""

    name: str = "linear"
    warmup: float = bounded(0.0, 0.0, 1.0)
    final: float = bounded(0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """Linear warm-up, then the peak times `factor` for each boundary passed."""

    name: str = "steps"
    warmup: float = bounded(0.0, 0.0, 1.0)
    boundaries: tuple[float, ...] = bounded((1 / 3, 2 / 3, 8 / 9), 0.0, 1.0, increasing=True)  # shares of the budget
    factor: float = bounded(0.1, 0.0, 1.0)  # of the rate at each boundary


@dataclasses.dataclass(frozen=True)
class ExponentialSchedule:
    """Linear warm-up, then the peak times `factor` per `every` of the budget, in stairs (GoogLeNet)."""

    name: str = "exponential"
    warmup: float = bounded(0.0, 0.0, 1.0)
    every: float = bounded(0.01, 1e-9, 1.0)  # share of the budget from one drop to the next
    factor: float = bounded(0.97, 0.0, 1.0)  # of the rate at each drop


@dataclasses.dataclass(frozen=True)
class PlateauSchedule:
    """Linear warm-up, then the peak, times `factor` whenever the top-1 error of evaluations has stopped falling.

    The papers up to 2015 did this by hand. The evaluation split then steers the training, so its error is no longer
    that of unseen images: hold out a part of the training split for it, as in `data.eval_split = "train[99%:]"`.
    """

    name: str = "plateau"
    warmup: float = bounded(0.0, 0.0, 1.0)
    factor: float = bounded(0.1, 0.0, 1.0)  # of the rate at each drop
    patience: int = bounded(3, 1)  # evaluations in a row without an improvement before a drop
    min_delta: float = bounded(0.0, 0.0, 1.0)  # smallest fall of the top-1 error that counts, in [0, 1]
    drops: int = bounded(3, 0)  # the largest number of drops


@dataclasses.dataclass(frozen=True)
class ConstantSchedule:
    """Linear warm-up, then the peak until the end. A run without warm-up can be extended (`train --extend`)."""

    name: str = "constant"
    warmup: float = bounded(0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class CooldownSchedule:
    """Linear warm-up, then the peak, then a straight line down to `final` at the end (Zhai et al. 2022, sec. 3.5).

    A run whose cooldown has not begun can be extended (`train --extend`).
    """

    name: str = "cooldown"
    warmup: float = bounded(0.0, 0.0, 1.0)
    cooldown: float = bounded(0.2, 1e-9, 1.0)  # share of the budget, at its end
    final: float = bounded(0.0, 0.0, 1.0)


Schedule = (
    CosineSchedule
    | LinearSchedule
    | StepSchedule
    | ExponentialSchedule
    | PlateauSchedule
    | ConstantSchedule
    | CooldownSchedule
)
