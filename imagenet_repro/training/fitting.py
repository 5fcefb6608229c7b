"""The cheapest rematerialisation with which a training step fits into the memory of its devices.

A step first compiles without it. Where that needs more memory than a device has, networks that leave the choice open
(`remat` of `Stack`) compile again with the next of `stack.POLICIES`: each computes more a second time and stores less.
The choice changes no value. On the CPU nothing is computed twice, because what is free differs from moment to moment
there. A step that then does not fit is refused (planning/fit.py).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.stack import POLICIES
from imagenet_repro.training import hosts, step_memory
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import NetworkStep
from imagenet_repro.training.step_memory import StepMemory

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}  # of XLA's messages
# What libtpu says of a step that does not fit; the second form is an early check.
_NEEDED = re.compile(
    r"Used ([\d.]+[KMG]?) of ([\d.]+[KMG]?) hbm"
    r"|temporaries \(([\d.]+[KMG]?)\) exceeds available HBM \(([\d.]+[KMG]?)\)"
)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A step compiled with one policy.

    Attributes:
      policy: one of `stack.POLICIES`.
      bytes: what the step needs on a device; 0 where the compiler refused it and did not say.
      limit: what a device has; None where that is not known.
      compiled: the step; None where the compiler refused it.
      memory: what takes these bytes; None where the compiler refused the step.
    """

    policy: str
    bytes: int
    limit: int | None
    compiled: Callable | None
    memory: StepMemory | None = None

    @property
    def fits(self) -> bool:
        """Whether the step can run."""
        return self.compiled is not None and (self.limit is None or self.bytes <= self.limit)


@dataclasses.dataclass(frozen=True)
class FittedStep:
    """A compiled step, and the attempts that led to it; the step is the last of them."""

    attempts: tuple[Attempt, ...]

    @property
    def compiled(self) -> Callable:
        """The step, `(state, batch, learning_rate) -> (state, measures)`."""
        compiled = self.attempts[-1].compiled
        assert compiled is not None
        return compiled

    @property
    def memory(self) -> StepMemory:
        """The memory of the step."""
        memory = self.attempts[-1].memory
        assert memory is not None
        return memory

    @property
    def record(self) -> dict[str, Any]:
        """The policy, the bytes on a device, the limit, and the bytes of every policy tried, for a result."""
        last = self.attempts[-1]
        tried = {attempt.policy: attempt.bytes for attempt in self.attempts}
        return {"policy": last.policy, "bytes": last.bytes, "limit": last.limit, "tried": tried}

    def describe(self) -> str:
        """Return a sentence about the choice; empty where the first attempt fits."""
        first, last = self.attempts[0], self.attempts[-1]
        if first.fits:
            return ""
        kept = f"the backward pass computes again {RECOMPUTED[last.policy]}"
        need = f"the step then needs {gigabytes(last.bytes)} a device of {gigabytes(last.limit)}"
        instead = f", and {gigabytes(first.bytes)} without"
        doubt = "" if last.fits else "; it may not fit"
        return f"rematerialisation '{last.policy}': {kept}; {need}{instead if len(self.attempts) > 1 else ''}{doubt}"


RECOMPUTED = {
    "none": "nothing",
    "products": "what is between the linear layers or convolutions of a block",
    "blocks": "the inside of every block",
}


def compile_training(
    spread: Spread, step: NetworkStep, state: TrainState, batch: dict[str, jax.Array], limit: int | None
) -> FittedStep:
    """Compile a step with the cheapest rematerialisation that fits.

    Args:
      spread: the way in which the step is spread over devices.
      step: the training step.
      state: the state, or its shapes.
      batch: a batch on the devices, or its shapes.
      limit: bytes of a device, the same in every process; None: no limit.

    Raises:
      UserError: the compiler says that no form of the step fits.
    """
    arguments = step_memory.argument_sizes(state, batch)

    def attempt(policy: str) -> Attempt:
        network = step.network.with_remat(policy)
        try:
            compiled = spread.compile_training(step.replace(network=network), state, batch)
        except jax.errors.JaxRuntimeError as error:
            needed = memory_in(str(error))
            if needed is None:
                raise
            return Attempt(policy, round(needed[0]), round(needed[1]) or limit, None)
        memory = StepMemory(arguments=arguments, **step_memory.measure(compiled, arguments))
        return Attempt(policy, memory.needed_bytes, limit, compiled, memory)

    attempts = first_that_fits(attempt, policies(step))
    if attempts[-1].compiled is None:
        raise UserError(_refusal(attempts, step))
    return FittedStep(tuple(attempts))


def policies(step: NetworkStep) -> Sequence[str]:
    """Return the policies that a step may be compiled with, cheapest first."""
    return POLICIES if step.network.chooses_remat else POLICIES[:1]


def first_that_fits(attempt: Callable[[str], Attempt], candidates: Sequence[str]) -> list[Attempt]:
    """Return the attempts up to the first that fits, or all; the last is the one to take."""
    attempts: list[Attempt] = []
    for policy in candidates:
        attempts.append(attempt(policy))
        if attempts[-1].fits:
            break
    return attempts


def device_limit() -> int | None:
    """Return the bytes that a program may take on every device of every process; None where that is not known."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return min(hosts.gather(min(limits))) or None  # all processes compile the same program


def memory_in(message: str) -> tuple[float, float] | None:
    """Return the bytes needed and available in a compiler's error, 0 where not said; None for other errors."""
    match = _NEEDED.search(message)
    if match:
        numbers = re.findall(r"([\d.]+)([KMG]?)", " ".join(group for group in match.groups() if group))
        needed, limit = (float(number) * UNITS[unit] for number, unit in numbers)
        return needed, limit
    return (0.0, 0.0) if "RESOURCE_EXHAUSTED" in message else None


def _refusal(attempts: Sequence[Attempt], step: NetworkStep) -> str:
    last = attempts[-1]
    accumulate = f", config.accumulate={2 * step.config.accumulate} (the same batch in smaller parts),"
    return (
        f"config.batch_size: the step of {step.config.batch_size} images needs {gigabytes(last.bytes)} on a device"
        f" that has {gigabytes(last.limit)}. A smaller batch{accumulate if step.has_parts else ''} or"
        " config.parallel=fsdp (the state in shards) needs less"
    )


def gigabytes(number: int | None) -> str:
    """Return a number of bytes as text."""
    return f"{number / 1e9:,.1f} GB" if number else "an unknown amount"
