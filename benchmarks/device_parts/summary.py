"""`summary.md`: the results as tables for a reader, written anew after each part."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.device_parts.results import SUMMARY
from imagenet_repro.storage import files

Row = dict[str, Any]


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write the summary of results to `summary.md` in a folder."""
    with files.atomic_write(folder / SUMMARY, "the summary") as file:
        file.write(describe(rows).encode())


def describe(rows: Sequence[Row]) -> str:
    """Return the summary of results in Markdown."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    parts = [_heading(by_kind.get("devices", [])), _peaks(by_kind.get("peaks", []))]
    for kind, (title, columns) in TABLES.items():
        if kind in by_kind:
            parts.append(f"## {title}\n\n{_table(columns, by_kind[kind])}")
    missing = [*by_kind.get("left_out", []), *by_kind.get("skipped", []), *by_kind.get("failed", [])]
    if missing:
        lines = [f"- {row.get('name') or row['part']}: {row['reason']}" for row in missing]
        parts.append("\n".join(["## Left out", "", *dict.fromkeys(lines)]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _heading(rows: list[Row]) -> str:
    if not rows:
        return "# Device"
    row = rows[0]
    packages = row["packages"] | row["optional"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f"# {row['devices']} x {row['device']}\n\n"
        f"{row['time']}, commit {row['commit']}, scale `{row['scale']}`, {row['minutes']:g} minutes;"
        f" {row['cores']} cores, {row['host_memory_bytes'] / 2**30:.0f} GiB, load {row['load']:.1f} at the start;"
        f" Python {row['python']}, {versions}. {row['driver']}"
    ).rstrip()


def _peaks(rows: list[Row]) -> str:
    if not rows:
        return ""
    row = rows[0]
    return (
        f"A product of {row['matrix']} x {row['matrix']} matrices in {row['precision']}:"
        f" {row['product_flops'] / 1e12:,.2f} TFLOP/s."
        f" A copy in memory, read and written: {row['copy_bytes'] / 1e9:,.0f} GB/s."
    )


def _number(key: str, form: str = ",.1f", scale: float = 1.0) -> Callable[[Row], str]:
    return lambda row: f"{row[key] * scale:{form}}" if isinstance(row.get(key), int | float) else ""


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key, "")).replace("|", "/")


def _share_of_bound(row: Row) -> str:
    if not row.get("bound_images_per_second"):
        return ""
    return f"{100 * row['images_per_second'] / row['bound_images_per_second']:.0f} % ({row['limiter']})"


def _yes(key: str) -> Callable[[Row], str]:
    return lambda row: "yes" if row.get(key) else "no"


Columns = tuple[tuple[str, Callable[[Row], str]], ...]
_STEP: Columns = (
    ("network", _text("network")),
    ("program", _text("variant")),
    ("px", _text("image_size")),
    ("batch", _text("batch")),
    ("images/s", _number("images_per_second")),
    ("spread %", _number("spread", ".1f", 100)),
    ("ms a step", _number("milliseconds", ",.2f")),
    ("of the bound", _share_of_bound),
    ("GB needed", _number("program_bytes", ",.2f", 1e-9)),
)
TABLES: dict[str, tuple[str, Columns]] = {
    "numerics": (
        "One step in float32: relative errors against the CPU's",
        (
            ("network", _text("network")),
            ("program", _text("variant")),
            ("loss", _number("loss_error", ".1e")),
            ("gradient", _number("gradient_error", ".1e")),
            ("worst parameter's gradient", _number("worst_gradient_error", ".1e")),
            ("parameters", _number("parameter_error", ".1e")),
            ("statistics", _number("statistics_error", ".1e")),
            ("repeats bit for bit", _yes("repeats_bit_for_bit")),
        ),
    ),
    "step": ("Training steps on resident data", _STEP),
    "peer": (
        "The same networks in PyTorch, channels-last",
        (
            ("network", _text("network")),
            ("compiled", _yes("compiled")),
            ("batch", _text("batch")),
            ("images/s", _number("images_per_second")),
            ("spread %", _number("spread", ".1f", 100)),
            ("ours / PyTorch", _number("ratio_fast", ".2f")),
            ("ours, deterministic / PyTorch", _number("ratio_deterministic", ".2f")),
            ("GB used", _number("peak_bytes", ",.2f", 1e-9)),
            ("origin", _text("origin")),
        ),
    ),
    "augmentation": ("Augmentation inside the step", _STEP),
    "loader": (
        "The loader on this host",
        (
            ("images", _text("data")),
            ("crop, px", _text("crop")),
            ("images/s", _number("images_per_second", ",.0f")),
            ("images per CPU second", _number("images_per_cpu_second", ",.0f")),
        ),
    ),
    "loop": (
        "The training loop with real input",
        (
            ("network", _text("network")),
            ("batch", _text("batch")),
            ("images/s", _number("images_per_second")),
            ("relative to the bare step", _number("relative_to_bare_step", ".2f")),
            ("share of time waiting for input", _number("share_of_time_waiting_for_input", ".2f")),
        ),
    ),
    "spread": (
        "Ways to spread a step",
        (
            ("way", _text("mode")),
            ("devices", _text("devices")),
            ("images/s", _number("images_per_second")),
            ("bits of pmap after 3 steps", _yes("equal_bits_to_pmap")),
            ("relative error of the state", _number("state_error", ".1e")),
        ),
    ),
    "features": (
        "Fisher vectors",
        (
            ("images/s", _number("images_per_second", ",.0f")),
            ("on the CPU", _number("cpu_images_per_second", ",.0f")),
            ("ratio", _number("ratio", ".1f")),
            ("relative error", _number("vector_error", ".1e")),
        ),
    ),
    "decade": (
        "The decade at 64 px, seed 0",
        (
            ("system", _text("system")),
            ("top-1 error %", _number("top1_error", ".1f", 100)),
            ("top-5 error %", _number("top5_error", ".1f", 100)),
            ("images", _number("trained_images", ",.0f")),
            ("training, s", _number("training_seconds")),
            ("everything, s", _number("seconds")),
        ),
    ),
    "part": (
        "Parts",
        (
            ("part", _text("part")),
            ("estimated", _number("estimated")),
            ("seconds", _number("seconds")),
            ("end", _text("end")),
        ),
    ),
}


def _table(columns: Columns, rows: Sequence[Row]) -> str:
    lines = [f"| {' | '.join(title for title, _ in columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row) for _, cell in columns)} |" for row in rows]
    return "\n".join(lines)
