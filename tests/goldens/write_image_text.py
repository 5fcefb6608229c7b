"""Write the goldens in `image_text/`: features of small networks of two towers in each publisher's layout, a program.

With torch, open_clip 3.3, timm 1.0.31 and transformers 5.24 installed:

    python -m tests.goldens.write_image_text torch

With Flax, and a clone of google-research/big_vision in DIR:

    python -m tests.goldens.write_image_text big_vision DIR
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

from tests.goldens.formula import formula, image

FOLDER = Path(__file__).parent / "image_text"
WIDTH, IMAGE_DEPTH, TEXT_DEPTH, HEADS, HIDDEN, VOCABULARY, CONTEXT, PATCH, SIZE = 192, 12, 4, 3, 768, 259, 64, 8, 32


def tokens():
    """Return two texts of bytes with start and end, padded with zeros."""
    result = np.zeros((2, CONTEXT), np.int64)
    for row, text in zip(result, (b"a photo of a cat", b"two dogs"), strict=True):
        row[: len(text) + 2] = [257, *(byte + 1 for byte in text), 258]
    return result


def weights(shapes, salt=0):
    """Return the arrays of a layout by its names; the scale and the bias of logits are small numbers."""
    return {name: np.asarray(formula(name, tuple(shape), salt)) for name, shape in shapes.items()}


def store(name, shapes, image_features, text_features, **more):
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        names=np.array(list(shapes)),
        shapes=np.array([json.dumps(list(shape)) for shape in shapes.values()]),
        image=np.asarray(image_features, np.float32),
        text=np.asarray(text_features, np.float32),
        **more,
    )


def write_torch():
    import open_clip
    import timm
    import torch
    import transformers
    from open_clip.transformer import TextTransformer
    from timm.models.vision_transformer import VisionTransformer

    def answer(name, network, encode_image, encode_text):
        shapes = {key: tensor.shape for key, tensor in network.state_dict().items() if tensor.dtype.is_floating_point}
        arrays = {key: torch.from_numpy(array) for key, array in weights(shapes).items()}
        network.load_state_dict(arrays, strict=False)
        network.eval()
        with torch.no_grad():
            store(
                name, shapes, encode_image(torch.from_numpy(image(0, SIZE))), encode_text(torch.from_numpy(tokens()))
            )

    vision = {"layers": IMAGE_DEPTH, "width": WIDTH, "patch_size": PATCH, "image_size": SIZE, "head_width": 64}
    text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS, "layers": TEXT_DEPTH}
    clip = open_clip.model.CLIP(WIDTH, vision, text, quick_gelu=True)
    answer("openai", clip, clip.encode_image, clip.encode_text)

    class SigLip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Module()
            self.visual.trunk = VisionTransformer(
                img_size=SIZE,
                patch_size=PATCH,
                embed_dim=WIDTH,
                depth=IMAGE_DEPTH,
                num_heads=HEADS,
                class_token=False,
                global_pool="map",
                num_classes=0,
            )
            self.text = TextTransformer(
                **text,
                output_dim=WIDTH,
                no_causal_mask=True,
                pool_type="last",
                proj_bias=True,
                norm_layer=lambda width: open_clip.transformer.LayerNorm(width, eps=1e-6),
            )
            self.logit_scale = torch.nn.Parameter(torch.ones([]))
            self.logit_bias = torch.nn.Parameter(torch.ones([]))

    siglip = SigLip()
    answer("open_clip_siglip", siglip, siglip.visual.trunk, siglip.text)

    common = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": HEADS}
    of_images = common | {"num_hidden_layers": IMAGE_DEPTH, "image_size": SIZE, "patch_size": PATCH}
    of_texts = common | {
        "num_hidden_layers": TEXT_DEPTH,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "projection_size": WIDTH,
        "bos_token_id": 257,
        "eos_token_id": 258,
        "pad_token_id": 0,
    }
    for kind in ("CLIP", "Siglip"):
        extra = {"projection_dim": WIDTH} if kind == "CLIP" else {}
        config = getattr(transformers, f"{kind}Config")(vision_config=of_images, text_config=of_texts, **extra)
        network = getattr(transformers, f"{kind}Model")(config)

        def pooled(output):
            return getattr(output, "pooler_output", output)

        answer(
            f"transformers_{kind.lower()}",
            network,
            lambda x, network=network: pooled(network.get_image_features(pixel_values=x)),
            lambda x, network=network: pooled(network.get_text_features(input_ids=x)),
        )
    write_program(torch)
    print(open_clip.__version__, timm.__version__, transformers.__version__)


def write_program(torch):
    """Write a TorchScript program of a few tensors with names of OpenAI's CLIP, one of 16 bits and one a view."""

    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.class_embedding = torch.nn.Parameter(torch.from_numpy(formula("visual.class_embedding", (4,))).half())
            self.proj = torch.nn.Parameter(torch.from_numpy(formula("visual.proj", (3, 4))).t())

        def forward(self, x):
            return (x + self.class_embedding) @ self.proj

    class Program(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.input_resolution = Tower(), 224
            self.logit_scale = torch.nn.Parameter(torch.tensor(4.5))

        def forward(self, x):
            return self.visual(x) * self.logit_scale

    torch.jit.save(torch.jit.script(Program()), FOLDER / "program.pt")


def write_big_vision(folder):
    import flax.traverse_util
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, folder)
    sys.modules["big_vision.utils"] = types.SimpleNamespace()  # its loading needs TensorFlow, which no network does
    import big_vision

    big_vision.utils = sys.modules["big_vision.utils"]
    from big_vision.models.proj.image_text import two_towers

    sizes = {"width": WIDTH, "mlp_dim": HIDDEN, "num_heads": HEADS}
    network = two_towers.Model(
        image=sizes | {"depth": IMAGE_DEPTH, "patch_size": (PATCH, PATCH), "pool_type": "map"},
        text_model="proj.image_text.text_transformer",
        text=sizes | {"depth": TEXT_DEPTH, "vocab_size": VOCABULARY},
        out_dim=(None, WIDTH),
        bias_init=-10.0,
    )
    images = jnp.asarray(image(0, SIZE).transpose(0, 2, 3, 1))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), images, jnp.asarray(tokens())))["params"]
    shapes = {f"params/{name}": leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}
    arrays = {name.removeprefix("params/"): array for name, array in weights(shapes).items()}
    arrays = flax.traverse_util.unflatten_dict(arrays, sep="/")
    _, _, out = jax.jit(lambda p: network.apply({"params": p}, images, jnp.asarray(tokens())))(arrays)
    store("big_vision", shapes, out["img/normalized"], out["txt/normalized"])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_torch() if sys.argv[1] == "torch" else write_big_vision(sys.argv[2])
