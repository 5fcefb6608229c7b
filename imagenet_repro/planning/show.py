"""A plan in the terminal: whether it fits, what takes the memory, what limits the step, and what the run costs."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from imagenet_repro.config import Config
from imagenet_repro.planning.budget_cost import BudgetCost
from imagenet_repro.planning.plan import Plan
from imagenet_repro.report.text import quantity
from imagenet_repro.scoring.terminal import ruled_table

GB = 1e9
TICK = 0.5  # seconds between two updates of the elapsed time


@contextlib.contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Show the stage that a plan is in and its seconds, on one line that disappears at the end.

    Args:
      console: where; nothing is shown if it is a file.
      what: is planned.

    Yields:
      The function to call with the name of each stage when it begins.
    """
    stage, began, ended = "starting", time.monotonic(), threading.Event()

    def say(name: str) -> None:
        nonlocal stage, began
        stage, began = name, time.monotonic()

    if not console.is_terminal:
        yield say
        return
    with console.status("") as status:

        def tick() -> None:
            while not ended.wait(TICK):
                status.update(f"{what}: {stage} for {time.monotonic() - began:.0f} s")

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield say
        finally:
            ended.set()
            thread.join()


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan."""
    lines = [*_heading(plan), "", *_verdict(plan)]
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print()
    console.print(ruled_table(("memory of each device", "GB", "what it holds"), _memory_rows(plan), left=(0, 2)))
    if plan.bound is None:
        return
    console.print(ruled_table(("time of a step", "amount", "rate", "ms"), _time_rows(plan)))
    for line in _bound_lines(plan):
        console.print(line, soft_wrap=True)


def _heading(plan: Plan) -> list[str]:
    topology, devices = plan.topology, len(plan.topology.devices)
    share = plan.batch_size // devices
    return [
        f"{plan.network}, {quantity(plan.parameters)} parameters, {plan.image_size} px, {plan.precision}",
        f"{devices} x {topology.facts.name} ({topology.name}), {plan.parallel},"
        f" batch {plan.batch_size:,} ({share:,} on each device)",
    ]


def _verdict(plan: Plan) -> list[str]:
    peak, memory = plan.compiled.peak_bytes, plan.memory
    if plan.fits:
        return [f"fits: {peak / GB:.2f} of {memory / GB:.2f} GB of each device ({100 * peak / memory:.0f} %)"]
    return [
        f"does not fit: {peak / GB:.2f} GB are needed on each device, {(peak - memory) / GB:.2f} more than the"
        f" {memory / GB:.2f} GB that it has"
    ]


def _memory_rows(plan: Plan) -> list[tuple[str, str, str]]:
    compiled = plan.compiled
    parts = [
        ("parameters", "float32", compiled.arguments["parameters"]),
        ("optimizer", "its state, such as momentum", compiled.arguments["optimizer"]),
        ("average", "of the weights", compiled.arguments["average"]),
        ("statistics", "of batch norm", compiled.arguments["statistics"]),
        ("batch", "images and labels", compiled.arguments["batch"]),
    ]
    rest = compiled.argument_bytes - sum(size for _, _, size in parts)
    parts += [
        ("padding", "of inputs to whole tiles", rest),
        ("results", "that take no donated buffer", compiled.output_bytes - compiled.aliased_bytes),
        ("temporaries", "activations, gradients, scratch memory", compiled.temporary_bytes),
        ("code", "the program", compiled.code_bytes),
    ]
    rows = [(name, f"{size / GB:.3f}", note) for name, note, size in parts if size > 5e5]
    return [*rows, ("peak", f"{compiled.peak_bytes / GB:.3f}", "at any time")]


def _time_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    facts, bound, traffic = plan.topology.facts, plan.bound, plan.traffic
    if bound is None or traffic is None:
        return []
    messages = sum(each["count"] for each in plan.collectives.values())
    size = sum(each["bytes"] for each in plan.collectives.values())
    rows = [
        ("arithmetic", f"{plan.flops / 1e12:.2f} TFLOP", f"{facts.peak(plan.precision) / 1e12:,.0f} TFLOP/s"),
        ("memory traffic", f"{traffic.total_bytes / GB:.1f} GB", f"{facts.bandwidth / GB:,.0f} GB/s"),
    ]
    times = [bound.arithmetic, bound.traffic]
    if messages:
        rate = plan.topology.interconnect.bandwidth / GB
        rows.append(("interconnect", f"{size / GB:.2f} GB in {messages}", f"{rate:,.0f} GB/s"))
        times.append(bound.interconnect)
    return [(*row, f"{1e3 * seconds:.2f}") for row, seconds in zip(rows, times, strict=True)]


def _bound_lines(plan: Plan) -> list[str]:
    if plan.bound is None or plan.images_per_second is None or plan.traffic is None:
        return []
    devices = len(plan.topology.devices)
    each = f" ({plan.images_per_second / devices:,.0f} on each device)" if devices > 1 else ""
    kinds = ", ".join(
        f"{each['count']} {kind} of {each['bytes'] / 1e6:,.1f} MB" for kind, each in plan.collectives.items()
    )
    compiled = plan.compiled
    lines = [f"at most {plan.images_per_second:,.0f} images/s{each}, limited by {plan.bound.limiter}"]
    if kinds:
        lines.append(f"collectives of a step: {kinds}")
    if plan.estimated_seconds:
        lines.append(
            f"the compiler expects {1e3 * plan.estimated_seconds:.2f} ms,"
            f" {plan.batch_size / plan.estimated_seconds:,.0f} images/s"
        )
    if plan.traffic.unknown_loops:
        lines.append(
            f"{len(plan.traffic.unknown_loops)} loops have an unknown number of iterations and count once: the bound"
            " is too high by their time"
        )
    level = f" at {plan.level}" if plan.level else ""
    lines.append(
        f"{plan.aliases} of {compiled.donated} arrays of the state are updated in place;"
        f" traced in {compiled.trace_seconds:.0f} s, compiled{level} in {compiled.compile_seconds:.0f} s"
    )
    return lines


def print_cost(cost: BudgetCost, config: Config, plan: Plan, efficiency: float, console: Console) -> None:
    """Print the time, device hours and price of the budget."""
    devices = len(plan.topology.devices)
    price = f", {cost.price:,.2f} at the given price" if cost.price else ""
    hours = cost.seconds / 3600
    time_text = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
    console.print(
        f"budget {config.budget}: {cost.steps:,} steps, {quantity(cost.images)} images: {time_text} at"
        f" {100 * efficiency:.0f} % of the bound, {cost.device_hours:,.1f} device hours on {devices}{price}",
        soft_wrap=True,
    )
    if config.progressive.stages > 1:
        console.print("a run in stages is planned at its last stage, whose images are the largest", soft_wrap=True)
