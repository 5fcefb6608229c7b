"""The transformer's encoder block (Vaswani et al. 2017, pre-normalised as in Dosovitskiy et al. 2020, sec. 3.1).

Names are timm's: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`, `ls2`. Softmax and norms are
computed in float32 (float64 in a float64 block), everything else in the block's `dtype`.

On NVIDIA's GPUs from compute capability 8.0 (Ampere) on, blocks in bfloat16 or float16 use cuDNN's fused attention
(Dao et al. 2022, arXiv 2205.14135), which never writes the matrix of attention weights to memory. Its backward pass is
deterministic where the step is compiled with `xla_gpu_exclude_nondeterministic_ops`, which `config.deterministic` sets
(openxla/xla, pull request 14125).
"""

import dataclasses
import math
import re
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn import target
from imagenet_repro.models.nn.initialisers import Initialiser, constant, halves, normal, parameter
from imagenet_repro.models.nn.layers import (
    ACTIVATIONS,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    Rate,
    swish,
)
from imagenet_repro.models.nn.precision import widen

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
    init: Initialiser = INIT,
    bias: float | None = 0.0,
    wide: bool = False,
) -> Linear:
    """Return a linear layer with the initial values of a ViT: weights from N(0, 0.02^2), biases all `bias`.

    A `bias` of None is a layer without biases.
    """
    return Linear(
        in_features,
        out_features,
        bias=bias is not None,
        init=init,
        bias_init=constant(bias or 0.0),
        wide=wide,
        dtype=dtype,
        rngs=rngs,
    )


@dataclasses.dataclass(frozen=True)
class BlockInit:
    """The initial weights of a block's four linear layers; their biases start at 0."""

    qkv: Initialiser = INIT
    proj: Initialiser = INIT
    fc1: Initialiser = INIT
    fc2: Initialiser = INIT


def dropout_layer(rate: float, rngs: nnx.Rngs) -> Dropout:
    """Return a dropout layer; it has no random stream where the rate is 0."""
    return Dropout(rate, rngs=rngs if rate else None)


class Attention(nnx.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(width / heads)) v for each head, then a linear layer.

    With `causal`, a token attends to itself and to those before it, otherwise to all.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float,
        causal: bool = False,
        init: BlockInit | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        init = BlockInit() if init is None else init
        self.qkv = dense(width, 3 * width, init=init.qkv, dtype=dtype, rngs=rngs)
        self.proj = dense(width, width, init=init.proj, dtype=dtype, rngs=rngs)
        self.proj_drop = dropout_layer(dropout, rngs)
        self.heads, self.causal, self.dtype = heads, causal, dtype

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Return the tokens after attention, in the layer's dtype."""
        batch, tokens, width = x.shape
        head_size = width // self.heads
        implementation = attention_implementation(self.dtype, head_size)
        x = pad_tokens(x, implementation)  # before the linear layer: one copy, not one each of q, k and v
        qkv = self.qkv(x).reshape(batch, x.shape[1], 3, self.heads, head_size)
        q, k, v = (qkv[:, :, part] for part in range(3))
        y = attend(q, k, v, tokens, causal=self.causal, implementation=implementation)
        return self.proj_drop(self.proj(y.reshape(batch, tokens, width)))


def attention_implementation(dtype: DTypeLike, head_size: int) -> Literal["xla", "cudnn"]:
    """Return the implementation of `attend` that is best on the platform that is traced for."""
    return "cudnn" if _cudnn_applies(dtype, head_size) else "xla"


