"""Tests that the code blocks of docs/python.md and docs/api.md run, each page in order in one namespace."""

import re

from tools.generated import REPOSITORY


def run_blocks(page, directory, monkeypatch):
    """Run the blocks of a page in a directory; return the namespace after the last one."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    (directory / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(directory)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    return names


def test_the_blocks_run(tmp_path, monkeypatch):
    names = run_blocks("python.md", tmp_path, monkeypatch)
    assert names["logits"].shape == (2, 3)
    assert names["pooled"].shape == (2, 512)
    assert (tmp_path / "resnet18.safetensors").exists()


def test_features_of_a_list_of_images_train_a_head(tmp_path, monkeypatch):
    names = run_blocks("api.md", tmp_path, monkeypatch)
    assert names["features"].shape == (20, 512)
    assert names["maps"].shape == (2, 2, 2, 512)
    assert (names["image"] == names["same"]).all()
    assert names["error"] == 0
