"""A plan in the terminal: whether it fits, what takes the memory, what limits the step, and what the run costs."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from imagenet_repro.config import Config
from imagenet_repro.planning.budget_cost import BudgetCost
from imagenet_repro.planning.plan import Plan
from imagenet_repro.report.text import quantity
from imagenet_repro.scoring.terminal import duration, print_lines, ruled_table
from imagenet_repro.training.fitting import RECOMPUTED
from imagenet_repro.training.step_memory import WAITING_BATCHES, StepMemory

SMALLEST_SHARE = 1e-3  # of the memory that is needed; smaller parts are left out


def print_plan(plan: Plan, console: Console, advice: Sequence[str] = ()) -> None:
    """Print a plan, and below the verdict of one that does not fit the advice on what to try."""
    print_lines([*_heading(plan), "", *_verdict(plan), *(f"  {line}" for line in advice), ""], console)
    console.print(memory_table(plan.compiled, is_refused=not plan.compiled.is_compiled))
    console.print()
    if plan.bound is not None:
        console.print(ruled_table(("time of a step", "amount", "rate", "ms"), _time_rows(plan), one_line=range(4)))
        console.print()
        print_lines(_bound_lines(plan), console)


def summary(plan: Plan) -> str:
    """Return one line about a plan: its batch, its memory and its bound."""
    verdict = "fits" if plan.fits else "does not fit"
    bound = f", at most {plan.images_per_second:,.0f} images/s" if plan.images_per_second else ""
    return f"batch {plan.batch_size:,}: {format_bytes(plan.compiled.needed_bytes)}, {verdict}{bound}"


def _heading(plan: Plan) -> list[str]:
    topology, devices = plan.topology, len(plan.topology.devices)
    each = f" ({plan.batch_size // devices:,} on each device)" if devices > 1 else ""
    return [
        f"{plan.network}, {quantity(plan.parameters)} parameters, {plan.image_size} px, {plan.precision},"
        f" batch {plan.batch_size:,}{each}",
        f"on {devices} x {topology.facts.name} ({topology.name}), {plan.parallel}",
    ]


def _verdict(plan: Plan) -> list[str]:
    needed, memory = plan.compiled.needed_bytes, plan.memory
    share = f"{format_bytes(needed)} of {format_bytes(memory)} of each device ({100 * needed / memory:.0f} %)"
    if plan.fits:
        verdict = f"fits: {share}{_share(plan)}"
    elif not needed:
        verdict = f"does not fit into the {format_bytes(memory)} of each device; the compiler does not say by how much"
    else:
        verdict = (
            f"does not fit: {format_bytes(needed)} are needed on each device, {format_bytes(needed - memory)} more"
            f" than the {format_bytes(memory)} that it has{_share(plan)}"
        )
    return [verdict, *_rematerialisation(plan)]


def _rematerialisation(plan: Plan) -> list[str]:
    """Return a line about what the backward pass computes again, where a run would choose it."""
    policy = plan.compiled.remat
    if policy == "none":
        return []
    before = ", ".join(
        f"{format_bytes(size)} with '{name}'" for name, size in plan.tried.items() if name != policy and size
    )
    instead = f"; {before}" if before else ""
    return [f"rematerialisation '{policy}': the backward pass computes again {RECOMPUTED[policy]}{instead}"]


def _share(plan: Plan) -> str:
    """Return which part of a GPU's memory a step may take, since JAX does not reserve all of it."""
    share = plan.topology.memory_share
    return f"; JAX reserves {100 * share:.0f} % (XLA_PYTHON_CLIENT_MEM_FRACTION)" if share != 1 else ""


def format_bytes(size: float) -> str:
    """Return a number of bytes as text, such as "1.20 GB"."""
    return f"{quantity(round(size))}B" if size >= 1000 else f"{size:.0f} B"


