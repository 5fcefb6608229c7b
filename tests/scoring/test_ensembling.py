import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import ensembling, metrics, predictions
from tests.scoring import synthetic_predictions
from tests.scoring.synthetic_predictions import replace, select

NAMES = ("a", "b", "c")
UNIFORM = np.full(3, 1 / 3)


@pytest.fixture
def members():
    return ensembling.align_members(NAMES, synthetic_predictions.members())


def averaged(members, weights, average):
    """Return the plain average over all images at once."""
    logits = np.stack([one.logits for one in members.predictions]).astype(np.float64)
    scores = scipy.special.softmax(logits, axis=-1) if average == "probabilities" else logits
    return np.einsum("m,mnc->nc", weights, scores)


def cross_entropy(members, weights, average):
    scores = averaged(members, weights, average)
    logs = np.log(scores) if average == "probabilities" else scipy.special.log_softmax(scores, axis=1)
    return -np.mean(logs[np.arange(len(members.label)), members.label])


# --- alignment --------------------------------------------------------------------------------------------------


def test_other_orders_of_images_are_brought_into_the_firsts():
    a, b, c = synthetic_predictions.members()
    shuffled = select(b, np.random.default_rng(0).permutation(len(b)))
    for one, other in zip(ensembling.align_members(NAMES, [a, shuffled, c]).predictions, (a, b, c), strict=True):
        for key in ("id", "label", "top5", "logits"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: select(b, slice(3, None)),
            "a and b are of different images; .* has validation/00000, val",
        ),
        (
            lambda b: replace(b, id=np.array(["x", *b.id[1:]])),
            "of different images; .* validation/00000, x$",
        ),
        (
            lambda b: replace(b, label=(b.label + (np.arange(len(b)) == 7)) % 8),
            "labels of validation/00007$",
        ),
        (
            lambda b: replace(b, label=np.full(len(b), -1, np.int32)),
            "b holds images without labels",
        ),
        (lambda b: replace(b, logits=b.logits[:, :7]), "b has 7 classes and a 8; without names they"),
        (lambda b: synthetic_predictions.members()[0], "a and b hold the same scores: one of them is a copy"),
    ],
)
def test_members_that_cannot_be_averaged_are_refused(change, message):
    a, b, c = synthetic_predictions.members()
    with pytest.raises(UserError, match=message):
        ensembling.align_members(NAMES, [a, change(b), c])
    with pytest.raises(UserError, match="at least two"):
        ensembling.align_members(["a"], [a])


def test_images_that_are_both_scored_and_selected_on_are_refused():
    a, b = (synthetic_predictions.members(split=split)[0] for split in ("validation", "train"))
    predictions.check_disjoint(a, b, "weights are found")
    overlapping = replace(b, id=np.array([*a.id[:5], *b.id[5:]]))
    with pytest.raises(UserError, match=r"5 of the scored images .* weights are found: validation/00000, .* 2 more"):
        predictions.check_disjoint(a, overlapping, "weights are found")


# --- averaging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_average_is_that_of_a_plain_loop(members, average):
    weights = np.array([0.5, 0.2, 0.3])
    scores = averaged(members, weights, average)
    result = ensembling.combine(members, weights, average, {"made": "up"})
    assert result.provenance == {"made": "up"}
    stored = np.exp(result.logits.astype(np.float64)) if average == "probabilities" else result.logits
    np.testing.assert_allclose(stored, scores, rtol=4e-3, atol=1e-3)
    best = np.asarray(jax.jit(metrics.top5)(jnp.asarray(scores, jnp.float32)))
    np.testing.assert_array_equal(result.top5, best)
    wrong = ensembling.wrong_by_weights(members, weights[None], average)[0]
    assert ensembling.error_rates(wrong) == result.error_rates()


def test_an_ensemble_of_one_is_that_member_with_its_stored_guesses(members):
    other = replace(members.predictions[1], top5=np.flip(members.predictions[1].top5, axis=1))
    members = ensembling.Members(NAMES, (members.predictions[0], other, members.predictions[2]))
    result = ensembling.combine(members, np.array([0.0, 1.0, 0.0]), "logits", {})
    np.testing.assert_array_equal(result.top5, other.top5)
    wrong = ensembling.wrong_by_weights(members, np.array([[0.0, 1.0, 0.0]]), "logits")[0]
    assert ensembling.error_rates(wrong) == other.error_rates()


