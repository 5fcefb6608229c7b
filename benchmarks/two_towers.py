"""Write the table of networks with two towers: sizes, and the distance of their features from those of open_clip.

    pip install open-clip-torch safetensors      # in an environment of its own, with TORCH/bin/python
    python benchmarks/two_towers.py --networks clip_vit_base_patch32 --python=TORCH/bin/python

The table is the last section of results/zoo.md; networks that were measured before keep their distances. Without
--networks the table is written from imagenet_repro/zoo/two_towers.csv and these distances alone.

For each network, open_clip builds the published architecture in a process of its own. Its random weights follow
from the names of its tensors (tests/goldens/formula.py). It saves them as safetensors, and its features of two random
images and of two random texts. Our loader finds the network by the shapes in the file and loads it. The distance is
||ours - reference|| / ||reference|| of the features in float32, before they are scaled to length 1.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.goldens.formula import image  # noqa: E402  the path comes first
from tests.goldens.write_image_text import weights  # noqa: E402

# open_clip's configurations. They have the activations of the published weights for CLIP, and others for some SigLIPs.
REFERENCES = {
    "clip_vit_base_patch32": "ViT-B-32-quickgelu",
    "clip_vit_base_patch16": "ViT-B-16-quickgelu",
    "clip_vit_large_patch14": "ViT-L-14-quickgelu",
    "clip_vit_large_patch14_336": "ViT-L-14-336-quickgelu",
    "clip_vit_huge_patch14": "ViT-H-14",
    "clip_vit_huge_patch14_378": "ViT-H-14-378-quickgelu",
    "clip_vit_giant_patch14": "ViT-g-14",
    "clip_vit_gigantic_patch14": "ViT-bigG-14",
    "siglip_vit_base_patch16_224": "ViT-B-16-SigLIP",
    "siglip_vit_base_patch16_256": "ViT-B-16-SigLIP-256",
    "siglip_vit_base_patch16_384": "ViT-B-16-SigLIP-384",
    "siglip_vit_base_patch16_512": "ViT-B-16-SigLIP-512",
    "siglip_vit_large_patch16_256": "ViT-L-16-SigLIP-256",
    "siglip_vit_large_patch16_384": "ViT-L-16-SigLIP-384",
    "siglip_vit_so400m_patch14_224": "ViT-SO400M-14-SigLIP",
    "siglip_vit_so400m_patch14_384": "ViT-SO400M-14-SigLIP-384",
    "siglip_i18n_vit_base_patch16_256": "ViT-B-16-SigLIP-i18n-256",
    "siglip_i18n_vit_so400m_patch16_256": "ViT-SO400M-16-SigLIP-i18n-256",
    "siglip2_vit_base_patch32_256": "ViT-B-32-SigLIP2-256",
    "siglip2_vit_base_patch16_224": "ViT-B-16-SigLIP2",
    "siglip2_vit_base_patch16_256": "ViT-B-16-SigLIP2-256",
    "siglip2_vit_base_patch16_384": "ViT-B-16-SigLIP2-384",
    "siglip2_vit_base_patch16_512": "ViT-B-16-SigLIP2-512",
    "siglip2_vit_large_patch16_256": "ViT-L-16-SigLIP2-256",
    "siglip2_vit_large_patch16_384": "ViT-L-16-SigLIP2-384",
    "siglip2_vit_large_patch16_512": "ViT-L-16-SigLIP2-512",
    "siglip2_vit_so400m_patch14_224": "ViT-SO400M-14-SigLIP2",
    "siglip2_vit_so400m_patch14_384": "ViT-SO400M-14-SigLIP2-378",  # the same patches: 384 leaves six pixels out
    "siglip2_vit_so400m_patch16_256": "ViT-SO400M-16-SigLIP2-256",
    "siglip2_vit_so400m_patch16_384": "ViT-SO400M-16-SigLIP2-384",
    "siglip2_vit_so400m_patch16_512": "ViT-SO400M-16-SigLIP2-512",
    "siglip2_vit_giantopt_patch16_256": "ViT-gopt-16-SigLIP2-256",
    "siglip2_vit_giantopt_patch16_384": "ViT-gopt-16-SigLIP2-384",
}
HEADING = "## Networks with two towers"
INTRODUCTION = """
The reference is open_clip's configuration of that name; no publication has the two tiny networks. Multiply-adds are
for one image and for one text of the full length. A distance is the norm of the difference between our features and
open_clip's, divided by the norm of open_clip's, for two random images or two random texts, in float32 on two CPU
cores; features are not scaled to length 1. Both sides have equal random weights, which our loader read from a file in
open_clip's layout, and the activations of open_clip's configuration; for some SigLIPs these are not the authors' own.
A network without distances was not run. `benchmarks/two_towers.py` writes this section.
"""
COLUMNS = (
    "network",
    "reference",
    "parameters, image",
    "parameters, text",
    "px",
    "multiply-adds, image",
    "multiply-adds, text",
    "distance, image",
    "distance, text",
    "measured with",
)
MEASURED = 3  # of the columns, the last ones


def main():
    """Compare the networks that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[], choices=list(REFERENCES), metavar="NAME")
    parser.add_argument("--python", default=sys.executable, help="Python that has open_clip")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "zoo.md", help="Markdown file")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="only write open_clip's files of one network")
    arguments = parser.parse_args()
    if arguments.reference:
        (name,) = arguments.networks
        write_reference(REFERENCES[name], arguments.reference)
        return
    write_section(arguments.out, {})
    for name in arguments.networks:
        cells = measure(name, arguments.python)
        print(name, *cells, flush=True)
        write_section(arguments.out, {name: cells})


