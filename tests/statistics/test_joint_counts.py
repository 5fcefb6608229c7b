import numpy as np

from imagenet_repro.statistics.joint_counts import joint_counts


def test_joint_counts_are_products_of_rows():
    rows = np.random.default_rng(0).random((5, 1_003)) < 0.3
    numbers = rows.astype(int)
    np.testing.assert_array_equal(joint_counts(iter(rows)), numbers @ numbers.T)