def test_ties_go_to_the_lower_class_and_nan_is_wrong():
    tied = np.zeros((3, 7))
    tied[1, 3] = np.nan
    first = synthetic_predictions.from_logits(tied, [0, 0, 6])
    second = synthetic_predictions.from_logits(np.add(np.zeros((3, 7)), [[0], [0], [1]]), [0, 0, 6])
    members = ensembling.align_members("ab", [first, second])
    for average in ("probabilities", "logits"):
        result = ensembling.combine(members, np.array([0.3, 0.7]), average, {})
        assert result.top5.tolist() == [[0, 1, 2, 3, 4], [-1] * 5, [0, 1, 2, 3, 4]]
        wrong = ensembling.wrong_by_weights(members, np.array([[0.3, 0.7]]), average)[0]
        assert wrong.tolist() == [[False, True, True], [False, True, True]]


def test_classes_excluded_by_all_members_stay_excluded():
    low = -np.inf
    first = synthetic_predictions.from_logits([[0.0, low, low, 1.0]], [0])
    second = synthetic_predictions.from_logits([[0.0, low, 2.0, 1.0]], [0])
    for average in ("probabilities", "logits"):
        result = ensembling.combine(ensembling.align_members("ab", [first, second]), np.array([0.5, 0.5]), average, {})
        assert np.isneginf(result.logits[0]).tolist() == [False, True, average == "logits", False]
    only = ensembling.wrong_by_weights(
        ensembling.align_members("ab", [first, second]), np.array([[0.0, 1.0]]), "logits"
    )
    assert only[0].tolist() == [[True], [False]]


def test_members_help_each_other(members):
    judged = ensembling.score_ensemble(members, UNIFORM, "probabilities")
    assert judged.whole[0].mean() < min(alone[0].mean() for alone in judged.alone)


@pytest.mark.parametrize("weights", [UNIFORM, np.array([0.6, 0.4, 0.0]), np.array([0.0, 1.0, 0.0])])
def test_the_contribution_of_a_member_is_the_change_without_it(members, weights):
    judged = ensembling.score_ensemble(members, weights, "probabilities")
    for index in range(3):
        np.testing.assert_array_equal(judged.alone[index], members.wrong[index])
        others, before = np.delete(weights, index), weights[: index + 1]
        for result, part, remaining in (
            (judged.without[index], others, np.delete(range(3), index)),
            (judged.until[index], before, np.arange(index + 1)),
        ):
            if not part.sum():
                assert result is None
                continue
            few = ensembling.Members(
                tuple(NAMES[k] for k in remaining), tuple(members.predictions[k] for k in remaining)
            )
            full = ensembling.combine(few, part / part.sum(), "probabilities", {})
            assert ensembling.error_rates(result) == full.error_rates()


# --- weights ----------------------------------------------------------------------------------------------------


def test_given_weights_are_proportions():
    np.testing.assert_allclose(ensembling.normalize_weights([1, 1, 2]), [0.25, 0.25, 0.5])
    for bad in ([0, 0], [1, -1], [1, float("nan")], [float("inf"), 1]):
        with pytest.raises(UserError, match="must be non-negative numbers"):
            ensembling.normalize_weights(bad)


def test_weights_by_accuracy(members):
    result = ensembling.find_weights("accuracy", members, "probabilities")
    right = [1 - one.error_rates().top1_error for one in members.predictions]
    np.testing.assert_allclose(result, np.array(right) / sum(right))
    never = [replace(one, top5=np.full_like(one.top5, -1)) for one in members.predictions]
    with pytest.raises(UserError, match="no member's first guess is right"):
        ensembling.find_weights("accuracy", ensembling.Members(NAMES, tuple(never)), "probabilities")


