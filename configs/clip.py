"""CLIP: two towers trained to match images with texts (Radford et al. 2021, arXiv 2103.00020).

    python main.py train --config=configs/clip.py --workdir=runs/clip
    python main.py train --config=configs/clip.py:clip_vit_base_patch32 --config.captions.data=my_pairs
        --config.tokenizer=bpe_simple_vocab_16e6.txt.gz --workdir=runs/clip_b32

The argument is a network with two towers. Without one it is a small one of our own, whose tokens are bytes, on the
captions "a photo of a CLASS." of the embedded silhouettes at 32 px, batch 64, for 24,000 images: it takes minutes on
two cores. Any other data set of labelled images takes its place (`--config.data.name=NAME`). Chance is 90 % error.

A published network gets the paper's settings (its tables 18 to 20): softmax over the batch of 32,768 pairs in both
directions, inverse temperature from 1/0.07, clipped at 100; Adam with decoupled decay of 0.2 on all weights but gains
and biases, beta2 0.98, epsilon 1e-6, rate 5e-4 (4e-4 for ViT-L/14), 2,000 steps of warm-up, a cosine, 32 epochs;
square random crops alone. Pairs are those of `captions.data` (`main.py prepare folder:TABLE.csv`, with the
columns file and caption). Evaluation is zero-shot on `data`, ImageNet by default, with the one prompt of
`zeroshot.templates`.

Target: top-1 error 36.8 % on ImageNet for ViT-B/32 (63.2 %, table 11, with an ensemble of 80 prompts). Its 400 million
pairs are not public, so the target cannot be reproduced here, and this was not run on such data. Cost: 5.7e20 FLOP
for ViT-B/32, 6.7e21 for ViT-L/14.

Deviations: images keep at least 90 % of their area in a crop (open_clip's; the paper gives no number); one prompt, not
80; class names as the data set has them, not the authors' list.
"""

from ml_collections import ConfigDict

OURS = "ours_tiny_clip"
STEPS = 32 * 400_000_000 / 32_768  # of the paper's training


def get_config(network=OURS):
    return ConfigDict(_small() if network == OURS else _published(network))


def _small():
    return {
        "budget": "24000img",
        "batch_size": 64,
        "precision": "float32",
        "model": {"name": OURS, "options": {"context": 32}},
        "data": {"name": "silhouettes", "image_size": 32},
        "captions": {"name": "class_names"},
        "train_crop": {"name": "inception", "area": (0.7, 1.0)},
        "eval_crop": {"name": "center", "ratio": 1.0},
        "optimizer": {"name": "adamw", "learning_rate": 5e-4, "weight_decay": 0.1},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "clip_norm": 1.0,
        "evaluate_every": "4800img",
        "checkpoint": {"every": "4800img"},
        "log_every": 5,
    }


def _published(network):
    return {
        "budget": "32ep",
        "batch_size": 32_768,
        "model": {"name": network},
        "data": {"name": "imagenet2012", "image_size": 336 if network.endswith("_336") else 224},
        "captions": {"name": "stored", "data": "my_pairs"},
        "train_crop": {
            "name": "inception",
            "area": (0.9, 1.0),
            "aspect": (1.0, 1.0),
            "kernel": "bicubic",
            "antialias": True,
        },
        "eval_crop": {"name": "center", "ratio": 1.0, "kernel": "bicubic", "antialias": True},
        "augment": {
            "flip": False,
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 4e-4 if "large" in network else 5e-4,
            "weight_decay": 0.2,
            "b2": 0.98,
            "eps": 1e-6,
        },
        "schedule": {"name": "cosine", "warmup": 2000 / STEPS},
    }
