import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from imagenet_repro.errors import SaveError
from imagenet_repro.report.plots import wordnet_confusions
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses
from imagenet_repro.report.sections import confusions
from imagenet_repro.scoring import wordnet

TABBY, EGYPTIAN, HUSKY, GOLDFISH, BUS, TEAPOT = WNIDS = (
    "n02123045", "n02124075", "n02110185", "n01443537", "n04146614", "n04398044",
)  # fmt: skip


def run_of(labels, first, classes, seed=0):
    """Return a run with these first guesses; -1: no guess."""
    places = range(min(5, classes))
    top5 = np.array([[-1 if guess < 0 else (guess + k) % classes for k in places] for guess in first])
    ids = np.array([f"image{i:05}" for i in range(len(first))])
    guesses = TopGuesses(ids, np.array(labels, np.int32), top5.astype(np.int32))
    return FinishedRun(Path(f"run{seed}"), seed, {"rates": {"cross_entropy": 1.0}}, (), guesses)


def comparison_of(labels, systems, names=WNIDS):
    """Return a comparison of systems by name, each with the first guesses of several seeds."""
    compared = [
        ComparedSystem(
            name, name, "", tuple(run_of(labels, first, len(names), seed) for seed, first in enumerate(of_seeds))
        )
        for name, of_seeds in systems.items()
    ]
    return Comparison(tuple(compared), tuple(names), "1ep", "folder", "train", "validation")


def at_random(seeds=(2, 3), names=WNIDS, images=400, seed=0):
    random = np.random.default_rng(seed)
    classes = len(names)
    labels = random.integers(0, classes, images)
    guess = lambda: np.where(random.random(images) < 0.4, labels, random.integers(-1, classes, images))  # noqa: E731
    return comparison_of(labels, {f"system {i}": [guess() for _ in range(n)] for i, n in enumerate(seeds)}, names)


def read(comparison):
    wrong = confusions.wrong_guesses(comparison)
    return wrong, confusions.place_in_tree(wrong, comparison.class_names)


def guesses_of(comparison):
    """Yield (system, label, guess, weight) of every image of every run."""
    for s, system in enumerate(comparison.systems):
        for run in system.runs:
            for label, guess in zip(run.guesses.label.tolist(), run.guesses.top5[:, 0].tolist(), strict=True):
                yield s, label, guess, 1 / len(system.runs)


def test_counts_are_means_over_seeds():
    comparison = at_random()
    wrong, _ = read(comparison)
    expected = Counter()
    for system, label, guess, weight in guesses_of(comparison):
        if label != guess:
            expected[system, label, guess] += weight
    pairs = zip(wrong.label.tolist(), wrong.guess.tolist(), np.stack(list(wrong.counts())).T, strict=True)
    result = {(s, a, b): count for a, b, counts in pairs for s, count in enumerate(counts) if count}
    assert result == pytest.approx(dict(expected))
    assert wrong.images.sum() == comparison.n_images
    np.testing.assert_allclose(wrong.total, [counts.sum() for counts in wrong.counts()])
    errors = wrong.total / comparison.n_images
    np.testing.assert_allclose(errors, [system.mean_error(1) for system in comparison.systems])


def test_costs_and_shares_image_by_image():
    comparison = at_random()
    _, tree = read(comparison)
    cost, inside, errors = (np.zeros(2) for _ in range(3))
    for system, label, guess, weight in guesses_of(comparison):
        if guess < 0:
            cost[system] += weight * 19
        elif guess != label:
            shared = wordnet.lowest_common_ancestor(WNIDS[label], WNIDS[guess])
            cost[system] += weight * wordnet.height(shared)
            inside[system] += weight * (wordnet.super_class(WNIDS[label]) == wordnet.super_class(WNIDS[guess]))
        errors[system] += weight * (guess != label)
    np.testing.assert_allclose(tree.mean_cost(), cost / comparison.n_images)
    np.testing.assert_allclose(tree.share_inside(), inside / errors)
    assert tree.groups == ("dog", "feline", "fish", "vehicle", "kitchen, household")
    rows = confusions.distances(tree).rows
    assert [row[3] for row in rows[:-1]] == [f"{c / e:.2f}" for c, e in zip(cost, errors, strict=True)]


def test_one_cat_for_the_other():
    labels = [0] * 4 + [1] * 6
    names = (TABBY, EGYPTIAN, BUS)
    wrong, tree = read(comparison_of(labels, {"a": [[1] * 4 + [0] * 3 + [1] * 3], "b": [labels]}, names))
    assert tree.mean_cost().tolist() == [0.7 * 2, 0.0]  # seven of ten wrong, each at the height of the domestic cat
    result = confusions.most_confused(wrong, tree)
    assert result.headings == ("class", "guessed as", "both are", "images", "all systems", "a", "b")
    assert result.rows == (
        ("tabby", "Egyptian cat", "domestic cat", "4", "4", "4", "0"),
        ("Egyptian cat", "tabby", "domestic cat", "6", "3", "3", "0"),
    )
    distances = confusions.distances(tree).rows
    assert distances[:2] == (("a", "70.0", "100.0", "2.00", "1.40"), ("b", "0.0", "", "", "0.00"))
    assert confusions.errors_by_group(tree).rows == (
        ("feline", "2", "10", "70.0", "0.0"),
        ("vehicle", "1", "0", "", ""),
    )
    assert confusions.inside_by_group(tree).rows[0] == ("feline", "2", "10", "100.0", "")


