import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from imagenet_repro.data.decode import decode
from imagenet_repro.data.prepare import objectnet
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError

FILES = {
    "folder_to_objectnet_label.json": {"alarm_clock": "Alarm clock", "chair": "Chair", "coin_money": "Coin (money)"},
    "objectnet_to_imagenet_1k.json": {"Alarm clock": "analog clock; digital clock", "Chair": "folding chair"},
    "pytorch_to_imagenet_2012_id.json": {"409": 2, "530": 0, "559": 1, "134": 3},
}
LINES = "digital clock\nfolding chair\nanalog clock\ncrane\n"  # in the order of the challenge's ids


@pytest.fixture
def mappings(tmp_path):
    for name, value in FILES.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "imagenet_to_label_2012_v2").write_text(LINES)
    return tmp_path


def test_folders_are_mapped_to_classes_through_words(mappings):
    assert objectnet.imagenet_classes(mappings) == {
        "alarm_clock": frozenset({409, 530}),
        "chair": frozenset({559}),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("objectnet_to_imagenet_1k.json", '{"Chair": "rocking chair"}', "no class is called 'rocking chair'"),
        ("objectnet_to_imagenet_1k.json", '{"Sofa": "crane"}', "no folder is of 'Sofa'"),
        ("folder_to_objectnet_label.json", "{", "is damaged"),
        ("folder_to_objectnet_label.json", "[]", "not a JSON object"),
    ],
)
def test_mappings_that_contradict_each_other(mappings, name, text, message):
    (mappings / name).write_text(text)
    with pytest.raises(UserError, match=message):
        objectnet.imagenet_classes(mappings)


def test_a_directory_without_mappings(tmp_path):
    with pytest.raises(UserError, match="--mappings=DIR is the directory"):
        objectnet.imagenet_classes(tmp_path)


def framed(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = (255, 0, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


def test_only_the_red_border_is_removed():
    pixels, image = framed(9, 7)
    split = Split("objectnet", "images", "1.0.0", ("chair",), 2, [Record(image, 0, "images/chair/a.png")] * 2)
    seen = objectnet.borderless(split, tuple("ab"))
    record = pickle.loads(pickle.dumps(seen.records))[1]
    np.testing.assert_array_equal(decode(record.image), pixels[1:-1, 1:-1])
    assert (record.id, record.label) == ("images/chair/a.png", -1)
    assert (seen.num_classes, len(seen.records)) == (2, 2)


@pytest.mark.parametrize("image", [b"no image", framed(2, 2)[1]])
def test_images_without_an_interior_are_unchanged(image):
    assert objectnet.BorderlessRecords([Record(image, 0, "a")])[0].image == image
