"""Remove what training programs put before or into the names of tensors.

PyTorch's wrappers of a module (DataParallel, FSDP, activation checkpointing, `torch.compile`) add a part to the names
of its tensors, and programs that hold the network in an attribute add the attribute's name.
"""

import re
from collections.abc import Mapping

import numpy as np

from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import names

# Parts that PyTorch's wrappers add wherever a wrapped module is: torch.compile, FSDP, activation checkpointing.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module")
# First parts, of DataParallel and of the attributes in which programs hold a network. No network here has them.
OUTER = ("module", "model", "backbone", "encoder", "network", "net")


def remove(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return arrays without the wrappers' parts in their names, and a sentence for each part that was removed.

    A first part is removed if all names have it. It is also removed from most of the names, such as those of a
    backbone beside its head, unless the names as they are belong to a known scheme.

    Raises:
      UserError: two tensors would have the same name.
    """
    notes, renamed = [], dict(arrays)
    for part in WRAPPERS:
        renamed = _rename(renamed, lambda name, part=part: ".".join(p for p in name.split(".") if p != part))
        changed = sum(f".{part}." in f".{name}." for name in arrays)
        notes += [_note(part, changed, len(arrays))] if changed else []
    while part := _outer(renamed):
        changed = sum(name.startswith(f"{part}.") for name in renamed)
        notes.append(_note(part, changed, len(renamed)))
        renamed = _rename(renamed, lambda name, part=part: name.removeprefix(f"{part}."))
    return renamed, notes


def _outer(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the first part to remove; empty if there is none."""
    counts = {part: sum(name.startswith(f"{part}.") for name in arrays) for part in OUTER}
    part = max(OUTER, key=lambda part: counts[part])
    if counts[part] == len(arrays):
        return part
    is_known = any(re.fullmatch(scheme.marker, name) for scheme in names.SCHEMES for name in arrays)
    others = {name.removeprefix(f"{part}.") for name in arrays}
    return part if 2 * counts[part] > len(arrays) == len(others) and not is_known else ""


def _rename(arrays: Mapping[str, np.ndarray], rename) -> dict[str, np.ndarray]:
    renamed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if renamed.setdefault(rename(name), array) is not array:
            raise UserError(f"two tensors are '{rename(name)}' without the names of wrappers; leave one of them out")
    return renamed


def _note(part: str, changed: int, total: int) -> str:
    return f"left '{part}.' out of " + ("every name" if changed == total else f"{changed} of {total} names")
