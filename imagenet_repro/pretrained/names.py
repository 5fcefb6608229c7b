"""Conversion of other implementations' names to ours, by a table of regular expressions for each naming scheme.

Our names are those of torchvision or timm, as each network's `Spec.reference` says. The same networks are published
under other names by the `transformers` library, by their authors, and by the one of torchvision and timm that is not
our reference. A scheme is recognised by a tensor that no other scheme has. Where one tensor of ours is several of
theirs (queries, keys and values of an attention, both inputs of a SwiGLU), the rule numbers the parts:
`qkv.weight|0` is the first.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import forms, image_text_names

Tensors = Mapping[str, np.ndarray]
Rules = tuple[tuple[str, str], ...]
DROPPED = ""  # the new name of a tensor that neither classification nor features use


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A naming scheme for the tensors of one family."""

    title: str
    marker: str  # regular expression that a tensor's whole name matches in this scheme alone
    rules: Rules  # (regular expression of a whole name, its replacement); the first match counts
    prepare: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict  # is applied before the rules
    # Maps the tensors under our names to the publisher's preprocessing of images; None where it is not certain.
    preprocessing: Callable[[Tensors], Preprocessing | None] = lambda tensors: None


@dataclasses.dataclass(frozen=True)
class Converted:
    """Tensors under our names.

    Attributes:
      tensors: by our names.
      scheme: of their original names; None where these were ours.
      dropped: tensors that no network here uses, by the scheme's names.
    """

    tensors: dict[str, np.ndarray]
    scheme: Scheme | None = None
    dropped: tuple[str, ...] = ()


def convert(tensors: Tensors) -> Converted:
    """Return the tensors under our names, in PyTorch's layout.

    Arrays are expected in PyTorch's layout, except those of the original ViT releases.

    Raises:
      UserError: a part of a tensor is missing, a tensor's shape does not fit its name, or two tensors have the same
        new name.
    """
    for scheme in SCHEMES:
        if any(re.fullmatch(scheme.marker, name) for name in tensors):
            return _convert(tensors, scheme)
    return Converted(dict(tensors))


def _convert(tensors: Tensors, scheme: Scheme) -> Converted:
    prepared = scheme.prepare(dict(tensors))
    new_names = {name: _rename(name, scheme.rules) for name in prepared}
    dropped = tuple(name for name, new in new_names.items() if new == DROPPED)
    renamed = _unique((name, new, prepared[name]) for name, new in new_names.items() if new != DROPPED)
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name in [name for name in renamed if "|" in name]:
        joined_name, _, number = name.partition("|")
        parts.setdefault(joined_name, {})[int(number)] = renamed.pop(name)
    for joined_name, arrays in parts.items():
        if joined_name in renamed:
            raise UserError(
                f"the weights have the tensor '{joined_name}' both whole and in parts; leave one of them out"
            )
        renamed[joined_name] = _join(joined_name, arrays)
    return Converted(renamed, scheme, dropped)


