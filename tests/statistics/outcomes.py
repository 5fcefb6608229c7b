"""Outcomes of two systems on the same images."""

import numpy as np


def wrong_images(only_a, only_b, images, both=0):
    """Return whether each image is wrong for the first and for the second system.

    The first `only_a` images are wrong for the first system alone, the next `only_b` for the second alone, and the
    next `both` for both.
    """
    at = np.arange(images)
    shared = (at >= only_a + only_b) & (at < only_a + only_b + both)
    return (at < only_a) | shared, ((at >= only_a) & (at < only_a + only_b)) | shared
