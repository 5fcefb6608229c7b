"""Helpers for the tests of figures: invented comparisons, and checks of the files."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses

NETWORKS = (
    "alexnet", "se_resnext50_32x4d", "xrce_2011", "resnet50", "vgg16_bn", "googlenet", "nec_uiuc_2010",
    "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224", "zfnet", "resnet18",
)  # fmt: skip
LARGEST = 150_000  # bytes of an SVG


def guesses(top1_wrong, top5_wrong, images=1000):
    """Return guesses: the first images are right by the first guess, the next by the second, the last are wrong."""
    order = np.arange(images)
    ranks = np.select([order < images - top1_wrong, order < images - top5_wrong], [0, 1], 5)
    top5 = np.tile(np.arange(2, 7), (images, 1))
    for k in (0, 1):
        top5[ranks == k, k] = 0
    ids = np.array([f"image{n:06d}" for n in order])
    return TopGuesses(ids, np.zeros(images, np.int32), top5.astype(np.int32))


def rows(progress, top1, top5, total):
    """Return the rows of a run that spends `total` = (images, flops, seconds), with errors at each progress."""
    actual = []
    for step, share in enumerate(progress, 1):
        spent = dict(zip(("images", "flops", "seconds"), (share * amount for amount in total), strict=True))
        row = {"step": step, "progress": share, **spent}
        actual.append({"kind": "train", **row, "loss": 7 - 5 * share})
        actual.append({"kind": "eval", **row, "top1_error": top1[step - 1], "top5_error": top5[step - 1]})
    return actual


def run(seed=0, top1=400, top5=200, *, images=1000, flops=1e15, multiply_adds=10**9, logged=()):
    """Return a run with invented numbers; `top1` and `top5` count wrong images."""
    rates = {"images": images, "top1_wrong": top1, "top5_wrong": top5, "cross_entropy": 1.0}
    result = {"multiply_adds": multiply_adds, "spent": {"flops": flops, "seconds": 60.0}, "rates": rates}
    return FinishedRun(Path("runs") / str(seed), seed, result, list(logged), guesses(top1, top5, images))


def comparison(*systems, data="folder:/flowers", split="validation"):
    return Comparison(tuple(systems), tuple(f"class {n}" for n in range(100)), "10ep", data, "train", split)


def system(name, *runs, network="resnet50"):
    return ComparedSystem(name, network, "", tuple(runs))


def plausible(systems, seeds, recipe="", evaluations=8):
    """Return systems with falling curves, each with its own cost."""
    rng = np.random.default_rng(systems)
    compared = []
    for number, network in enumerate(itertools.islice(NETWORKS, systems)):
        final, total = rng.uniform(0.25, 0.65), (1e6, 10 ** rng.uniform(14, 17), rng.uniform(30, 900))
        runs = []
        for seed in range(seeds):
            progress = np.arange(1, evaluations + 1) / max(1, evaluations)
            top1 = (
                final + rng.normal(0, 0.01) + (0.95 - final) * np.exp(-4 * progress) + rng.normal(0, 0.01, evaluations)
            )
            logged = rows(progress.tolist(), top1.tolist(), (0.5 * top1).tolist(), total)
            wrong = int(1000 * (top1[-1] if evaluations else final))
            runs.append(
                run(seed, wrong, wrong // 2, flops=total[1], multiply_adds=int(1e8 * (number + 1)), logged=logged)
            )
        compared.append(system(network + recipe, *runs, network=network))
    return comparison(*compared)


def words(svg):
    """Return the texts of an SVG that keeps text as text."""
    return [element.text for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def check_svg(svg):
    """Check that an SVG is well-formed and small, and contains everything it refers to, once."""
    tree = ET.parse(svg)
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    refers = re.findall(r'(?:href="#|url\(#)([^")]+)', svg.read_text())
    assert set(refers) <= set(ids)
    assert svg.stat().st_size < LARGEST
