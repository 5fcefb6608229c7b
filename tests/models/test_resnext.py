"""What is particular to ResNeXt and wide ResNets; outputs are compared in tests/test_pretrained.py."""

import pytest

from tests.models import probe
from tests.models.residual import count_and_work, parameter_shapes


def test_counts():
    assert count_and_work("resnext50_32x4d") == (25_028_904, pytest.approx(4.230, abs=0.0006))
    assert count_and_work("resnext101_32x4d") == (44_177_704, pytest.approx(7.970, abs=0.0006))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "parameters", "work"),
    [
        ("resnext101_32x8d", 224, 88_791_336, 16.414),
        ("resnext101_64x4d", 224, 83_455_272, 15.460),
        ("resnext101_64x4d", 320, 83_455_272, 31.55),
        ("wide_resnet50_2", 224, 68_883_240, 11.398),
        ("wide_resnet101_2", 224, 126_886_696, 22.753),
    ],
)
def test_counts_of_all(name, size, parameters, work):
    assert count_and_work(name, size) == (parameters, pytest.approx(work, rel=2e-4))


def test_cardinality_and_width_of_the_middle_convolution():
    shapes = parameter_shapes("resnext50_32x4d")
    assert shapes["layer1.0.conv1.weight"] == (1, 1, 64, 128)
    assert shapes["layer1.0.conv2.weight"] == (3, 3, 4, 128)
    assert shapes["layer4.2.conv2.weight"] == (3, 3, 32, 1024)
    wide = parameter_shapes("wide_resnet50_2")
    assert wide["layer1.0.conv2.weight"] == (3, 3, 128, 128)
    assert wide["layer1.0.conv3.weight"] == (1, 1, 128, 256)


def test_the_one_of_2016_has_68_layers_and_twice_the_inner_width():
    shapes = parameter_shapes("wide_resnet68_2")
    layers = [n for n, s in shapes.items() if n.endswith("weight") and len(s) > 1 and "downsample" not in n]
    assert len(layers) == 68
    assert shapes["layer4.2.conv2.weight"] == (3, 3, 1024, 1024)


def test_sizes_and_features():
    assert probe.shapes("resnext50_32x4d", (1, 40)) == (2, 10)
    assert probe.shapes("wide_resnet50_2", (33, 33), num_classes=0) == (2, 2048)
