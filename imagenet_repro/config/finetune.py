"""Keys of fine-tuning and distillation: frozen parameters, LoRA, the new head, and a teacher's labels."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) A B, with W frozen and B from 0.

    Without `freeze`, everything but the adapters and the head is frozen.
    """

    rank: int = bounded(0, 0, 4096)  # columns of A and rows of B; 0: off
    alpha: float = bounded(8.0, 0.0)  # the product is multiplied by alpha / rank
    targets: tuple[str, ...] = ("attn.qkv", "attn.proj")  # linear layers and convolutions by the end of their names


@dataclasses.dataclass(frozen=True)
class Train:
    """The part of a network that a run trains (training/finetuning.py).

    `freeze` has the names of parameters or of modules, in which * and ? stand for any characters. `all_but_head` is
    everything but the classifier. A name after an exclamation mark is trained though an earlier name froze it.
    """

    freeze: tuple[str, ...] = ()  # such as all_but_head or 'stem,layer1,layer2.*.bn?'
    frozen_norm: Literal["evaluation", "training"] = "evaluation"  # mode of batch norm with frozen scale and shift
    zero_head: bool = False  # the head starts at zero, whether or not the file of weights has one that fits
    lora: Lora = Lora()


@dataclasses.dataclass(frozen=True)
class NoDistillation:
    """The labels alone."""

    name: str = "none"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Keys of both kinds of distillation."""

    teacher: str = ""  # the workdir of a run (its best checkpoint), or a file of weights
    model: str = ""  # the teacher's network, for a file that does not state it
    alpha: float = bounded(0.5, 0.0, 1.0)  # share of the teacher's loss


@dataclasses.dataclass(frozen=True)
class HardDistillation(Distillation):
    """The teacher's most likely class as a second label (Touvron et al. 2020, arXiv 2012.12877, eq. 3)."""

    name: str = "hard"


@dataclasses.dataclass(frozen=True)
class SoftDistillation(Distillation):
    """The teacher's softened probabilities (Hinton et al. 2015, arXiv 1503.02531; Touvron et al. 2020, eq. 2)."""

    name: str = "soft"
    alpha: float = bounded(0.1, 0.0, 1.0)  # share of the teacher's loss, the paper's lambda
    temperature: float = bounded(3.0, 1e-3)  # divides both networks' logits


Distill = NoDistillation | HardDistillation | SoftDistillation
