import numpy as np
import pytest
from matplotlib.figure import Figure

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


def test_lines_lead_to_points_whose_names_are_far(tmp_path):
    figure = Figure()
    panel = figure.subplots()
    panel.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    points = np.array([[0.5, 0.5]] * 9 + [[0.1, 0.1]])
    names = [f"the name of system {n}" for n in range(10)]
    label_placement.write_names(panel, names, points, bold=np.arange(10) == 9, lines=np.empty((0, 2, 2)))
    ends = panel.transAxes.transform([segment[1] for segment in panel.collections[0].get_segments()])
    distances = 72 / figure.dpi * np.linalg.norm(ends - panel.transData.transform((0.5, 0.5)), axis=1)
    assert len(ends) >= 3
    np.testing.assert_allclose(distances, label_placement.MARKER, rtol=1e-6)  # all lead to the nine, none to the tenth
    assert [text.get_fontweight() for text in panel.texts] == ["normal"] * 9 + ["bold"]
    figure.savefig(tmp_path / "a.png")
