"""Networks of an image tower and a text tower, whose features share a space: CLIP, SigLIP and SigLIP 2.

CLIP: Radford et al. 2021 (arXiv 2103.00020); its larger sizes are LAION's (Cherti et al. 2022, arXiv 2212.07143).
SigLIP: Zhai et al. 2023 (arXiv 2303.15343). SigLIP 2: Tschannen et al. 2025 (arXiv 2502.14786). Image towers are
vision transformers (`vit.py`) with timm's names, text towers are in `text_tower.py`. The sizes are those of the
published configurations, which open_clip and `transformers` have too.

The MLPs of SigLIP have the tanh approximation of GELU, as in big_vision and `transformers`; open_clip and timm compute
most of them with the exact GELU. OpenAI's CLIP has the sigmoid approximation ("quick_gelu"), LAION's the exact GELU.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.initialisers import DrawnRngs, Draws, constant, parameter
from imagenet_repro.models.nn.layers import ACTIVATIONS
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.options import check_options
from imagenet_repro.models.registry import widen_parameters
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.models.text_tower import TextTower
from imagenet_repro.models.vit import SIZES, Design, VisionTransformer

CLIP_IMAGES = Preprocessing(
    crop_ratio=1.0,
    kernel="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
SIGLIP_IMAGES = Preprocessing(
    crop_ratio=1.0, kernel="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop="squash"
)


class Similarity(NamedTuple):
    """The features of a batch of images and of texts, and the scale and bias of their logits."""

    images: Float[Array, "n d"]  # float32, of length 1
    texts: Float[Array, "m d"]  # float32, of length 1
    scale: Float[Array, ""]  # of the cosines: logits are scale * images @ texts.T + bias
    bias: Float[Array, ""] | None


@dataclasses.dataclass(frozen=True)
class TextDesign:
    """The layout of a text tower."""

    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int
    context: int
    causal: bool
    pool: str  # "eot" or "last"
    projection: str = "linear"


@dataclasses.dataclass(frozen=True)
class TwoTowers:
    """One row of the table of networks with two towers.

    Attributes:
      image: the layout of the image tower.
      text: the layout of the text tower.
      features: number of features that the towers share.
      image_size: pixels of the square images.
      image_pool: "token" or "attention", as of `VisionTransformer`.
      norm_epsilon: of every layer normalisation.
      scale: initial factor of the cosines.
      bias: initial bias of the logits; None: no bias.
      tokenizer: the kind of tokens: "clip", "siglip", "siglip_i18n", "siglip2" or "bytes".
      images: the preprocessing of images but for their size.
      source: the publication, or "ours".
    """

    image: Design
    text: TextDesign
    features: int
    image_size: int
    image_pool: str
    norm_epsilon: float
    scale: float
    bias: float | None
    tokenizer: str
    images: Preprocessing
    source: str

    @property
    def options(self) -> dict[str, Any]:
        """Name and default of every option that a user may set."""
        return {
            "image_size": self.image_size,
            "activation": self.image.activation,
            "text_activation": "",
            "vocabulary": self.text.vocabulary,
            "context": self.text.context,
            "drop_path": 0.0,
            "scan": None,
            "remat": None,
        }

    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """Return the preprocessing of images of a size in pixels; None: the network's own."""
        return dataclasses.replace(self.images, image_size=image_size or self.image_size)


