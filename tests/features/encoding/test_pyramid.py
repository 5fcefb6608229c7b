"""Membership of descriptors in the cells of a pyramid."""

import numpy as np
import pytest

from imagenet_repro.features.encoding.pyramid import Pyramid, layout


def test_the_cells_of_each_division_cover_the_image_once():
    places = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
    pyramid = Pyramid(((1, 1), (3, 1), (2, 2)))
    members = pyramid.members(places)
    assert members.shape == (8, 200)
    assert members[0].all()
    np.testing.assert_array_equal(members[1:4].sum(0), 1)
    np.testing.assert_array_equal(members[4:].sum(0), 1)
    np.testing.assert_array_equal(members[2], (places[:, 0] >= 1 / 3) & (places[:, 0] < 2 / 3))
    np.testing.assert_array_equal(members[5], (places[:, 0] < 0.5) & (places[:, 1] >= 0.5))


def test_the_far_edge_belongs_to_the_last_cell():
    assert Pyramid(((2, 3),)).members(np.ones((1, 2)))[5, 0]


@pytest.mark.parametrize("divisions", [((1, 1),), ((1, 1), (3, 1)), ((1, 1), (2, 2), (3, 1)), ((4, 4),)])
def test_stretches_make_up_the_cells(divisions):
    places = np.random.default_rng(1).uniform(size=(100, 2))
    members = Pyramid(divisions).members(places)
    result = layout(members)
    assert sorted(result.order) == list(range(100))
    for cell, parts in zip(members, result.parts, strict=True):
        inside = np.concatenate(
            [result.order[a:b] for (a, b), part in zip(result.stretches, parts, strict=True) if part]
        )
        assert sorted(inside) == np.flatnonzero(cell).tolist()
