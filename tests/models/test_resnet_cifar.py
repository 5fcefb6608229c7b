"""The ResNets for CIFAR-10."""

from imagenet_repro import models
from tests.models import probe
from tests.models.residual import count, parameter_shapes


def test_projections_add_their_parameters():
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert count("resnet20_cifar", 10, shortcut="B") - count("resnet20_cifar", 10) == projections


def test_layers_and_maps():
    shapes = parameter_shapes("resnet20_cifar")
    assert sum(len(shape) > 1 for shape in shapes.values()) == 20
    assert shapes["conv1.weight"] == (3, 3, 3, 16)
    assert [shapes[f"layer{stage}.2.conv2.weight"] for stage in (1, 2, 3)] == [
        (3, 3, 16, 16),
        (3, 3, 32, 32),
        (3, 3, 64, 64),
    ]
    assert models.abstract("resnet20_cifar").layer3[0].conv1.stride == (2, 2)


def test_sizes_and_features():
    assert probe.shapes("resnet20_cifar", (1, 1)) == (2, 10)
    assert probe.shapes("resnet20_cifar", (31, 64), num_classes=0) == (2, 64)
    assert models.spec("resnet20_cifar").preprocessing.image_size == 32
