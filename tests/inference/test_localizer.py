import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from imagenet_repro.config import resolve_config
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import localizer
from imagenet_repro.report import localization_report
from imagenet_repro.scoring.localization import error_rates
from imagenet_repro.scoring.localization.annotations import AnnotatedObjects
from imagenet_repro.training.functional import FunctionalNetwork

SIDE, CLASSES = 32, ("n01440764", "n01443537", "n01484850")


class Colours(nnx.Module):
    """A network whose last map is the image at half its size and whose logits are the means of the colours."""

    def __init__(self):
        self.weight = nnx.Param(jnp.eye(3))

    def map(self, images):
        b, h, w, c = images.shape
        return images.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))

    def __call__(self, images):
        return self.map(images).mean((1, 2)) @ self.weight[...]


class Maps:
    """The functions of inference/maps.py, written out for `Colours`."""

    @staticmethod
    def localization_map(model, images):
        return model.map(images)

    @staticmethod
    def activation(model, images, classes):
        weights = model.weight[...].T[classes]  # [b, k, c]
        return jnp.einsum("bhwc,bkc->bkhw", model.map(images), weights)


@pytest.fixture
def maps(monkeypatch):
    monkeypatch.setattr(localizer, "maps", Maps)


def photograph(rng, label, height, width):
    """Return a JPEG of a coloured rectangle on black with fainter specks of another colour, and the box."""
    tall, wide = (int(rng.integers(side // 4, side // 2)) for side in (height, width))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + tall, left : left + wide, label] = 240
    pixels[:, :, (label + 1) % 3] = 10
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), (left, top, left + wide - 1, top + tall - 1)


def split_and_objects(split, count, seed, size=(48, 64)):
    """Return a split of photographs and their boxes."""
    rng = np.random.default_rng(seed)
    records, objects = [], {}
    for number in range(count):
        label = number % 3
        content, box = photograph(rng, label, *size)
        records.append(Record(content, label, f"{split}/{CLASSES[label]}/{split}_{number}.PNG"))
        objects[f"{split}_{number}"] = AnnotatedObjects((CLASSES[label],), np.array([box], np.float64))
    return Split("colours", split, "1.0.0", CLASSES, count, records), objects


def viewer(objects, crop="squash", max_bad_share=0.0):
    config = resolve_config(
        {
            "batch_size": 16,
            "eval_crop": {"name": crop} | ({"ratio": 1.0} if crop == "center" else {}),
            "augment": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
            "data": {"image_size": SIDE, "threads": 1, "workers": 0, "max_bad_share": max_bad_share},
        }
    )
    network = FunctionalNetwork(Colours())
    return localizer.LocalizationNetwork(network, network.params, network.stats, config, objects)


def rectangle(*box, shape=(16, 16)):
    """Return a map that is 1 in a box of positions and 0 elsewhere."""
    result = np.zeros(shape, np.float32)
    result[box[1] : box[3], box[0] : box[2]] = 1
    return result


def test_the_box_of_a_map_goes_around_the_largest_region():
    activation = rectangle(2, 4, 10, 12) + 0.9 * rectangle(13, 13, 15, 15)
    actual = localizer.map_box(activation, 160) * 16
    # One position of the map becomes ten pixels; bilinear slopes fall to 20 % of the maximum 0.3 positions outside.
    np.testing.assert_allclose(actual, [2 - 0.3, 4 - 0.3, 10 + 0.3, 12 + 0.3], atol=0.1)


def test_the_threshold_is_a_share_of_the_highest_value():
    activation = rectangle(2, 2, 14, 14) * 0.15 + rectangle(4, 4, 6, 6)
    small, large = (localizer.map_box(7 * activation, 16, share) * 16 for share in (0.2, 0.1))
    np.testing.assert_array_equal(small, [4, 4, 6, 6])
    np.testing.assert_array_equal(large, [2, 2, 14, 14])


def test_regions_that_touch_at_a_corner_are_one():
    np.testing.assert_array_equal(
        localizer.map_box(rectangle(1, 1, 4, 4) + rectangle(4, 4, 9, 9), 16) * 16, [1, 1, 9, 9]
    )


@pytest.mark.parametrize("nothing", [np.zeros((4, 4), np.float32), -rectangle(1, 1, 2, 2, shape=(4, 4)) - 1])
def test_a_map_without_positive_values_gives_the_complete_crop(nothing):
    np.testing.assert_array_equal(localizer.map_box(nothing, 32), [0, 0, 1, 1])


def test_a_map_is_averaged_over_cells():
    features = np.random.default_rng(0).normal(size=(2, 7, 5, 1000)).astype(np.float32)
    actual = np.asarray(localizer.grid(jnp.asarray(features))).reshape(
        2, 2, 2, 1000
    )  # 2 x 2 x 1000 <= 8192 < 3 x 3 x 1000
    for i, rows in enumerate((slice(0, 4), slice(3, 7))):
        for j, across in enumerate((slice(0, 3), slice(2, 5))):
            np.testing.assert_allclose(actual[:, i, j], features[:, rows, across].mean((1, 2)), atol=1e-5)
    small = features[..., :3]
    np.testing.assert_allclose(localizer.grid(jnp.asarray(small[:, :5])), small[:, :5].reshape(2, -1), atol=1e-6)
    huge = jnp.asarray(np.tile(features, 9))
    np.testing.assert_allclose(localizer.grid(huge), huge.mean((1, 2)), atol=1e-5)


def test_ridge_is_that_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(localizer, "CHUNK", 64)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 40)) * rng.uniform(0.1, 9, 40) + rng.normal(size=40)).astype(np.float32)
    x[:, 7] = 2.5  # never changes
    y = x[:, :4] * 0.1 + rng.normal(size=(300, 4))
    ridge = localizer.RidgeRegression()
    for part in np.split(np.arange(300), 10):
        ridge.add(x[part], y[part])
    scaler = StandardScaler().fit(x)
    for penalty, layer in zip((1e-3, 1.0), ridge.fit((1e-3, 1.0)), strict=True):
        expected = Ridge(alpha=300 * penalty).fit(scaler.transform(x), y).predict(scaler.transform(x))
        np.testing.assert_allclose(layer(x.astype(np.float64)), expected, atol=1e-4)


