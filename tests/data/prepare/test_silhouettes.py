"""The data set of silhouettes: determinism, balance, and that shape tells the class, and colour and texture do not."""

import hashlib

import cv2
import numpy as np
import pytest

from imagenet_repro.data.prepare import jpeg, outlines, scenes
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.data.prepare.silhouettes import Silhouettes, SilhouettesConfig

CLASSES = len(outlines.CLASSES)
SCENE = scenes.Scene(size=32)


def labels_and_instances(count):
    """Return the labels and the instances of this many images of each class."""
    return list(range(CLASSES)) * count, [instance for instance in range(count) for _ in range(CLASSES)]


def test_pixels_are_the_same_on_every_machine():
    """The digest was computed on x86-64 with NumPy 2.4 and OpenCV 5.0."""
    digest = "ee37542e6d2584fd9e60bb1d17ab83b04fed64d5a6f29987945ae26555f47be9"
    images = [scenes.draw_scene(0, 0, label, label, scenes.Scene()) for label in range(CLASSES)]
    assert hashlib.sha256(np.stack(images).tobytes()).hexdigest() == digest


def test_an_image_depends_on_each_part_of_its_name():
    image = scenes.draw_scene(0, 0, 3, 5, SCENE)
    np.testing.assert_array_equal(image, scenes.draw_scene(0, 0, 3, 5, SCENE))
    for other in ((1, 0, 3, 5), (0, 1, 3, 5), (0, 0, 4, 5), (0, 0, 3, 6)):
        assert (image != scenes.draw_scene(*other, SCENE)).mean() > 0.5


@pytest.mark.parametrize("size", [16, 33, 128])
def test_sizes(size):
    image = scenes.draw_scene(0, 0, 0, 0, scenes.Scene(size=size))
    assert image.shape == (size, size, 3)
    assert image.std() > 10


def test_most_of_an_object_is_in_the_frame():
    """Every object covers 1 to 70 % of the image, and no more than 8 % of its sides leave the frame."""
    labels, instances = labels_and_instances(20)
    for label, instance in zip(labels, instances, strict=True):
        mask = scenes.object_mask(0, 0, label, instance, SCENE)
        assert 0.01 < mask.mean() < 0.7
        rows, columns = np.nonzero(mask.max(1))[0], np.nonzero(mask.max(0))[0]
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.6 * 0.84 * 32 - 1 <= longer <= 32


def nearest_mean_error(train, test, labels, test_labels):
    """Return the error of the nearest class mean, on features divided by their standard deviations."""
    scale = train.std(0) + 1e-6
    means = np.stack([(train / scale)[labels == label].mean(0) for label in range(CLASSES)])
    distances = (((test / scale)[:, None] - means) ** 2).sum(-1)
    return float((distances.argmin(1) != test_labels).mean())


def colours(images):
    """Return the histogram of each channel in eight bins."""
    return np.stack(
        [np.concatenate([np.bincount(c, minlength=8) for c in (i // 32).reshape(-1, 3).T]) for i in images]
    )


def local_binary_patterns(images):
    """Return the histogram of patterns: the neighbours, among four, that are brighter than a pixel."""
    grey = images.astype(int).sum(-1)
    shifts = [np.roll(grey, shift, axis) > grey for shift in (-1, 1) for axis in (1, 2)]
    codes = sum(bit.astype(int) << place for place, bit in enumerate(shifts))
    return np.stack([np.bincount(code.reshape(-1), minlength=16) for code in codes])


def centred(masks):
    """Return each mask's bounding box, stretched to 16 x 16."""
    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask.max(1))[0], np.nonzero(mask.max(0))[0]
        boxes.append(cv2.resize(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (16, 16)))
    return np.stack(boxes)


def test_shape_tells_the_class_and_colour_and_texture_do_not():
    train, test = labels_and_instances(25), labels_and_instances(12)
    images = [
        np.stack([scenes.draw_scene(0, split, c, i, SCENE) for c, i in zip(*names, strict=True)])
        for split, names in enumerate((train, test))
    ]
    masks = [
        centred([scenes.object_mask(0, split, c, i, SCENE) for c, i in zip(*names, strict=True)]).reshape(-1, 256)
        for split, names in enumerate((train, test))
    ]
    labels, test_labels = np.array(train[0]), np.array(test[0])
    chance = 1 - 1 / CLASSES
    for features in (colours, local_binary_patterns, lambda a: a.reshape(len(a), -1).astype(float)):
        assert nearest_mean_error(features(images[0]), features(images[1]), labels, test_labels) > 0.8 * chance
    mirrored = masks[0].reshape(-1, 16, 16)[:, :, ::-1].reshape(-1, 256)
    both, both_labels = np.concatenate([masks[0], mirrored]), np.concatenate([labels, labels])
    distances = ((masks[1][:, None] - both) ** 2).sum(-1)
    assert (both_labels[distances.argmin(1)] != test_labels).mean() < 0.4 * chance


def test_prepared_data_set_is_balanced_and_repeats_bit_for_bit(tmp_path):
    import tensorflow_datasets as tfds

    options = {"train_images": 3, "validation_images": 1, "size": 16}
    first = prepare_dataset("silhouettes", data_dir=str(tmp_path / "a"), **options)
    again = prepare_dataset(first.name, data_dir=str(tmp_path / "b"))
    assert first.name == "silhouettes/n3_v1_s16"
    assert first.splits == again.splits == {"train": 30, "validation": 10}
    records = []
    for prepared in (first, again):
        source = tfds.builder_from_directory(prepared.path).as_data_source(
            decoders={"image": tfds.decode.SkipDecoding()}
        )
        records.append({split: list(source[split]) for split in source})
    assert records[0] == records[1]
    train = records[0]["train"]
    assert [record["label"] for record in train] == 3 * list(range(10))
    assert train[14]["file_name"] == b"train/dog/00001.jpg"
    assert train[14]["image"] == jpeg.encode([scenes.draw_scene(0, 0, 4, 1, scenes.Scene(size=16))])[0]


def test_configurations_have_different_names():
    configs = [SilhouettesConfig(), SilhouettesConfig(seed=3), SilhouettesConfig(train_images=1, size=32)]
    assert len({config.name for config in configs}) == len(configs)
    for config in configs:
        assert vars(SilhouettesConfig.from_name(config.name)) == vars(config)


def test_builder_is_registered_under_the_default_name_of_data():
    import tensorflow_datasets as tfds

    from imagenet_repro.config import Data

    assert tfds.builder_cls(Data().name) is Silhouettes