def test_weights_of_two_constant_members_in_closed_form():
    """Seven of ten labels are 0; one member gives 0 a probability of 0.9, the other 0.2: the mean must be 0.7."""
    label = np.repeat([0, 1], [70, 30])
    constant_members = [
        synthetic_predictions.from_logits(np.tile(np.log([p, 1 - p]), (100, 1)), label) for p in (0.9, 0.2)
    ]
    result = ensembling.find_weights("validation", ensembling.align_members("ab", constant_members), "probabilities")
    np.testing.assert_allclose(result, [5 / 7, 2 / 7], atol=2e-3)  # float16
    # of averaged scores: the logit of 0.7 lies on the line between those of 0.9 and 0.2
    logit = scipy.special.logit
    share = (logit(0.7) - logit(0.2)) / (logit(0.9) - logit(0.2))
    result = ensembling.find_weights("validation", ensembling.align_members("ab", constant_members), "logits")
    np.testing.assert_allclose(result, [share, 1 - share], atol=2e-3)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_no_other_weights_have_a_lower_cross_entropy(members, average):
    result = ensembling.find_weights("validation", members, average)
    assert result.sum() == pytest.approx(1)
    assert np.all(result >= 0)
    least = cross_entropy(members, result, average)
    grid = [np.array(w) / 10 for w in itertools.product(range(11), repeat=3) if sum(w) == 10]
    assert least <= min(cross_entropy(members, weights, average) for weights in grid) + 1e-9


def test_a_member_that_knows_nothing_gets_no_weight(members):
    noise = synthetic_predictions.from_logits(5 * np.random.default_rng(3).normal(size=(400, 8)), members.label)
    members = ensembling.align_members(NAMES, [*members.predictions[:2], noise])
    assert ensembling.find_weights("validation", members, "probabilities")[2] < 0.02
    assert ensembling.find_weights("greedy", members, "probabilities")[2] == 0


def test_a_failed_search_for_weights_is_an_error(members, monkeypatch):
    stuck = scipy.optimize.OptimizeResult(x=np.array([0.0, 0.0, 1.0]), message="stuck")
    monkeypatch.setattr(scipy.optimize, "minimize", lambda *_, **__: stuck)
    with pytest.raises(UserError, match=r"cross-entropy were found \(stuck"):
        ensembling.find_weights("validation", members, "probabilities")


def test_scores_without_a_cross_entropy_are_refused():
    a, b = synthetic_predictions.members(2)
    spoilt = replace(a, logits=np.where(np.arange(len(a))[:, None] == 4, np.float16(np.nan), a.logits))
    with pytest.raises(UserError, match=r"a has NaN among the scores of validation/00004$"):
        ensembling.find_weights("validation", ensembling.align_members("ab", [spoilt, b]), "logits")
    with pytest.raises(UserError, match=r"no member gives a positive probability to the label of validation/00004$"):
        ensembling.find_weights("validation", ensembling.align_members("ab", [spoilt, b]), "probabilities")


def plain_greedy(members):
    """Return the weights of Caruana's loop with lists of members in place of counts."""
    bag, best = [], None
    for _ in range(ensembling.ROUNDS):
        errors = []
        for k in range(3):
            weights = np.bincount([*bag, k], minlength=3) / (len(bag) + 1)
            single = members.predictions[k] if not bag else None
            rates = (single or ensembling.combine(members, weights, "probabilities", {})).error_rates()
            errors.append((rates.top5_wrong, rates.top1_wrong))
        bag.append(errors.index(min(errors)))
        if best is None or min(errors) < best[0]:
            best = min(errors), np.bincount(bag, minlength=3) / len(bag)
    return best[1]


def test_greedy_selection_is_a_plain_loops(members):
    result = ensembling.find_weights("greedy", members, "probabilities")
    np.testing.assert_allclose(result, plain_greedy(members))


def test_greedy_selection_begins_with_the_best_by_top5_then_top1(members, monkeypatch):
    monkeypatch.setattr(ensembling, "ROUNDS", 1)
    rates = [one.error_rates() for one in members.predictions]
    best = min(range(3), key=lambda k: (rates[k].top5_wrong, rates[k].top1_wrong))
    np.testing.assert_array_equal(ensembling.find_weights("greedy", members, "logits"), np.eye(3)[best])
