"""ResNeXts and wide ResNets; test_goldens.py compares their logits with the reference."""

from tests.models import probe
from tests.models.residual import parameter_shapes


def test_cardinality_and_width_of_the_middle_convolution():
    shapes = parameter_shapes("resnext50_32x4d")
    assert shapes["layer1.0.conv1.weight"] == (1, 1, 64, 128)
    assert shapes["layer1.0.conv2.weight"] == (3, 3, 4, 128)
    assert shapes["layer4.2.conv2.weight"] == (3, 3, 32, 1024)
    wide = parameter_shapes("wide_resnet50_2")
    assert wide["layer1.0.conv2.weight"] == (3, 3, 128, 128)
    assert wide["layer1.0.conv3.weight"] == (1, 1, 128, 256)


def test_wide_resnet68_2_has_68_layers_and_twice_the_inner_width():
    shapes = parameter_shapes("wide_resnet68_2")
    layers = [n for n, s in shapes.items() if n.endswith("weight") and len(s) > 1 and "downsample" not in n]
    assert len(layers) == 68
    assert shapes["layer4.2.conv2.weight"] == (3, 3, 1024, 1024)


def test_sizes_and_features():
    assert probe.shapes("resnext50_32x4d", (1, 40)) == (2, 10)
    assert probe.shapes("wide_resnet50_2", (33, 33), num_classes=0) == (2, 2048)
