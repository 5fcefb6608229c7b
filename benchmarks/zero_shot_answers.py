"""Compare zero-shot answers on 100 photographs with those of open_clip and transformers, and write a table.

    git clone https://github.com/EliSchwartz/imagenet-sample-images      # 1,000 photographs, one of each class
    pip install open-clip-torch transformers sentencepiece
    python benchmarks/zero_shot_answers.py reference --sets=DIR          # DIR has the clone
    pip install .[text]
    python benchmarks/zero_shot_answers.py compare --sets=DIR --work=WORK

Published architectures have random weights, which follow from the names of their tensors
(tests/goldens/formula.py), so that both sides have the same without a file of weights. `reference` reads the
photographs with Pillow, prepares them by the library's own transformations, and computes logits of every tenth
photograph for 20 of their classes by two templates of CLIP's notebook; none of our networks, tokens and images is
used. They are kept in tests/goldens/pytorch_answers/zero_shot.npz. `compare` writes a file of weights in the library's
layout, and scores the photographs by `main.py prepare` and `main.py evaluate --protocol=zeroshot`.
"""

import argparse
import dataclasses
import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.goldens.formula import formula  # noqa: E402  the path comes first

ANSWERS = REPOSITORY / "tests" / "goldens" / "pytorch_answers" / "zero_shot.npz"
VOCABULARY = 32_000  # of SigLIP
EVERY, EACH = 10, 5  # every tenth photograph; five of them are taken to be of one class
TEMPLATES = ("itap of a {}.", "a bad photo of the {}.")
HEADER = """# Zero-shot answers beside open_clip and transformers

Decoding, preparing images, tokens, both towers, the ensemble of prompts and the logits, all ours in float32 on two CPU
cores, beside the same by each library. Architectures are the published ones with equal random weights, in files of
the library's layout. Images are every tenth of the 1,000 photographs of EliSchwartz/imagenet-sample-images; the
classes are those of 20 of them, with two templates of CLIP's notebook. The central crop of transformers begins a pixel
earlier than torchvision's, open_clip's and ours where the margins are not equal; the other photographs have the same
crop. The distance is that of the logits of photographs with the same crop, relative to their deviation from the mean
over images and classes. Predictions store our logits as float16; rounding the library's own to it has the distance in
the last column. `benchmarks/zero_shot_answers.py` writes this file.

| network | library | parameters | images | same crop | same guess | of the same crop | distance | of float16 |
|---|---|---:|---:|---:|---:|---:|---:|---:|
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of one library.

    Attributes:
      network: our name.
      library: "open_clip" or "transformers".
      tokenizer: "clip" or "siglip".
      options: of our network, where the library differs from the authors.
    """

    network: str
    library: str
    tokenizer: str
    options: str = "{}"


CASES = {
    "open_clip_clip": Case("clip_vit_base_patch32", "open_clip", "clip", "{'activation': 'quick_gelu'}"),
    "transformers_clip": Case("clip_vit_base_patch32", "transformers", "clip", "{'activation': 'quick_gelu'}"),
    "open_clip_siglip": Case("siglip_vit_base_patch16_224", "open_clip", "siglip", "{'activation': 'gelu'}"),
    "transformers_siglip": Case("siglip_vit_base_patch16_224", "transformers", "siglip"),
}