def _join(name: str, parts: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the tensor that the weights have in parts."""
    count = 3 if ".qkv." in name else 2
    if sorted(parts) != list(range(count)):
        raise UserError(f"of the {count} parts of the tensor '{name}', the weights have only {len(parts)}")
    arrays = [parts[number] for number in range(count)]
    with _shape_errors(name, *arrays):
        return np.concatenate(arrays)


def _unique(tensors: Iterable[tuple[str, str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return arrays by their new names, from (name, new name, array); UserError where two have the same new name."""
    renamed, old_names = {}, {}
    for name, new, array in tensors:
        if new in renamed:
            raise UserError(
                f"the tensors '{old_names[new]}' and '{name}' of the weights are both '{new}' here; leave one of them"
                " out"
            )
        renamed[new], old_names[new] = array, name
    return renamed


@contextlib.contextmanager
def _shape_errors(name: str, *arrays: np.ndarray) -> Iterator[None]:
    """Turn NumPy's errors about arrays whose shape does not match their name into a UserError."""
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(str(np.shape(array)) for array in arrays)
        description = f"parts of the shapes {shapes}" if len(arrays) > 1 else f"the shape {shapes}"
        raise UserError(f"tensor '{name}' has {description}, which no network has ({error})") from error


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return name


# --- vision transformers ---------------------------------------------------------------------------------------


def _flax_layout(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return Flax's arrays in PyTorch's layout.

    Kernels become [out, in] or [out, in, height, width], heads are merged, and stacked blocks are separated.
    """
    separate = []
    for old, array in tensors.items():
        name = re.sub(r"^(opt/target/|params/img/|params/)", "", old)
        if "Transformer/encoderblock/" not in name and "Encoder_0/encoderblock/" not in name:
            separate.append((old, name, array))
            continue
        with _shape_errors(old, array):  # big_vision stacks equal blocks along a first axis
            blocks = list(array)
        for index, block in enumerate(blocks):
            separate.append((old, name.replace("encoderblock/", f"encoderblock_{index}/"), block))
    return {name: _torch_layout(name, array) for name, array in _unique(separate).items()}


def _torch_layout(name: str, array: np.ndarray) -> np.ndarray:
    with _shape_errors(name, array):
        return _transposed(name, array)


def _transposed(name: str, array: np.ndarray) -> np.ndarray:
    if re.search(r"/(query|key|value)/bias$", name):
        return array.reshape(-1)
    if re.search(r"/(query|key|value)/kernel$", name):  # [in, heads, features of a head]
        return array.reshape(len(array), -1).T
    if name.endswith("/out/kernel"):  # [heads, features of a head, out]
        return array.reshape(-1, array.shape[-1]).T
    if name.endswith("kernel"):
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array


def _positions_of_patches(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the class token's position to the token, where there are registers: timm's token includes it."""
    names = ("cls_token", "pos_embed", "register_tokens")
    prefix = "embeddings." if "embeddings.cls_token" in tensors else ""
    token, positions, registers = (prefix + name for name in names)
    positions = positions.replace("pos_embed", "position_embeddings") if prefix else positions
    if {token, positions, registers} <= tensors.keys():  # loading reports a missing tensor
        with _shape_errors(positions, tensors[positions]):
            first, rest = tensors[positions][:, :1], tensors[positions][:, 1:]
        with _shape_errors(token, tensors[token]):
            summed = tensors[token] + first
        if summed.shape != tensors[token].shape:  # positions of another width would be broadcast
            raise UserError(
                f"tensor '{token}' has the shape {tensors[token].shape}, and '{positions}', whose first is added to"
                f" it, {tensors[positions].shape}"
            )
        tensors[token], tensors[positions] = summed, rest
    return tensors


def _huggingface_vit(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pattern = r"^(vit|deit|dinov2|dinov2_with_registers)\."
    return _positions_of_patches(_unique((name, re.sub(pattern, "", name), array) for name, array in tensors.items()))


_FLAX_BLOCK = r"Transformer/encoderblock_(\d+)/"
_FLAX_VIT: Rules = (
    (r"embedding/kernel", "patch_embed.proj.weight"),
    (r"embedding/bias", "patch_embed.proj.bias"),
    (r"cls", "cls_token"),
    (r"(Transformer/posembed_input/)?pos_embedding", "pos_embed"),
    (r"Transformer/encoder_norm/scale", "norm.weight"),
    (r"Transformer/encoder_norm/bias", "norm.bias"),
    (r"pre_logits/kernel", "pre_logits.fc.weight"),
    (r"pre_logits/bias", "pre_logits.fc.bias"),
    (r"head/kernel", "head.weight"),
    (r"head/bias", "head.bias"),
    (_FLAX_BLOCK + r"LayerNorm_0/scale", r"blocks.\1.norm1.weight"),
    (_FLAX_BLOCK + r"LayerNorm_0/bias", r"blocks.\1.norm1.bias"),
    (_FLAX_BLOCK + r"LayerNorm_[12]/scale", r"blocks.\1.norm2.weight"),
    (_FLAX_BLOCK + r"LayerNorm_[12]/bias", r"blocks.\1.norm2.bias"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/query/kernel", r"blocks.\1.attn.qkv.weight|0"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/key/kernel", r"blocks.\1.attn.qkv.weight|1"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/value/kernel", r"blocks.\1.attn.qkv.weight|2"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/query/bias", r"blocks.\1.attn.qkv.bias|0"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/key/bias", r"blocks.\1.attn.qkv.bias|1"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/value/bias", r"blocks.\1.attn.qkv.bias|2"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/out/kernel", r"blocks.\1.attn.proj.weight"),
    (_FLAX_BLOCK + r"MultiHeadDotProductAttention_\d/out/bias", r"blocks.\1.attn.proj.bias"),
    (_FLAX_BLOCK + r"MlpBlock_\d/Dense_0/kernel", r"blocks.\1.mlp.fc1.weight"),
    (_FLAX_BLOCK + r"MlpBlock_\d/Dense_0/bias", r"blocks.\1.mlp.fc1.bias"),
    (_FLAX_BLOCK + r"MlpBlock_\d/Dense_1/kernel", r"blocks.\1.mlp.fc2.weight"),
    (_FLAX_BLOCK + r"MlpBlock_\d/Dense_1/bias", r"blocks.\1.mlp.fc2.bias"),
)
# The names of both generations of the library: `encoder.layer.N.attention.attention.query` before version 5, and
# `layers.N.attention.q_proj` in version 5. Most files have the former, whichever version wrote them.
_HF_LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
_HUGGINGFACE_VIT: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (_HF_LAYER + r"attention\.(?:attention\.query|q_proj)\.(.+)", r"blocks.\1.attn.qkv.\2|0"),
    (_HF_LAYER + r"attention\.(?:attention\.key|k_proj)\.(.+)", r"blocks.\1.attn.qkv.\2|1"),
    (_HF_LAYER + r"attention\.(?:attention\.value|v_proj)\.(.+)", r"blocks.\1.attn.qkv.\2|2"),
    (_HF_LAYER + r"attention\.(?:output\.dense|o_proj)\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_HF_LAYER + r"(?:layernorm_before|norm1)\.(.+)", r"blocks.\1.norm1.\2"),
    (_HF_LAYER + r"(?:layernorm_after|norm2)\.(.+)", r"blocks.\1.norm2.\2"),
    (_HF_LAYER + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_HF_LAYER + r"mlp\.gate_proj\.(.+)", r"blocks.\1.mlp.fc1.\2|0"),
    (_HF_LAYER + r"mlp\.up_proj\.(.+)", r"blocks.\1.mlp.fc1.\2|1"),
    (_HF_LAYER + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (_HF_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layernorm\.(.+)", r"norm.\1"),
    (r"pooler\..+", DROPPED),  # a layer of ViTModel that no classifier reads
    (r"(?:cls_)?classifier\.(.+)", r"head.\1"),
    (r"distillation_classifier\.(.+)", r"head_dist.\1"),
)
_TV_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
_TORCHVISION_VIT: Rules = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(.+)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (_TV_LAYER + r"ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (_TV_LAYER + r"self_attention\.in_proj_(.+)", r"blocks.\1.attn.qkv.\2"),
    (_TV_LAYER + r"self_attention\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_TV_LAYER + r"mlp\.(?:0|linear_1)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_TV_LAYER + r"mlp\.(?:3|linear_2)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(.+)", r"norm.\1"),
    (r"heads\.head\.(.+)", r"head.\1"),
    (r"heads\.pre_logits\.(.+)", r"pre_logits.fc.\1"),
)
_DINOV2: Rules = (
    (r"register_tokens", "reg_token"),
    (r"(blocks\.\d+)\.mlp\.w12\.(.+)", r"\1.mlp.fc1.\2"),
    (r"(blocks\.\d+)\.mlp\.w3\.(.+)", r"\1.mlp.fc2.\2"),
)
_DEIT3: Rules = ((r"(blocks\.\d+)\.gamma_([12])", r"\1.ls\2.gamma"),)


def _huggingface_dinov3(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the prefix of version 5 of the library, and call the layer of a gated MLP's values by a name of its own.

    `up_proj` is the first layer of an MLP without a gate.
    """
    renamed = _unique((name, re.sub(r"^model\.", "", name), array) for name, array in tensors.items())
    if not any(".mlp.gate_proj." in name for name in renamed):
        return renamed
    return _unique((name, name.replace(".mlp.up_proj.", ".mlp.value_proj."), array) for name, array in renamed.items())


def _original_dinov3(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Separate the biases of queries and values; the bias of keys, between them, is masked in the authors' code."""
    separate = []
    for old, array in tensors.items():
        if not old.endswith(".attn.qkv.bias"):
            separate.append((old, old, array))
            continue
        with _shape_errors(old, array):
            q, _, v = np.split(array, 3)
        stem = old.removesuffix("qkv.bias")
        separate += [(old, f"{stem}q_bias", q), (old, f"{stem}v_bias", v)]
    return _unique(separate)


_DINOV3_LAYER = r"layer\.(\d+)\."
_HUGGINGFACE_DINOV3: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    (_DINOV3_LAYER + r"attention\.q_proj\.weight", r"blocks.\1.attn.qkv.weight|0"),
    (_DINOV3_LAYER + r"attention\.k_proj\.weight", r"blocks.\1.attn.qkv.weight|1"),
    (_DINOV3_LAYER + r"attention\.v_proj\.weight", r"blocks.\1.attn.qkv.weight|2"),
    (_DINOV3_LAYER + r"attention\.([qv])_proj\.bias", r"blocks.\1.attn.\2_bias"),
    (_DINOV3_LAYER + r"attention\.o_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_DINOV3_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (_DINOV3_LAYER + r"mlp\.gate_proj\.(.+)", r"blocks.\1.mlp.fc1_g.\2"),
    (_DINOV3_LAYER + r"mlp\.value_proj\.(.+)", r"blocks.\1.mlp.fc1_x.\2"),
    (_DINOV3_LAYER + r"mlp\.up_proj\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_DINOV3_LAYER + r"mlp\.down_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (_DINOV3_LAYER + r"(norm[12]\..+)", r"blocks.\1.\2"),
)
_ORIGINAL_DINOV3: Rules = (
    (r"storage_tokens", "reg_token"),
    (r"(blocks\.\d+)\.mlp\.w1\.(.+)", r"\1.mlp.fc1_g.\2"),
    (r"(blocks\.\d+)\.mlp\.w2\.(.+)", r"\1.mlp.fc1_x.\2"),
    (r"(blocks\.\d+)\.mlp\.w3\.(.+)", r"\1.mlp.fc2.\2"),
    (r"rope_embed\.periods|blocks\.\d+\.attn\.qkv\.bias_mask|local_cls_norm\..+", DROPPED),
)

# --- convolutional networks ------------------------------------------------------------------------------------


def _torchvision_convnext(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename torchvision's stages (features 1, 3, 5, 7) and the downsamplings between them (features 2, 4, 6)."""

    def ours(name: str) -> str:
        part = re.match(r"features\.([1-9])\.(.+)", name)
        if part is None:
            return name
        stage, is_stage = divmod(int(part[1]), 2)
        return f"stages.{stage}.{'blocks' if is_stage else 'downsample'}.{part[2]}"

    return _unique((name, ours(name), array) for name, array in tensors.items())


def _flat_response_norms(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flatten the parameters of ConvNeXt V2's response normalisation, which its authors store as [1, 1, 1, channels].

    Remove the names of the networks of `transformers`, too.
    """
    renamed = ((name, re.sub(r"^convnext(v2)?\.", "", name), array) for name, array in tensors.items())
    return {
        name: array.reshape(-1) if ".grn." in name and array.shape[:-1] == (1, 1, 1) else array
        for name, array in _unique(renamed).items()
    }


_CONVNEXT: Rules = (
    (r"downsample_layers\.0\.(.+)", r"stem.\1"),
    (r"downsample_layers\.(\d)\.(.+)", r"stages.\1.downsample.\2"),
    (r"stages\.(\d)\.(\d+)\.dwconv\.(.+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.pwconv([12])\.(.+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.grn\.gamma", r"stages.\1.blocks.\2.mlp.grn.weight"),
    (r"stages\.(\d)\.(\d+)\.grn\.beta", r"stages.\1.blocks.\2.mlp.grn.bias"),
    (r"stages\.(\d)\.(\d+)\.(.+)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.(.+)", r"head.norm.\1"),
    (r"head\.(weight|bias)", r"head.fc.\1"),
)
_HUGGINGFACE_CONVNEXT: Rules = (
    (r"embeddings\.patch_embeddings\.(.+)", r"stem.0.\1"),
    (r"embeddings\.layernorm\.(.+)", r"stem.1.\1"),
    (r"encoder\.stages\.(\d)\.downsampling_layer\.(.+)", r"stages.\1.downsample.\2"),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.dwconv\.(.+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.layernorm\.(.+)", r"stages.\1.blocks.\2.norm.\3"),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.pwconv([12])\.(.+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.grn\.(.+)", r"stages.\1.blocks.\2.mlp.grn.\3"),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
    (r"layernorm\.(.+)", r"head.norm.\1"),
    (r"classifier\.(.+)", r"head.fc.\1"),
)
_TORCHVISION_CONVNEXT: Rules = (
    (r"features\.0\.(.+)", r"stem.\1"),
    (r"(stages\.\d\.blocks\.\d+)\.block\.0\.(.+)", r"\1.conv_dw.\2"),
    (r"(stages\.\d\.blocks\.\d+)\.block\.2\.(.+)", r"\1.norm.\2"),
    (r"(stages\.\d\.blocks\.\d+)\.block\.3\.(.+)", r"\1.mlp.fc1.\2"),
    (r"(stages\.\d\.blocks\.\d+)\.block\.5\.(.+)", r"\1.mlp.fc2.\2"),
    (r"(stages\.\d\.blocks\.\d+)\.layer_scale", r"\1.gamma"),
    (r"classifier\.0\.(.+)", r"head.norm.\1"),
    (r"classifier\.2\.(.+)", r"head.fc.\1"),
)


def _huggingface_resnet(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the convolutions `layer.0` to `layer.2`, which are 1 to 3 here, and stage 0, which is `layer1` here."""

    def count_from_one(match: re.Match) -> str:
        return f"layer{int(match[1]) + 1}.{match[2]}."

    def convolution(match: re.Match) -> str:
        kind = "conv" if match[2] == "convolution" else "bn"
        return f".{kind}{int(match[1]) + 1}."

    def ours(name: str) -> str:
        new = re.sub(r"^encoder\.stages\.(\d)\.layers\.(\d+)\.", count_from_one, name.removeprefix("resnet."))
        return re.sub(r"\.layer\.(\d)\.(convolution|normalization)\.", convolution, new)

    return _unique((name, ours(name), array) for name, array in tensors.items())


_HUGGINGFACE_RESNET: Rules = (
    (r"embedder\.embedder\.convolution\.(.+)", r"conv1.\1"),
    (r"embedder\.embedder\.normalization\.(.+)", r"bn1.\1"),
    (r"(layer\d\.\d+)\.shortcut\.convolution\.(.+)", r"\1.downsample.0.\2"),
    (r"(layer\d\.\d+)\.shortcut\.normalization\.(.+)", r"\1.downsample.1.\2"),
    (r"classifier\.1\.(.+)", r"fc.\1"),
)


def _torchvision_regnet(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the blocks: `trunk_output.block2.block2-0` is s2.b1 here."""

    def ours(name: str) -> str:
        part = re.match(r"trunk_output\.block(\d)\.block\d-(\d+)\.(.+)", name)
        return name if part is None else f"s{part[1]}.b{int(part[2]) + 1}.{part[3]}"

    return _unique((name, ours(name), array) for name, array in tensors.items())


_REGNET_LAYERS = (("a", "conv1"), ("b", "conv2"), ("c", "conv3"))
_TORCHVISION_REGNET: Rules = (
    (r"stem\.0\.(.+)", r"stem.conv.\1"),
    (r"stem\.1\.(.+)", r"stem.bn.\1"),
    *((rf"(s\d\.b\d+)\.f\.{theirs}\.0\.(.+)", rf"\1.{ours}.conv.\2") for theirs, ours in _REGNET_LAYERS),
    *((rf"(s\d\.b\d+)\.f\.{theirs}\.1\.(.+)", rf"\1.{ours}.bn.\2") for theirs, ours in _REGNET_LAYERS),
    (r"(s\d\.b\d+)\.f\.se\.(.+)", r"\1.se.\2"),
    (r"(s\d\.b\d+)\.proj\.0\.(.+)", r"\1.downsample.conv.\2"),
    (r"(s\d\.b\d+)\.proj\.1\.(.+)", r"\1.downsample.bn.\2"),
    (r"fc\.(.+)", r"head.fc.\1"),
)


def _timm_vgg(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn timm's convolutions over the last map of 7 x 7 into hidden linear layers."""
    for name in [name for name in tensors if name.startswith("pre_logits.") and name.endswith(".weight")]:
        with _shape_errors(name, tensors[name]):
            tensors[name] = tensors[name].reshape(len(tensors[name]), -1)
    return tensors


_TIMM_VGG: Rules = (
    (r"pre_logits\.fc1\.(.+)", r"classifier.0.\1"),
    (r"pre_logits\.fc2\.(.+)", r"classifier.3.\1"),
    (r"head\.fc\.(.+)", r"classifier.6.\1"),
)


def _flat_efficientnet(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the blocks, which EfficientNet-PyTorch counts through, to the stages and blocks that they are here.

    A stage begins where the width of a block's output changes; all stages of every EfficientNet have widths of their
    own. A block without an expansion has one convolution less, so that its layers have other names here.
    """
    outputs = {}
    for name, array in tensors.items():
        match = re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", name)
        if match:
            with _shape_errors(name, array):
                outputs[int(match[1])] = array.shape[0]
    places, stage, position, width = {}, -1, 0, -1
    for number in sorted(outputs):
        stage, position = (stage, position + 1) if outputs[number] == width else (stage + 1, 0)
        width, places[number] = outputs[number], (stage, position)

    def ours(name: str) -> str:
        match = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(.+)", name)
        if match is None or int(match[1]) not in places:
            return name
        stage, position = places[int(match[1])]
        layers = _WIDE if f"_blocks.{match[1]}._expand_conv.weight" in tensors else _NARROW
        return f"blocks.{stage}.{position}.{layers.get(match[2], match[2])}.{match[3]}"

    return _unique((name, ours(name), array) for name, array in tensors.items())


_GATE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_NARROW = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"} | _GATE
_WIDE = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"} | _GATE
_WIDE |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_FLAT_EFFICIENTNET: Rules = (
    (r"_conv_stem\.(.+)", r"conv_stem.\1"),
    (r"_bn0\.(.+)", r"bn1.\1"),
    (r"_conv_head\.(.+)", r"conv_head.\1"),
    (r"_bn1\.(.+)", r"bn2.\1"),
    (r"_fc\.(.+)", r"classifier.\1"),
)

_LINEAR_RESNET: Rules = (
    (r"linear\.(.+)", r"fc.\1"),
    (r"(layer\d\.\d+)\.shortcut\.(\d)\.(.+)", r"\1.downsample.\2.\3"),
)


def _huggingface_vit_images(tensors: Tensors) -> Preprocessing | None:
    """Return the images of the library's processors: ViT's squashes, DINOv2's crops; DeiT's has no equal here."""
    kernel, positions = (tensors.get(name) for name in ("patch_embed.proj.weight", "pos_embed"))
    if "blocks.0.ls1.gamma" in tensors:
        return Preprocessing(224, 224 / 256, "bicubic")
    if kernel is None or positions is None or "dist_token" in tensors or positions.ndim != 3:
        return None
    side = round((positions.shape[1] - 1) ** 0.5) * kernel.shape[-1]
    half = (0.5, 0.5, 0.5)
    return Preprocessing(side, 1.0, "bilinear", half, half, crop="squash")


# --- torchvision's preprocessing of images for its IMAGENET1K_V1 weights: bilinear, to these shorter sides -----------


def _torchvision_vit_images(tensors: Tensors) -> Preprocessing | None:
    """Return the preprocessing by width and patch, for 224 pixels only: other weights (SWAG) have several sizes."""
    kernel, positions = (tensors[n].shape if n in tensors else () for n in ("patch_embed.proj.weight", "pos_embed"))
    known = {(768, 16, 197): 256, (768, 32, 50): 256, (1024, 16, 197): 242, (1024, 32, 50): 256}
    resized = known.get((kernel[0], kernel[-1], positions[1])) if kernel and len(positions) == 3 else None
    return Preprocessing(crop_ratio=224 / resized) if resized else None


def _torchvision_convnext_images(tensors: Tensors) -> Preprocessing | None:
    """Return the preprocessing by width and depth."""
    width = len(tensors["stem.0.weight"]) if "stem.0.weight" in tensors else 0
    is_deep = "stages.2.blocks.9.gamma" in tensors
    resized = {(96, False): 236, (96, True): 230, (128, True): 232, (192, True): 232}.get((width, is_deep))
    return Preprocessing(crop_ratio=224 / resized) if resized else None


SCHEMES = (
    Scheme(
        "big_vision, two towers",
        r"(params/)?txt/Embed_0/embedding",
        image_text_names.BIG_VISION,
        image_text_names.big_vision_layout(_flax_layout),
    ),
    Scheme(
        forms.OPENAI_CLIP,
        r"visual\.(class_embedding|trunk\.attn_pool\.latent)",
        image_text_names.OPENAI,
        image_text_names.openai_layout,
    ),
    Scheme(
        "transformers, two towers",
        r"vision_model\.(embeddings\.class_embedding|head\.probe)",
        image_text_names.HUGGINGFACE,
        image_text_names.huggingface_layout,
    ),
    Scheme("the original ViT releases", r"(.*/)?embedding/kernel", _FLAX_VIT, _flax_layout),
    Scheme(
        forms.HUGGINGFACE_VIT,
        r"(.+\.)?embeddings\.patch_embeddings\.projection\.weight",
        _HUGGINGFACE_VIT,
        _huggingface_vit,
        _huggingface_vit_images,
    ),
    Scheme(
        "transformers, DINOv3",
        r"(model\.)?layer\.0\.attention\.o_proj\.weight",
        _HUGGINGFACE_DINOV3,
        _huggingface_dinov3,
        lambda tensors: Preprocessing(224, 1.0, "bilinear", crop="squash"),
    ),
    Scheme(
        "transformers, ConvNeXt",
        r"(convnext(v2)?\.)?encoder\.stages\.0\.layers\.0\.dwconv\.weight",
        _HUGGINGFACE_CONVNEXT,
        _flat_response_norms,
    ),
    Scheme(
        "transformers, ResNet",
        r"(resnet\.)?embedder\.embedder\.convolution\.weight",
        _HUGGINGFACE_RESNET,
        _huggingface_resnet,
    ),
    Scheme("torchvision, ViT", r"encoder\.pos_embedding", _TORCHVISION_VIT, preprocessing=_torchvision_vit_images),
    Scheme(
        "torchvision, ConvNeXt",
        r"features\.1\.0\.layer_scale",
        _TORCHVISION_CONVNEXT,
        _torchvision_convnext,
        _torchvision_convnext_images,
    ),
    Scheme(
        "torchvision, RegNet",
        r"trunk_output\.block1\.block1-0\.f\.a\.0\.weight",
        _TORCHVISION_REGNET,
        _torchvision_regnet,
    ),
    Scheme("the original DINOv3 releases", r"storage_tokens", _ORIGINAL_DINOV3, _original_dinov3),
    Scheme("the original DINOv2 releases", r"mask_token", _DINOV2, _positions_of_patches),
    Scheme("timm, DINOv3, or the original DeiT III releases", r"blocks\.0\.gamma_1", _DEIT3),
    Scheme("the original ConvNeXt releases", r"downsample_layers\.0\.0\.weight", _CONVNEXT, _flat_response_norms),
    Scheme(forms.FLAT_EFFICIENTNET, r"_blocks\.0\._depthwise_conv\.weight", _FLAT_EFFICIENTNET, _flat_efficientnet),
    Scheme(forms.LINEAR_RESNET, r"linear\.weight", _LINEAR_RESNET),
    Scheme("timm, VGG", r"pre_logits\.fc1\.weight", _TIMM_VGG, _timm_vgg),
)
