"""The transformer's encoder block (Vaswani et al. 2017, pre-normalised as in Dosovitskiy et al. 2020, sec. 3.1).

Names are timm's: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`, `ls2`. Softmax and norms are
computed in float32 (float64 in a float64 block), everything else in the block's `dtype`.

On NVIDIA's GPUs from compute capability 8.0 (Ampere) on, blocks in bfloat16 or float16 use cuDNN's fused attention
(Dao et al. 2022, arXiv 2205.14135), which never writes the matrix of attention weights to memory. Its backward pass is
deterministic where the step is compiled with `xla_gpu_exclude_nondeterministic_ops`, which `config.deterministic` sets
(openxla/xla, pull request 14125).
"""

import math
import re
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn import target
from imagenet_repro.models.nn.initialisers import constant, halves, normal
from imagenet_repro.models.nn.layers import Dropout, DropPath, LayerNorm, LayerScale, Linear, Rate, gelu, swish

# timm and DeiT draw with PyTorch's `trunc_normal_(std=0.02)`, which cuts off at -2 and 2, a hundred deviations away.
INIT = normal(0.02)

CUDNN_MULTIPLE = 8  # tokens: the backward pass of cuDNN's attention refuses other lengths
CUDNN_HEAD_SIZE = 128  # the largest that it takes on every GPU


def dense(
    in_features: int,
    out_features: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    bias: float = 0.0,
    wide: bool = False,
) -> Linear:
    """Return a linear layer with the initial values of a ViT: weights from N(0, 0.02^2), biases all `bias`."""
    return Linear(in_features, out_features, init=INIT, bias_init=constant(bias), wide=wide, dtype=dtype, rngs=rngs)


def dropout_layer(rate: float, rngs: nnx.Rngs) -> Dropout:
    """Return a dropout layer; it has no random stream where the rate is 0."""
    return Dropout(rate, rngs=rngs if rate else None)


class Attention(nnx.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(width / heads)) v for each head, then a linear layer."""

    def __init__(self, width: int, heads: int, *, dropout: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.qkv = dense(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = dense(width, width, dtype=dtype, rngs=rngs)
        self.proj_drop = dropout_layer(dropout, rngs)
        self.heads, self.dtype = heads, dtype

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Return the tokens after attention over all tokens, in the layer's dtype."""
        batch, tokens, width = x.shape
        head_size = width // self.heads
        implementation = "cudnn" if _cudnn_applies(self.dtype, head_size) else "xla"
        if implementation == "cudnn":  # before the linear layer: one copy, not one each of q, k and v
            x = jnp.pad(x, ((0, 0), (0, -tokens % CUDNN_MULTIPLE), (0, 0)))
        qkv = self.qkv(x).reshape(batch, x.shape[1], 3, self.heads, head_size)
        y = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], tokens, implementation=implementation)
        return self.proj_drop(self.proj(y.reshape(batch, tokens, width)))


def attend(
    q: Float[Array, "b m h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    tokens: int,
    *,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "b n h d"]:
    """Return softmax(q k^T / sqrt(d)) v of the first `tokens` of m rows, for each head; the others are padding.

    `implementation` is that of `jax.nn.dot_product_attention`: "xla" or "cudnn". float64 has a form of its own.
    """
    if q.dtype == jnp.float64:  # JAX's function takes the softmax in float32
        q, k, v = (x[:, :tokens] for x in (q, k, v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]))
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    lengths = None if q.shape[1] == tokens else jnp.full(len(q), tokens, jnp.int32)
    with jax.default_matmul_precision("highest" if q.dtype == jnp.float32 else "default"):
        y = jax.nn.dot_product_attention(
            q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation=implementation
        )
    return y[:, :tokens]


def _cudnn_applies(dtype: DTypeLike, head_size: int) -> bool:
    """Return whether cuDNN's attention can compute what is traced now."""
    if target.platform() != "gpu" or dtype not in (jnp.bfloat16, jnp.float16):
        return False
    return head_size % 8 == 0 and head_size <= CUDNN_HEAD_SIZE and _has_cudnn_attention()


def _has_cudnn_attention() -> bool:
    """Return whether the GPU is NVIDIA's, of compute capability 8.0 or more; one that is not here is taken to be."""
    if jax.default_backend() != "gpu":
        return True
    capability = re.fullmatch(r"(\d+)\.\d+", str(getattr(jax.local_devices()[0], "compute_capability", "")))
    return capability is not None and int(capability[1]) >= 8


class Mlp(nnx.Module):
    """Two linear layers with a GELU between them and dropout after each (Dosovitskiy et al. 2020, appendix B.1)."""

    def __init__(self, width: int, hidden: int, *, dropout: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = dense(width, hidden, dtype=dtype, rngs=rngs)
        self.drop1 = dropout_layer(dropout, rngs)
        self.fc2 = dense(hidden, width, dtype=dtype, rngs=rngs)
        self.drop2 = dropout_layer(dropout, rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Apply the layers to each token."""
        return self.drop2(self.fc2(self.drop1(gelu(self.fc1(x)))))


class SwiGLU(nnx.Module):
    """Gated MLP: fc2(swish(a) * b), where fc1 returns a and b side by side.

    Shazeer 2020 (arXiv 2002.05202), eq. 6, with biases. As in timm, b starts at 1 for every token: its weights come
    from N(0, 1e-6^2).
    """

    def __init__(self, width: int, hidden: int, *, dropout: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fc1 = Linear(
            width, 2 * hidden, init=halves(INIT, 1e-6), bias_init=halves(constant(0.0), 1.0), dtype=dtype, rngs=rngs
        )
        self.drop1 = dropout_layer(dropout, rngs)
        self.fc2 = dense(hidden, width, dtype=dtype, rngs=rngs)
        self.drop2 = dropout_layer(dropout, rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Apply the layers to each token."""
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)
        return self.drop2(self.fc2(self.drop1(swish(gate) * value)))


class Block(nnx.Module):
    """Encoder block: x + attention(norm(x)), then the same with an MLP.

    Both branches have LayerScale, with factors that start at `layer_scale` (None: no factors), and stochastic depth.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        gated: bool,
        layer_scale: float | None,
        dropout: float,
        drop_path: float,
        norm_epsilon: float = 1e-6,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        common = {"dropout": dropout, "dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.attn = Attention(width, heads, **common)
        self.ls1 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.mlp = (SwiGLU if gated else Mlp)(width, hidden, **common)
        self.ls2 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], drop_path: Rate | None = None) -> Float[Array, "b n c"]:
        """Return the tokens after both residual branches, in the type of `x`."""
        y = self.attn(self.norm1(x))
        x = x + self.drop_path1(y if self.ls1 is None else self.ls1(y), drop_path)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.ls2 is None else self.ls2(y), drop_path)