# --- the table -------------------------------------------------------------------------------------------------


def write_section(path, cells):
    """Replace the section at the end of a file, with new cells of the networks in `cells`."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before = text.partition(HEADING)[0].rstrip("\n")
    path.write_text(f"{before}\n\n{section(measured(text) | cells)}".lstrip("\n"), encoding="utf-8")


def measured(text):
    """Return the cells that were measured, by the network's name, from the text of a page with the section."""
    lines = text.partition(HEADING)[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: tuple(row[-MEASURED:]) for row in rows[2:] if row[-1]}


def section(cells):
    """Return the section: one row for each network with two towers, with the cells that were measured."""
    from imagenet_repro.models import image_text
    from imagenet_repro.zoo import two_towers

    lines = [HEADING, INTRODUCTION, _line(COLUMNS), "|---|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for name, design in image_text.TWO_TOWERS.items():
        sizes = two_towers.tower_sizes(name)
        row = [
            name,
            f"open_clip:{REFERENCES[name]}" if name in REFERENCES else "",
            f"{sizes.image_parameters:,}",
            f"{sizes.text_parameters:,}",
            str(design.image_size),
            f"{sizes.image_multiply_adds:,}",
            f"{sizes.text_multiply_adds:,}",
        ]
        lines.append(_line([*row, *cells.get(name, [""] * MEASURED)]))
    return "\n".join(lines) + "\n"


def _line(cells):
    return f"| {' | '.join(cells)} |"


# --- the reference ---------------------------------------------------------------------------------------------


def write_reference(name, folder):
    """Write weights and features of open_clip's network `name` into a folder that has the inputs."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    network, inputs = open_clip.create_model(name, pretrained=None).eval(), np.load(folder / "inputs.npz")
    tensors = {key: tensor for key, tensor in network.state_dict().items() if tensor.dtype.is_floating_point}
    height, width = network.visual.image_size
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(weights({key: tensor.shape})[key]))
        save_file(tensors, folder / "weights.safetensors")
        image_features = network.encode_image(torch.from_numpy(inputs["images"][:, :, :height, :width].copy()))
        text_features = network.encode_text(torch.from_numpy(inputs["tokens"]))
    np.savez(
        folder / "reference.npz",
        image=image_features.numpy(),
        text=text_features.numpy(),
        activation=activation(network.visual),
        text_activation=activation(network.text if hasattr(network, "text") else network.transformer),
        versions=f"open_clip {open_clip.__version__}, torch {torch.__version__.partition('+')[0]}",
    )


def activation(tower):
    """Return our name of the activation of a tower's MLPs; an error where it has several or an unknown one."""
    names = set()
    for module in tower.modules():
        kind = type(module).__name__
        if kind == "GELU":
            names.add("gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu")
        elif kind in ("QuickGELU", "GELUTanh"):
            names.add({"QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh"}[kind])
    if len(names) != 1:
        raise SystemExit(f"one activation is expected in {type(tower).__name__}, which has {sorted(names)}")
    return names.pop()


# --- ours ------------------------------------------------------------------------------------------------------


def measure(name, python):
    """Return the cells of a network: the distances of image and text features, and the versions of both sides."""
    from imagenet_repro.models import image_text
    from imagenet_repro.storage import provenance

    design = image_text.two_towers(name)
    with tempfile.TemporaryDirectory() as folder:
        images = image(0, design.image_size)
        tokens = token_rows(design.text.vocabulary, design.text.context)
        np.savez(Path(folder) / "inputs.npz", images=images, tokens=tokens)
        subprocess.run([python, __file__, "--networks", name, "--reference", folder], check=True)
        reference = dict(np.load(Path(folder) / "reference.npz"))
        features = our_features(name, Path(folder), reference, images, tokens)
    distances = [
        np.linalg.norm(ours - reference[tower]) / np.linalg.norm(reference[tower]) for tower, ours in features.items()
    ]
    source = provenance.collect()
    versions = f"{reference['versions']}, jax {source['packages']['jax']}, {source['commit'][:7]}"
    return (*(f"{distance:.1e}" for distance in distances), versions)


def token_rows(vocabulary, context):
    """Return two random texts, int64; the highest token ends them, and the first is half as long as the second."""
    tokens = np.random.default_rng(0).integers(1, vocabulary - 1, (2, context))
    ends = [context // 2, context - 1]
    tokens[[0, 1], ends] = vocabulary - 1
    tokens[0, ends[0] + 1 :] = 0
    return tokens


def our_features(name, folder, reference, images, tokens):
    """Return our features, float32 of both towers by "image" and "text", under the weights of the reference."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from imagenet_repro import pretrained
    from imagenet_repro.models import image_text

    content = pretrained.read(folder / "weights.safetensors")
    options = {key: str(reference[key]) for key in ("activation", "text_activation")}
    selection = pretrained.select_image_text(content, options=options)
    if selection.name != name:
        raise SystemExit(f"the file of {name} was taken for one of {selection.name}")
    network = image_text.abstract_image_text(selection.name, scan=True, **selection.options).eval()
    pretrained.load_image_text(network, content)
    graphdef, state, rest = nnx.split(network, nnx.Param, ...)
    inputs = jnp.asarray(images.transpose(0, 2, 3, 1)), jnp.asarray(tokens, jnp.int32)
    encoders = {
        "image": lambda state: nnx.merge(graphdef, state, rest).encode_image(inputs[0]),
        "text": lambda state: nnx.merge(graphdef, state, rest).encode_text(inputs[1]),
    }
    return {tower: np.asarray(jax.jit(encode)(state)) for tower, encode in encoders.items()}


if __name__ == "__main__":
    main()
