"""`main.py train --dry_run`: what a run would need and how long it would take, with nothing written."""

from rich.console import Console

from imagenet_repro.config import AnyConfig, FrozenConfig
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.planning.show import format_bytes, memory_table
from imagenet_repro.report.text import quantity
from imagenet_repro.runs.estimate_cost import RunCost, estimate_cost
from imagenet_repro.scoring.terminal import duration, print_lines, show_stages
from imagenet_repro.training.step_memory import StepMemory

NOT_INCLUDED = "Checkpoints are not included"


def dry_run(config: AnyConfig) -> int:
    """Print the cost of a run, from one or a few of its steps, and return the exit code.

    Raises:
      UserError: as `estimate_cost`, or the run is a classifier on frozen features, which takes no steps.
    """
    if isinstance(config, FrozenConfig):
        raise UserError("--dry_run measures a training step, and a classifier on frozen features takes none")
    console = Console(highlight=False, emoji=False)
    with show_stages(console, announce=True) as begin:
        cost = estimate_cost(config, begin)
    print_lines(_lines(config, cost), console)
    if cost.step_memory:
        console.print()
        console.print(memory_table(StepMemory(**cost.step_memory)))
        console.print()
    print_lines(_expectation(cost), console)
    return EXIT_FINISHED


def _lines(config: AnyConfig, cost: RunCost) -> list[str]:
    precision = f", {cost.precision}" if cost.precision else ""
    return [
        f"{config.system_name}: {cost.parameters / 1e6:,.2f} M parameters{precision}, on {cost.device}",
        f"{config.data.name} {config.data.train_split}: {config.data.image_size} px, batch {config.batch_size:,}",
        f"budget {config.budget}: {cost.steps:,} steps, {quantity(cost.images)} images,"
        f" {cost.flops_per_step / 1e9:,.1f} GFLOP a step, {cost.flops / 1e12:,.1f} TFLOP in all",
    ]


def _expectation(cost: RunCost) -> list[str]:
    peak = cost.peak_memory
    free = f"; {format_bytes(cost.free_memory)} were free besides the state" if cost.free_memory is not None else ""
    evaluation = cost.evaluation_compilation_seconds
    also = f" (and the evaluation {duration(evaluation)})" if evaluation else ""
    kept = ", which is kept: a run now loads it, starts faster and takes less memory" if cost.has_compiled else ""
    evaluate = f", evaluate {duration(cost.evaluation_seconds)}" if cost.evaluation_seconds else ""
    return [
        f"memory: the {peak['of']} held {format_bytes(peak['bytes'])} at its peak{free}",
        f"compile {duration(cost.compilation_seconds)}{also}{kept}",
        f"start {duration(cost.startup_seconds)}, train {duration(cost.seconds)}{evaluate}:"
        f" {cost.step_seconds:,.3f} s a step, {_describe_timing(cost.timed_steps)}. {NOT_INCLUDED}",
        "nothing was written",
    ]


def _describe_timing(steps: int) -> str:
    """Return which steps were timed; none of them means the first one alone."""
    if not steps:
        return "the time of a single one, the first; later ones may be faster"
    return "the second one" if steps == 1 else f"the mean of {steps:,} after the first ones"
