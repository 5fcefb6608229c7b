"""Tiny data sets with the features and label names of tfds' builders, and synthetic predictions on them."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.scoring.sets import imagenet_wnids

CLASSES = 1_000


def picture(number):
    """Return a PNG of one colour that encodes a number up to 65,535."""
    colour = (number % 256, number // 256, 0)
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(directory, name, split, rows, *, config=None, labels=("label",), several=(), flags=(), classes=None):
    """Write a data set of tfds in ArrayRecord; each row is (file name, number, {feature: value}).

    `classes` are the names of the classes, ImageNet's if it is None.
    """

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version="1.0.0")] if config else []

        def _info(self):
            names = list(classes or imagenet_wnids())
            features = {"image": tfds.features.Image(), "file_name": tfds.features.Text()}
            features |= {key: tfds.features.ClassLabel(names=names) for key in labels}
            features |= {key: tfds.features.Sequence(tfds.features.ClassLabel(names=names)) for key in several}
            features |= {key: tfds.features.Tensor(shape=(), dtype=np.bool_) for key in flags}
            keys = ("image", (*several, *labels)[0])
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples()}

        def _generate_examples(self):
            for file, number, values in rows:
                yield file, {"image": picture(number), "file_name": file, **values}

    Builder.name = name
    tfds.display_progress_bar(False)
    Builder(data_dir=directory, config=config, file_format="array_record").download_and_prepare()


def predictions(ids, labels, top5, *, classes=CLASSES, data="", names=True):
    """Return stored predictions whose scores follow the guesses: 5 for the first, 4 for the second, and so on."""
    top5 = np.asarray(top5, np.int32)
    logits = np.zeros((len(top5), classes), np.float16)
    np.put_along_axis(logits, np.maximum(top5, 0), np.arange(5, 5 - top5.shape[1], -1, np.float16)[None], axis=1)
    provenance = {"config": {"data": {"name": data}}} | ({"classes": list(imagenet_wnids())} if names else {})
    return Predictions(np.array(ids), np.asarray(labels, np.int32), top5, logits, provenance)


def guesses(best, rng):
    """Return five different guesses for each image, with `best` as the first."""
    others = rng.integers(1, CLASSES, (len(best), 4))
    others = np.sort(others, axis=1) + np.arange(4)  # all different
    return np.concatenate([best[:, None], (best[:, None] + others) % CLASSES], axis=1).astype(np.int32)