def test_random_guessing_equals_every_guess_once():
    labels = np.repeat([0, 0, 1, 2, 3, 4, 5], 6)
    _, tree = read(comparison_of(labels, {"every": [np.tile(np.arange(6), 7)]}))
    every, random = confusions.distances(tree).rows
    assert every[1:] == random[1:]
    assert random[0] == "guessing at random"
    assert tree.share_inside()[0] == pytest.approx(confusions.inside_by_chance(tree)) == 3 / 7 / 5


def test_super_classes_add_up_to_all_images():
    comparison = at_random()
    wrong, tree = read(comparison)
    errors = tree.per_group()
    np.testing.assert_allclose(errors.sum(axis=1), wrong.total)
    stayed = tree.per_group(tree.is_inside)
    np.testing.assert_allclose(stayed.sum(axis=1) / errors.sum(axis=1), tree.share_inside())
    assert tree.images().sum() == comparison.n_images
    rows = confusions.inside_by_group(tree).rows
    assert [row[3:] for row in rows if row[1] == "1"] == [("", "")] * 4  # there is no other class to confuse them with


def test_the_most_frequent_come_first():
    comparison = at_random(names=tuple(f"class {i}" for i in range(9)))
    wrong, tree = read(comparison)
    assert tree is None
    result = confusions.most_confused(wrong, tree)
    assert result.headings == ("class", "guessed as", "images", "all systems", "system 0", "system 1")
    totals = [float(row[3]) for row in result.rows]
    assert totals == sorted(totals, reverse=True)
    assert len(totals) == confusions.MOST
    assert totals[0] == round(float(sum(wrong.counts())[wrong.guess >= 0].max()), 1)
    assert "mean over its seeds" in result.caption


@pytest.mark.parametrize("names", [("n02123045",), ("n02123045", "cat"), ("n02123045", "n99999999")])
def test_without_a_tree(names):
    comparison = comparison_of([0, 0], {"a": [[0, -1]]}, names)
    wrong, tree = read(comparison)
    assert tree is None
    assert confusions.most_confused(wrong, tree).rows == ()
    assert np.stack(list(wrong.counts())).tolist() == [[1.0]]


def test_bars_are_as_long_as_the_errors(tmp_path, monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(wordnet_confusions, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    comparison = at_random((1, 1, 3))
    wrong, tree = read(comparison)
    wordnet_confusions.plot_heights(tree, tmp_path / "heights.png")
    bars = drawn_figures[0].axes[0].containers
    parts = np.array([[bar.get_width() for bar in band] for band in bars])
    np.testing.assert_allclose(parts.sum(axis=0), [100 * system.mean_error(1) for system in comparison.systems])
    low = 0
    for (top, _), part in zip(wordnet_confusions.BANDS, parts, strict=True):
        chosen = (tree.cost > low) & (tree.cost <= top)
        np.testing.assert_allclose(part, 100 * wrong.sums(chosen) / comparison.n_images)
        low = top


def test_both_figures_are_written(tmp_path):
    comparison = at_random((1, 2))
    _, tree = read(comparison)
    files = wordnet_confusions.plot_heights(tree, tmp_path / "new/heights.png")
    files += wordnet_confusions.plot_super_classes(tree, "system 1", tmp_path / "new/groups.png")
    assert [file.name for file in files] == ["heights.png", "heights.svg", "groups.png", "groups.svg"]
    assert min(imread(files[0]).shape[1], imread(files[2]).shape[1]) > 1000
    words = re.findall(r"<!-- (.*?) -->", files[3].read_text())
    assert {"dog (1)", "feline (2)", "vehicle"} <= set(words)
    assert any(word.startswith("system 1:") for word in words)
    again = wordnet_confusions.plot_heights(tree, tmp_path / "again.png")
    assert again[1].read_bytes() == files[1].read_bytes()


def test_systems_that_are_never_wrong(tmp_path):
    _, tree = read(comparison_of([0, 1, 2], {"a": [[0, 1, 2]]}))
    assert wordnet_confusions.plot_heights(tree, tmp_path / "heights.png")[0].exists()
    assert wordnet_confusions.plot_super_classes(tree, "a", tmp_path / "groups.png")[0].exists()


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    _, tree = read(at_random())
    with pytest.raises(SaveError, match="how far errors go"):
        wordnet_confusions.plot_heights(tree, tmp_path / "file/heights.png")
