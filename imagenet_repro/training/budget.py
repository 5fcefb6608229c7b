"""The budget of a run, the amounts spent so far, and the clock of every schedule: progress in [0, 1].

An amount is a number and a unit: "90ep" epochs, "1.2e8img" images seen, "450000st" steps, "2e18flop" floating point
operations of the training step, "3600s" seconds of training (without compilation, evaluation and saving).
"""

import dataclasses
import math

from imagenet_repro.config.amount import Amount, Unit


@dataclasses.dataclass
class Spent:
    """The amounts that training has used so far, in every unit."""

    steps: int = 0
    images: int = 0
    epochs: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0

    def of(self, unit: Unit) -> float:
        """Return the amount spent in `unit`."""
        return {"ep": self.epochs, "img": self.images, "st": self.steps, "flop": self.flops, "s": self.seconds}[unit]


@dataclasses.dataclass(frozen=True)
class Meter:
    """The cost of one step, from which the cost of any number of steps is computed.

    Args:
      batch_size: images in a step, over all devices.
      num_examples: images in an epoch.
      flops_per_step: floating point operations of a step, over all devices (zoo/counting.py).
      later: for each further stage of a run whose steps change (training/progressive.py), in order: the number of
        steps before the stage, and the operations of each of its steps.
      flops_before: operations spent before the first step (features/stages.py).
    """

    batch_size: int
    num_examples: int
    flops_per_step: int
    later: tuple[tuple[int, int], ...] = ()
    flops_before: int = 0

    def spent(self, steps: int, seconds: float) -> Spent:
        """Return the amounts used by `steps` steps that took `seconds` of training time."""
        images = steps * self.batch_size
        return Spent(steps, images, images / self.num_examples, float(self._flops(steps)), seconds)

    def stage(self, steps: int) -> int:
        """Return the stage, counted from 0, of the step that follows `steps` others."""
        return sum(steps >= first for first, _ in self.later)

    def steps_to(self, amount: Amount) -> int | None:
        """Return the steps until `amount` is spent, at least one; None for seconds, which cannot be computed."""
        if amount.unit == "s":
            return None
        before, cost = 0, self.spent(1, 0.0).of(amount.unit) - self.spent(0, 0.0).of(amount.unit)
        for first, flops in self.later if amount.unit == "flop" else ():
            if self._flops(first) < amount.value:
                before, cost = first, flops
        rest = amount.value - self.spent(before, 0.0).of(amount.unit)
        # A relative slack of 1e-12, so that 3 steps of 0.1 epochs make 0.3 epochs and not a fourth step.
        return before + max(1, math.ceil(rest / cost * (1 - 1e-12)))

    def _flops(self, steps: int) -> int:
        total, before = self.flops_before + steps * self.flops_per_step, self.flops_per_step
        for first, flops in self.later:
            total += max(0, steps - first) * (flops - before)
            before = flops
        return total


@dataclasses.dataclass(frozen=True)
class Budget:
    """An amount, and the meter that measures it."""

    amount: Amount
    meter: Meter

    def progress(self, spent: Spent) -> float:
        """Return the share of the budget that is spent, in [0, 1]."""
        return min(1.0, spent.of(self.amount.unit) / self.amount.value)

    @property
    def total_steps(self) -> int | None:
        """The number of steps that reaches the budget; None for a budget of seconds."""
        return self.meter.steps_to(self.amount)

    def finished(self, spent: Spent) -> bool:
        """Return whether the budget is spent."""
        if self.total_steps is not None:
            return spent.steps >= self.total_steps
        return spent.seconds >= self.amount.value


@dataclasses.dataclass
class Every:
    """A regular event, which is due whenever another `amount` has been spent since the start of the run.

    The multiples are counted from zero, so a resumed run keeps the schedule of the run that it continues.
    """

    amount: Amount
    _passed: int = 0

    def _multiples(self, spent: Spent) -> int:
        return math.floor(spent.of(self.amount.unit) / self.amount.value + 1e-9)

    def start(self, spent: Spent) -> None:
        """Count the multiples up to `spent` as passed."""
        self._passed = self._multiples(spent)

    def due(self, spent: Spent) -> bool:
        """Return whether a multiple has been passed since the last call that returned True."""
        multiples = self._multiples(spent)
        due = multiples > self._passed
        self._passed = multiples
        return due