def pad_tokens(x: Float[Array, "b n c"], implementation: str) -> Float[Array, "b m c"]:
    """Return tokens with as many zeros after them as the implementation needs."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % CUDNN_MULTIPLE), (0, 0))) if implementation == "cudnn" else x


def attend(
    q: Float[Array, "b m h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    tokens: int,
    *,
    causal: bool = False,
    bias: Float[Array, "h n n"] | None = None,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "b n h d"]:
    """Return softmax(q k^T / sqrt(d) + bias) v of the first `tokens` of m rows, for each head; the others are padding.

    With `causal`, row i of q meets rows 0 to i of k alone. A `bias` needs m rows without padding.
    `implementation` is that of `jax.nn.dot_product_attention`: "xla" or "cudnn". float64 has a form of its own.
    """
    if q.dtype == jnp.float64:  # JAX's function takes the softmax in float32
        q, k, v = (x[:, :tokens] for x in (q, k, v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]) + (0 if bias is None else bias)
        weights = jax.nn.softmax(jnp.where(jnp.tri(tokens, dtype=bool), scores, -jnp.inf) if causal else scores)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    lengths = None if q.shape[1] == tokens else jnp.full(len(q), tokens, jnp.int32)
    with jax.default_matmul_precision("highest" if q.dtype == jnp.float32 else "default"):
        y = jax.nn.dot_product_attention(
            q,
            k,
            v,
            bias=None if bias is None else bias[None],
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            is_causal=causal,
            implementation=implementation,
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
    """Two linear layers with a GELU between them and dropout after each (Dosovitskiy et al. 2020, appendix B.1).

    `activation` is one of `layers.ACTIVATIONS`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        dropout: float,
        activation: str = "gelu",
        init: BlockInit | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        init = BlockInit() if init is None else init
        self.fc1 = dense(width, hidden, init=init.fc1, dtype=dtype, rngs=rngs)
        self.drop1 = dropout_layer(dropout, rngs)
        self.fc2 = dense(hidden, width, init=init.fc2, dtype=dtype, rngs=rngs)
        self.drop2 = dropout_layer(dropout, rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Apply the layers to each token."""
        return self.drop2(self.fc2(self.drop1(ACTIVATIONS[self.activation](self.fc1(x)))))


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
    A gated block has neither an `activation` nor an `init` of its own.
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
        causal: bool = False,
        activation: str = "gelu",
        init: BlockInit | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        common = {"dropout": dropout, "dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.attn = Attention(width, heads, causal=causal, init=init, **common)
        self.ls1 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.mlp = (
            SwiGLU(width, hidden, **common)
            if gated
            else Mlp(width, hidden, activation=activation, init=init, **common)
        )
        self.ls2 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], drop_path: Rate | None = None) -> Float[Array, "b n c"]:
        """Return the tokens after both residual branches, in the type of `x`."""
        y = self.attn(self.norm1(x))
        x = x + self.drop_path1(y if self.ls1 is None else self.ls1(y), drop_path)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.ls2 is None else self.ls2(y), drop_path)


class AttentionPool(nnx.Module):
    """Multi-head attention pooling: one learned query attends to all tokens, and an MLP follows as in a block.

    Zhai et al. 2021, "Scaling vision transformers" (arXiv 2106.04560), sec. 2.2. Names are those of timm's
    `AttentionPoolLatent`; initial weights are those of the blocks.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        activation: str = "gelu",
        norm_epsilon: float = 1e-6,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.latent = parameter(rngs, normal(width**-0.5), (1, 1, width))
        self.q = dense(width, width, dtype=dtype, rngs=rngs)
        self.kv = dense(width, 2 * width, dtype=dtype, rngs=rngs)
        self.proj = dense(width, width, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.mlp = Mlp(width, hidden, dropout=0.0, activation=activation, dtype=dtype, rngs=rngs)
        self.heads, self.dtype = heads, dtype

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b c"]:
        """Return one vector for each image, in the layer's dtype."""
        batch, tokens, width = x.shape
        q = self.q(self.latent[...].astype(self.dtype)).reshape(self.heads, -1)
        kv = self.kv(x).reshape(batch, tokens, 2, self.heads, width // self.heads)
        scores = jnp.einsum("hd,bkhd->bhk", widen(q), widen(kv[:, :, 0]), precision=lax.Precision.HIGHEST)
        weights = jax.nn.softmax(scores / math.sqrt(q.shape[-1])).astype(self.dtype)
        y = jnp.einsum("bhk,bkhd->bhd", weights, kv[:, :, 1], precision=lax.Precision.HIGHEST)
        y = self.proj(y.reshape(batch, width))
        return y + self.mlp(self.norm(y))
