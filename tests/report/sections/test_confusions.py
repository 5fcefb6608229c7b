from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imagenet_repro.report.plots import charts, confused_pairs, wordnet_confusions
from imagenet_repro.report.records import ComparedSystem, Comparison, FinishedRun, TopGuesses
from imagenet_repro.report.sections import confusions
from imagenet_repro.report.sections.confusion_examples import EXAMPLES, ConfusionExamples
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


def test_bars_are_as_long_as_the_errors():
    comparison = at_random((1, 1, 3))
    wrong, tree = read(comparison)
    datasets = wordnet_confusions.draw_heights(tree).datasets
    bars = datasets["bars"]
    parts = np.array([bar["share"] for bar in bars]).reshape(len(comparison.systems), -1)
    errors = [100 * system.mean_error(1) for system in comparison.systems]
    np.testing.assert_allclose(parts.sum(axis=1), errors, rtol=1e-5)
    np.testing.assert_allclose([row["error"] for row in datasets["totals"]], errors, rtol=1e-5)
    np.testing.assert_allclose([bar["end"] - bar["start"] for bar in bars], parts.ravel(), atol=1e-3)
    low = 0
    for (top, _), part in zip(wordnet_confusions.BANDS, parts.T, strict=True):
        chosen = (tree.cost > low) & (tree.cost <= top)
        np.testing.assert_allclose(part, 100 * wrong.sums(chosen) / comparison.n_images, rtol=1e-5)
        low = top


def test_cells_of_super_classes_have_their_share_and_images():
    comparison = at_random((1, 2))
    wrong, tree = read(comparison)
    system = comparison.systems[0]
    guesses = system.runs[0].guesses
    images = ConfusionExamples(system, wrong).of_super_classes(tree)
    chart = wordnet_confusions.draw_super_classes(tree, system.name, images)
    found = 0
    for row, group in enumerate(tree.groups):
        of_row = tree.group[guesses.label] == row
        for column, other in enumerate(tree.groups):
            known = (guesses.top5[:, 0] >= 0) & (guesses.top5[:, 0] != guesses.label)
            chosen = of_row & known & (tree.group[guesses.top5[:, 0]] == column)
            cells = [c for c in chart.datasets["cells"] if c["label"].startswith(f"{group} (") and c["guess"] == other]
            assert len(cells) == int(chosen.any())
            for cell in cells:
                found += 1
                assert cell["share"] == pytest.approx(100 * chosen.sum() / of_row.sum(), rel=1e-5)
                ids = [image["id"] for image in cell["examples"]]
                assert ids == guesses.id[chosen][: len(ids)].tolist()
                assert len(ids) == min(EXAMPLES, chosen.sum())
    assert found == len(chart.datasets["cells"]) > 3


def test_the_most_frequent_confusions_are_those_of_the_table_with_their_images():
    comparison = at_random((2, 1))
    wrong, _ = read(comparison)
    pairs = confused_pairs.most_frequent(wrong)
    classes = [(int(wrong.label[pair]), int(wrong.guess[pair])) for pair in pairs]
    pictured = comparison.systems[1].runs[0].guesses.id[-30:].tolist()
    images = {one.name: ConfusionExamples(one, wrong, pictured).of_pairs(classes) for one in comparison.systems}
    chart = confused_pairs.draw_confused_pairs(wrong, list(wrong.systems), pairs, images)
    rows = confusions.most_confused(wrong, None).rows[: confused_pairs.MOST_PAIRS]
    expected = {
        (f"{row[0]} → {row[1]}", system): float(count)
        for row in rows
        for system, count in zip(wrong.systems, row[4:], strict=True)
    }
    assert {(cell["pair"], cell["system"]): cell["count"] for cell in chart.datasets["cells"]} == expected
    for cell in chart.datasets["cells"]:
        if cell["system"] == wrong.systems[1]:
            ids = [image["id"] for image in cell["examples"]]
            assert len(ids) == min(EXAMPLES, cell["count"])
            assert ids == sorted(ids, key=lambda id: (id not in pictured, id))
            assert {f"{image['label']} → {image['guess']}" for image in cell["examples"]} <= {cell["pair"]}
    assert set(chart.image_ids()) == {image["id"] for cell in chart.datasets["cells"] for image in cell["examples"]}


def test_systems_that_are_never_wrong(tmp_path):
    wrong, tree = read(comparison_of([0, 1, 2], {"a": [[0, 1, 2]]}))
    assert charts.write(wordnet_confusions.draw_heights(tree), tmp_path, "heights")[0].exists()
    assert wordnet_confusions.draw_super_classes(tree, "a", {}).datasets == {"cells": []}
    assert confused_pairs.most_frequent(wrong) == []