@pytest.mark.parametrize("crop", ["squash", "center"])
def test_boxes_come_back_through_the_crop(maps, crop):
    split, objects = split_and_objects("val", 30, seed=0)
    actual = localizer.localize(viewer(objects, crop), split, None, cam=True, threshold=0.3)
    cam, central = actual.results
    assert cam.name == "activation maps"
    assert [frame.id for frame in actual.frames] == [record.id for record in split.records]
    assert cam.guessed.top5.shape == (30, 5)
    np.testing.assert_array_equal(cam.guessed.top5[:, 3:], -1)  # three classes
    np.testing.assert_array_equal(cam.guessed.top5[:, 0], cam.guessed.label)
    for frame, boxes in zip(actual.frames, cam.guessed.box, strict=True):
        shown = np.clip(frame.instances[0], np.tile(frame.window[:2], 2), np.tile(frame.window[2:], 2))
        if np.all(shown[2:] - shown[:2] >= 8):  # more than a few of its pixels are in the crop
            np.testing.assert_allclose(boxes[0] + np.array([0, 0, 1, 1]), shown, atol=3.1)
    assert cam.errors[0].wrong <= (0 if crop == "squash" else 6)
    assert central.errors[0].wrong > cam.errors[0].wrong
    assert {row.wrong_class for row in cam.errors} == {0}


def test_regression_learns_from_training_boxes(maps):
    (train, boxes), (split, more) = split_and_objects("train", 300, seed=1), split_and_objects("val", 60, seed=2)
    actual = localizer.localize(viewer(boxes | more), split, train, cam=True, threshold=0.2)
    assert [one.name for one in actual.results] == [
        "activation maps",
        "regression",
        "mean training box",
        "central box",
    ]
    wrong = {one.name: one.errors[-1].wrong for one in actual.results}
    assert wrong["regression"] < wrong["mean training box"] - 10
    note, places = actual.notes
    assert places.startswith("activation maps have 16 x 16 positions")
    assert note.startswith("regression: 768 features, fitted to 270 training images with penalty")
    mean = np.mean([edges_of(objects) / [64, 48, 64, 48] for objects in boxes.values()], axis=0)
    expected = np.rint(mean * [64, 48, 64, 48]) - [0, 0, 1, 1]
    np.testing.assert_array_equal(actual.results[2].guessed.box, np.broadcast_to(expected, (60, 5, 4)))
    central = actual.results[3].guessed.box[0, 0]
    assert (central[2] - central[0] + 1) * (central[3] - central[1] + 1) == pytest.approx(64 * 48 / 2, rel=0.03)


def edges_of(objects):
    return objects.boxes[0] + [0, 0, 1, 1]


