"""The condition under which a run can be continued to a larger budget.

Every schedule is a function of progress, the share of the budget that is spent. A larger budget changes the progress
of the steps that were taken. The run is still one of the larger budget, bit for bit, if these steps would have had the
same learning rates.
"""

import jax.numpy as jnp
import numpy as np

from imagenet_repro.config import Config, PlateauSchedule
from imagenet_repro.config.amount import Amount
from imagenet_repro.errors import UserError
from imagenet_repro.training.budget import Budget, Every, Spent
from imagenet_repro.training.learning_rate import create_schedule

SAMPLES = 10_001  # moments of a budget of seconds at which rates are compared, since its steps had any duration
ADVICE = (
    "Train anew with the larger budget in another --workdir, or start from these weights with --config.model.weights"
)


def check_larger(before: str, after: str) -> None:
    """Raise UserError unless the second of two budgets is larger, in the same unit."""
    old, new = Amount.parse(before), Amount.parse(after)
    if old.unit != new.unit:
        raise UserError(f"config.budget: --extend needs a budget in the unit of the run's, {before}, and not {after}")
    if new.value < old.value:
        raise UserError(f"config.budget: --extend needs a budget larger than the run's, {before}, and not {after}")


def check_same_rates(before: Config, after: Config, budget: Budget, spent: Spent) -> None:
    """Check that every step so far would have had the same learning rate under a larger budget.

    Args:
      before: the configuration of the run.
      after: the same with a larger budget, and possibly other shares in its schedule.
      budget: the larger budget.
      spent: what the run has spent at its last checkpoint.

    Raises:
      UserError: a rate differs, the run is in stages, or the end of the smaller budget has influenced a plateau.
    """
    if after.progressive.stages > 1:
        raise UserError(f"config.progressive: --extend cannot move the stages of a run that has begun. {ADVICE}")
    smaller = Budget(Amount.parse(before.budget), budget.meter)
    amounts = _amounts(budget, spent)
    old, new = (
        np.asarray(create_schedule(config.schedule)(_progress(each, amounts)))
        for config, each in ((before, smaller), (after, budget))
    )
    differing = np.flatnonzero(old != new)
    if differing.size:
        first = int(differing[0])
        shares = float(old[first]), float(new[first])
        raise UserError(_refusal(before, after, first, shares, is_timed=budget.amount.unit == "s"))
    if isinstance(before.schedule, PlateauSchedule) and smaller.finished(spent):
        _check_evaluation(before, budget, spent)


def _amounts(budget: Budget, spent: Spent) -> np.ndarray:
    """Return what was spent before each step, in the budget's unit, float64."""
    unit = budget.amount.unit
    if unit == "s":
        return np.linspace(0.0, spent.seconds, SAMPLES)
    return np.asarray([budget.meter.spent(steps, 0.0).of(unit) for steps in range(spent.steps)], np.float64)


def _progress(budget: Budget, amounts: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(np.minimum(1.0, amounts / budget.amount.value), jnp.float32)


def _check_evaluation(before: Config, budget: Budget, spent: Spent) -> None:
    """Raise UserError if the evaluation at the end of the smaller budget is not one of the regular ones."""
    every = Every(Amount.parse(before.evaluate_every))
    every.start(budget.meter.spent(spent.steps - 1, spent.seconds))
    if not every.due(spent):
        raise UserError(
            f"config.schedule: the evaluation at the end of {before.budget} is not one of every"
            f" {before.evaluate_every}, and it has counted for the plateau. {ADVICE}"
        )


def _refusal(before: Config, after: Config, first: int, shares: tuple[float, float], *, is_timed: bool) -> str:
    old, new = shares
    where = "a moment of training" if is_timed else f"step {first + 1:,}"
    hint = ""
    if before.schedule == after.schedule and before.schedule.warmup:
        hint = " If the warm-up is the cause, a smaller config.schedule.warmup keeps its length."
    return (
        f"config.budget: the schedule '{before.schedule.name}' follows the share of the budget that is spent. Under"
        f" {after.budget}, {where} has {new:.6g} of the peak learning rate, and it had {old:.6g} under"
        f" {before.budget}.{hint} Only a constant rate, or one whose decay has not begun, can be extended. {ADVICE}"
    )
