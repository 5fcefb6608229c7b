"""Tests of the table of differing settings and of the sentence about them."""

import pytest

from imagenet_repro.report.sections import what_differs
from tests.report import comparisons


def compared(*changes):
    """Return a comparison of as many systems, each with changes in its configuration."""
    comparison = comparisons.comparison(len(changes))
    for system, change in zip(comparison.systems, changes, strict=True):
        config = system.runs[0].result["provenance"]["config"]
        for section, values in change.items():
            config[section] = config.get(section, {}) | values if isinstance(values, dict) else values
    return comparison


def test_every_differing_key_has_a_row_with_the_values_of_the_configuration():
    sgd, adamw = ({"optimizer": {"name": name}} for name in ("sgd", "adamw"))
    table = what_differs.table(compared(sgd | {"batch_size": 64}, adamw | {"data": {"threads": 9}}))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.headings == ("setting", "nec_uiuc_2010", "xrce_2011")
    assert rows["model.name"] == ("nec_uiuc_2010", "xrce_2011")
    assert rows["batch_size"] == ("64", "256")
    assert rows["optimizer.name"] == ("sgd", "adamw")
    assert rows["optimizer.momentum"][1] == "–"
    assert not rows.keys() & {"seed", "data.threads", "name"}
    assert all(len(set(cells)) > 1 for cells in rows.values())


def test_one_system_or_equal_ones_have_no_table():
    assert what_differs.table(comparisons.comparison(1)) is None
    assert what_differs.sentence(comparisons.comparison(1)) == ""
    same = {"model": {"name": "vgg16"}}
    assert what_differs.table(compared(same, same)) is None
    assert "have equal settings; runs with the same name" in what_differs.sentence(compared(same, same))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"model": {"options": {"depth": 4}}}, ""),
        ({"batch_size": 64}, "These systems also differ in batch_size, so"),
        ({"batch_size": 64, "optimizer": {"learning_rate": 1.0, "momentum": 0.5}}, "in batch_size and optimizer, so"),
        ({"optimizer": {"learning_rate": 1.0}}, "in optimizer.learning_rate, so"),
        ({"model": {"weights": "a.safetensors"}}, "in model.weights, so"),
    ],
)
def test_the_sentence_names_what_differs_beside_the_architecture(changes, sentence):
    text = what_differs.sentence(compared({}, changes))
    assert sentence in text
    assert bool(text) == bool(sentence)


def test_keys_of_another_kind_of_system_are_not_named():
    features = {"channels": {"sift": {"levels": 2}}, "svm": {"penalty": 0.1}}
    text = what_differs.sentence(compared({}, features))
    end = "so the difference is not one of architecture alone (table “What differs”)."
    assert text == f"Networks and systems of hand-made features have different recipes, {end}"
    text = what_differs.sentence(compared({}, features, {"batch_size": 64}))
    assert text.endswith(f"have different recipes; these systems also differ in batch_size, {end}")


def test_systems_of_one_architecture_differ_in_settings_alone():
    same = {"model": {"name": "vgg16"}}
    text = what_differs.sentence(compared(same, same | {"batch_size": 64}))
    assert text == "These systems differ in batch_size (table “What differs”)."


def test_many_parts_are_counted():
    parts = {"batch_size": 2, "accumulate": 2, "clip_norm": 0.5, "ema_decay": 0.5, "norm_group": 2, "budget": "7ep"}
    text = what_differs.sentence(compared({}, parts | {"precision": "float32"}))
    assert "and 2 more parts of the configuration" in text
