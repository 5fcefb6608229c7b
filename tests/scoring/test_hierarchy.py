"""Tests of costs in the tree against WordNet's own functions, pair by pair, and against counts by hand."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import hierarchy, wordnet

# Two dogs, a cat, a goldfish, two vehicles.
WNIDS = ("n02085620", "n02106662", "n02124075", "n01443537", "n02930766", "n04467665")


@pytest.fixture
def entry():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(WNIDS), 80)
    top5 = np.argsort(rng.random((80, len(WNIDS))), axis=1)[:, :5].astype(np.int32)
    top5[:20, 0] = labels[:20]
    return top5, labels


def distance(guess, label):
    if guess == label:
        return 0
    return wordnet.height(wordnet.lowest_common_ancestor(WNIDS[guess], WNIDS[label]))


def test_costs_are_means_of_the_cheapest_guess(entry):
    top5, labels = entry
    result = hierarchy.score_hierarchy(top5, labels, WNIDS)
    for cost in result.costs:
        each = [min(distance(g, label) for g in row[: cost.guesses]) for row, label in zip(top5, labels, strict=True)]
        assert cost.mean == pytest.approx(np.mean(each))
        low, high = cost.interval
        assert low == pytest.approx(np.mean(each) - 1.96 * np.std(each, ddof=1) / np.sqrt(80), abs=1e-4)
        assert high > cost.mean
    assert [cost.guesses for cost in result.costs] == [1, 2, 3, 4, 5]


def test_heights_are_not_normalised():
    costs = [
        hierarchy.score_hierarchy(np.array([[guess]], np.int32), np.array([0]), WNIDS).costs[0].mean
        for guess in range(6)
    ]
    assert costs[0] == 0
    assert costs[1] == 5  # dog, if steps are counted as in the readme of 2010
    assert (
        costs[2] == wordnet.height("n01317541") == 6
    )  # domestic animal, whose height is lower than that of carnivore
    assert costs[4] > costs[3] > costs[2]


def test_no_guess_costs_as_much_as_the_root():
    result = hierarchy.score_hierarchy(np.array([[-1, -1], [-1, 1]], np.int32), np.array([0, 1]), WNIDS)
    assert [cost.mean for cost in result.costs] == [19, 9.5]
    assert (result.whole.outside, result.whole.inside) == (2, 0)


def test_errors_are_counted_inside_and_outside_of_super_classes():
    labels = np.array([0, 0, 0, 1, 2, 4, 4, 3])
    best = np.array([0, 1, 2, 0, 2, 5, 0, 3])
    result = hierarchy.score_hierarchy(best[:, None].astype(np.int32), labels, WNIDS)
    groups = {one.name: one for one in result.groups}
    assert list(groups) == ["dog", "feline", "fish", "vehicle"]
    dog = groups["dog"]
    assert (dog.classes, dog.images, dog.wrong, dog.outside, dog.inside) == (2, 4, 3, 1, 2)
    assert (groups["vehicle"].outside, groups["vehicle"].inside) == (1, 1)
    assert (result.whole.images, result.whole.wrong, result.whole.outside, result.whole.inside) == (8, 5, 2, 3)
    costs, shares = hierarchy.sentences(result)
    assert "with 1 guess" in costs
    assert shares.startswith("first guess of another super-class: 25.0 % [")
    assert "; of the right one, but another class: 37.5 % [" in shares
    assert shares.endswith(", 60 % of the errors")
    assert len(hierarchy.terminal_table(result).rows) == 5


def test_only_wordnets_ids_make_a_tree():
    assert hierarchy.has_wordnet_ids(WNIDS)
    assert not hierarchy.has_wordnet_ids((*WNIDS, "tabby"))
    assert not hierarchy.has_wordnet_ids(())


@pytest.mark.parametrize("labels", [[6], [-1]])
def test_labels_outside_are_refused(labels):
    with pytest.raises(UserError, match="among 6 classes"):
        hierarchy.score_hierarchy(np.array([[0]], np.int32), np.array(labels), WNIDS)
