"""Names of tensors in published networks of two towers, as rules for `names.py`.

Ours are `image.*` with timm's names, `text.*`, `logit_scale` and `logit_bias`. The publishers' layouts are those of
OpenAI's CLIP (open_clip has the same), open_clip with a tower of timm, `transformers` (CLIP and SigLIP), and
big_vision.
"""

from collections.abc import Callable

import numpy as np

from imagenet_repro.errors import UserError

Arrays = dict[str, np.ndarray]
Rules = tuple[tuple[str, str], ...]
DROPPED = ""

NAFLEX = (
    "these weights are of a NaFlex network, which takes images of any shape as a list of patches with a mask; the"
    " networks here take squares. Load a SigLIP 2 of one size, such as siglip2-base-patch16-256"
)


def _blocks(theirs: str, ours: str) -> Rules:
    """Return the rules of OpenAI's blocks, whose names begin with the pattern `theirs`, with one group."""
    return (
        (theirs + r"ln_([12])\.(.+)", ours + r"norm\2.\3"),
        (theirs + r"attn\.in_proj_(weight|bias)", ours + r"attn.qkv.\2"),
        (theirs + r"attn\.out_proj\.(.+)", ours + r"attn.proj.\2"),
        (theirs + r"mlp\.c_fc\.(.+)", ours + r"mlp.fc1.\2"),
        (theirs + r"mlp\.c_proj\.(.+)", ours + r"mlp.fc2.\2"),
    )


_TEXT = r"(?:text\.)?"  # the prefix of open_clip's own text towers
OPENAI: Rules = (
    (r"visual\.class_embedding", "image.cls_token"),
    (r"visual\.positional_embedding", "image.pos_embed"),
    (r"visual\.conv1\.(.+)", r"image.patch_embed.proj.\1"),
    (r"visual\.ln_pre\.(.+)", r"image.norm_pre.\1"),
    (r"visual\.ln_post\.(.+)", r"image.norm.\1"),
    (r"visual\.proj", "image.head.weight"),
    (r"visual\.trunk\.(.+)", r"image.\1"),
    *_blocks(r"visual\.transformer\.resblocks\.(\d+)\.", r"image.blocks.\1."),
    (_TEXT + r"positional_embedding", "text.pos_embed"),
    (_TEXT + r"token_embedding\.weight", "text.token_embedding.weight"),
    (_TEXT + r"ln_final\.(.+)", r"text.norm.\1"),
    (_TEXT + r"text_projection(?:\.weight)?", "text.proj.weight"),
    (_TEXT + r"text_projection\.bias", "text.proj.bias"),
    *_blocks(_TEXT + r"transformer\.resblocks\.(\d+)\.", r"text.blocks.\1."),
    (r"input_resolution|context_length|vocab_size|(?:.+\.)?attn_mask", DROPPED),  # constants of the program
)
_HUGGINGFACE_LAYER = r"_model\.encoder\.layers\.(\d+)\."


def _huggingface_blocks(theirs: str, ours: str) -> Rules:
    start, end = theirs + _HUGGINGFACE_LAYER, ours + r".blocks.\1."
    return (
        (start + r"self_attn\.q_proj\.(.+)", end + r"attn.qkv.\2|0"),
        (start + r"self_attn\.k_proj\.(.+)", end + r"attn.qkv.\2|1"),
        (start + r"self_attn\.v_proj\.(.+)", end + r"attn.qkv.\2|2"),
        (start + r"self_attn\.out_proj\.(.+)", end + r"attn.proj.\2"),
        (start + r"layer_norm([12])\.(.+)", end + r"norm\2.\3"),
        (start + r"mlp\.fc([12])\.(.+)", end + r"mlp.fc\2.\3"),
    )


