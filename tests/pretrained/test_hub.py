"""Tests of weights on the Hugging Face Hub, with the real library and a local server of the Hub's layout."""

import hashlib
import json

import numpy as np
import pytest

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import hub as hub_module
from imagenet_repro.pretrained.hub import Repository, parse, push, require_access
from tests.pretrained import hub_server


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server.library(tmp_path, monkeypatch) as repositories:
        yield repositories


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return the content of a small network's file of weights."""
    pytest.importorskip("huggingface_hub")
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    pretrained.write(models.create("lenet5_1998", num_classes=3), path, class_names=("ant", "bee", "cat"))
    return path.read_bytes()


def described(content):
    """Return `config.json` as `export` writes it, as far as loading reads it."""
    entries = {"library_name": "imagenet_repro", "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(entries).encode()


def test_names_of_repositories():
    assert parse("hub:me/net") == Repository("me/net")
    assert str(parse("me/net@v1", "--hub=")) == "hub:me/net@v1"
    for text in ("hub:net", "hub:me/net@", "hub:me/ne t", "hub:a/b/c", "hub:"):
        with pytest.raises(UserError, match="a repository is named as USER/NAME or USER/NAME@REVISION"):
            parse(text)


def test_weights_of_a_repository_load_and_come_from_the_cache_afterwards(hub, weights, monkeypatch):
    from huggingface_hub import constants

    commit = hub.commit("me/net", {"model.safetensors": weights, "config.json": described(weights), "big.bin": b"x"})
    loaded = pretrained.read("hub:me/net")
    assert loaded.class_names == ("ant", "bee", "cat")
    assert loaded.path.parent.name == commit
    assert not [path for _, path in hub.requests if path.endswith("big.bin")]  # only what is needed
    pretrained.read("hub:me/net")
    count = len(hub.requests)
    assert sum("revision" in path for _, path in hub.requests) == 1  # a process asks once
    hub_module.download.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pretrained.read("hub:me/net").path == loaded.path
    assert len(hub.requests) == count


def test_a_revision_is_a_branch_or_a_commit(hub, weights):
    first = hub.commit("me/net", {"model.safetensors": weights})
    hub.commit("me/net", {"model.safetensors": weights, "README.md": b"new"}, branch="v2")
    assert pretrained.read(f"hub:me/net@{first}").path.parent.name == first
    assert pretrained.read("hub:me/net@v2").path.parent.name == hub.branches["me/net"]["v2"] != first


def test_an_older_repository_has_its_weights_in_a_pickle(hub, weights):
    hub.commit("me/old", {"pytorch_model.bin": weights, "config.json": b"{}"})
    assert hub_module.download("hub:me/old").joinpath("pytorch_model.bin").is_file()


def test_errors_say_what_to_do(hub, weights, monkeypatch):
    from huggingface_hub import constants

    hub.commit("me/net", {"model.safetensors": weights})
    hub.commit("me/text", {"README.md": b"no weights", "config.json": b"{}"})
    hub.commit("me/private", {"model.safetensors": weights})
    hub.commit("me/gated", {"model.safetensors": weights})
    hub.private.add("me/private")
    hub.gated.add("me/gated")

    def error(text):
        with pytest.raises(UserError) as raised:
            pretrained.read(text)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert error("hub:me/none").startswith(
        "hub:me/none: there is no such repository, or it is private: check the name"
    )
    assert error("hub:me/net@v7") == "hub:me/net@v7: it has no revision 'v7'; name a branch, tag or commit"
    assert "has no file of weights (model.safetensors or pytorch_model.bin)" in error("hub:me/text")
    assert "its owner must grant access first" in error("hub:me/gated")
    assert pretrained.read("hub:me/private").class_names  # with the token
    hub_module.download.cache_clear()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "2")
    assert "or it is private" in error("hub:me/private")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "it is not in the cache, and HF_HUB_OFFLINE is set" in error("hub:me/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub cannot be reached" in error("hub:me/net")


def test_a_damaged_file_is_named(hub, weights):
    hub.commit("me/net", {"model.safetensors": weights, "config.json": described(weights)})
    hub.corrupt.add("model.safetensors")
    with pytest.raises(UserError, match=r"hub:me/net: model\.safetensors is damaged, .*; remove .* and run the same"):
        pretrained.read("hub:me/net")
    hub.corrupt = {"config.json"}
    hub.commit("me/other", {"model.safetensors": weights, "config.json": described(weights)})
    with pytest.raises(UserError, match=r"hub:me/other: config\.json is damaged"):
        pretrained.read("hub:me/other")


def test_weights_that_are_not_those_of_the_description_are_refused(hub, weights):
    hub.commit("me/net", {"model.safetensors": weights, "config.json": described(b"others")})
    with pytest.raises(UserError, match=r"model\.safetensors is not the file that config\.json describes"):
        pretrained.read("hub:me/net")


def test_what_is_pushed_is_what_loads(hub, weights, tmp_path):
    directory = tmp_path / "repository"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(weights)
    (directory / "config.json").write_bytes(described(weights))
    (directory / "README.md").write_text("---\nlicense: mit\n---\na card")
    address = push(directory, Repository("me/new"), private=True, message="Upload")
    assert address.startswith("http")
    assert hub.commits[hub.branches["me/new"]["main"]]["model.safetensors"] == weights
    assert "me/new" in hub.private
    push(directory, Repository("me/new", "v2"), private=False, message="Upload again")
    assert set(hub.branches["me/new"]) == {"main", "v2"}
    network = models.create("lenet5_1998", num_classes=3)
    pretrained.load(network, "hub:me/new")
    original = models.create("lenet5_1998", num_classes=3)
    (tmp_path / "w.safetensors").write_bytes(weights)
    pretrained.load(original, tmp_path / "w.safetensors")
    for name, array in pretrained.to_torch(original).items():
        np.testing.assert_array_equal(pretrained.to_torch(network)[name], array)


def test_a_push_needs_a_token(hub, tmp_path, monkeypatch):
    repository = Repository("me/new")
    require_access(repository)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"hub:me/new: the Hub refuses access \(status 401\); log in"):
        push(tmp_path, repository, private=False, message="Upload")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="hub:me/new: there is no token; log in"):
        require_access(repository)


def test_a_missing_library_is_an_error_with_the_command(monkeypatch):
    monkeypatch.setattr(hub_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hub:me/net: huggingface_hub is not installed; pip install .*\[hub\]"):
        pretrained.locate("hub:me/net")
