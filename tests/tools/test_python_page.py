"""Tests that the code blocks of docs/python.md run in order in one namespace."""

import re

from tools.generated import REPOSITORY


def test_the_blocks_run(tmp_path, monkeypatch):
    text = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["logits"].shape == (2, 3)
    assert names["pooled"].shape == (2, 512)
    assert (tmp_path / "resnet18.safetensors").exists()
