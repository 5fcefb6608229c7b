"""Synthetic stored predictions: random scores with a known relation to the labels."""

import dataclasses

import numpy as np

from imagenet_repro.scoring.predictions import Predictions


def from_logits(logits, label, *, ids=None, split="validation", **provenance):
    """Return stored predictions whose guesses follow from the scores; ties go to the lower class."""
    logits = np.asarray(logits)
    ids = [f"{split}/{i:05d}" for i in range(len(label))] if ids is None else ids
    top5 = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :5].astype(np.int32)
    return Predictions(np.array(ids), np.asarray(label, np.int32), top5, logits.astype(np.float16), provenance)


def calibrated(images=2000, classes=10, *, seed=0, split="validation", sharpness=1.0, spread=2.0):
    """Return scores whose softmax is the distribution from which each label was drawn, times `sharpness`.

    With a sharpness of 2, a temperature of 2 restores calibration.
    """
    rng = np.random.default_rng(seed)
    logits = (spread * rng.normal(size=(images, classes))).astype(np.float16).astype(np.float64)
    noise = rng.gumbel(size=logits.shape)  # the argmax of score plus noise is a draw from the softmax
    return from_logits(sharpness * logits, np.argmax(logits + noise, axis=1), split=split)


def members(count=3, images=400, classes=8, *, seed=0, split="validation", noise=1.5):
    """Return predictions of systems whose scores are the true labels plus independent noise, which grows by system."""
    rng = np.random.default_rng([seed, len(split)])
    label = rng.integers(classes, size=images)
    systems = []
    for number in range(count):
        logits = 2.0 * np.eye(classes)[label] + noise * (1 + 0.2 * number) * rng.normal(size=(images, classes))
        systems.append(from_logits(logits, label, split=split, config=config(number), step=100))
    return systems


def config(number, split="validation", train="train[:99%]"):
    data = {"name": "made/up", "train_split": train, "eval_split": split}
    return {"seed": number, "model": {"name": "googlenet"}, "data": data}


def replace(predictions, **fields):
    """Return a copy with some fields replaced; scores are stored as float16."""
    if "logits" in fields:
        fields["logits"] = np.asarray(fields["logits"], np.float16)
    return dataclasses.replace(predictions, **fields)


def select(predictions, rows):
    """Return the predictions for some rows."""
    return replace(predictions, **{key: getattr(predictions, key)[rows] for key in ("id", "label", "top5", "logits")})
