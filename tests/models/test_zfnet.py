"""ZFNet against figure 3 of the paper."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from tests.models import probe


def test_maps_are_those_of_the_figure():
    assert probe.maps("zfnet", 224) == [
        (110, 110, 96),
        (26, 26, 256),
        (13, 13, 384),
        (13, 13, 384),
        (13, 13, 256),
    ]


def test_pooling_rounds_up_and_comes_before_the_normalisation():
    for y, after in probe.between("zfnet", probe.photograph(66), 0, 1):
        expected = probe.responses(probe.maxima(np.maximum(y, 0), 3, 2, ceil=True), 5, 1e-4, 0.75, 2)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_initial_values():
    weight, *biases = probe.initial("zfnet", lambda m: [m.conv2.weight, m.conv1.bias, m.conv4.bias, m.fc6.bias])
    np.testing.assert_allclose(weight.std(), 0.01, rtol=0.01)
    assert all((bias == 0).all() for bias in biases)


def test_sizes_and_features():
    assert probe.shapes("zfnet", (63, 100)) == (2, 10)
    assert probe.shapes("zfnet", (224, 224), num_classes=0) == (2, 4096)
    with pytest.raises(UserError, match="at least 63 "):
        probe.shapes("zfnet", (100, 62))
