"""Encoder blocks with rotary positions (RoFormer, Su et al. 2021, arXiv 2104.09864) on two axes, of EVA-02 and DINOv3.

The features of queries and keys are taken in pairs, and each pair is turned by an angle that grows with the position
of its patch: the first half of the pairs with the row, the other half with the column. The product of a query and a
key then depends on the difference of their positions alone. Class tokens and registers are not turned.

Names are timm's for EVA-02 (`attn.q_proj`, `attn.q_bias`, `mlp.fc1_g`). Keys have no bias.
"""

import dataclasses
import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.attention import (
    BlockInit,
    Mlp,
    attend,
    attention_implementation,
    dense,
    dropout_layer,
    pad_tokens,
)
from imagenet_repro.models.nn.initialisers import constant, parameter
from imagenet_repro.models.nn.layers import DropPath, LayerNorm, LayerScale, Rate, swish
from imagenet_repro.models.nn.precision import widen

# The pairs of a head's features that are turned together: (0, 1), (2, 3) and so on, or i and i + size / 2.
Pairs = Literal["neighbours", "halves"]


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The angles by which the positions of patches turn the features of queries and keys.

    A pair of features of frequency f at coordinate p is turned by p f. The frequencies fall from 1 as powers of
    `temperature`. A coordinate is counted in patches of the pre-training images (`reference`, EVA-02), so that a finer
    grid has more positions in the same range, or, where `reference` is None, it is 2 pi times the place of the patch's
    centre between -1 and 1 (DINOv3).
    """

    temperature: float
    reference: int | None
    pairs: Pairs

    def coordinates(self, count: int) -> Float[np.ndarray, " n"]:
        """Return the coordinates of `count` patches along one side."""
        places = np.arange(count)
        if self.reference is None:
            return 2 * math.pi * (2 * (places + 0.5) / count - 1)
        return places * (self.reference / count)

    def angles(self, grid: tuple[int, int], head_size: int) -> Float[np.ndarray, "n p"]:
        """Return the angle of every pair of a head's features for each patch, row by row: [patches, head_size / 2].

        Raises ValueError where 4 does not divide the head's size.
        """
        if head_size % 4:
            raise ValueError(f"rotary positions on two axes need heads of a multiple of 4 features, not {head_size}")
        frequencies = self.temperature ** -(np.arange(head_size // 4) / (head_size // 4))
        down, across = (np.outer(self.coordinates(count), frequencies) for count in grid)
        rows, columns = (index.reshape(-1) for index in np.mgrid[: grid[0], : grid[1]])
        return np.concatenate([down[rows], across[columns]], axis=1)

    def table(self, grid: tuple[int, int], head_size: int, prefix: int) -> Float[Array, "2 n p"]:
        """Return the cosines and the sines of `angles` in float32, after `prefix` tokens that are not turned."""
        angles = np.pad(self.angles(grid, head_size), ((prefix, 0), (0, 0)))
        return jnp.asarray(np.stack([np.cos(angles), np.sin(angles)]), jnp.float32)


def rotate(x: Float[Array, "b n h d"], table: Float[Array, "2 n p"], pairs: Pairs) -> Float[Array, "b n h d"]:
    """Return queries or keys with every pair of features turned, computed in float32 at least, in the type of `x`.

    Args:
      x: queries or keys of each head.
      table: cosines and sines of the angles of each token's pairs (`Rotary.table`).
      pairs: the features that make a pair.
    """
    cosines, sines = table[:, :, None].astype(jnp.promote_types(x.dtype, jnp.float32))
    if pairs == "halves":
        a, b = jnp.split(widen(x), 2, axis=-1)
        return jnp.concatenate([a * cosines - b * sines, b * cosines + a * sines], axis=-1).astype(x.dtype)
    a, b = widen(x[..., 0::2]), widen(x[..., 1::2])
    turned = jnp.stack([a * cosines - b * sines, b * cosines + a * sines], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


class RotaryAttention(nnx.Module):
    """Multi-head self-attention whose queries and keys are turned by their positions.

    Args:
      width: of the tokens.
      heads: number of heads.
      pairs: the features that are turned together.
      bias: whether queries and values have biases.
      separate: whether queries, keys and values have a linear layer each; otherwise they share one, `qkv`, beside
        which their biases are.
      init: initial weights of `qkv` and `proj`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        pairs: Pairs,
        bias: bool,
        separate: bool,
        dropout: float,
        init: BlockInit,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kwargs = {"init": init.qkv, "dtype": dtype, "rngs": rngs}
        own = 0.0 if bias else None
        self.q_proj = dense(width, width, bias=own, **kwargs) if separate else None
        self.k_proj = dense(width, width, bias=None, **kwargs) if separate else None
        self.v_proj = dense(width, width, bias=own, **kwargs) if separate else None
        self.qkv = None if separate else dense(width, 3 * width, bias=None, **kwargs)
        has_shared_layer_biases = bias and not separate
        self.q_bias = parameter(rngs, constant(0.0), (width,)) if has_shared_layer_biases else None
        self.v_bias = parameter(rngs, constant(0.0), (width,)) if has_shared_layer_biases else None
        self.proj = dense(width, width, init=init.proj, dtype=dtype, rngs=rngs)
        self.proj_drop = dropout_layer(dropout, rngs)
        self.pairs: Pairs = pairs
        self.heads, self.dtype = heads, dtype

    def __call__(self, x: Float[Array, "b n c"], rotation: Float[Array, "2 n p"]) -> Float[Array, "b n c"]:
        """Return the tokens after attention over all tokens, in the layer's dtype."""
        batch, tokens, width = x.shape
        head_size = width // self.heads
        implementation = attention_implementation(self.dtype, head_size)
        x = pad_tokens(x, implementation)
        q, k, v = (y.reshape(batch, x.shape[1], self.heads, head_size) for y in self._projections(x))
        table = jnp.pad(rotation, ((0, 0), (0, x.shape[1] - tokens), (0, 0)))
        q, k = (rotate(y, table, self.pairs) for y in (q, k))
        y = attend(q, k, v, tokens, implementation=implementation)
        return self.proj_drop(self.proj(y.reshape(batch, tokens, width)))

    def _projections(self, x: Float[Array, "b n c"]) -> list[Float[Array, "b n c"]]:
        """Return queries, keys and values of all heads side by side."""
        if self.qkv is None:
            return [layer(x) for layer in (self.q_proj, self.k_proj, self.v_proj) if layer is not None]
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        if self.q_bias is None or self.v_bias is None:
            return [q, k, v]
        return [q + self.q_bias[...].astype(q.dtype), k, v + self.v_bias[...].astype(v.dtype)]