def main():
    """Compute the answers of the libraries, or compare ours with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("reference", "compare"))
    parser.add_argument("--sets", type=Path, required=True, help="directory with the clone")
    parser.add_argument("--work", type=Path, help="directory for weights, the data set and predictions")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--vocabulary", default="", help="bpe_simple_vocab_16e6.txt.gz, without open-clip-torch")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "zero_shot.md")
    arguments = parser.parse_args()
    if arguments.command == "reference":
        for name in arguments.cases:
            write_reference(name, arguments.sets)
        return
    rows = read_rows(arguments.out)
    for name in arguments.cases:
        rows[name] = compare(name, arguments)
        print(rows[name], end="", flush=True)
        arguments.out.write_text(HEADER + "".join(rows[key] for key in CASES if key in rows), encoding="utf-8")


def photographs(sets):
    """Return the paths of every tenth photograph, and the names of the classes, those of every fifth of them.

    Weights are random, so that it does not matter which class a photograph is taken to have.
    """
    paths = sorted((sets / "imagenet-sample-images").glob("n*.JPEG"))
    if len(paths) != 1000:
        raise SystemExit(f"{sets / 'imagenet-sample-images'} has {len(paths)} photographs, and 1,000 are expected")
    chosen = paths[::EVERY]
    return chosen, [path.stem.split("_", 1)[1].replace("_", " ") for path in chosen[::EACH]]


def weights(shapes):
    """Return the arrays of a layout by names; projections and embeddings are scaled as usual."""
    return {name: np.asarray(formula(name, tuple(shape))) for name, shape in shapes.items()}


def sentencepiece_model(names):
    """Return a SentencePiece model of 32,000 tokens, trained on the prompts; most of them are placeholders."""
    import sentencepiece

    content = io.BytesIO()
    prompts = [template.format(name).lower() for name in names for template in TEMPLATES]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(prompts * 5),
        model_writer=content,
        vocab_size=VOCABULARY,
        model_type="bpe",
        user_defined_symbols=[f"<placeholder_{number}>" for number in range(31_000)],
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
    )
    size = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue()).get_piece_size()
    return content.getvalue() + b"".join(_unused_piece(number) for number in range(size, VOCABULARY))


def _unused_piece(number):
    """Return a piece that no text has, as a part of a serialised model; parts of a list may follow one another."""
    text = f"<unused_{number}>".encode()
    piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", 0.0) + b"\x18\x05"
    return b"\x0a" + bytes([len(piece)]) + piece


# --- the libraries ---------------------------------------------------------------------------------------------


def write_reference(name, sets):
    """Add the answers of a library's network to the file."""
    import torch
    from PIL import Image

    case, (paths, names) = CASES[name], photographs(sets)
    network, prepare, encode_image, encode_text = REFERENCES[name]()
    shapes = {key: list(t.shape) for key, t in network.state_dict().items() if t.dtype.is_floating_point}
    network.load_state_dict({key: torch.from_numpy(array) for key, array in weights(shapes).items()}, strict=False)
    network.eval()
    tokens = reference_tokens(case.tokenizer, names)
    with torch.no_grad():
        images = torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])
        features = torch.cat([encode_image(batch) for batch in images.split(20)])
        features = torch.nn.functional.normalize(features, dim=-1)
        texts = torch.cat([torch.nn.functional.normalize(encode_text(part), dim=-1) for part in tokens.split(100)])
        texts = torch.nn.functional.normalize(texts.reshape(len(names), len(TEMPLATES), -1).mean(1), dim=-1)
        logits = network.logit_scale.exp() * features @ texts.T
        if getattr(network, "logit_bias", None) is not None:
            logits = logits + network.logit_bias
    stored = dict(np.load(ANSWERS)) if ANSWERS.exists() else {}
    stored |= {f"{name}/logits": logits.numpy(), f"{name}/shapes": np.frombuffer(pack(shapes), np.uint8)}
    if case.tokenizer == "siglip":
        stored["siglip_tokens"] = tokens.numpy().astype(np.int32)
    np.savez_compressed(ANSWERS, **stored)
    print(f"{name}: {len(set(logits.argmax(1).tolist()))} different first guesses, deviation {logits.std():.3g}")


def pack(shapes):
    """Return names and shapes as compressed JSON."""
    return gzip.compress(json.dumps(shapes).encode(), mtime=0)


def reference_tokens(kind, names):
    """Return the tokens of all prompts, by open_clip's tokenizer for CLIP, and as its code cleans texts for SigLIP."""
    import open_clip.tokenizer
    import torch

    prompts = [template.format(name) for name in names for template in TEMPLATES]
    if kind == "clip":
        return open_clip.tokenizer.SimpleTokenizer()(prompts)
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(names))
    rows = [processor.encode(open_clip.tokenizer.get_clean_fn("canonicalize")(prompt)) for prompt in prompts]
    return torch.tensor([[*row, 1, *[1] * 64][:64] for row in rows])


def open_clip_network(name, **options):
    """Return a network of open_clip, the preparation of images, and its two encoders."""
    import open_clip

    network, _, prepare = open_clip.create_model_and_transforms(name, pretrained=None, **options)
    return network, prepare, network.encode_image, network.encode_text


def transformers_network(kind, vision, text, images, **config):
    """Return a network of transformers, the preparation of images, and its two encoders."""
    import transformers

    configuration = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **config)
    network = getattr(transformers, f"{kind}Model")(configuration)
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**images)

    def prepare(image):
        return processor(image, return_tensors="pt")["pixel_values"][0]

    def pooled(output):
        return getattr(output, "pooler_output", output)

    return (
        network,
        prepare,
        lambda x: pooled(network.get_image_features(pixel_values=x)),
        lambda x: pooled(network.get_text_features(input_ids=x)),
    )


