"""Tests of the check of links and paths in the documents."""

import pytest

from tools import check_links


def test_the_documents_have_no_broken_links(capsys):
    assert check_links.main() == 0, capsys.readouterr().err


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name, text in {
        "README.md": "[a](docs/a.md#one-heading) [b](docs/b.md) [c](docs/a.md#two) [d](https://x.y) `configs/x.py:50`",
        "CONTRIBUTING.md": "```\n[e](nowhere.md)\n```\n`configs/there.py`",
        "results/README.md": "[f](../README.md)",
        "docs/a.md": "# One heading\n",
        "configs/there.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(check_links, "REPOSITORY", tmp_path)
    return tmp_path


def test_missing_targets_are_named(repository, capsys):
    assert check_links.main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "README.md: there is no docs/b.md",
        "README.md: docs/a.md has no heading #two",
        "README.md: there is no configs/x.py",
    ]