def memory_table(memory: StepMemory, *, is_refused: bool = False) -> Table:
    """Return a table of what takes the memory of a step, or of one that the compiler refuses."""
    parts = [
        ("parameters", "float32", memory.arguments["parameters"]),
        ("optimizer", "its state, such as momentum", memory.arguments["optimizer"]),
        ("average", "of the weights", memory.arguments["average"]),
        ("statistics", "of batch norm", memory.arguments["statistics"]),
        ("batch", "images and labels", memory.arguments["batch"]),
    ]
    if not is_refused:
        parts += [
            ("padding", "of these to whole tiles", memory.argument_bytes - sum(size for _, _, size in parts)),
            ("results", "without a donated buffer", memory.output_bytes - memory.aliased_bytes),
            ("temporaries", "activations, gradients, scratch memory", memory.temporary_bytes),
            ("code", "the program", memory.code_bytes),
            ("waiting", f"{WAITING_BATCHES} batches for the next steps", memory.waiting_bytes),
        ]
    else:
        rest = memory.needed_bytes - sum(size for _, _, size in parts)
        parts.append(("the rest", "activations, gradients, scratch memory, code", rest))
    smallest = SMALLEST_SHARE * memory.needed_bytes
    rows = [(name, format_bytes(size), note) for name, note, size in parts if size > smallest]
    total = [("in all", format_bytes(memory.needed_bytes), "")] if memory.needed_bytes else []
    return ruled_table(("memory of each device", "bytes", "what it holds"), [*rows, *total], left=(0, 2))


def _time_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    facts, bound, traffic = plan.topology.facts, plan.bound, plan.traffic
    if bound is None or traffic is None:
        return []
    rows = [
        ("arithmetic", f"{quantity(plan.flops)}FLOP", f"{quantity(facts.peak(plan.precision))}FLOP/s"),
        ("memory traffic", format_bytes(traffic.total_bytes), f"{format_bytes(facts.bandwidth)}/s"),
    ]
    times = [bound.arithmetic, bound.traffic]
    if plan.collectives:
        links = plan.topology.interconnect
        rate = f"{format_bytes(links.bandwidth)}/s"
        rate += f", {format_bytes(links.network_bandwidth)}/s between hosts" if links.network_bandwidth else ""
        rows.append(("interconnect", format_bytes(sum(each["bytes"] for each in plan.collectives.values())), rate))
        times.append(bound.interconnect)
    return [(*row, f"{1e3 * seconds:#.3g}".rstrip(".")) for row, seconds in zip(rows, times, strict=True)]


def _bound_lines(plan: Plan) -> list[str]:
    if plan.bound is None or plan.images_per_second is None or plan.traffic is None:
        return []
    devices = len(plan.topology.devices)
    each = f" ({plan.images_per_second / devices:,.0f} on each device)" if devices > 1 else ""
    lines = [f"at most {plan.images_per_second:,.0f} images/s{each}, limited by {plan.bound.limiter}"]
    if plan.estimated_seconds:
        rate = plan.batch_size / plan.estimated_seconds
        lines.append(f"the compiler expects {1e3 * plan.estimated_seconds:#.3g} ms, {rate:,.0f} images/s")
    if plan.collectives:
        kinds = (f"{each['count']} {kind} ({format_bytes(each['bytes'])})" for kind, each in plan.collectives.items())
        lines.append(f"collectives of a step: {', '.join(kinds)}")
    if plan.traffic.unknown_loops:
        lines.append(
            f"{len(plan.traffic.unknown_loops)} loops run an unknown number of times and count once, so the true"
            " bound is lower"
        )
    compiled = plan.compiled
    level = f" at {plan.level}" if plan.level else ""
    lines.append(f"{plan.aliases} of {compiled.donated} arrays of the state are updated in place")
    lines.append(
        f"traced in {duration(compiled.trace_seconds)}, compiled{level} in {duration(compiled.compile_seconds)}"
    )
    return lines


def print_cost(cost: BudgetCost, config: Config, efficiency: float, console: Console) -> None:
    """Print the time, device hours and price of the budget."""
    price = f", price {cost.price:,.2f}" if cost.price else ""
    hours = f"{cost.device_hours:,.1f} device hours"
    steps = "1 step" if cost.steps == 1 else f"{cost.steps:,} steps"
    lines = [
        f"budget {config.budget}: {steps}, {quantity(cost.images)} images",
        f"at {100 * efficiency:.0f} % of the bound: {duration(cost.seconds)}, {hours}{price}",
    ]
    if config.progressive.stages > 1:
        lines.append("a run in stages is planned at its last stage, whose images are the largest")
    print_lines(lines, console)
