"""Workdirs of finished runs with invented results, which take no training."""

import json

import numpy as np

from imagenet_repro.scoring import predictions
from tests.report import comparisons

CLASSES = 10


def write(directory, run, *, guesses=None, **changes):
    """Write the workdir of an invented run and return its path; `changes` replace keys of its result."""
    guesses = guesses or run.guesses
    result = json.loads(json.dumps(run.result)) | {"classes": [f"class {c}" for c in range(CLASSES)]}
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = result
        for name in sections:
            section = section[name]
        section[key] = value
    directory.mkdir(parents=True)
    scores = np.zeros((len(guesses.id), CLASSES), np.float16)
    predictions.save(
        directory / run.result["predictions"], predictions.Predictions(guesses.id, guesses.label, guesses.top5, scores)
    )
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in run.rows))
    return str(directory)


def systems(directory, *, count=2, seeds=1, **options):
    """Write the workdirs of `count` systems with `seeds` seeds each; return their paths, system by system."""
    comparison = comparisons.comparison(count, seeds, classes=CLASSES, **options)
    return [
        write(directory / f"{system.name}-{run.seed}", run) for system in comparison.systems for run in system.runs
    ]


def one(skill=0, seed=0, name="alexnet_2012", images=60):
    """Return a run in memory that was scored on `images` images."""
    labels = np.sort(np.arange(images) % CLASSES).astype(np.int32)
    ids = np.array([f"validation/{i:05d}" for i in range(images)])
    difficulty = np.random.default_rng(1).normal(size=images)
    return comparisons.run(name, seed, skill, (ids, labels, difficulty), CLASSES)


def unfinished(directory, run, rows=20, **settings):
    """Write the workdir of a run that has logged its first rows and has no result; return its path."""
    config = run.result["provenance"]["config"] | settings
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"config": config, "provenance": {}}))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in run.rows[:rows]))
    return str(directory)
