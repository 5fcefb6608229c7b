"""Images per second of the training step of ten networks against PyTorch, with the ratio of each and their mean.

    python benchmarks/zoo.py                                                         on a GPU: bfloat16, full size
    python benchmarks/zoo.py --cpu --peer_python=PYTHON                              on a CPU: the table of results/

Each measurement is `benchmarks/train_step.py` in a separate process, ours and PyTorch's alternately, on data that
stays on the device. PyTorch's network is timm's or torchvision's, compiled and channels-last on a GPU.
`--cpu` is eight networks at 64 px, batch 32, float32; `--peer_python` names an interpreter that has PyTorch.
The mean is the geometric one. `--networks=resnet50,vgg16` measures fewer; `--batch=0` finds the largest batch of each.
Rows are written to stderr and to `--out` as they are measured; a failed measurement has a row with the error, and the
exit code is then 1.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks import train_step  # noqa: E402

SIZES = {
    "alexnet_owt": 224,
    "vgg16": 224,
    "googlenet_bn": 224,
    "inception_v3": 299,
    "resnet50": 224,
    "resnet152": 224,
    "seresnext50_32x4d": 224,
    "efficientnet_b0": 224,
    "convnext_tiny": 224,
    "vit_base_patch16": 224,
}
ON_A_CPU = {
    "networks": "resnet18,resnet50,vit_tiny_patch16,vgg11,efficientnet_b0,alexnet,convnext_tiny,googlenet_bn",
    "size": 64,
    "batch": 32,
    "precision": "float32",
}
SMALLEST = {"inception_v3": 75}  # smallest image side in pixels that a network accepts
HEADING = (
    "| network | px | ours, images/s | PyTorch, images/s | ratio | batch, origin |",
    "|---|---:|---:|---:|---:|---|",
)


def main():
    """Measure alternately and print the table; the exit code is 1 if a measurement failed."""
    arguments = _arguments()
    rows = []
    for name in arguments.networks.split(","):
        size = max(arguments.size or SIZES.get(name, 224), SMALLEST.get(name, 0))
        rows.append((name, size, *_rates(name, size, arguments)))
        print(_line(rows[-1]), file=sys.stderr)
        if arguments.out:  # the rest of the table opens the devices, which the measurements need exclusively
            Path(arguments.out).write_text("\n".join((*HEADING, *map(_line, rows))) + "\n", encoding="utf-8")
    text = _table(arguments, rows)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")
    return int(any(None in row for row in rows))


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(SIZES))
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: each network's own")
    parser.add_argument("--batch", type=int, default=128, help="0: the largest that fits")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with PyTorch (default: this one)")
    parser.add_argument("--cpu", action="store_true", help=f"the same as {_as_options(ON_A_CPU)}")
    parser.add_argument("--out", help="Markdown file")
    if parser.parse_known_args()[0].cpu:
        parser.set_defaults(**ON_A_CPU)
    return parser.parse_args()


def _as_options(settings):
    return " ".join(f"--{key}={value}" for key, value in settings.items())


def _rates(name, size, arguments):
    """Return both medians and a description of the measurement, or None and the reason if one failed."""
    rates, notes = {"step": [], "pytorch": []}, {}
    for _ in range(arguments.rounds):
        for what, found in rates.items():
            if found is None:
                continue
            shared = {key: getattr(arguments, key) for key in ("batch", "precision", "seconds", "peer_python")}
            options = argparse.Namespace(model=name, size=size, **shared)
            rate, notes[what] = _measure(what, train_step.command_of(what, options))
            rates[what] = None if rate is None else [*found, rate]
    medians = [found and statistics.median(found) for found in rates.values()]
    return *medians, notes["step"], notes["pytorch"]


def _measure(what, command):
    """Return images per second and a note, measured in a separate process; None and its last line if it failed."""
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    if not result.returncode:
        measured = json.loads(result.stdout.strip().splitlines()[-1])
        return measured["images_per_second"], measured["note"]
    print(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}", file=sys.stderr)
    said = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
    return None, f"{what} failed: {said[:120].replace('|', '/')}"


def _line(row):
    name, size, ours, theirs, note, their_note = row
    rates = ["-" if rate is None else f"{rate:.1f}" for rate in (ours, theirs)]
    ratio = f"{ours / theirs:.2f}" if ours and theirs else "-"
    return f"| {name} | {size} | {' | '.join(rates)} | {ratio} | {note}; {their_note} |"


def _table(arguments, rows):
    from imagenet_repro.storage import provenance

    source = provenance.collect()
    ratios = [ours / theirs for _, _, ours, theirs, *_ in rows if ours and theirs]
    mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else 0.0
    lines = [
        f"# Training step of {len(rows)} networks, {arguments.precision}",
        "",
        f"{arguments.rounds} round(s) of {arguments.seconds:g} s each; devices {source['devices']}, {source['cores']}"
        f" cores; jax {source['packages']['jax']}; commit {source['commit'][:12]}.",
        "",
        *HEADING,
        *map(_line, rows),
        "",
        f"Geometric mean of the ratios: {mean:.2f}; lowest {min(ratios, default=0):.2f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
