"""Images per second of the training step of ten networks against PyTorch, with the ratio of each and their mean.

    python benchmarks/zoo.py                                                         on a GPU: bfloat16, full size
    python benchmarks/zoo.py --size=64 --batch=8 --precision=float32 --seconds=5     on a CPU

Each measurement is `benchmarks/train_step.py` in a process of its own, ours and PyTorch's in turn, on data that stays
on the device: timm's network or torchvision's, whichever ours has the names of, compiled and channels-last on a GPU.
The mean is the geometric one. `--networks=resnet50,vgg16` takes fewer; `--batch=0` finds each its largest batch.
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


def main():
    """Measures in turn and prints the table."""
    arguments = _arguments()
    rows = []
    for name in arguments.networks.split(","):
        size = max(arguments.size or SIZES[name], arguments.smallest.get(name, 0))
        rows.append((name, size, *_rates(name, size, arguments)))
        print(_line(rows[-1]), file=sys.stderr)
    text = _table(arguments, rows)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(SIZES))
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: each network's own")
    parser.add_argument("--batch", type=int, default=128, help="0: the largest that fits")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", help="Markdown file")
    arguments = parser.parse_args()
    arguments.smallest = {"inception_v3": 128}  # pixels, with its auxiliary head
    return arguments


def _rates(name, size, arguments):
    """Medians of ours and of PyTorch's, and what was measured."""
    rates, notes = {"step": [], "pytorch": []}, {}
    for _ in range(arguments.rounds):
        for what, found in rates.items():
            options = (f"--model={name}", f"--size={size}", f"--batch={arguments.batch}")
            options += (f"--precision={arguments.precision}", f"--seconds={arguments.seconds}", f"--measure={what}")
            command = [sys.executable, str(REPOSITORY / "benchmarks" / "train_step.py"), *options]
            result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            if result.returncode:
                raise SystemExit(f"measuring {name} ({what}) failed:\n{result.stderr[-3000:]}")
            measured = json.loads(result.stdout.strip().splitlines()[-1])
            found.append(measured["images_per_second"])
            notes[what] = measured["note"]
    return statistics.median(rates["step"]), statistics.median(rates["pytorch"]), notes["step"], notes["pytorch"]


def _line(row):
    name, size, ours, theirs, note, their_note = row
    ratio = f"{ours / theirs:.2f}" if theirs else "-"
    return f"| {name} | {size} | {ours:.1f} | {theirs:.1f} | {ratio} | {note}; {their_note} |"


def _table(arguments, rows):
    from imagenet_repro import provenance

    source = provenance.collect()
    ratios = [ours / theirs for _, _, ours, theirs, *_ in rows if theirs]
    mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else 0.0
    lines = [
        f"# Training step of {len(rows)} networks, {arguments.precision}",
        "",
        f"{arguments.rounds} round(s) of {arguments.seconds:g} s each; devices {source['devices']}, {source['cores']}"
        f" cores; jax {source['packages']['jax']}; commit {source['commit'][:12]}.",
        "",
        "| network | px | ours, images/s | PyTorch, images/s | ratio | batch, origin |",
        "|---|---:|---:|---:|---:|---|",
        *map(_line, rows),
        "",
        f"Geometric mean of the ratios: {mean:.2f}; lowest {min(ratios, default=0):.2f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
