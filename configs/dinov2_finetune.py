"""Fine-tuning of DINOv2: Oquab et al. 2023 (arXiv 2304.07193), table 5, by the recipe of DeiT III.

    python main.py train --config=configs/dinov2_finetune.py:giant --config.model.weights=dinov2_vitg14_pretrain.pth
        --workdir=runs/dinov2_giant_finetune

The argument is small, base, large or giant, at 224 pixels, or at 448 as giant_448. The paper says that it fine-tunes
by the pipeline of Touvron et al. 2022 (DeiT III, arXiv 2204.07118) and states no numbers. Here they are those of that
paper's code (facebookresearch/deit, README_revenge.md) for weights of ImageNet-21k: LAMB, batch 2048, rate 3e-4, decay
0.02, 50 epochs with 5 of warm-up from 1e-6, a cosine down to 1e-5, CutMix 1.0, colour jitter 0.3, label smoothing 0.1,
stochastic depth of each size.

Target: top-1 error 11.5 % for ViT-g/14 at 224 pixels and 11.1 % at 448, one crop, where linear heads on the frozen
features reach 13.5 and 13.3 % (table 5). Cost: 1.2e20 FLOP for giant at 224. Not run on ImageNet here.

Deviations: the three augmentations of DeiT III (grey, solarised or blurred images) are left out; CutMix draws for each
pair of images; the warm-up starts from zero. Guesses: all numbers are those of DeiT III, whose rate of stochastic
depth for ViT-H is taken for giant; the head is new, starts at zero, and reads the class token; the batch is the sum
over the GPUs of the command.
"""

from ml_collections import ConfigDict

DROP_PATH = {"small": 0.05, "base": 0.15, "large": 0.4, "giant": 0.45}


def get_config(size="giant"):
    network, image_size = (size.removesuffix("_448"), 448) if size.endswith("_448") else (size, 224)
    return ConfigDict(
        {
            "budget": "50ep",
            "batch_size": 2048,
            "model": {
                "name": f"vit_{network}_patch14_dinov2",
                "options": {"drop_path": DROP_PATH[network], "image_size": image_size},
            },
            "data": {"name": "imagenet2012", "image_size": image_size},
            "train": {"zero_head": True},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 1.0, "kernel": "bicubic", "antialias": True},
            "augment": {
                "brightness": 0.3,
                "contrast": 0.3,
                "saturation": 0.3,
                "cutmix": 1.0,
                "label_smoothing": 0.1,
            },
            "optimizer": {"name": "lamb", "learning_rate": 3e-4, "weight_decay": 0.02, "decay_mask": "kernels"},
            "schedule": {"name": "cosine", "warmup": 5 / 50, "final": 1e-5 / 3e-4},
            "clip_norm": 1.0,
        }
    )
