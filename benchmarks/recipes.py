"""Run the first steps of every recipe on a small data set, and report whether its loss falls.

    python main.py prepare folder:DIR --name=tiny_imagenet_100
    python benchmarks/recipes.py --data=tiny_imagenet_100 --out=results/recipes.md

A recipe is used unchanged, except for its data set, image size, batch, and a budget of a few steps, which contains the
full schedule. The learning rate follows the batch, in proportion for SGD and RMSProp (Goyal et al. 2017), by the
square root for Adam and LAMB. The steps see the same few images repeatedly, so that learning shows within them: a
network without normalisation stays at the loss of guessing for hundreds of steps otherwise. The
loss falls when the mean of the last quarter of the steps is below that of the first; nothing else is shown. Averages
of the weights are not evaluated.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

# Recipe and size in pixels; networks that flatten a map and have no normalisation need their full image size.
RECIPES = (
    ("alexnet.py", 227),
    ("zfnet.py", 224),
    ("vgg.py:16", 64),
    ("googlenet.py", 96),
    ("googlenet.py:googlenet_bn", 64),
    ("inception_v3.py", 128),
    ("resnet.py:50", 64),
    ("resnet.py:50_v1", 64),
    ("resnext.py", 64),
    ("senet.py", 64),
    ("resnet_cifar.py:20", 32),
    ("efficientnet.py:b0", 64),
    ("efficientnetv2.py:s", 64),
    ("convnext.py:tiny", 64),
    ("vit.py:baseline", 64),
    ("vit.py:augreg", 64),
    ("deit.py:tiny", 64),
    ("rsb.py:a1,resnet18", 64),
    ("rsb.py:a2,resnet18", 64),
    ("rsb.py:a3,resnet18", 64),
    ("modern.py:resnet18", 64),
    ("modern.py:vgg11", 64),
)
IN_PROPORTION = ("sgd", "rmsprop")


def main():
    """Run the recipes one after another and print the table."""
    arguments = _arguments()
    chosen = [row for row in RECIPES if any(part in row[0] for part in arguments.only.split(","))]
    rows = []
    for recipe, size in chosen:
        rows.append(_run(recipe, size, arguments))
        print(rows[-1], file=sys.stderr, flush=True)
    text = _table(rows, arguments)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a prepared data set")
    parser.add_argument("--data_dir", default="", help="its directory (default: tfds')")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="of the training split")
    parser.add_argument("--only", default="", help="parts of recipes' names, with commas between")
    parser.add_argument("--out", help="Markdown file")
    return parser.parse_args()


def _run(recipe, size, arguments):
    from imagenet_repro.config import load_config

    config = load_config(str(REPOSITORY / "configs" / recipe))
    share = arguments.batch / config.batch_size
    rate = config.optimizer.learning_rate * (share if config.optimizer.name in IN_PROPORTION else math.sqrt(share))
    options = {
        "budget": f"{arguments.steps}st",
        "batch_size": arguments.batch,
        "precision": "float32",
        "optimizer.learning_rate": rate,
        "data.name": arguments.data,
        "data.data_dir": arguments.data_dir,
        "data.train_split": f"train[:{arguments.images}]",
        "data.eval_split": "validation[:64]",
        "data.image_size": size,
        "data.eval_image_size": size,
        "evaluate_every": "1e9st",
        "checkpoint.every": "1e9st",
        "log_every": 1,
    }
    if config.train_crop.name == "shorter_side":
        options["train_crop.resize"] = round(size * 256 / 224)
    if config.train_crop.name == "scale_jitter":
        options["train_crop.resize"] = (round(size * 256 / 224), round(size * config.train_crop.resize[1] / 224))
    if config.progressive.stages > 1:
        options["progressive.image_size_from"] = size // 2
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "main.py", "train", f"--config=configs/{recipe}", f"--workdir={workdir}"]
        command += [f"--config.{key}={value}" for key, value in options.items()]
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
        if result.returncode:
            raise SystemExit(f"{recipe} failed:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
        rows = map(json.loads, (Path(workdir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
    quarter = max(1, len(losses) // 4)
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    return recipe, config.model.name, size, rate, first, last


def _table(rows, arguments):
    from imagenet_repro.storage import provenance

    source = provenance.collect()
    lines = [
        f"# The first {arguments.steps} steps of every recipe",
        "",
        f"{arguments.images} images of `{arguments.data}`, batch {arguments.batch}, float32;"
        f" devices {source['devices']}; jax"
        f" {source['packages']['jax']}; commit {source['commit'][:12]}."
        " Losses are means over the first and the last quarter of the steps.",
        "",
        "| recipe | network | px | learning rate | first loss | last loss | loss falls |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for recipe, network, size, rate, first, last in rows:
        falls = "yes" if last < first else "NO"
        lines.append(f"| {recipe} | {network} | {size} | {rate:.2g} | {first:.3f} | {last:.3f} | {falls} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
