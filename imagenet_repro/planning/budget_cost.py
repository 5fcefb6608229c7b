"""The time and the price of a run's whole budget, at a share of the bound."""

import dataclasses

from imagenet_repro.config import Config
from imagenet_repro.config.amount import Amount
from imagenet_repro.planning.plan import Plan
from imagenet_repro.training.budget import Meter


@dataclasses.dataclass(frozen=True)
class BudgetCost:
    """The cost of a budget on a topology.

    Attributes:
      steps: training steps.
      images: seen in training.
      seconds: of training, without input, evaluation, checkpoints and compilation.
      device_hours: of all devices together.
      price: of these hours, in the unit of the given price; 0 where none was given.
    """

    steps: int
    images: int
    seconds: float
    device_hours: float
    price: float


def budget_cost(plan: Plan, config: Config, num_examples: int, *, efficiency: float, price: float = 0.0) -> BudgetCost:
    """Return the cost of the configuration's budget.

    Args:
      plan: of the configuration, with a bound.
      config: the configuration.
      num_examples: images in an epoch.
      efficiency: the share of the bound that a run reaches, in (0, 1].
      price: of one device for an hour.

    Raises:
      ValueError: the plan has no bound.
    """
    if plan.bound is None:
        raise ValueError("a step that does not fit has no cost")
    devices = len(plan.topology.devices)
    amount = Amount.parse(config.budget)
    meter = Meter(config.batch_size, num_examples, round(plan.flops * devices))
    step_seconds = plan.bound.seconds / efficiency
    steps = meter.steps_to(amount)
    if steps is None:  # a budget in seconds
        steps = max(1, int(amount.value / step_seconds))
    seconds = steps * step_seconds
    hours = seconds / 3600 * devices
    return BudgetCost(steps, steps * config.batch_size, seconds, hours, hours * price)