class GatedMlp(nnx.Module):
    """Gated MLP: fc2(norm(swish(gate) * values)), Shazeer 2020 (arXiv 2002.05202), eq. 6, with biases.

    Args:
      width: of the tokens.
      hidden: number of values.
      packed: whether one layer, `fc1`, returns gate and values side by side; otherwise each has a layer.
      norm_epsilon: of the norm inside, the sub-layer norm of Wang et al. 2022 (arXiv 2210.06423); None: no norm.
      init: initial weights of the layers.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        packed: bool,
        norm_epsilon: float | None,
        dropout: float,
        init: BlockInit,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.fc1 = dense(width, 2 * hidden, init=init.fc1, **kwargs) if packed else None
        self.fc1_g = None if packed else dense(width, hidden, init=init.fc1, **kwargs)
        self.fc1_x = None if packed else dense(width, hidden, init=init.fc1, **kwargs)
        self.drop1 = dropout_layer(dropout, rngs)
        self.norm = None if norm_epsilon is None else LayerNorm(hidden, epsilon=norm_epsilon, dtype=dtype)
        self.fc2 = dense(hidden, width, init=init.fc2, **kwargs)
        self.drop2 = dropout_layer(dropout, rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Apply the layers to each token."""
        gate, values = self._gate_and_values(x)
        y = self.drop1(swish(gate) * values)
        return self.drop2(self.fc2(y if self.norm is None else self.norm(y)))

    def _gate_and_values(self, x: Float[Array, "b n c"]) -> list[Float[Array, "b n h"]]:
        if self.fc1 is not None:
            return jnp.split(self.fc1(x), 2, axis=-1)
        return [layer(x) for layer in (self.fc1_g, self.fc1_x) if layer is not None]


class RotaryBlock(nnx.Module):
    """Encoder block with rotary positions: x + attention(norm(x)), then the same with an MLP.

    Args:
      attention: keyword arguments of `RotaryAttention`.
      gated: keyword arguments of `GatedMlp`; None: an MLP with a GELU.
      layer_scale: initial factors of both branches (LayerScale); None: no factors.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        attention: dict[str, Any],
        gated: dict[str, Any] | None,
        layer_scale: float | None,
        dropout: float,
        drop_path: float,
        norm_epsilon: float,
        init: BlockInit,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        common = {"dropout": dropout, "init": init, "dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.attn = RotaryAttention(width, heads, **attention, **common)
        self.ls1 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.mlp = Mlp(width, hidden, **common) if gated is None else GatedMlp(width, hidden, **gated, **common)
        self.ls2 = None if layer_scale is None else LayerScale(width, layer_scale, rngs=rngs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], drop_path: Rate | None = None, *, rotation: Float[Array, "2 n p"]
    ) -> Float[Array, "b n c"]:
        """Return the tokens after both residual branches, in the type of `x`; `rotation` is of `Rotary.table`."""
        y = self.attn(self.norm1(x), rotation)
        x = x + self.drop_path1(y if self.ls1 is None else self.ls1(y), drop_path)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.ls2 is None else self.ls2(y), drop_path)
