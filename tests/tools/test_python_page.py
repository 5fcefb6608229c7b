"""Tests that the code of docs/python.md, docs/api.md and docs/notebook.ipynb runs, each in order in one namespace."""

import json
import re

import pytest

from imagenet_repro.training import devices
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


NOTEBOOK = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs():
    assert CELLS
    assert not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)


@pytest.mark.slow
def test_the_cells_of_the_notebook_run(monkeypatch):
    """The documentation's build runs them too, with their budget of 30 s for each network."""
    monkeypatch.setattr(devices, "start", lambda: None)
    shown = []
    names: dict = {"Image": lambda path, width: shown.append(path.read_bytes())}  # that of IPython
    for cell in CELLS:
        lines = [line for line in cell["source"] if "IPython" not in line]
        exec("".join(lines).replace('"30s"', '"3st"').replace('"6s"', '"2st"'), names)
    assert [one.spent.steps for one in names["results"].values()] == [3, 3]
    assert {system.name for system in names["comparison"].systems} == {"lenet5", "resnet18"}
    assert shown[0].startswith(b"\x89PNG")
