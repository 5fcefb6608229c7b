"""DeiT: Touvron et al., "Training data-efficient image transformers", 2020 (arXiv 2012.12877).

    python main.py train --config=configs/deit.py:small --workdir=runs/deit_small
    python main.py train --config=configs/deit.py:small_distilled --config.distill.teacher=regnety_160-a5fe301d.pth
        --workdir=runs/deit_small_distilled

The argument is tiny, small or base, or tiny_distilled, small_distilled or base_distilled: networks with a distillation
token, whose head learns from the teacher's decisions (hard labels, half of the loss; sec. 4 of the paper). The teacher
is a finished run or a file of weights (`--config.distill.model` names its network); its operations count. The
paper's teacher is `regnet_y_16gf`, and the file above has its weights. Recipe
(table 9, with the authors' code): AdamW, batch 1024, rate 5e-4 per 512 images, decay 0.05, 300 epochs with 5 of
warm-up, a cosine down to 1e-5; RandAugment (9, 0.5), mixup 0.8, CutMix 1.0, random erasing 0.25, repeated augmentation
(3), label smoothing 0.1, stochastic depth 0.1. Kernels alone decay: neither norms, biases, positions nor the class
token. The authors' first released code decayed the last two as well, by mistake (their issue 39).

Target: top-1 / top-5 error 27.8 / 8.9 % (tiny), 20.1 / 5.0 (small), 18.2 / 4.4 (base), one crop of 224 (authors'
repository); distilled 25.5 (tiny), 18.8 (small), 16.6 (base), from RegNetY-16GF, which has 17.1 % (table 2). Cost:
1.1e19 FLOP for small. Not run on ImageNet here.

Deviations: mixup and CutMix draw for each pair of images, not for each batch; the warm-up starts from zero, not from
1e-6; the authors also track an average of the weights of 0.99996; the sampler of repeats (data/order.py) is not their
RASampler; ten epochs at the last rate after the 300 are left out; the distillation token does not decay, as in timm,
where the authors' decayed (their issue 48).
"""

from ml_collections import ConfigDict


def get_config(size="small"):
    rate = 5e-4 * 1024 / 512
    return ConfigDict(
        {
            "budget": "300ep",
            "batch_size": 1024,
            "model": {"name": f"deit_{size}_patch16", "options": {"drop_path": 0.1}},
            "data": {"name": "imagenet2012", "image_size": 224, "repeats": 3},
            "train_crop": {"name": "inception", "kernel": "bicubic", "antialias": True},
            "eval_crop": {"name": "center", "ratio": 0.875, "kernel": "bicubic", "antialias": True},
            "augment": {
                "policy": {"name": "randaugment_timm", "magnitude": 9.0, "magnitude_std": 0.5},
                "mixup": 0.8,
                "cutmix": 1.0,
                "erasing": 0.25,
                "erasing_fill": "normal",
                "label_smoothing": 0.1,
            },
            "optimizer": {"name": "adamw", "learning_rate": rate, "weight_decay": 0.05, "decay_mask": "kernels"},
            "schedule": {"name": "cosine", "warmup": 5 / 300, "final": 1e-5 / rate},
            "distill": {"name": "hard" if size.endswith("_distilled") else "none"},
        }
    )