class ImageTextNetwork(nnx.Module):
    """An image tower and a text tower, with the scale and the bias of the logits of pairs.

    Attributes:
      image: the image tower, whose output is the features; a `VisionTransformer` in every published network.
      text: the text tower.
      logit_scale: the logarithm of the scale (the inverse temperature), a scalar.
      logit_bias: the bias of the logits, a scalar; None for CLIP.
    """

    origin: Origin | None = None  # set by `create_image_text`
    preprocessing: Preprocessing | None = None  # of the file of weights that was loaded last, where it states one
    class_names: tuple[str, ...] = ()  # empty: this network has no classes

    def __init__(self, image: Network, text: TextTower, *, scale: float, bias: float | None, rngs: nnx.Rngs):
        self.image, self.text = image, text
        self.logit_scale = parameter(rngs, constant(math.log(scale)), ())
        self.logit_bias = None if bias is None else parameter(rngs, constant(bias), ())

    def encode_image(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        """Return the float32 features of normalised images, not of length 1."""
        return widen(self.image(images))  # pyright: ignore[reportArgumentType]

    def encode_text(self, tokens: Int[Array, "n l"]) -> Float[Array, "n d"]:
        """Return the float32 features of tokens, not of length 1."""
        return self.text(tokens)

    def __call__(self, images: Float[Array, "n h w 3"], tokens: Int[Array, "m l"]) -> Similarity:
        """Return the features of images and texts, each of length 1, and the scale and the bias of their logits."""
        bias = None if self.logit_bias is None else self.logit_bias[...]
        return Similarity(
            unit(self.encode_image(images)), unit(self.encode_text(tokens)), jnp.exp(self.logit_scale[...]), bias
        )

    @property
    def known_origin(self) -> Origin:
        """The arguments of `create_image_text`; ValueError for a network that it did not make."""
        if self.origin is None:
            raise ValueError("this network was not made by create_image_text")
        return self.origin

    # Flax's own methods return None; returning the network lets calls be chained.
    def train(self, **attributes: Any) -> "ImageTextNetwork":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Switch to training mode, in place; return the network."""
        super().train(**attributes)
        return self

    def eval(self, **attributes: Any) -> "ImageTextNetwork":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Switch to evaluation mode, in place; return the network."""
        super().eval(**attributes)
        return self


def unit(features: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return the features divided by their length; those of length 0 stay 0."""
    return features * lax.rsqrt(jnp.maximum(jnp.square(features).sum(-1, keepdims=True), 1e-24))


# --- variants --------------------------------------------------------------------------------------------------

_SO400M = (1152, 27, 16, 4304)
_IMAGE_SIZES: dict[str, tuple[int, int, int, int]] = SIZES | {
    "so400m": _SO400M,  # Alabdulmohsin et al. 2023 (arXiv 2305.13035)
    "giantopt": (1536, 40, 16, 6144),
}
_CLIP_TEXTS = {  # width, depth, heads, hidden
    "base": (512, 12, 8, 2048),
    "large": (768, 12, 12, 3072),
    "huge": (1024, 24, 16, 4096),
    "giant": (1024, 24, 16, 4096),
    "gigantic": (1280, 32, 20, 5120),
}
_CLIP_FEATURES = {"base": 512, "large": 768, "huge": 1024, "giant": 1024, "gigantic": 1280}
_CLIP_VOCABULARY, _CLIP_CONTEXT = 49408, 77
_SIGLIP_VOCABULARIES = {"siglip": 32_000, "siglip_i18n": 250_000, "siglip2": 256_000}
_OPENAI, _LAION = "Radford et al. 2021, arXiv 2103.00020", "Cherti et al. 2022, arXiv 2212.07143"
_SIGLIP, _SIGLIP2 = "Zhai et al. 2023, arXiv 2303.15343", "Tschannen et al. 2025, arXiv 2502.14786"
_DFN = "Fang et al. 2023, arXiv 2309.17425"
_BYTES = {"vocabulary": 259, "context": 64}  # 256 bytes, padding, start and end of text


def _clip(size: str, patch: int, image_size: int, source: str, *, activation: str = "quick_gelu") -> TwoTowers:
    return TwoTowers(
        image=Design(*SIZES[size], patch, activation=activation, norm_pre=True),
        text=TextDesign(*_CLIP_TEXTS[size], _CLIP_VOCABULARY, _CLIP_CONTEXT, causal=True, pool="eot"),
        features=_CLIP_FEATURES[size],
        image_size=image_size,
        image_pool="token",
        norm_epsilon=1e-5,
        scale=1 / 0.07,
        bias=None,
        tokenizer="clip",
        images=CLIP_IMAGES,
        source=source,
    )


def _siglip(size: str, patch: int, image_size: int, tokenizer: str, *, context: int = 64) -> TwoTowers:
    image = _IMAGE_SIZES[size]
    width = image[0]
    text = _SO400M if size == "giantopt" else image
    return TwoTowers(
        image=Design(*image, patch, activation="gelu_tanh", crops_patches=image_size % patch > 0),
        text=TextDesign(
            *text,
            _SIGLIP_VOCABULARIES[tokenizer],
            context,
            causal=False,
            pool="last",
            projection="none" if (tokenizer, size) == ("siglip_i18n", "so400m") else "biased",
        ),
        features=width,
        image_size=image_size,
        image_pool="attention",
        norm_epsilon=1e-6,
        scale=10.0,
        bias=-10.0,
        tokenizer=tokenizer,
        images=SIGLIP_IMAGES,
        source=_SIGLIP2 if tokenizer == "siglip2" else _SIGLIP,
    )


def _published_siglip() -> dict[str, TwoTowers]:
    """Return the published variants of both versions, one for each size of images."""
    sizes = {  # version, size of the network, pixels of a patch: pixels of images
        ("siglip", "base", 16): (224, 256, 384, 512),
        ("siglip", "large", 16): (256, 384),
        ("siglip", "so400m", 14): (224, 384),
        ("siglip_i18n", "base", 16): (256,),
        ("siglip_i18n", "so400m", 16): (256,),
        ("siglip2", "base", 32): (256,),
        ("siglip2", "base", 16): (224, 256, 384, 512),
        ("siglip2", "large", 16): (256, 384, 512),
        ("siglip2", "so400m", 14): (224, 384),
        ("siglip2", "so400m", 16): (256, 384, 512),
        ("siglip2", "giantopt", 16): (256, 384),
    }
    variants = {}
    for (version, size, patch), image_sizes in sizes.items():
        for pixels in image_sizes:
            short = (version, size, pixels) == ("siglip", "so400m", 224)  # published with texts of 16 tokens
            name = f"{version}_vit_{size}_patch{patch}_{pixels}"
            variants[name] = _siglip(size, patch, pixels, version, context=16 if short else 64)
    return variants


def _ours(like: TwoTowers) -> TwoTowers:
    """Return a network for 32 pixels and byte tokens, with the parts of `like`; no publication has it."""
    width, depth, heads, hidden = SIZES["tiny"]
    return dataclasses.replace(
        like,
        image=dataclasses.replace(like.image, width=width, depth=depth, heads=heads, hidden=hidden, patch=8),
        text=dataclasses.replace(like.text, width=width, depth=4, heads=heads, hidden=hidden, **_BYTES),
        features=width,
        image_size=32,
        tokenizer="bytes",
        source="ours",
    )


TWO_TOWERS: dict[str, TwoTowers] = {
    "clip_vit_base_patch32": _clip("base", 32, 224, _OPENAI),
    "clip_vit_base_patch16": _clip("base", 16, 224, _OPENAI),
    "clip_vit_large_patch14": _clip("large", 14, 224, _OPENAI),
    "clip_vit_large_patch14_336": _clip("large", 14, 336, _OPENAI),
    "clip_vit_huge_patch14": _clip("huge", 14, 224, _LAION, activation="gelu"),
    "clip_vit_huge_patch14_378": _clip("huge", 14, 378, _DFN),
    "clip_vit_giant_patch14": _clip("giant", 14, 224, _LAION, activation="gelu"),
    "clip_vit_gigantic_patch14": _clip("gigantic", 14, 224, _LAION, activation="gelu"),
    **_published_siglip(),
}
TWO_TOWERS["ours_tiny_clip"] = _ours(TWO_TOWERS["clip_vit_base_patch32"])
TWO_TOWERS["ours_tiny_siglip"] = _ours(TWO_TOWERS["siglip_vit_base_patch16_224"])
_ALIASES = {
    name.removesuffix(f"_{design.image_size}"): name
    for name, design in reversed(TWO_TOWERS.items())
    if name.startswith("siglip")
}  # the smallest images


def two_towers(name: str) -> TwoTowers:
    """Return the description of the network `name`.

    A name of SigLIP without a number of pixels is that of its smallest images.

    Raises:
      UserError: no network with two towers has that name.
    """
    if "naflex" in name.lower():
        raise UserError(
            f"'{name}' is not here: NaFlex takes images of any shape as a list of patches with a mask, and these"
            " networks take squares; use siglip2_vit_base_patch16_256 or another SigLIP 2"
        )
    name = _ALIASES.get(name, name)
    if name not in TWO_TOWERS:
        raise UserError(f"no network with two towers is called '{name}': {nearest(name, [*TWO_TOWERS, *_ALIASES])}")
    return TWO_TOWERS[name]


def create_image_text(
    name: str, rngs: nnx.Rngs, *, dtype: DTypeLike = jnp.float32, **options: Any
) -> ImageTextNetwork:
    """Return the network `name` in training mode, with parameters drawn from `rngs`.

    Args:
      name: one of `TWO_TOWERS`, or a SigLIP without its pixels.
      rngs: random streams; `initialisers.initialise` compiles the drawing.
      dtype: of the computation.
      options: `image_size` (pixels), `activation` (of `layers.ACTIVATIONS`), `text_activation` (empty: as of images),
        `vocabulary` and `context` (tokens), `drop_path`, `scan` and `remat` (both towers).

    Raises:
      UserError: an unknown name or option, or a value that the option does not take.
    """
    design = two_towers(name)
    check_options(name, design.options, options)
    chosen = design.options | options
    chosen["text_activation"] = chosen["text_activation"] or chosen["activation"]
    for option in ("activation", "text_activation"):
        if chosen[option] not in ACTIVATIONS:
            raise UserError(f"{name} has no {option}='{chosen[option]}': {nearest(chosen[option], ACTIVATIONS)}")
    common = {key: chosen[key] for key in ("drop_path", "scan", "remat")}
    common |= {"norm_epsilon": design.norm_epsilon, "dtype": jnp.dtype(dtype), "rngs": rngs}
    has_projection = design.image_pool == "token"
    image = VisionTransformer(
        dataclasses.replace(design.image, activation=chosen["activation"]),
        num_classes=design.features if has_projection else 0,
        head_bias=None,
        image_size=chosen["image_size"],
        pool=design.image_pool,
        **common,
    )
    sizes = dataclasses.asdict(design.text) | {"vocabulary": chosen["vocabulary"], "context": chosen["context"]}
    text = TextTower(**sizes, features=design.features, activation=chosen["text_activation"], **common)
    network = ImageTextNetwork(image, text, scale=design.scale, bias=design.bias, rngs=rngs)
    if jnp.dtype(dtype) == jnp.float64:
        widen_parameters(network)
    network.origin = Origin(_ALIASES.get(name, name), 0, options)
    return network


def abstract_image_text(name: str, *, dtype: DTypeLike = jnp.float32, **options: Any) -> ImageTextNetwork:
    """Return the network with a `jax.ShapeDtypeStruct` for every array; arguments are those of `create_image_text`."""

    def build() -> ImageTextNetwork:
        return create_image_text(name, DrawnRngs(jax.random.key(0), Draws()), dtype=dtype, **options)

    return nnx.eval_shape(build)
