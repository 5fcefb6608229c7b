import cv2
import numpy as np
import pytest

from imagenet_repro.data import thumbnails
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError


def encoded(height, width, kind=".png"):
    """Return an image with a ramp from left to right in red and from top to bottom in blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = np.linspace(0, 255, width)[None]  # BGR
    pixels[..., 0] = np.linspace(0, 255, height)[:, None]
    return cv2.imencode(kind, pixels)[1].tobytes()


class Records(list):
    """Records that count how many are read; None stands for one that cannot be read."""

    read = 0

    def __getitem__(self, index):
        self.read += 1
        if super().__getitem__(index) is None:
            raise UserError("record cannot be read")
        return super().__getitem__(index)


def split(records):
    return Split("made_up", "validation", "1.0.0", ("a",), len(records), Records(records))


def decoded(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 500), (128, 213)),
        ((512, 256), (256, 128)),
        ((64, 64), (64, 64)),
        ((1, 1), (1, 1)),
        ((2, 900), (2, 900)),
        ((100_000, 2), (16_384, 1)),
    ],
)
def test_the_shorter_side_shrinks_to_128_and_never_grows(size, expected):
    (content,) = thumbnails.thumbnails_by_id(split([Record(encoded(*size), 0, "a")]), ["a"]).values()
    assert content[:2] == b"\xff\xd8"  # JPEG
    assert decoded(content).shape == (*expected, 3)


def test_colours_and_positions_are_unchanged():
    (content,) = thumbnails.thumbnails_by_id(split([Record(encoded(400, 400), 0, "a")]), ["a"]).values()
    corners = decoded(content)[[5, 5, -5, -5], [5, -5, 5, -5]]
    np.testing.assert_allclose(corners, [[10, 0, 10], [245, 0, 10], [10, 0, 245], [245, 0, 245]], atol=12)


def test_reading_ends_with_the_last_requested_image():
    photos = split([Record(encoded(9, 9), 0, f"id{i}") for i in range(10)])
    result = thumbnails.thumbnails_by_id(photos, ["id6", "id2", "id2"])
    assert set(result) == {"id2", "id6"}
    assert photos.records.read == 7
    assert thumbnails.thumbnails_by_id(photos, []) == {}
    assert photos.records.read == 7


def test_absent_unreadable_and_undecodable_images_are_left_out():
    photos = split([None, Record(b"no image", 0, "broken"), Record(encoded(9, 9), 0, "whole"), None])
    assert set(thumbnails.thumbnails_by_id(photos, ["whole", "broken", "absent"])) == {"whole"}


def test_a_sample_of_a_split_is_found_by_position(monkeypatch):
    monkeypatch.setattr(thumbnails, "SAMPLED", 4)
    photos = split([None if i == 2 else Record(encoded(9, 9), 0, f"id{i}") for i in range(9)])
    positions = thumbnails.sample_positions(photos)
    assert positions == {"id0": 0, "id4": 4, "id6": 6}  # 2 is chosen too, but cannot be read
    assert photos.records.read == 4
    assert set(thumbnails.thumbnails_at(photos, positions, ["id6", "id1", "id6", "id0"])) == {"id0", "id6"}
    assert photos.records.read == 6
    assert thumbnails.sample_positions(split([Record(b"", 0, "a"), Record(b"", 0, "b")])) == {"a": 0, "b": 1}


def test_images_that_cannot_be_read_or_decoded_have_no_thumbnail_by_position():
    photos = split([None, Record(b"no image", 0, "broken"), Record(encoded(9, 9), 0, "whole")])
    positions = {"gone": 0, "broken": 1, "whole": 2}
    assert set(thumbnails.thumbnails_at(photos, positions, list(positions))) == {"whole"}
