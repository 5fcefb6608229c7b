import numpy as np
import pytest

from imagenet_repro.report.plots import label_placement

FRAME = np.array([0.0, 0.0, 300.0, 250.0])


def boxes_of(centres, sizes):
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)


def overlaps(one, other):
    return bool(np.all(one[:2] < other[2:]) and np.all(other[:2] < one[2:]))


def crowd(seed, names=12):
    rng = np.random.default_rng(seed)
    points = rng.uniform((20, 20), (280, 230), (names, 2))
    points[1] = points[0] + 2  # two points at one position
    return points, np.stack([rng.uniform(40, 90, names), np.full(names, 11.0)], -1)


@pytest.mark.parametrize("seed", range(8))
def test_names_overlap_neither_each_other_nor_points_and_stay_in_the_panel(seed):
    points, sizes = crowd(seed)
    marks = boxes_of(points, np.full((len(points), 2), 6.0))
    centres, _ = label_placement.place(points, sizes, marks, FRAME)
    boxes = boxes_of(centres, sizes)
    assert not any(overlaps(boxes[i], boxes[j]) for i in range(len(boxes)) for j in range(i))
    assert not any(overlaps(box, mark) for box in boxes for mark in marks)
    assert np.all(boxes[:, :2] >= 0)
    assert np.all(boxes[:, 2:] <= FRAME[2:])


def test_a_name_alone_stands_right_of_its_point_at_the_nearest_distance():
    point, size = np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]])
    centres, distances = label_placement.place(point, size, np.empty((0, 4)), FRAME)
    np.testing.assert_allclose(centres, [[100 + label_placement.RINGS[0] + 20, 100]])
    assert distances[0] == label_placement.RINGS[0]


def test_a_name_at_the_right_edge_goes_to_the_left():
    centres, _ = label_placement.place(np.array([[295.0, 100.0]]), np.array([[40.0, 10.0]]), np.empty((0, 4)), FRAME)
    assert centres[0, 0] < 295 - 20


def test_names_that_fit_only_far_away_are_left_out():
    frame = label_placement.Frame((300, 250), (0, 1), (0, 1))
    names = [f"the name of system {n}" for n in range(10)]
    points = [(0.5, 0.5)] * 9 + [(0.1, 0.1)]
    offsets = label_placement.offsets(names, points, [((0.5, 0.4), (0.5, 0.6))] * 10, frame)
    assert 3 <= sum(offset["dx"] is None for offset in offsets) <= 8
    assert offsets[-1]["dx"] is not None


@pytest.mark.parametrize(("is_log", "middle"), [(False, 50.5), (True, 10)])
def test_places_are_pixels_from_the_upper_left_corner(is_log, middle):
    frame = label_placement.Frame((300, 250), (1, 100), (0, 50), is_log)
    assert frame.place(1, 50) == (0, 0)
    assert frame.place(100, 0) == (300, 250)
    assert frame.place(middle, 25) == pytest.approx((150, 125))
