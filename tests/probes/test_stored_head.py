"""Tests of a stored linear head: what it fits, and what is refused."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.probes import stored_head
from imagenet_repro.probes.stored_head import StoredHead

WIDTHS = {"pooled": 4, "class_token": 6}


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    head = StoredHead(
        rng.normal(size=(4, 3)).astype(np.float32),
        np.arange(3, dtype=np.float32),
        "pooled",
        0.1,
        ("a", "b", "c"),
        "key",
    )
    head.save(tmp_path / "head.npz")
    return tmp_path / "head.npz"


def test_classes_are_brought_into_the_order_of_the_data(path):
    head = stored_head.load(path)
    fitted = head.fitted_to(path, WIDTHS, "key", "net", ("c", "a", "b"))
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float16)
    np.testing.assert_array_equal(fitted.scores(x), head.scores(x)[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("widths", "network", "classes", "message"),
    [
        ({"class_token": 4}, "key", "abc", "reads the features 'pooled', which net does not have"),
        ({"pooled": 5}, "key", "abc", "does not fit: it reads 4 numbers, and 'pooled' of net has 5"),
        (WIDTHS, "other", "abc", "was trained on features of other weights"),
        (WIDTHS, "key", "abx", "classes"),
        (WIDTHS, "key", "ab", "classes"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(path, widths, network, classes, message):
    with pytest.raises(UserError, match=message):
        stored_head.load(path).fitted_to(path, widths, network, "net", tuple(classes))


def test_files_that_are_no_head_are_refused(path, tmp_path):
    with pytest.raises(UserError, match="there is no such file of a head"):
        stored_head.load(tmp_path / "absent.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged or not a head"):
        stored_head.load(path)
