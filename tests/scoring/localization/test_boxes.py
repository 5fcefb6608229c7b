import numpy as np
import pytest
from pycocotools import mask as coco_mask

from imagenet_repro.scoring.localization import boxes
from tests.scoring.localization.annotation_files import random_boxes


def painted(box, side=60):
    """Return the pixels of a box, one by one."""
    canvas = np.zeros((side, side), bool)
    canvas[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
    return canvas


def test_overlap_of_pixel_boxes_counts_pixels():
    rng = np.random.default_rng(0)
    one, other = random_boxes(rng, 12, side=60, largest=40), random_boxes(rng, 9, side=60, largest=40)
    result = boxes.pixel_iou(one, other)
    for i, first in enumerate(one):
        for j, second in enumerate(other):
            a, b = painted(first), painted(second)
            assert result[i, j] == pytest.approx(np.sum(a & b) / np.sum(a | b), abs=1e-12)


def test_overlap_of_edges_is_that_of_pycocotools():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (2, 20, 2))
    one, other = np.concatenate([low, low + rng.uniform(0.1, 40, (2, 20, 2))], axis=2)
    expected = coco_mask.iou(boxes.to_coco(one), boxes.to_coco(other), [0] * len(other))
    np.testing.assert_allclose(boxes.iou(one, other), expected, atol=1e-12)


def test_a_pixel_at_the_end_belongs_to_the_box():
    ten, twenty = np.array([[0, 0, 9, 9]]), np.array([[0, 0, 19, 9]])
    assert boxes.pixel_iou(ten, twenty)[0, 0] == 0.5
    assert boxes.iou(ten, twenty)[0, 0] == 81 / 171  # the value with edges in place of pixels
    assert boxes.pixel_iou(np.array([[5, 5, 5, 5]]), np.array([[5, 5, 5, 5]]))[0, 0] == 1
    assert boxes.pixel_iou(ten, np.array([[10, 0, 19, 9]]))[0, 0] == 0  # adjacent boxes
    nothing = np.array([[0, 0, -1, -1]])
    assert boxes.pixel_iou(nothing, nothing)[0, 0] == 0
    assert boxes.pixel_iou(nothing, ten)[0, 0] == 0


def test_pixels_to_edges_and_back():
    result = random_boxes(np.random.default_rng(2), 50, side=100, largest=100)
    np.testing.assert_array_equal(boxes.pixels_within(boxes.edges(result).astype(float), 100, 100), result)
    np.testing.assert_array_equal(boxes.area(boxes.edges(np.array([[3, 4, 3, 5]]))), [2])


@pytest.mark.parametrize(
    ("edges", "pixels"),
    [
        ((0.4, 0.6, 9.6, 9.4), (0, 1, 9, 8)),
        ((-5.0, -5.0, 99.0, 99.0), (0, 0, 19, 9)),  # cut at the image
        ((3.2, 3.2, 3.4, 3.4), (3, 3, 3, 3)),  # thinner than a pixel
        ((50.0, 2.0, 60.0, 5.0), (19, 2, 19, 4)),  # outside
        ((-9.0, -9.0, -2.0, -2.0), (0, 0, 0, 0)),
        ((7.0, 6.0, 5.0, 4.0), (7, 6, 7, 6)),  # swapped corners, which a regression can give
    ],
)
def test_any_edges_become_pixels_of_the_image(edges, pixels):
    result = boxes.pixels_within(np.array([edges]), 10, 20)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, [pixels])
