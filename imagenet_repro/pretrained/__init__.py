"""Import and export of published weights.

`load(model, path)` reads a file into a model, and `write(model, path)` writes a file that the reference implementation
loads. `load_image_text` reads one into a network of two towers. `load_torch` and `to_torch` do the same with a
dictionary of arrays in memory.
"""

from imagenet_repro.pretrained.files import Weights, read, require_suffix, write
from imagenet_repro.pretrained.image_text import load_image_text, select_image_text
from imagenet_repro.pretrained.loading import IMAGENET_ORDER, Report, load
from imagenet_repro.pretrained.model_files import locate
from imagenet_repro.pretrained.selection import Selection, select
from imagenet_repro.pretrained.tensors import load_torch, to_torch

__all__ = [
    "IMAGENET_ORDER",
    "Report",
    "Selection",
    "Weights",
    "load",
    "load_image_text",
    "load_torch",
    "locate",
    "read",
    "require_suffix",
    "select",
    "select_image_text",
    "to_torch",
    "write",
]