def test_unusable_images_and_objects_are_left_out(maps, capsys):
    split, objects = split_and_objects("val", 12, seed=0)
    objects.pop("val_3")
    objects["val_4"] = AnnotatedObjects(
        (CLASSES[0],), objects["val_4"].boxes
    )  # an object of another class than the image
    objects["val_5"] = AnnotatedObjects(
        ("", CLASSES[0]), np.tile(objects["val_5"].boxes, (2, 1))
    )  # one unnamed, one of another
    broken = [Record(b"no image", 0, split.records[6].id) if i == 6 else one for i, one in enumerate(split.records)]
    broken_split = dataclasses.replace(split, records=broken)
    actual = localizer.localize(viewer(objects, max_bad_share=0.1), broken_split, None, cam=True, threshold=0.2)
    assert "cannot decode val/n01440764/val_6.PNG: record of 8 bytes" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"1 of the 12 records .* cannot be decoded"):
        localizer.localize(viewer(objects), broken_split, None, cam=True, threshold=0.2)
    assert [frame.index for frame in actual.frames] == [0, 1, 2, 5, 7, 8, 9, 10, 11]
    assert len(actual.frames[3].instances) == 1
    assert actual.notes[1:] == (
        "1 records cannot be decoded and are left out",
        "2 images have no box of their class and are left out",
    )
    with pytest.raises(UserError, match="no image of colours val has a box of its class"):
        localizer.localize(viewer({}), split, None, cam=True, threshold=0.2)


def test_regression_without_training_boxes_is_refused(maps):
    (train, few), (split, objects) = split_and_objects("train", 12, seed=1), split_and_objects("val", 12, seed=0)
    with pytest.raises(UserError, match="needs boxes of train, and the file has only those of the scored images"):
        localizer.localize(viewer(objects | few), split, train, cam=False, threshold=0.2)
    actual = localizer.localize(viewer(objects | few), split, train, cam=True, threshold=0.2)
    assert "the file has no boxes of train to learn from, so there is no regression" in actual.notes
    assert [one.name for one in actual.results] == ["activation maps", "central box"]
    elsewhere = {f"elsewhere_{n}": one for n, one in enumerate(objects.values())}
    with pytest.raises(UserError, match="boxes of training images, and only 12 have one; use --method=cam"):
        localizer.localize(viewer(objects | few | elsewhere), split, train, cam=True, threshold=0.2)


def test_a_random_crop_is_refused():
    with pytest.raises(UserError, match="eval_crop 'inception' shows a random part"):
        localizer.LocalizationNetwork(
            FunctionalNetwork(Colours()), {}, {}, resolve_config({"eval_crop": {"name": "inception"}}), {}
        )


def test_stored_boxes_have_the_printed_error_rates(maps, tmp_path):
    split, objects = split_and_objects("val", 30, seed=3)
    cam = localizer.localize(viewer(objects), split, None, cam=True, threshold=0.2).results[0]
    error_rates.save(tmp_path / "boxes.npz", cam.guessed)
    rows = [f"{name}.PNG,{','.join(map(str, one.boxes[0].astype(int)))}\n" for name, one in objects.items()]
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\n" + "".join(rows))
    assert error_rates.score(tmp_path / "boxes.npz", tmp_path / "boxes.csv").errors == cam.errors


def test_the_table_and_the_figure_are_written(maps, tmp_path, capsys):
    split, objects = split_and_objects("val", 15, seed=4)
    train, more = split_and_objects("train", 60, seed=5)
    actual = localizer.localize(viewer(objects | more), split, train, cam=True, threshold=0.2)
    localization_report.show(actual)
    localization_report.save(actual, split, tmp_path / "new/colours_0.5")
    written = {path.name for path in (tmp_path / "new/colours_0.5").iterdir()}
    assert written == {"table.csv", "table.md", "images.png", "images.svg"}
    lines = (tmp_path / "new/colours_0.5/table.csv").read_text().splitlines()
    assert len(lines) == 5
    assert "activation maps" in capsys.readouterr().out
    text = (tmp_path / "new/colours_0.5/images.svg").read_text()
    for word in ("true box", "activation maps", "regression", "guess 1 of 5 is right"):
        assert word in text
    assert text.count("guess 1 of 5 is right") == 12


def test_the_network_runs_in_evaluation_mode_on_normalised_images(maps):
    split, objects = split_and_objects("val", 3, seed=6)
    ((frames, outputs),) = viewer(objects).frames(split, localizer.Outputs(guesses=True, grid=True))
    assert len(frames) == 3
    pixels = outputs["grid"].reshape(3, 16, 16, 3)
    assert 0.9 < pixels.max() <= 1.0
    np.testing.assert_array_equal(outputs["top5"], np.asarray(jax.lax.top_k(pixels.mean((1, 2)), 3)[1]))
