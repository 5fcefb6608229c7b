"""Compute shape biases from the published answers by image, and from stored predictions, and write a table.

    git clone https://github.com/rgeirhos/texture-vs-shape
    python benchmarks/cue_conflict.py --clone=texture-vs-shape [--predictions NAME=FILE.npz ...]

The answers of ten people, AlexNet, VGG-16 and GoogLeNet are those of the paper's experiment; those of ResNet-50 are in
the folder of networks that were trained later. Every count must be that of `scoring/cue_conflict_observers.csv`, and
the shape biases of the paper are printed beside ours. Stored predictions are those that
`evaluate --set=cue_conflict --out=FILE.npz` writes.
"""

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.scoring import cue_conflict, predictions  # noqa: E402  the path comes first

EXPERIMENT = "style-transfer-512-nomask-experiment"
FILES = {"AlexNet": "alexnet", "VGG-16": "vgg", "GoogLeNet": "googlenet", "ResNet-50": "resnet50"}
PUBLISHED = {"AlexNet": "42.9", "VGG-16": "17.2", "GoogLeNet": "31.2", "ResNet-50": "22.1"}  # in per cent
HEADER = """# Shape bias: people and networks where shape and texture disagree

The cue-conflict images of Geirhos et al. 2019 (arXiv 1811.12231): 1,280 images; the cues of 1,200 conflict.
The counts are computed by this project from the published answers by image (github.com/rgeirhos/texture-vs-shape,
`raw-data/`); networks marked "here" were evaluated on the images by `main.py evaluate --set=cue_conflict`. The
interval allows for objects and textures that repeat. `benchmarks/cue_conflict.py` writes this file.

| observer | shape | texture | neither | shape bias, % | 95 % interval, new images | paper, % | error by shape, % |
|---|---:|---:|---:|---:|---|---:|---:|
"""


def main():
    """Compute all rows, compare them with the stored counts, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True, help="the clone of texture-vs-shape")
    parser.add_argument("--predictions", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "cue_conflict.md")
    arguments = parser.parse_args()
    rows = [(one.observer, score_published(one, arguments.clone)) for one in cue_conflict.observers()]
    for text in arguments.predictions:
        name, _, path = text.partition("=")
        rows.append((f"{name} (here)", cue_conflict.score_predictions(name, predictions.load(path))))
    table = "".join(row(name, result) for name, result in rows)
    arguments.out.write_text(f"{HEADER}{table}\n{cue_conflict.reference_sentence()}\n", encoding="utf-8")
    print(table)


def score_published(stored, clone):
    """Return the shape bias of an observer from the answers by image; raise an error if its counts are not stored."""
    result = cue_conflict.read_answers(answers_file(stored, clone))
    counts = [(one.shape, one.texture, one.neither, one.agreeing_right, one.agreeing) for one in (result, stored)]
    if counts[0] != counts[1]:
        raise SystemExit(f"{stored.observer}: the answers count {counts[0]}, and {counts[1]} are stored")
    return result


def answers_file(stored, clone):
    """Return the file of an observer's answers in the clone."""
    if stored.is_person:
        session = f"subject-{int(stored.observer.split()[1]):02d}_session_1"
    else:
        session = f"{FILES[stored.observer]}_session_1"
    folder = EXPERIMENT
    if stored.observer == "ResNet-50":
        folder, session = f"{EXPERIMENT}-trained-CNNs", "resnet50_session-1"
    return clone / "raw-data" / folder / f"{EXPERIMENT}_{session}.csv"


def row(name, result):
    """Return a row of the table."""
    low, high = result.interval
    return (
        f"| {name} | {result.shape} | {result.texture} | {result.neither} | {100 * result.bias:.1f}"
        f" | [{100 * low:.1f}, {100 * high:.1f}] | {PUBLISHED.get(name, '')} | {100 * result.error:.1f} |\n"
    )


if __name__ == "__main__":
    main()
