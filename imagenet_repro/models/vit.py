"""Vision transformers: Dosovitskiy et al. 2020 (arXiv 2010.11929), and their successors DeiT and DINOv2.

Sizes Ti and S are from DeiT (Touvron et al. 2020, arXiv 2012.12877), g and G from "Scaling vision transformers" (Zhai
et al. 2021, arXiv 2106.04560, table 2). DeiT III (Touvron et al. 2022, arXiv 2204.07118) adds LayerScale and removes
the position of the class token. DINOv2 (Oquab et al. 2023, arXiv 2304.07193) adds LayerScale, and SwiGLU in its
largest variant; its variants with registers (Darcet et al. 2023, arXiv 2309.16588) have four more tokens, which the
head does not read.

Layers, names and initial values are timm's. Deviations: g and G have a class token, as in timm, while the paper pools
by attention; GELU is exact, while Google's code uses the tanh approximation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.attention import INIT, AttentionPool, Block, dense, dropout_layer
from imagenet_repro.models.nn.initialisers import normal, parameter
from imagenet_repro.models.nn.layers import Conv, LayerNorm, check_images, drop_path_rates
from imagenet_repro.models.nn.network import Network, WithAuxiliary
from imagenet_repro.models.nn.precision import wide_dtype, widen
from imagenet_repro.models.nn.stack import Shared, Stack
from imagenet_repro.models.spec import Preprocessing, Spec

POOLS = ("token", "avg", "token_and_avg", "attention")
POSITIONS = ("learned", "sincos2d", "none")
FEATURE_BLOCKS = 4  # last blocks whose class tokens are features, as in DINOv2's linear evaluation
SCAN_FROM = 24  # blocks, from which compilation takes longer than stacking the parameters


@dataclasses.dataclass(frozen=True)
class Design:
    """The layout of one variant."""

    width: int
    depth: int  # blocks
    heads: int
    hidden: int  # width of the MLP
    patch: int  # pixels on a side
    layer_scale: float | None = None  # initial value of LayerScale's factors
    gated: bool = False  # SwiGLU in place of the MLP
    registers: int = 0
    prefix_positions: bool = True  # whether the tokens before the patches have positions
    activation: str = "gelu"  # of the MLP, one of layers.ACTIVATIONS
    norm_pre: bool = False  # a norm before the blocks, and patches embedded without a bias, as in CLIP
    crops_patches: bool = False  # whether pixels at the right and the bottom that fill no patch are left out


class PatchEmbed(nnx.Module):
    """A linear layer on each patch, written as a convolution (sec. 3.1, eq. 1)."""

    def __init__(self, width: int, patch: int, *, bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj = Conv(3, width, patch, stride=patch, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b gh gw c"]:
        """Return the grid of embedded patches."""
        return self.proj(images)


class VisionTransformer(Network):
    """Patches as tokens after a class token, encoder blocks, a norm, a linear head.

    The sides of images are multiples of the patch. Positions are learned for images of `image_size` (pixels, square)
    and interpolated for other sizes (`resize_positions`).

    Args:
      depth: number of blocks; None: the variant's.
      pool: the input of the head: the class "token", the mean over patches ("avg", without a class token, as in
        "Better plain ViT baselines", Beyer et al. 2022, arXiv 2205.01580), both ("token_and_avg", as of DINOv2's
        classifiers, Oquab et al. 2023, arXiv 2304.07193), or a query's attention to the patches ("attention", without
        a class token, `AttentionPool`).
      positions: "learned", "sincos2d", fixed sines and cosines of both coordinates (the same paper), or "none".
      dropout: rate after the positions and after every linear layer but qkv and the head (appendix B.1).
      drop_path: rate of stochastic depth at the last block.
      norm_epsilon: of every layer normalisation; 1e-6 in timm, 1e-12 in ViT and DeiT of `transformers`.
      head_bias: initial bias of the head; AugReg (Steiner et al. 2021, arXiv 2106.10270) uses -6.9 and -10, with which
        its sigmoid loss begins near log(classes). None: a head without biases, as CLIP's projection.
      scan: whether equal blocks are compiled once (`Stack`); None: from 24 blocks on.
      remat: whether the backward pass computes the inside of each block again and stores only its input; None: where
        memory does not suffice (`Stack`).
    """

    def __init__(
        self,
        design: Design,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        image_size: int = 224,
        depth: int | None = None,
        pool: str = "token",
        positions: str = "learned",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_epsilon: float = 1e-6,
        head_bias: float | None = 0.0,
        scan: bool | None = None,
        remat: bool | None = None,
    ):
        _check_choice("pool", pool, POOLS)
        _check_choice("positions", positions, POSITIONS)
        depth = design.depth if depth is None else depth
        width, patch = design.width, design.patch
        self.patch, self.pooling, self.positions, self.dtype = patch, pool, positions, dtype
        self.crops_patches = design.crops_patches
        self.grid = self._grid(image_size, image_size)
        self.patch_embed = PatchEmbed(width, patch, bias=not design.norm_pre, dtype=dtype, rngs=rngs)
        self.cls_token = self._token(width, 1, rngs) if pool not in ("avg", "attention") else None
        self.reg_token = self._token(width, design.registers, rngs) if design.registers else None
        # Fixed positions are those of the grid alone; only learned positions may include those of other tokens.
        has_prefix_positions = design.prefix_positions and positions == "learned"
        self.positioned = self.prefix if has_prefix_positions else 0
        n_positions = self.positioned + self.grid[0] * self.grid[1]
        self.pos_embed = parameter(rngs, INIT, (1, n_positions, width)) if positions == "learned" else None
        self.pos_drop = dropout_layer(dropout, rngs)
        self.norm_pre = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype) if design.norm_pre else None
        block = functools.partial(
            self._block, design, dropout=dropout, norm_epsilon=norm_epsilon, dtype=dtype, rngs=rngs
        )
        self.blocks = Stack(
            [block(number, drop_path=rate) for number, rate in enumerate(drop_path_rates(drop_path, depth))],
            scan=depth >= SCAN_FROM if scan is None else scan,
            remat=remat,
        )
        self.norm = LayerNorm(width, epsilon=norm_epsilon, dtype=dtype)
        self.attn_pool = self._attention_pool(design, norm_epsilon, rngs) if pool == "attention" else None
        self.head_ = (
            dense(
                width * (2 if pool == "token_and_avg" else 1),
                num_classes,
                wide=True,
                bias=head_bias,
                dtype=dtype,
                rngs=rngs,
            )
            if num_classes
            else None
        )

    @staticmethod
    def _block(design: Design, number: int, **arguments: Any) -> nnx.Module:
        """Return the block of a number from 0 on; `arguments` are the others of `Block`."""
        del number
        return Block(
            design.width,
            design.heads,
            design.hidden,
            gated=design.gated,
            layer_scale=design.layer_scale,
            activation=design.activation,
            **arguments,
        )

    def _shared(self, images: Float[Array, "b h w 3"]) -> Shared:
        """Return what every block receives besides the tokens of these images."""
        del images
        return {}

    def _normalise(self, tokens: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Return the tokens after the norm that follows the last block."""
        return self.norm(tokens)

    def _attention_pool(self, design: Design, norm_epsilon: float, rngs: nnx.Rngs) -> AttentionPool:
        return AttentionPool(
            design.width,
            design.heads,
            design.hidden,
            activation=design.activation,
            norm_epsilon=norm_epsilon,
            dtype=self.dtype,
            rngs=rngs,
        )

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the number of patches down and across; UserError where the sides do not fit."""
        if self.crops_patches and min(height, width) >= self.patch:
            return height // self.patch, width // self.patch
        return patch_grid(height, width, self.patch)

    @staticmethod
    def _token(width: int, number: int, rngs: nnx.Rngs) -> nnx.Param:
        return parameter(rngs, normal(1e-6), (1, number, width))

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches."""
        return sum(token.shape[1] for token in self._prefix_tokens())

    def _prefix_tokens(self) -> list[nnx.Param]:
        return [token for token in (self.cls_token, self.reg_token) if token is not None]

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Return the normalised tokens after the last block, in the network's dtype.

        Tokens come in the order class, registers, patches row by row.

        Raises:
          UserError: the images are not [batch, height, width, 3], or a side is not a multiple of the patch; the
            message names the nearest size that fits.
        """
        return self._normalise(self.blocks(self._embed(images), **self._shared(images)))

    def split_at_map(
        self, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b mh mw d"], Callable[[Float[Array, "b mh mw d"]], Float[Array, "b classes"]]]:
        """Return the map of the patch tokens before the last block, and the function from it to the logits."""
        shared = self._shared(images)
        tokens = self.blocks.all_but_last(self._embed(images), **shared)
        others = tokens[:, : self.prefix]

        def logits(patches: Float[Array, "b mh mw d"]) -> Float[Array, "b classes"]:
            x = jnp.concatenate([others, patches.reshape(len(patches), -1, patches.shape[-1])], axis=1)
            return self.head(self.pool(self._normalise(self.blocks.last(x, **shared))))

        grid = self._grid(images.shape[1], images.shape[2])
        return tokens[:, self.prefix :].reshape(len(images), *grid, -1), logits

    def _embed(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Return the tokens before the first block."""
        check_images("ViT", images)
        grid = self._grid(images.shape[1], images.shape[2])
        x = self.patch_embed(images).reshape(len(images), grid[0] * grid[1], -1)
        prefix = [jnp.broadcast_to(token[...], (len(x), *token.shape[1:])) for token in self._prefix_tokens()]
        positions = self._positions(grid, x.shape[-1])
        x = jnp.concatenate([*(token.astype(self.dtype) for token in prefix), x], axis=1)
        if positions is not None:
            unpositioned = x.shape[1] - positions.shape[1]
            x = x + jnp.pad(positions, ((0, 0), (unpositioned, 0), (0, 0))).astype(self.dtype)
        x = self.pos_drop(x)
        return x if self.norm_pre is None else self.norm_pre(x)

    def _positions(self, grid: tuple[int, int], width: int) -> Float[Array, "1 n c"] | None:
        if self.pos_embed is not None:
            return resize_positions(self.pos_embed[...], self.grid, grid)
        return jnp.asarray(sincos2d(grid, width))[None] if self.positions == "sincos2d" else None

    def pool(self, features: Float[Array, "b n c"]) -> Float[Array, "b c"]:
        """Return the class token, the float32 mean over the patch tokens, one after the other, or their attention."""
        if self.attn_pool is not None:
            return self.attn_pool(features)
        if self.pooling == "token":
            return features[:, 0]
        mean = features[:, self.prefix :].mean(1, dtype=wide_dtype(features.dtype))
        return mean if self.pooling == "avg" else jnp.concatenate([widen(features[:, 0]), mean], axis=-1)

    def head(self, pooled: Float[Array, "b c"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the linear layer."""
        return widen(pooled if self.head_ is None else self.head_(pooled))

    @property
    def feature_layers(self) -> dict[str, tuple[str, ...]]:
        """The pooled features; with a class token also those of the last blocks, without and with the patches' mean.

        `class_tokens_4` are the class tokens of the last four blocks, the last one at the end (DINOv2's
        `create_linear_input`); a network with fewer blocks has fewer.
        """
        if self.cls_token is None:
            return {"pooled": ("pooled",)}
        tokens = tuple(f"class_token_{number}" for number in range(self._n_feature_blocks, 0, -1))
        with_patches = (tokens[-1], "patch_mean")
        layers = {"pooled": tokens[-1:], "class_token": tokens[-1:], "class_token_patch_mean": with_patches}
        if len(tokens) > 1:
            layers |= {f"class_tokens_{len(tokens)}": tokens}
            layers |= {f"class_tokens_{len(tokens)}_patch_mean": (*tokens, "patch_mean")}
        return layers

    @property
    def _n_feature_blocks(self) -> int:
        return min(FEATURE_BLOCKS, len(self.blocks))

    def feature_parts(self, images: Float[Array, "b h w 3"]) -> dict[str, Float[Array, "b n"]]:
        """Return the parts of all `feature_layers`: normalised, float32; `class_token_1` is the last block's."""
        if self.cls_token is None:
            return super().feature_parts(images)
        outputs = self.blocks.outputs(self._embed(images), self._n_feature_blocks, **self._shared(images))
        blocks = [self._normalise(x) for x in outputs]
        parts = {f"class_token_{len(blocks) - i}": widen(tokens[:, 0]) for i, tokens in enumerate(blocks)}
        patches = blocks[-1][:, self.prefix :]
        parts["patch_mean"] = widen(patches.mean(1, dtype=wide_dtype(patches.dtype)))
        if self.feature_layers["pooled"] == ("pooled",):
            parts["pooled"] = self.head(self.pool(blocks[-1]))
        return parts


class DistilledVisionTransformer(VisionTransformer):
    """DeiT with a distillation token, which has its own head (Touvron et al. 2020, sec. 4).

    In evaluation mode the logits are the mean over both heads. In training mode both are returned, as `WithAuxiliary`
    with weight 1. The second head learns from a teacher (`config.distill`); without one, both learn from the labels.
    """

    def __init__(
        self,
        design: Design,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        image_size: int = 224,
        depth: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_epsilon: float = 1e-6,
        scan: bool | None = None,
        remat: bool | None = None,
    ):
        self.dist_token = parameter(rngs, INIT, (1, 1, design.width))
        super().__init__(
            design,
            rngs=rngs,
            num_classes=num_classes,
            dtype=dtype,
            image_size=image_size,
            depth=depth,
            dropout=dropout,
            drop_path=drop_path,
            norm_epsilon=norm_epsilon,
            scan=scan,
            remat=remat,
        )
        self.head_dist = dense(design.width, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None
        self.deterministic = False

    def _prefix_tokens(self) -> list[nnx.Param]:
        return [*super()._prefix_tokens(), self.dist_token]

    def pool(self, features: Float[Array, "b n c"]) -> Float[Array, "b 2 c"]:
        """Return the class token and the distillation token."""
        return features[:, :2]

    def head(self, pooled: Float[Array, "b 2 c"]) -> Float[Array, "b classes"]:
        """Return the mean of both heads' float32 logits, or of both tokens where there are no heads."""
        if self.head_ is None:
            return pooled.mean(1, dtype=wide_dtype(pooled.dtype))
        logits, distilled = self._both_logits(pooled)
        return (logits + distilled) / 2

    @property
    def feature_layers(self) -> dict[str, tuple[str, ...]]:
        """As of the network without distillation, but the pooled features are the mean of both tokens."""
        return super().feature_layers | {"pooled": ("pooled",)}

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"] | WithAuxiliary:
        """Return float32 logits: in training mode those of both heads, in evaluation mode their mean."""
        if self.head_ is None or self.deterministic:
            return super().__call__(images)
        logits, distilled = self._both_logits(self.pool(self.features(images)))
        return WithAuxiliary(logits, (distilled,), 1.0, is_distilled=True)

    def _both_logits(self, pooled: Float[Array, "b 2 c"]) -> list[Float[Array, "b classes"]]:
        heads = (self.head_, self.head_dist)
        return [widen(head(pooled[:, index])) for index, head in enumerate(heads) if head is not None]


class DinoV2(VisionTransformer):
    """The backbone of DINOv2; positions are learned for images of 518 pixels by default.

    `mask_token` adds the parameter that replaces hidden patches in pre-training. The released files have it, the
    network does not use it, and timm leaves it out. All other options are VisionTransformer's.
    """

    def __init__(
        self,
        design: Design,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        image_size: int = 518,
        mask_token: bool = False,
        **options: Any,
    ):
        super().__init__(design, rngs=rngs, num_classes=num_classes, dtype=dtype, image_size=image_size, **options)
        self.mask_token = nnx.Param(jnp.zeros((1, design.width), jnp.float32)) if mask_token else None


# --- positions -------------------------------------------------------------------------------------------------


def resize_positions(
    positions: Float[Array, "1 n c"], grid: tuple[int, int], new: tuple[int, int]
) -> Float[Array, "1 m c"]:
    """Return positions for another grid of patches, by antialiased bicubic interpolation (a = -0.5).

    Rows before the last `grid[0] * grid[1]` belong to other tokens and stay as they are. The result equals that of
    PyTorch's `interpolate(mode="bicubic", antialias=True)`, which timm uses.
    """
    if grid == new:
        return positions
    count, width = grid[0] * grid[1], positions.shape[-1]
    prefix, patches = positions[:, :-count], positions[:, -count:]
    patches = jax.image.resize(patches.reshape(1, *grid, width), (1, *new, width), "cubic", antialias=True)
    return jnp.concatenate([prefix, patches.reshape(1, new[0] * new[1], width)], axis=1)


def sincos2d(grid: tuple[int, int], width: int) -> Float[np.ndarray, "n c"]:
    """Return fixed positions: sines and cosines of column and row, at width / 4 frequencies from 1 to 1e-4.

    The result is float32, patches row by row, as in MoCo v3 (Chen et al. 2021, arXiv 2104.02057) and Beyer et al.
    2022. Raises UserError where 4 does not divide the width.
    """
    if width % 4:
        raise UserError(f"positions='sincos2d' needs a width that 4 divides; this one is {width}")
    frequencies = 1e4 ** -np.linspace(0.0, 1.0, width // 4)
    rows, columns = (axis.reshape(-1, 1) * frequencies for axis in np.mgrid[: grid[0], : grid[1]])
    return np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], axis=1).astype(np.float32)


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Return the number of patches down and across; UserError where a side is not a multiple of the patch."""
    if height % patch or width % patch or min(height, width) < patch:
        near = [max(patch, round(side / patch) * patch) for side in (height, width)]
        raise UserError(
            f"a ViT with patches of {patch} pixels cannot take {height} x {width}: its sides must be multiples of"
            f" {patch}, such as {near[0]} x {near[1]}"
        )
    return height // patch, width // patch


def _check_choice(option: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"a ViT has no {option}='{value}': {nearest(value, valid)}")


# --- variants --------------------------------------------------------------------------------------------------


def layer_of(depth: int) -> Callable[[str], int]:
    """Return the function from a parameter's name to its layer: 0 before the blocks, then 1 to `depth`, `depth` + 1.

    Layer-wise decay of the learning rate counts layers in this way (Bao et al. 2021, arXiv 2106.08254).
    """

    def layer(name: str) -> int:
        first, *rest = name.split(".")
        if first == "blocks":
            return int(rest[0]) + 1
        return 0 if first == "patch_embed" or first.endswith(("_token", "pos_embed")) else depth + 1

    return layer


def _spec(
    design: Design, reference: str, *, builder: Callable[..., Network] = VisionTransformer, **fields: Any
) -> Spec:
    return Spec(
        reference=f"timm:{reference}",
        builder=builder,
        sizes=(design,),
        layers=lambda network: layer_of(len(network.blocks)),
        **fields,
    )


VIT = Preprocessing(crop_ratio=0.9, kernel="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DEIT = Preprocessing(crop_ratio=0.9, kernel="bicubic")
DINOV2 = Preprocessing(image_size=518, crop_ratio=1.0, kernel="bicubic")

SIZES = {  # width, depth, heads, hidden
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
}


def _vit(size: str, patch: int) -> tuple[str, Spec]:
    name = f"vit_{size}_patch{patch}"
    reference = f"{name}_224"
    return name, _spec(Design(*SIZES[size], patch), reference, preprocessing=VIT, aliases=(reference,))


def _deit(size: str, *, distilled: bool = False) -> tuple[str, Spec]:
    name = f"deit_{size}{'_distilled' if distilled else ''}_patch16"
    reference = f"{name}_224"
    return name, _spec(
        Design(*SIZES[size], 16),
        reference,
        builder=DistilledVisionTransformer if distilled else VisionTransformer,
        preprocessing=DEIT,
        aliases=(reference,),
    )


def _deit3(size: str, patch: int) -> tuple[str, Spec]:
    name = f"deit3_{size}_patch{patch}"
    reference = f"{name}_224"
    design = Design(*SIZES[size], patch, layer_scale=1e-6, prefix_positions=False)
    return name, _spec(design, reference, preprocessing=DEIT, aliases=(reference,))


def _dinov2(size: str, registers: int) -> tuple[str, Spec]:
    name = f"vit_{size}_patch14_{f'reg{registers}_' if registers else ''}dinov2"
    sizes = (1536, 40, 24, 4096) if size == "giant" else SIZES[size]
    design = Design(
        *sizes,
        14,
        layer_scale=1e-5,
        gated=size == "giant",
        registers=registers,
        prefix_positions=not registers,  # with registers the released class token includes its position
    )
    return name, _spec(design, name, builder=DinoV2, num_classes=0, preprocessing=DINOV2)


VARIANTS: dict[str, Spec] = dict(
    [
        _vit("tiny", 16),
        _vit("small", 32),
        _vit("small", 16),
        _vit("base", 32),
        _vit("base", 16),
        _vit("base", 8),
        _vit("large", 32),
        _vit("large", 16),
        _vit("huge", 14),
        _vit("giant", 14),
        _vit("gigantic", 14),
        _deit("tiny"),
        _deit("small"),
        _deit("base"),
        _deit("tiny", distilled=True),
        _deit("small", distilled=True),
        _deit("base", distilled=True),
        _deit3("small", 16),
        _deit3("base", 16),
        _deit3("large", 16),
        _deit3("huge", 14),
        *(_dinov2(size, registers) for registers in (0, 4) for size in ("small", "base", "large", "giant")),
    ]
)
