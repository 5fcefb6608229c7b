"""The fractal data set: the chaos game against its definition, determinism, and the difficulty of the classes."""

import hashlib
from concurrent.futures.process import BrokenProcessPool
from unittest import mock

import cv2
import numpy as np
import pytest

from imagenet_repro.data.prepare import drawn, ifs, jpeg
from imagenet_repro.data.prepare.fractal import Fractal, FractalConfig
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.errors import LostProcessError


def draw(categories, instances, look=None, *, seed=0, split=0):
    return ifs.render(seed, split, np.asarray(categories), np.asarray(instances), look or ifs.Look())


def test_a_system_follows_the_definition_of_fractaldb():
    rates = []
    for category in range(30):
        maps, table, rate = ifs.system(0, category)
        used = int(table.max()) + 1
        assert 2 <= used <= 8
        assert not maps[used:].any()
        largest = [np.linalg.norm(m[:4].reshape(2, 2), 2) for m in maps[:used]]
        assert max(largest) <= 0.95 + 1e-5
        area = np.array([abs(np.linalg.det(m[:4].reshape(2, 2))) for m in maps[:used]])
        share = np.bincount(table, minlength=used) / 256
        np.testing.assert_allclose(share, area / area.sum(), atol=9 / 256)
        rates.append(rate)
    assert min(rates) >= 0.15
    assert max(rates) <= 0.6


def test_chaos_game_follows_the_maps():
    """The result equals the definition in float64, one walker at a time."""
    rng = np.random.default_rng(0)
    systems = [ifs.system(0, category) for category in (0, 1, 2)]
    maps, tables = np.stack([s.maps for s in systems]), np.stack([s.table for s in systems])
    choices = rng.integers(0, 256, (20, 3, 4), dtype=np.uint8)
    x, y, _ = ifs._chaos_game(maps, tables, choices, np.zeros((3, 8), np.float32))
    for b in range(3):
        for walker in range(4):
            point, path = np.zeros(2), []
            for step in range(20):
                a, b_, c, d, e, f = maps[b][tables[b][choices[step, b, walker]]].astype(float)
                point = np.array([a * point[0] + b_ * point[1] + e, c * point[0] + d * point[1] + f])
                path.append(point)
            np.testing.assert_allclose(x[:, b, walker], [p[0] for p in path[12:]], atol=1e-5)
            np.testing.assert_allclose(y[:, b, walker], [p[1] for p in path[12:]], atol=1e-5)


def test_histogram_counts_every_point_in_view():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-3, 5, (2, 50, 2, 64)).astype(np.float32)
    tint = np.full_like(x, 0.25)
    views = np.tile(np.array([[1, 0, 0, 1, 0, 0]], np.float32), (2, 1))
    counts, tints = ifs._histograms(x, y, tint, views, 32)
    np.testing.assert_array_equal(counts.sum((1, 2)), 50 * 64)
    np.testing.assert_allclose(tints[counts > 0], 0.25, rtol=1e-6)
    _, columns = np.nonzero(counts.sum(0))
    assert (columns.min(), columns.max()) == (1, 30)  # nine tenths of 32 pixels
    shifted = views + np.array([0, 0, 0, 0, 0.25, 0], np.float32)
    moved, _ = ifs._histograms(x, y, tint, shifted, 32)
    np.testing.assert_array_equal(moved[:, :, 9:], counts[:, :, 1:-8])


def test_images_do_not_depend_on_the_batch_nor_on_other_categories():
    together = draw([3, 0, 7], [5, 5, 2])
    np.testing.assert_array_equal(together[2], draw([7], [2])[0])
    assert (together[0] != draw([3], [6])[0]).any()
    assert (together[0] != draw([3], [5], split=1)[0]).any()
    assert (together[0] != draw([3], [5], seed=1)[0]).any()


def test_pixels_are_the_same_on_every_machine():
    """The digest was computed on x86-64 with NumPy 2.4; the arithmetic is the same on every machine."""
    digest = "52bda6f28ae5efb2ff336230a29e8e840c8806f15be448e3f8d26fc310da8f4a"
    images = draw(np.arange(8), np.arange(8))
    assert hashlib.sha256(images.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("size", [8, 33, 128])
def test_sizes(size):
    images = draw([0, 1], [0, 1], ifs.Look(size=size))
    assert images.shape == (2, size, size, 3)
    assert images.std() > 10


@pytest.mark.parametrize(("turn", "expected"), [(0.25, 45), (0.5, 90)])
def test_views_turn_up_to_the_limit(turn, expected):
    u = np.random.default_rng(0).random((2000, 6), dtype=np.float32)
    views = ifs._views(u, ifs.Look(turn=turn, zoom=0, shift=0))
    linear = views[:, :4].reshape(-1, 2, 2)
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), np.tile(np.eye(2), (2000, 1, 1)), atol=1e-5)
    angles = np.degrees(np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]))
    assert expected - 1 < np.abs(angles).max() <= expected + 1e-3
    assert 0.4 < (np.linalg.det(linear) < 0).mean() < 0.6


