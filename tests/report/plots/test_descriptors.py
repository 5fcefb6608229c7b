import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features.descriptors import hog, lbp
from imagenet_repro.report.plots import descriptors


def image_of(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def step_edge(degrees, size=64):
    """Return an edge from dark to bright through the middle, with its gradient `degrees` clockwise from the right."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    across = np.cos(np.deg2rad(degrees)) * columns + np.sin(np.deg2rad(degrees)) * rows
    return image_of(np.clip(128 + 40 * across, 20, 230))


def text_in(svg):
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


@pytest.mark.parametrize("value", [0, 37, 90, 128, 255])
def test_a_constant_image_has_no_strokes_and_is_flat(value):
    image = image_of(np.full((64, 64), value))
    cells = descriptors._hog(image, 8)
    assert not cells.any()
    ends, brightness = descriptors.strokes(cells, 8)
    assert ends.shape == (0, 2, 2)
    assert brightness.shape == (0,)
    kinds = descriptors.kinds(np.asarray(descriptors._lbp(image)))
    assert {descriptors.KINDS[kind] for kind in np.unique(kinds)} == {"flat or dark spot"}


@pytest.mark.parametrize("degrees", [0, 20, 40, 80, 100, 140, 180, 260])
def test_strokes_lie_along_the_edge(degrees):
    ends, brightness = descriptors.strokes(descriptors._hog(step_edge(degrees), 8), 8)
    along = ends[-1, 1] - ends[-1, 0]  # the brightest
    gradient = np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    assert abs(along @ gradient) < 1e-3 * 8
    assert brightness[-1] == pytest.approx(1, abs=0.1)


def test_a_vertical_edge_gives_vertical_strokes_beside_it_only():
    ends, _ = descriptors.strokes(descriptors._hog(step_edge(0), 8), 8)
    assert len(ends) == 2 * 8  # in all rows of the two columns of cells at the edge
    np.testing.assert_allclose(ends[:, 0, 0], ends[:, 1, 0], atol=1e-6)
    np.testing.assert_allclose(np.abs(ends[:, 0, 1] - ends[:, 1, 1]), 8, atol=1e-6)
    assert set(np.round(ends[:, 0, 0])) == {28, 36}  # the middles of columns three and four


def test_strokes_stand_in_their_cells_weakest_first():
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, 0.5, (3, 5, 9)).astype(np.float32)
    ends, brightness = descriptors.strokes(cells, 10)
    assert np.all(np.diff(brightness) >= 0)
    assert brightness[0] >= descriptors.FAINTEST
    assert brightness[-1] == 1
    middles = ends.mean(1)
    np.testing.assert_allclose(np.unique(np.round(middles[:, 0], 3)), 10 * np.arange(5) + 5)
    np.testing.assert_allclose(np.unique(np.round(middles[:, 1], 3)), 10 * np.arange(3) + 5)
    np.testing.assert_allclose(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1), 10)
    one = np.zeros((3, 5, 9), np.float32)
    one[2, 1, 3] = 0.4  # the gradient is 60 degrees with the clock from the right, the stroke 150
    ends, brightness = descriptors.strokes(one, 10)
    turn = np.deg2rad(150)
    np.testing.assert_allclose(ends[0, 1], [15 + 5 * np.cos(turn), 25 + 5 * np.sin(turn)], atol=1e-6)
    assert brightness.tolist() == [1]


def test_glyphs_inside_are_those_of_the_descriptor_itself():
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    expected = jax.jit(hog.felzenszwalb)(jnp.asarray(image[None] / 255, jnp.float32))[0, 1:-1, 1:-1, 18:27]
    np.testing.assert_allclose(descriptors._hog(image, 8)[2:-2, 2:-2], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "cell"), [((64, 64), 8), ((16, 300), 8), ((224, 224), 14), ((375, 500), 24), ((129, 500), 9)]
)
def test_cells_grow_with_the_image(size, cell):
    assert descriptors.cell_size(*size) == cell


def test_kinds_follow_the_number_of_bright_neighbours():
    table = lbp.uniform_codes()
    for pattern in range(256):
        bits = [pattern >> k & 1 for k in range(8)]
        changes = sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))
        named = descriptors.KINDS[descriptors.kinds(np.array([table[pattern]]))[0]]
        by_ones = {0: "bright spot", 1: "bright c", 2: "bright c", 6: "dark c", 7: "dark c", 8: "flat"}
        assert named.startswith("mixed" if changes > 2 else by_ones.get(sum(bits), "edge"))


def test_a_bright_dot_and_an_edge_have_their_kinds():
    image = np.full((32, 32), 50)
    image[5, 5] = 200
    image[:, 20:] = 150
    kinds = descriptors.kinds(np.asarray(descriptors._lbp(image_of(image))))
    assert descriptors.KINDS[kinds[5, 5]] == "bright spot"
    assert {descriptors.KINDS[kind] for kind in kinds[:, 20]} == {"edge"}
    assert {descriptors.KINDS[kind] for kind in kinds[10:, 22:].ravel()} == {"flat or dark spot"}


def test_both_files_are_labelled(tmp_path):
    images = [step_edge(0), step_edge(30)[:30, :40]]
    files = descriptors.plot_descriptors(images, tmp_path / "new/descriptors.png")
    assert files == [tmp_path / "new/descriptors.png", tmp_path / "new/descriptors.svg"]
    assert imread(files[0]).shape[1] == 1760
    words = text_in(files[1])
    assert {"64 × 64 pixels", "40 × 30 pixels", "8 × 8 cells of 8 × 8 pixels", "5 × 3 cells of 8 × 8 pixels"} <= set(
        words
    )
    assert set(descriptors.KINDS) <= set(words)
    assert words.count("% of pixels") == 2


def test_the_bars_are_the_shares_of_the_codes(tmp_path, monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(descriptors, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    descriptors.plot_descriptors(image[None], tmp_path / "d.png")
    bars = drawn_figures[0].axes[3].patches
    codes = np.asarray(descriptors._lbp(image))
    np.testing.assert_allclose([bar.get_height() for bar in bars], [100 * np.mean(codes == k) for k in range(59)])
    assert np.all(np.diff([bar.get_x() for bar in bars]) >= 1)  # none on another


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (1, 1)])
def test_images_smaller_than_two_cells(tmp_path, size):
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels is too small.* 16 pixels"):
        descriptors.plot_descriptors([image_of(np.zeros(size))], tmp_path / "d.png")


def test_no_image_at_all(tmp_path):
    with pytest.raises(UserError, match="no image"):
        descriptors.plot_descriptors(np.zeros((0, 64, 64, 3), np.uint8), tmp_path / "d.png")


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="descriptors"):
        descriptors.plot_descriptors([image_of(np.zeros((16, 16)))], tmp_path / "file/d.png")