HUGGINGFACE: Rules = (
    (r"(?:vision|text)_model\.embeddings\.position_ids", DROPPED),
    (r"vision_model\.embeddings\.class_embedding", "image.cls_token"),
    (r"vision_model\.embeddings\.patch_embedding\.(.+)", r"image.patch_embed.proj.\1"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "image.pos_embed"),
    (r"vision_model\.pre_layrnorm\.(.+)", r"image.norm_pre.\1"),
    (r"vision_model\.post_layernorm\.(.+)", r"image.norm.\1"),
    (r"visual_projection\.weight", "image.head.weight"),
    (r"vision_model\.head\.probe", "image.attn_pool.latent"),
    (r"vision_model\.head\.attention\.out_proj\.(.+)", r"image.attn_pool.proj.\1"),
    (r"vision_model\.head\.layernorm\.(.+)", r"image.attn_pool.norm.\1"),
    (r"vision_model\.head\.mlp\.(.+)", r"image.attn_pool.mlp.\1"),
    *_huggingface_blocks("vision", "image"),
    (r"text_model\.embeddings\.token_embedding\.weight", "text.token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "text.pos_embed"),
    (r"text_model\.final_layer_norm\.(.+)", r"text.norm.\1"),
    (r"text_projection\.weight", "text.proj.weight"),
    (r"text_model\.head\.(.+)", r"text.proj.\1"),
    *_huggingface_blocks("text", "text"),
)


def _flax(theirs: str, ours: str) -> Rules:
    """Return the rules of one layer: `kernel` and `scale` are PyTorch's `weight`; `ours` may end in a part, `|0`."""
    name, mark, part = ours.partition("|")
    ends = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    return tuple((f"{theirs}/{end}", f"{name}.{torch_end}{mark}{part}") for end, torch_end in ends.items())


def _flax_attention(theirs: str, ours: str, query: str, key: str, value: str) -> Rules:
    start = rf"{theirs}MultiHeadDotProductAttention_0/"
    parts = {"query": query, "key": key, "value": value, "out": "proj"}
    return tuple(rule for part, name in parts.items() for rule in _flax(start + part, f"{ours}{name}"))


def _flax_mlp(theirs: str, ours: str) -> Rules:
    return (
        *_flax(rf"{theirs}MlpBlock_0/Dense_0", f"{ours}mlp.fc1"),
        *_flax(rf"{theirs}MlpBlock_0/Dense_1", f"{ours}mlp.fc2"),
    )


def _flax_blocks(theirs: str, ours: str) -> Rules:
    start, end = theirs + r"encoderblock_(\d+)/", ours + r".blocks.\1."
    return (
        *_flax(start + "LayerNorm_0", end + "norm1"),
        *_flax(start + "LayerNorm_1", end + "norm2"),
        *_flax_attention(start, end + "attn.", "qkv|0", "qkv|1", "qkv|2"),
        *_flax_mlp(start, end),
    )


BIG_VISION: Rules = (
    *_flax("img/embedding", "image.patch_embed.proj"),
    (r"img/pos_embedding", "image.pos_embed"),
    *_flax("img/Transformer/encoder_norm", "image.norm"),
    (r"img/MAPHead_0/probe", "image.attn_pool.latent"),
    *_flax_attention("img/MAPHead_0/", "image.attn_pool.", "q", "kv|0", "kv|1"),
    *_flax("img/MAPHead_0/LayerNorm_0", "image.attn_pool.norm"),
    *_flax_mlp("img/MAPHead_0/", "image.attn_pool."),
    *_flax_blocks("img/Transformer/", "image"),
    (r"txt/Embed_0/embedding", "text.token_embedding.weight"),
    (r"txt/pos_embedding", "text.pos_embed"),
    *_flax("txt/Encoder_0/encoder_norm", "text.norm"),
    *_flax("txt/head", "text.proj"),
    *_flax_blocks("txt/Encoder_0/", "text"),
    (r"t", "logit_scale"),
    (r"b", "logit_bias"),
)


def openai_layout(tensors: Arrays) -> Arrays:
    """Return the tensors of OpenAI and open_clip with projections as linear layers, and with axes for positions."""
    changes = {
        **dict.fromkeys(("visual.proj", "text_projection", "text.text_projection"), (2, np.transpose)),
        "visual.positional_embedding": (2, lambda array: array[None]),
        "visual.class_embedding": (1, lambda array: array[None, None]),
    }
    for name, (axes, change) in changes.items():
        if name in tensors:
            _require_axes(name, tensors[name], axes)
            tensors[name] = change(tensors[name])
    return tensors


def huggingface_layout(tensors: Arrays) -> Arrays:
    """Return the tensors of `transformers` with axes, and the projections of the pooling's query and keys apart.

    Raises:
      UserError: they are of a NaFlex network, or a tensor has another number of axes.
    """
    start = "vision_model.embeddings."
    if f"{start}patch_embedding.weight" in tensors and tensors[f"{start}patch_embedding.weight"].ndim == 2:
        raise UserError(NAFLEX)
    for name, axes in ((f"{start}class_embedding", 1), (f"{start}position_embedding.weight", 2)):
        if name in tensors:
            _require_axes(name, tensors[name], axes)
            tensors[name] = tensors[name].reshape((1,) * (3 - axes) + tensors[name].shape)
    for part in ("weight", "bias"):
        name = f"vision_model.head.attention.in_proj_{part}"
        if name in tensors:
            array = tensors.pop(name)
            width = len(array) // 3 if array.ndim else 0
            tensors[f"image.attn_pool.q.{part}"] = array[:width]
            tensors[f"image.attn_pool.kv.{part}"] = array[width:]
    return tensors


def big_vision_layout(flax_layout: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """Return the preparation of big_vision's tensors.

    The preparation refuses those of a NaFlex network.

    Args:
      flax_layout: returns Flax's arrays in PyTorch's layout, with stacked blocks separated.
    """

    def prepare(tensors: Arrays) -> Arrays:
        if any(name.endswith("img/embedding/kernel") and array.ndim == 2 for name, array in tensors.items()):
            raise UserError(NAFLEX)
        prepared = flax_layout({name.removeprefix("params/"): array for name, array in tensors.items()})
        if "txt/pos_embedding" in prepared and prepared["txt/pos_embedding"].ndim == 3:
            prepared["txt/pos_embedding"] = prepared["txt/pos_embedding"][0]
        return prepared

    return prepare


def _require_axes(name: str, array: np.ndarray, axes: int) -> None:
    if array.ndim != axes:
        raise UserError(f"tensor '{name}' has the shape {array.shape}; {axes} axes are needed")
