"""Train the recipes for image-text pairs on class-name captions, and write their losses and zero-shot errors.

    python benchmarks/contrastive.py clip:12800img siglip:12800img --data=DATA --workdir=runs/contrastive \\
        --out=results/contrastive.md

Each argument is a recipe of configs/ with its budget; a locked tower needs the run that it comes from, as
`lit:6400img:image.weights=runs/resnet18`, with further keys after colons. Runs that are finished are not repeated, and
runs that were stopped continue. DATA is any prepared data set with the splits train and validation.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
FIRST_STEPS = 20
SHARES = 4  # evaluations of a run


def main():
    """Train, and write the table."""
    arguments = _arguments()
    runs = {}
    for text in arguments.recipes:
        recipe, budget, *keys = text.split(":")
        workdir = Path(arguments.workdir) / recipe
        _train(recipe, budget, keys, workdir, arguments)
        runs[recipe] = workdir
    text = _report(runs, arguments.data)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE:BUDGET[:KEY=VALUE]")
    parser.add_argument("--data", required=True, help="a prepared data set")
    parser.add_argument("--data_dir", default="", help="its directory (default: tfds')")
    parser.add_argument("--workdir", required=True, help="directory of the runs")
    parser.add_argument("--out", help="Markdown file")
    return parser.parse_args()


def _train(recipe, budget, keys, workdir, arguments):
    images = int(float(budget.removesuffix("img")))
    options = {
        "budget": budget,
        "data.name": arguments.data,
        "data.data_dir": arguments.data_dir,
        "evaluate_every": f"{images // SHARES}img",
        "checkpoint.every": f"{images // SHARES}img",
    } | dict(key.split("=", maxsplit=1) for key in keys)
    command = [sys.executable, "main.py", "train", f"--config=configs/{recipe}.py", f"--workdir={workdir.resolve()}"]
    command += [f"--config.{key}={value}" for key, value in options.items()]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def _report(runs, data):
    results = {
        recipe: json.loads((workdir / "result.json").read_text(encoding="utf-8")) for recipe, workdir in runs.items()
    }
    source = next(iter(results.values()))["provenance"]
    lines = [
        "# Image-text pairs on two cores",
        "",
        f'`{data}`, captions "a photo of a CLASS.", as bytes; devices {source["devices"]}; jax'
        f" {source['packages']['jax']}; commit {source['commit'][:12]}. `benchmarks/contrastive.py` writes this file.",
    ]
    for recipe, workdir in runs.items():
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        lines += ["", *_section(recipe, results[recipe], rows)]
    return "\n".join(lines) + "\n"


def _section(recipe, result, rows):
    config, rates = result["provenance"]["config"], result["rates"]
    losses = {row["step"]: row for row in rows if row["kind"] == "train"}
    errors = {row["step"]: row for row in rows if row["kind"] == "eval"}
    classes = len(result["classes"])
    lines = [
        f"## {recipe}",
        "",
        f"{result['system']}, {result['parameters'] / 1e6:.2f} M parameters, {config['loss']['name']} loss, batch"
        f" {config['batch_size']}, {result['spent']['images']:,.0f} images, {result['spent']['seconds']:,.0f} s of"
        f" training. Zero-shot top-1 error {100 * rates['top1_error']:.1f} % of {rates['images']:,} images; guessing"
        f" among {classes} classes has {100 - 100 / classes:.0f} %.",
        "",
        "| step | images | loss | scale | zero-shot top-1 error, % |",
        "|---:|---:|---:|---:|---:|",
    ]
    every = max(1, len(losses) // 10)
    shown = [step for number, step in enumerate(sorted(losses)) if step <= FIRST_STEPS or number % every == every - 1]
    for step in sorted({*shown, *errors}):
        nearest = losses.get(step) or losses[max((s for s in losses if s <= step), default=min(losses))]
        error = f"{100 * errors[step]['top1_error']:.1f}" if step in errors else ""
        lines.append(
            f"| {step} | {nearest['images']:,.0f} | {nearest['loss']:.3f} | {nearest['scale']:.1f} | {error} |"
        )
    return lines


if __name__ == "__main__":
    main()
