"""Write the two files beside this one with PyTorch: `python tests/pretrained/files/write_files.py`."""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent


def value():
    shared = torch.arange(24, dtype=torch.float32)
    return {
        "model": OrderedDict(
            {
                "module.plain": torch.arange(6, dtype=torch.float32).reshape(2, 3),
                "module.transposed": shared.reshape(4, 6).T,
                "module.part": shared[8:20:3],
                "module.parameter": torch.nn.Parameter(torch.full((2,), 0.5)),
                "module.half": torch.tensor([1.5, -2.0], dtype=torch.float16),
                "module.bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
                "module.count": torch.tensor(7),
                "module.empty": torch.zeros(0, 3),
            }
        ),
        "epoch": 3,
        "best": None,
    }


if __name__ == "__main__":
    torch.save(value(), HERE / "zip.pth")
    torch.save(value(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
