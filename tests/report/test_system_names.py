"""Tests of the names that tell systems apart."""

import itertools

import pytest

from imagenet_repro.report import run_settings
from imagenet_repro.report.run_settings import WeightsFile, differing_keys, of_run
from imagenet_repro.report.system_names import tell_apart


def named(*settings):
    """Return the names of systems that are all called r."""
    return tell_apart(["r"] * len(settings), settings, [f"runs/{k}" for k in range(len(settings))])


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"model.weights": ""}, {"model.weights": "pre.safetensors"}], ["r", "r, weights=pre.safetensors"]),
        ([{"batch_size": 64}, {"batch_size": 128}], ["r, batch_size=64", "r, batch_size=128"]),
        ([{"model.options.depth": 4}, {}], ["r, depth=4", "r"]),
        (
            [{"optimizer.momentum": 0.9, "optimizer.name": "sgd"}, {"optimizer.name": "adamw"}],
            ["r, optimizer=sgd", "r, optimizer=adamw"],
        ),
        ([{"data.name": "a", "x.name": "c"}, {"data.name": "b", "x.name": "c"}], ["r, data=a", "r, data=b"]),
        (
            [{"train_crop.kernel": "area", "eval_crop.kernel": "area"},
             {"train_crop.kernel": "bilinear", "eval_crop.kernel": "area"}],
            ["r, train_crop.kernel=area", "r, train_crop.kernel=bilinear"],
        ),
        ([{"ema": True, "b": [1, 2]}, {"ema": True, "b": [1, 3]}], ["r, b=[1, 2]", "r, b=[1, 3]"]),
    ],
)  # fmt: skip
def test_the_settings_that_differ_are_in_the_name(settings, names):
    assert named(*settings) == names


def test_the_shortest_set_of_keys_is_taken():
    grid = [
        {"a": 1, "b": rate, "c": decay, "d": 2 * decay} for rate, decay in itertools.product((0.1, 0.2), (1e-4, 1e-5))
    ]
    assert named(*grid) == ["r, b=0.1, c=0.0001", "r, b=0.1, c=1e-05", "r, b=0.2, c=0.0001", "r, b=0.2, c=1e-05"]


def test_many_keys_are_added_one_by_one():
    settings = [{f"k{key}": int(key == system) for key in range(6)} for system in range(6)]
    names = named(*settings)
    assert len(set(names)) == 6
    assert all(name.count("=") <= 5 for name in names)


def test_only_names_that_occur_twice_are_changed():
    names = tell_apart(["a", "b", "a"], [{"x": 1}, {"x": 1}, {"x": 2}], ["0", "1", "2"])
    assert names == ["a, x=1", "b", "a, x=2"]


def test_files_of_weights_with_one_name_are_told_apart_by_their_paths():
    files = [{"model.weights": WeightsFile(content, f"/{content}/w.safetensors")} for content in "ab"]
    assert named(*files) == ["r, weights=/a/w.safetensors", "r, weights=/b/w.safetensors"]


def test_settings_that_do_not_matter_are_left_out_and_defaults_filled_in():
    config = {"seed": 3, "name": "n", "log_every": 9, "data": {"data_dir": "/d", "threads": 4}}
    settings = of_run(config, {})
    assert not settings.keys() & {"seed", "name", "log_every", "data.data_dir", "data.threads"}
    assert (settings["batch_size"], settings["optimizer.name"]) == (256, "sgd")
    assert "model.options" not in settings


def test_weights_are_equal_by_content_wherever_they_are():
    one, same, other = (
        of_run({"model": {"weights": path}}, {"weights": {"sha256": digest}})
        for path, digest in (("a/w", "1"), ("b/w", "1"), ("a/w", "2"))
    )
    assert differing_keys([one, same]) == []
    assert differing_keys([one, other]) == ["model.weights"]
    assert run_settings.identity(one) == run_settings.identity(same) != run_settings.identity(other)


def test_a_configuration_of_another_version_differs_in_its_own_keys_alone():
    old = of_run({"no_such_key": 1, "optimizer": {"name": "adamw", "b1": 0.5}, "batch_size": 8}, {})
    assert differing_keys([old, of_run({"optimizer": {"name": "sgd"}, "batch_size": 8}, {})]) == [
        "optimizer.name", "optimizer.b1", "no_such_key",
        *(key for key in of_run({}, {}) if key.startswith("optimizer.") and key != "optimizer.name"),
    ]  # fmt: skip
