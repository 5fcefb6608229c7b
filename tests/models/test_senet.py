"""SENets: excitation, strides and stems; test_goldens.py compares their logits with timm's."""

import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.senet import SEBottleneck, SEModule, SENet154Bottleneck
from tests.models import probe
from tests.models.residual import apply, make, numbers, parameter_shapes

PLAIN = {"stride": 1, "shortcut": "B", "last_scale": 1.0, "drop_path": 0.0}


def test_excitation_is_a_factor_for_each_channel_and_image():
    module, x = make(SEModule, 32), numbers((2, 5, 4, 32))
    w1, b1, w2, b2 = (np.asarray(v[...]) for fc in (module.fc1, module.fc2) for v in (fc.weight, fc.bias))
    assert w1.shape == (1, 1, 32, 2)
    hidden = np.maximum(np.mean(x, (1, 2)) @ w1[0, 0] + b1, 0)
    factor = 1 / (1 + np.exp(-(hidden @ w2[0, 0] + b2)))
    np.testing.assert_allclose(apply(module, x), x * factor[:, None, None], rtol=1e-5)


@pytest.mark.parametrize("block", [SEBottleneck, SENet154Bottleneck])
def test_zero_initialised_last_scale_makes_every_block_the_identity(block):
    x = numbers((1, 4, 4, 64))
    np.testing.assert_array_equal(apply(make(block, 64, 16, **PLAIN | {"last_scale": 0.0}), x), x)


def test_strides_are_in_the_published_convolutions():
    for name, first, second in (("seresnet50", 2, 1), ("seresnext50_32x4d", 1, 2), ("senet154", 1, 2)):
        block = models.abstract(name).layer2[0]
        assert (block.conv1.stride, block.conv2.stride) == ((first, first), (second, second)), name


def test_senet_154_has_the_changes_of_the_appendix():
    shapes = parameter_shapes("senet154")
    stem = [shapes[f"layer0.conv{i}.weight"] for i in (1, 2, 3)]
    assert stem == [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    assert shapes["layer2.0.conv1.weight"] == (1, 1, 256, 256)
    assert shapes["layer2.0.conv2.weight"] == (3, 3, 4, 512)
    assert shapes["layer1.0.downsample.0.weight"] == (1, 1, 128, 256)
    assert shapes["layer2.0.downsample.0.weight"] == (3, 3, 256, 512)


def test_only_senet_154_has_dropout():
    assert models.spec("senet154").options["dropout"] == models.abstract("senet154").dropout.rate == 0.2
    assert models.abstract("senet154", dropout=0.0).dropout is None
    assert models.spec("seresnet50").options["dropout"] == 0.0
    assert models.abstract("seresnet50").dropout is None


def test_stochastic_depth_acts_in_training_only():
    block = make(SEBottleneck, 64, 16, **PLAIN | {"drop_path": 0.5})
    x = numbers((64, 2, 2, 64))
    dropped = [np.array_equal(y, image) for y, image in zip(apply(block, x), x, strict=True)]
    assert 16 < sum(dropped) < 48
    assert not any(np.array_equal(y, image) for y, image in zip(apply(block, x, training=False), x, strict=True))


def test_sizes_and_features():
    assert probe.shapes("seresnet50", (3, 47)) == (2, 10)
    assert probe.shapes("senet154", (3, 3), num_classes=0) == (2, 2048)
    with pytest.raises(UserError, match="at least 3"):
        probe.shapes("seresnet50", (2, 47))


def test_the_pooling_of_the_stem_rounds_up_without_padding():
    x = numbers((1, 112, 112, 1))
    pooled = apply(models.abstract("seresnet50", 0).pool0, x)
    assert pooled.shape == (1, 56, 56, 1)
    assert pooled[0, 0, 0, 0] == x[0, :3, :3, 0].max()
    assert pooled[0, -1, -1, 0] == x[0, -2:, -2:, 0].max()