def transformers_siglip():
    """Return SigLIP B/16 of transformers, whose defaults are that network."""
    return transformers_network(
        "Siglip", {}, {}, {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    )


REFERENCES = {
    "open_clip_clip": lambda: open_clip_network("ViT-B-32", force_quick_gelu=True),
    "transformers_clip": lambda: transformers_network("CLIP", {}, {}, {}),
    "open_clip_siglip": lambda: open_clip_network(
        "ViT-B-16-SigLIP",
        image_mean=(0.5,) * 3,  # which open_clip takes from its table of pretrained weights
        image_std=(0.5,) * 3,
        image_interpolation="bicubic",
        image_resize_mode="squash",
    ),
    "transformers_siglip": transformers_siglip,
}

# --- ours ------------------------------------------------------------------------------------------------------


def compare(name, arguments):
    """Score the photographs with our commands, and return the row of a case."""
    from safetensors.numpy import save_file

    case, stored, work = CASES[name], np.load(ANSWERS), arguments.work
    paths, names = photographs(arguments.sets)
    shapes = json.loads(gzip.decompress(stored[f"{name}/shapes"].tobytes()))
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"{name}.safetensors"
    save_file({key: np.ascontiguousarray(array) for key, array in weights(shapes).items()}, file)
    (work / "names.txt").write_text("".join(f"{text}\n" for text in names), encoding="utf-8")
    (work / "templates.txt").write_text("".join(f"{text}\n" for text in TEMPLATES), encoding="utf-8")
    vocabulary = arguments.vocabulary
    if case.tokenizer == "siglip":
        vocabulary = work / "spiece.model"
        vocabulary.write_bytes(sentencepiece_model(names))
        check_tokens(vocabulary, names, stored["siglip_tokens"])
    prepare_data(paths, work)
    out = work / f"{name}.npz"
    call(
        "evaluate",
        "--protocol=zeroshot",
        f"--weights={file}",
        f"--model={case.network}",
        f"--options={case.options}",
        f"--classnames={work / 'names.txt'}",
        f"--templates={work / 'templates.txt'}",
        *([f"--tokenizer={vocabulary}"] if vocabulary else []),
        "--data.name=zero_shot_photographs",
        f"--data.data_dir={work / 'data'}",
        "--data.eval_batch_size=25",
        f"--out={out}",
    )
    file.unlink()
    return row(name, out, paths)


def row(name, out, paths):
    """Return the row of a case from our predictions."""
    from imagenet_repro.models import image_text
    from imagenet_repro.scoring import predictions
    from imagenet_repro.zoo import counting

    case, predicted, expected = CASES[name], predictions.load(out), np.load(ANSWERS)[f"{name}/logits"]
    ours = predicted.logits[np.argsort([str(one).rpartition("/")[2] for one in predicted.id])]
    same = ours.argmax(1) == expected.argmax(1)
    crop = np.array([has_same_crop(case, path) for path in paths])
    scale = np.linalg.norm(expected[crop] - expected[crop].mean())
    distance = np.linalg.norm((ours - expected)[crop]) / scale
    rounding = np.linalg.norm((expected.astype(np.float16) - expected)[crop]) / scale
    count = counting.parameter_count(image_text.abstract_image_text(case.network))
    counts = (len(ours), crop.sum(), same.sum(), same[crop].sum())
    cells = (case.network, case.library, f"{count:,}", *counts, f"{distance:.1e}", f"{rounding:.1e}")
    return f"| {' | '.join(map(str, cells))} |\n"


def has_same_crop(case, path):
    """Return whether a library cuts the same 224 pixels out of a photograph that we do."""
    from PIL import Image

    if (case.library, case.tokenizer) != ("transformers", "clip"):
        return True
    with Image.open(path) as image:
        margin = int(224 * max(image.size) / min(image.size)) - 224
    return round(margin / 2) == margin // 2


def check_tokens(model, names, expected):
    """Raise SystemExit where our tokens are not those of the reference."""
    from imagenet_repro.data.tokenizers import open_tokenizer

    prompts = [template.format(name) for name in names for template in TEMPLATES]
    tokens, _ = open_tokenizer("siglip", model).encode(prompts, expected.shape[1])
    if not np.array_equal(tokens, expected):
        raise SystemExit(f"{(tokens != expected).any(1).sum()} of {len(prompts)} prompts have other tokens")


def prepare_data(paths, work):
    """Prepare the photographs as a data set of five images in each class, unless that is done."""
    if (work / "data" / "zero_shot_photographs").exists():
        return
    folder = work / "links" / "validation"
    for index, path in enumerate(paths):
        place = folder / f"class_{index // EACH:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).symlink_to(path.resolve())
    call("prepare", f"folder:{folder.parent}", "--name=zero_shot_photographs", f"--data_dir={work / 'data'}")


def call(*arguments):
    """Run a command of main.py."""
    subprocess.run([sys.executable, str(REPOSITORY / "main.py"), *map(str, arguments)], check=True)


def read_rows(path):
    """Return the rows of a table that is there, by case."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    rows = {}
    for name, case in CASES.items():
        start = f"| {case.network} | {case.library} |"
        rows.update((name, line) for line in lines if line.startswith(start))
    return rows


if __name__ == "__main__":
    main()
