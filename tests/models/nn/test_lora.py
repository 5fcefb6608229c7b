import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.models.nn import lora
from imagenet_repro.models.nn.layers import Conv, Linear


class Two(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = Linear(6, 5, rngs=rngs)
        self.conv = Conv(3, 4, 3, stride=2, padding=1, rngs=rngs)


@pytest.fixture
def adapted():
    """Return a module with adapters of rank 2 whose B is not zero, and a copy without."""
    plain, net = Two(), Two()
    lora.attach(lora.matrices(net), rank=2, alpha=6.0, seed=3)
    for number, layer in enumerate((net.linear, net.conv)):
        shape = layer.lora.lora_b.get_raw_value().shape
        layer.lora.lora_b.set_value(jax.random.normal(jax.random.key(number), shape))
    return net, plain


def inputs(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_an_adapter_starts_without_effect():
    plain, net = Two(), Two()
    lora.attach(lora.matrices(net), rank=2, alpha=6.0, seed=3)
    x, image = inputs(7, 6), inputs(2, 8, 8, 3)
    np.testing.assert_array_equal(net.linear(x), plain.linear(x))
    np.testing.assert_array_equal(net.conv(image), plain.conv(image))
    bound = 1 / np.sqrt(6)
    assert 0.8 * bound < np.abs(net.linear.lora.lora_a[...]).max() <= bound


def test_a_linear_layer_adds_alpha_over_rank_times_the_product(adapted):
    net, plain = adapted
    x = inputs(7, 6)
    a, b = (np.asarray(part[...], np.float64) for part in (net.linear.lora.lora_a, net.linear.lora.lora_b))
    weight, bias = (np.asarray(part[...], np.float64) for part in (plain.linear.weight, plain.linear.bias))
    np.testing.assert_allclose(net.linear(x), x @ (weight + 6.0 / 2 * a @ b) + bias, rtol=1e-5, atol=1e-5)


def test_a_convolution_is_that_of_the_summed_kernel(adapted):
    net, plain = adapted
    a, b = (np.asarray(part[...], np.float64) for part in (net.conv.lora.lora_a, net.conv.lora.lora_b))
    kernel = np.asarray(plain.conv.weight[...], np.float64) + 3.0 * np.einsum("hwir,ro->hwio", a, b)
    image = inputs(1, 8, 8, 3)
    padded = np.pad(np.asarray(image[0]), ((1, 1), (1, 1), (0, 0)))
    expected = [
        [np.einsum("hwi,hwio->o", padded[2 * y : 2 * y + 3, 2 * x : 2 * x + 3], kernel) for x in range(4)]
        for y in range(4)
    ]
    np.testing.assert_allclose(net.conv(image)[0], np.asarray(expected) + plain.conv.bias[...], rtol=1e-4, atol=1e-4)


def test_merged_weights_give_the_same_outputs_and_have_the_plain_names(adapted):
    net, plain = adapted
    x, image = inputs(7, 6), inputs(2, 8, 8, 3)
    before = net.linear(x), net.conv(image)
    merged = lora.merge(net)
    np.testing.assert_allclose(merged.linear(x), before[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merged.conv(image), before[1], rtol=1e-4, atol=1e-5)
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(merged, nnx.Param))]
    assert paths == [path for path, _ in nnx.to_flat_state(nnx.state(plain, nnx.Param))]


def test_adapters_of_shapes_are_shapes():
    network = models.abstract("vit_tiny_patch16", depth=1)
    lora.attach({"blocks.0.attn.qkv": lora.matrices(network)["blocks.0.attn.qkv"]}, rank=4, alpha=4.0, seed=0)
    adapter = network.blocks[0].attn.qkv.lora
    assert adapter.lora_a.get_raw_value() == jax.ShapeDtypeStruct((192, 4), jnp.float32)
    assert adapter.lora_b.get_raw_value() == jax.ShapeDtypeStruct((4, 576), jnp.float32)


def test_grouped_convolutions_are_not_matrices():
    names = lora.matrices(models.abstract("convnext_tiny"))
    assert "stages.0.blocks.0.mlp.fc1" in names
    assert "stages.0.blocks.0.conv_dw" not in names
