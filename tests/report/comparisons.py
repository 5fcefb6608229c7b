"""Invented comparisons: systems that differ in skill and images that differ in difficulty, from one seed."""

import dataclasses
from pathlib import Path

import numpy as np

from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses

# Names in the registry, ordered by year and from weak to strong.
NETWORKS = (
    "nec_uiuc_2010",
    "xrce_2011",
    "alexnet_2012",
    "zfnet",
    "googlenet",
    "vgg16_bn",
    "resnet50_v1",
    "resnext50_32x4d",
    "seresnext50_32x4d",
    "efficientnet_b0",
    "vit_small_patch16",
    "convnext_tiny",
)
TRAIN_ROWS, EVALUATIONS = 40, 4


def comparison(systems=3, seeds=1, images=400, classes=10, **fields):
    """Return the first `systems` of `NETWORKS`, each with the seeds 0 to `seeds` - 1; `fields` replace others."""
    rng = np.random.default_rng(0)
    labels = np.sort(np.arange(images) % classes).astype(np.int32)
    ids = np.array([f"validation/class{label:03d}/{i:05d}.jpg" for i, label in enumerate(labels)])
    difficulty = rng.normal(size=images)
    compared = [
        ComparedSystem(
            name, name, "", tuple(run(name, seed, k, (ids, labels, difficulty), classes) for seed in range(seeds))
        )
        for k, name in enumerate(NETWORKS[:systems])
    ]
    names = tuple(f"name {c}, synonym {c}" for c in range(classes))
    complete = Comparison(tuple(compared), names, "5ep", "made/up", "train", "validation")
    return dataclasses.replace(complete, **fields)


def run(name, seed, skill, split, classes):
    """Return a finished run; a higher `skill` (from 0 on) gives fewer wrong images."""
    ids, labels, difficulty = split
    rng = np.random.default_rng([seed, skill, 1])
    margin = 0.25 * skill - 0.6 - difficulty + rng.normal(scale=0.7, size=len(labels))
    ranks = np.select([margin > 0, margin > -0.5, margin > -1.0], [0, 1, 3], 7)
    guesses = TopGuesses(ids, labels, guessed(labels, ranks, classes, rng))
    wrong = [int(guesses.wrong(k).sum()) for k in (1, 5)]
    end = result(name, seed, skill, wrong, len(labels))
    return FinishedRun(Path(f"runs/{name}/{seed}"), seed, end, logged(end), guesses)


def guessed(labels, ranks, classes, rng):
    """Return five guesses for each image, with the label at rank `ranks[i]`, from 0; from 5 on it is missing."""
    order = np.argsort(rng.random((len(labels), classes)), axis=1)
    others = order[order != labels[:, None]].reshape(len(labels), classes - 1)
    rows = [np.insert(row, min(p, len(row)), label) for row, p, label in zip(others, ranks, labels, strict=True)]
    return np.stack(rows)[:, :5].astype(np.int32)


def result(name, seed, skill, wrong, images):
    """Return the content of `result.json`."""
    return {
        "system": name,
        "parameters": 10_000_000 + 1_000_000 * skill,
        "multiply_adds": 300_000_000 * (1 + skill),
        "budget": "5ep",
        "spent": {
            "steps": 1_000,
            "images": 32_000,
            "epochs": 5.0,
            "flops": 2.5e15 * (1 + skill),
            "seconds": 100.0 + 10 * skill + seed,
        },
        "compilation_seconds": 12.5 + seed,
        "peak_memory": {"bytes": 2_000_000_000 + 100_000_000 * skill, "of": "process"},
        "rates": {
            "images": images,
            "top1_wrong": wrong[0],
            "top5_wrong": wrong[1],
            "cross_entropy": 1.5,
            "top1_error": wrong[0] / images,
            "top5_error": wrong[1] / images,
        },
        "predictions": "predictions/made_up_validation.npz",
        "provenance": {
            "imagenet_repro": "0.1.0",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "python": "3.11.7",
            "packages": {"jax": "0.10.2", "numpy": "2.4.6"},
            "devices": {"platform": "cpu", "cpu": 1},
            "processes": 1,
            "cores": 2,
            "config": {
                "seed": seed,
                "budget": "5ep",
                "model": {"name": name},
                "data": {"name": "made/up", "train_split": "train", "eval_split": "validation"},
            },
            "step": 1_000,
        },
    }


def logged(end):
    """Return rows of `metrics.jsonl`: training, evaluations that end at the run's own errors, and saving."""
    rows = []
    for k in range(1, TRAIN_ROWS + 1):
        share = k / TRAIN_ROWS
        at = {key: type(value)(share * value) for key, value in end["spent"].items()}
        at |= {"step": at.pop("steps"), "progress": share}
        rows.append({"kind": "train", "loss": 2.3 * (1 - 0.5 * share), "waiting_seconds": 0.125, **at})
        if k % (TRAIN_ROWS // EVALUATIONS) == 0:
            errors = {key: 1 - share * (1 - end["rates"][key]) for key in ("top1_error", "top5_error")}
            rows.append({"kind": "eval", "evaluation_seconds": 2.5, "cross_entropy": 1.5, **errors, **at})
            rows.append({"kind": "save", "saving_seconds": 0.25, **at})
    return rows
