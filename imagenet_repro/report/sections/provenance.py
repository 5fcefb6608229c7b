"""The provenance of each run's numbers: code, versions, devices, data, and the budget that was spent."""

from typing import Any

from imagenet_repro.report.records import Comparison, FinishedRun
from imagenet_repro.report.result_table import quantity
from imagenet_repro.report.tables import MISSING, Table

SHOWN = ("seed", "workdir", "commit", "devices", "data", "splits", "steps", "images", "FLOPs", "seconds")


def runs(comparison: Comparison) -> Table:
    """Return a row for each run with the main facts; `facts` has all of them."""
    rows = tuple(
        (system.name, *(facts(run)[key] for key in SHOWN)) for system in comparison.systems for run in system.runs
    )
    caption = "Every run behind the numbers of this page, and the budget that it spent."
    return Table("runs", ("system", *SHOWN), rows, caption)


def facts(run: FinishedRun) -> dict[str, str]:
    """Return the recorded facts about a run, as texts by name; a dash stands for a missing one."""
    source = run.result["provenance"]
    data = source["config"].get("data", {})
    spent = run.result["spent"]
    return {
        "seed": str(run.seed),
        "workdir": str(run.path),
        "commit": _text(source.get("commit")),
        "imagenet_repro": _text(source.get("imagenet_repro")),
        "Python": _text(source.get("python")),
        "packages": _packages(source.get("packages")),
        "devices": _devices(source.get("devices")),
        "processes": _text(source.get("processes")),
        "cores": _text(source.get("cores")),
        "data": _text(data.get("name")),
        "splits": _splits(data),
        "budget": _text(run.result.get("budget")),
        "steps": _amount(spent.get("steps")),
        "images": _amount(spent.get("images")),
        "epochs": MISSING if spent.get("epochs") is None else f"{spent['epochs']:.4g}",
        "FLOPs": MISSING if spent.get("flops") is None else quantity(spent["flops"]),
        "seconds": MISSING if spent.get("seconds") is None else f"{spent['seconds']:,.1f}",
        "images scored": _scored(run),
        "top-1 errors": f"{run.rates.top1_wrong:,}",
        "top-5 errors": f"{run.rates.top5_wrong:,}",
        "predictions": _text(run.predictions or run.result.get("predictions")),
    }


def _scored(run: FinishedRun) -> str:
    """Return the number of scored images, and how many records were left out because they cannot be decoded."""
    return f"{run.rates.images:,}" + (f" ({run.left_out:,} records left out)" if run.left_out else "")


def _splits(data: dict[str, Any]) -> str:
    trained, watched, scored = (_text(data.get(key)) for key in ("train_split", "eval_split", "test_split"))
    if scored in (MISSING, watched):
        return f"{trained}, scored on {watched}"
    return f"{trained}, evaluated on {watched}, scored on {scored}"


def _text(value: Any) -> str:
    return MISSING if value in (None, "") else str(value)


def _amount(value: int | float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _packages(packages: dict[str, str] | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (packages or {}).items()) or MISSING


def _devices(devices: dict[str, Any] | None) -> str:
    """Return the devices as text, such as "2 x NVIDIA H100 (gpu)"."""
    kinds = dict(devices or {})
    platform = kinds.pop("platform", "")
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"{counts} ({platform})" if counts and platform not in kinds else counts or _text(platform)
