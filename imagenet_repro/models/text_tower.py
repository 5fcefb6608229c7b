"""Text towers of CLIP (Radford et al. 2021, arXiv 2103.00020) and SigLIP (Zhai et al. 2023, arXiv 2303.15343).

Both embed tokens, add learned positions, apply encoder blocks and a norm, and project the features of one position.
CLIP's tokens attend to those before them, and the features are those of the end-of-text token (sec. 2.4). SigLIP's
attend to all tokens, padding included, and the features are those of the last position, as in big_vision.
"""

import functools

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.attention import INIT, Block, BlockInit, dense
from imagenet_repro.models.nn.initialisers import normal, parameter
from imagenet_repro.models.nn.layers import LayerNorm, drop_path_rates
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.nn.stack import Stack

POOLS = ("eot", "last")
SCAN_FROM = 24  # blocks, as of image towers


class Embedding(nnx.Module):
    """A vector for each token of a vocabulary."""

    def __init__(self, vocabulary: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.weight = parameter(rngs, INIT, (vocabulary, width))
        self.dtype = dtype

    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l c"]:
        """Return the vectors in the layer's dtype; numbers beyond the vocabulary take its nearest token."""
        return jnp.take(self.weight[...], tokens, axis=0, mode="clip").astype(self.dtype)


class TextTower(nnx.Module):
    """Text to one vector: embedded tokens with learned positions, blocks, a norm, the features of one position.

    Initial weights are CLIP's (`initialize_parameters` of its `model.py`).

    Args:
      vocabulary: number of tokens.
      context: tokens of the longest text, for which there are positions.
      width: of the tokens.
      depth: number of blocks.
      heads: of the attention.
      hidden: width of the MLP.
      features: of the result.
      causal: whether a token attends to those before it alone.
      pool: the position whose features count: that of the highest token, which is the end of text ("eot"), or the
        "last".
      end_token: number of the end-of-text token where it is not the highest of the vocabulary; with it, "eot" is the
        first position that has this token.
      projection: "linear" (without a bias), "biased", or "none".
      activation: of the MLP, one of `layers.ACTIVATIONS`.
      norm_epsilon: of every layer normalisation.
      drop_path: rate of stochastic depth at the last block.
      scan: whether equal blocks are compiled once (`Stack`); None: from 24 blocks on.
      remat: whether the backward pass computes the inside of each block again (`Stack`).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        features: int,
        causal: bool,
        pool: str,
        end_token: int | None = None,
        projection: str = "linear",
        activation: str = "gelu",
        norm_epsilon: float = 1e-5,
        drop_path: float = 0.0,
        scan: bool | None = None,
        remat: bool | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if pool not in POOLS:
            raise UserError(f"a text tower has no pool='{pool}': {nearest(pool, POOLS)}")
        self.vocabulary, self.context, self.width = vocabulary, context, width
        self.pooling, self.end_token, self.dtype = pool, end_token, dtype
        self.token_embedding = Embedding(vocabulary, width, dtype=dtype, rngs=rngs)
        self.pos_embed = parameter(rngs, normal(0.01), (context, width))
        residual = normal(width**-0.5 * (2 * depth) ** -0.5)
        block = functools.partial(
            Block,
            width,
            heads,
            hidden,
            gated=False,
            layer_scale=None,
            dropout=0.0,
            norm_epsilon=norm_epsilon,
            causal=causal,
            activation=activation,
            init=BlockInit(normal(width**-0.5), residual, normal((2 * width) ** -0.5), residual),
            dtype=dtype,
            rngs=rngs,
        )
        self.blocks = Stack(
            [block(drop_path=rate) for rate in drop_path_rates(drop_path, depth)],
            scan=depth >= SCAN_FROM if scan is None else scan,
            remat=remat,
        )
        self.norm = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.proj = (
            None
            if projection == "none"
            else dense(
                width,
                features,
                init=normal(width**-0.5),
                bias=0.0 if projection == "biased" else None,
                wide=True,
                dtype=dtype,
                rngs=rngs,
            )
        )

    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b d"]:
        """Return float32 features, not normalised.

        Args:
          tokens: one row for each text, padded; at most `context` of them, and exactly as many where the last
            position counts.

        Raises:
          UserError: the rows are too long or too short.
        """
        self._check_length(tokens)
        x = self.token_embedding(tokens) + self.pos_embed[...][: tokens.shape[1]].astype(self.dtype)
        x = self.norm(self.blocks(x))
        pooled = x[:, -1] if self.pooling == "last" else self._at_end(x, tokens)
        return widen(pooled if self.proj is None else self.proj(pooled))

    def _check_length(self, tokens: Int[Array, "b l"]) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(
                f"a text tower takes whole numbers [batch, tokens], these are {tokens.dtype} {tokens.shape}"
            )
        length = tokens.shape[1]
        if length > self.context or (self.pooling == "last" and length != self.context):
            wanted = "exactly" if self.pooling == "last" else "at most"
            raise UserError(f"texts have {length} tokens; this text tower takes {wanted} {self.context}")

    def _at_end(self, x: Float[Array, "b l c"], tokens: Int[Array, "b l"]) -> Float[Array, "b c"]:
        ends = tokens if self.end_token is None else tokens == self.end_token
        positions = lax.argmax(ends.astype(jnp.int32), 1, jnp.int32)
        return jnp.take_along_axis(x, positions[:, None, None], axis=1)[:, 0]