def error(scores, labels):
    return (scores.argmin(1) != labels).mean()


def test_shape_predicts_the_class_and_colour_and_single_pixels_do_not():
    classes, per_class, size = 8, 60, 32

    def split(number, count):
        index = np.arange(classes * count)
        images = draw(index % classes, index // classes, ifs.Look(size=size), split=number)
        return images.astype(np.float32) / 255, index % classes

    (x, y), (xv, yv) = split(0, per_class), split(1, 20)

    def nearest_mean(features):
        train, test = features(x), features(xv)
        means = np.stack([train[y == c].mean(0) for c in range(classes)])
        return error(((test[:, None] - means) ** 2).sum(-1), yv)

    chance = 1 - 1 / classes
    assert nearest_mean(lambda a: a.mean((1, 2))) > 0.75 * chance
    assert nearest_mean(lambda a: a.reshape(len(a), -1)) > 0.75 * chance

    def silhouette_neighbour():
        """Return the pixels that differ from the border, under the best mirroring and rotation: the shape."""
        masks, others = (np.stack([_mask(image) for image in images]) for images in (x, xv))
        turned = [_turn(others, angle, mirror) for angle in range(-45, 46, 15) for mirror in (False, True)]
        distance = np.min([_distances(variant, masks) for variant in turned], axis=0)
        return (y[distance.argmin(1)] != yv).mean()

    assert silhouette_neighbour() < 0.5 * chance


def _mask(image):
    """Return the foreground by Otsu's threshold on the distance from the border's colour, blurred."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    distance = np.linalg.norm(image - np.median(border, 0), axis=-1)
    level = (255 * distance / distance.max()).astype(np.uint8)
    _, mask = cv2.threshold(level, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)
    return blurred / np.linalg.norm(blurred)


def _turn(masks, angle, mirror):
    matrix = cv2.getRotationMatrix2D((15.5, 15.5), angle, 1)
    return np.stack([cv2.warpAffine(m[:, ::-1] if mirror else m, matrix, (32, 32)) for m in masks])


def _distances(a, b):
    return 2 - 2 * a.reshape(len(a), -1) @ b.reshape(len(b), -1).T


def test_configurations_have_different_names():
    configs = [
        FractalConfig(),
        FractalConfig(seed=3),
        FractalConfig(perturbation=0.35),
        FractalConfig(turn=1.0),
        FractalConfig(categories=7, train_images=1, validation_images=0, size=8, seed=1, perturbation=0.5, turn=0.5),
    ]
    assert len({config.name for config in configs}) == len(configs)
    for config in configs:
        assert vars(FractalConfig.from_name(config.name)) == vars(config)


def test_prepared_data_set_is_balanced_and_repeats_bit_for_bit(tmp_path):
    import tensorflow_datasets as tfds

    options = {"categories": 3, "train_images": 8, "validation_images": 2, "size": 16}
    first = prepare_dataset("fractal", data_dir=str(tmp_path / "a"), **options)
    again = prepare_dataset(first.name, data_dir=str(tmp_path / "b"))
    assert first.splits == again.splits == {"train": 24, "validation": 6}
    records = []
    for prepared in (first, again):
        source = tfds.builder_from_directory(prepared.path).as_data_source(
            decoders={"image": tfds.decode.SkipDecoding()}
        )
        records.append({split: list(source[split]) for split in source})
    assert records[0] == records[1]
    train = records[0]["train"]
    assert [record["label"] for record in train[:6]] == [0, 1, 2, 0, 1, 2]
    assert train[4]["file_name"] == b"train/ifs_001/00001.jpg"
    encoded = jpeg.encode(draw([1], [1], ifs.Look(size=16)))[0]
    assert train[4]["image"] == encoded
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (16, 16, 3)


def test_many_images_are_drawn_by_processes_in_order():
    """Several processes draw the same images in the same order as one."""
    config = FractalConfig(categories=2, train_images=800, size=8)
    several = list(drawn.draw_images(config, "train", 0, 1600))
    assert len(several) == 1600
    for index in (0, 33, 1599):
        assert several[index] == jpeg.encode(draw([index % 2], [index // 2], config.look))[0]


def test_a_killed_process_that_draws_ends_in_a_sentence(monkeypatch):
    monkeypatch.setattr(drawn.ordered_map, "map_in_order", mock.Mock(side_effect=BrokenProcessPool))
    config = FractalConfig(categories=2, train_images=800, size=8)
    with pytest.raises(LostProcessError, match="a process that draws images was ended from outside"):
        list(drawn.draw_images(config, "train", 0, 1600))


def test_builder_is_registered():
    import tensorflow_datasets as tfds

    assert tfds.builder_cls("fractal") is Fractal
