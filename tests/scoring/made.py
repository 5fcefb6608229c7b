"""Made-up stored predictions: scores with a known relation to the labels, drawn from one seed."""

import dataclasses

import numpy as np

from imagenet_repro.scoring.predictions import Predictions


def predicted(logits, label, *, ids=None, split="validation", **provenance):
    """Stored predictions with the guesses that the scores give, ties to the lower class."""
    logits = np.asarray(logits)
    ids = [f"{split}/{i:05d}" for i in range(len(label))] if ids is None else ids
    top5 = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :5].astype(np.int32)
    return Predictions(np.array(ids), np.asarray(label, np.int32), top5, logits.astype(np.float16), provenance)


def calibrated(images=2000, classes=10, *, seed=0, split="validation", sharpness=1.0, spread=2.0):
    """Scores whose softmax is the distribution that each label was drawn from; then times `sharpness`.

    A system that is too sharp by 2 is made right again by a temperature of 2.
    """
    rng = np.random.default_rng(seed)
    logits = (spread * rng.normal(size=(images, classes))).astype(np.float16).astype(np.float64)
    noise = rng.gumbel(size=logits.shape)  # the largest of score and noise is a draw from the softmax
    return predicted(sharpness * logits, np.argmax(logits + noise, axis=1), split=split)


def members(count=3, images=400, classes=8, *, seed=0, split="validation", noise=1.5):
    """Systems that see the truth through noise of their own, the later ones through more of it."""
    rng = np.random.default_rng([seed, len(split)])
    label = rng.integers(classes, size=images)
    made = []
    for number in range(count):
        logits = 2.0 * np.eye(classes)[label] + noise * (1 + 0.2 * number) * rng.normal(size=(images, classes))
        made.append(predicted(logits, label, split=split, config=config(number), step=100))
    return made


def config(number, split="validation", train="train[:99%]"):
    data = {"name": "made/up", "train_split": train, "eval_split": split}
    return {"seed": number, "model": {"name": "googlenet"}, "data": data}


def changed(one, **fields):
    if "logits" in fields:
        fields["logits"] = np.asarray(fields["logits"], np.float16)
    return dataclasses.replace(one, **fields)


def chosen(one, rows):
    return changed(one, **{key: getattr(one, key)[rows] for key in ("id", "label", "top5", "logits")})
