"""Tests of a sweep's `cross`: which systems it makes, their names, and what is refused."""

import itertools
import json
import re

import pytest

from imagenet_repro.config import config_to_dict, crossing
from imagenet_repro.config.sweep import load_sweep, resolve_sweep
from imagenet_repro.errors import UserError
from imagenet_repro.sweeps.plan import build_run_config, plan_runs
from tests.sweeps import small_sweeps

RATES, SIZES = (0.1, 0.3), (32, 64)
CROSS = {"optimizer.learning_rate": RATES, "data.image_size": SIZES}


def crossed(cross=CROSS, seeds=(0,), **of_systems):
    """Return the sweep of two LeNets, "a" and "b", with a cross and further keys of each system."""
    settings = small_sweeps.settings(cross=cross, seeds=seeds)
    for name, keys in of_systems.items():
        settings["systems"][name] = settings["systems"][name] | {"search": ()} | keys
    for system in settings["systems"].values():
        system.setdefault("config", "lenet.py")
    return resolve_sweep(settings | {"systems": {n: s | {"search": ()} for n, s in settings["systems"].items()}})


def configurations(sweep):
    return {run.name: build_run_config(sweep, run, run.settings) for run in plan_runs(sweep)}


def test_every_system_is_trained_with_every_combination_and_every_seed():
    configs = configurations(crossed(seeds=(0, 1)))
    assert list(configs)[:2] == [
        "runs/a,learning_rate=0.1,image_size=32/seed0",
        "runs/a,learning_rate=0.1,image_size=64/seed0",
    ]
    assert len(configs) == 16
    for system, seed, rate, size in itertools.product("ab", (0, 1), RATES, SIZES):
        config = configs[f"runs/{system},learning_rate={rate},image_size={size}/seed{seed}"]
        assert (config.optimizer.learning_rate, config.data.image_size, config.seed) == (rate, size, seed)


def test_the_record_of_a_crossed_sweep_reads_back_as_the_same_sweep():
    sweep = crossed({"train_crop.area": ((0.08, 1.0), (0.25, 1.0)), "optimizer": ({"name": "adamw"}, {"name": "sgd"})})
    assert resolve_sweep(json.loads(json.dumps(config_to_dict(sweep)))) == sweep
    assert next(iter(sweep.systems)) == "a,area=0.08_1.0,optimizer=adamw"
    assert crossing.title("a,area=0.08_1.0,optimizer=adamw") == "a, area=0.08_1.0, optimizer=adamw"


def test_a_system_adds_keys_replaces_values_and_leaves_a_key_or_a_combination_out():
    sweep = crossed(
        a={"cross": {"optimizer.learning_rate": (), "batch_size": (4, 8)}},
        b={
            "cross": {"optimizer.learning_rate": (0.3, 1.0)},
            "leave_out": ({"optimizer.learning_rate": 1.0, "data.image_size": 64},),
        },
    )
    assert list(sweep.systems) == [
        "a,image_size=32,batch_size=4",
        "a,image_size=32,batch_size=8",
        "a,image_size=64,batch_size=4",
        "a,image_size=64,batch_size=8",
        "b,learning_rate=0.3,image_size=32",
        "b,learning_rate=0.3,image_size=64",
        "b,learning_rate=1.0,image_size=32",
    ]
    same = crossed({"optimizer.learning_rate": (1, 2)}, b={"cross": {"optimizer.learning_rate": (2.0, 1.0)}}).systems
    assert list(same)[2:] == ["b,learning_rate=2", "b,learning_rate=1"]
    assert next(iter(crossed(a={"cross": dict.fromkeys(CROSS, ())}).systems)) == "a"


def test_a_section_is_a_value():
    smooth = {"name": "linear", "final": 0.1}
    sweep = crossed({"schedule": ({"name": "cosine"}, smooth)}, a={"leave_out": ({"schedule": smooth},)})
    assert list(sweep.systems) == ["a,schedule=cosine", "b,schedule=cosine", "b,schedule=linear_final:0.1"]
    schedules = [config.schedule for config in configurations(sweep).values()]
    assert [getattr(one, "final", None) for one in schedules][-1] == 0.1


def test_a_new_variant_is_chosen_before_its_keys_and_crossed_values_replace_set():
    sweep = crossed(
        {"optimizer.b1": (0.8, 0.9), "optimizer.name": ("adamw", "lamb")}, a={"set": {"optimizer": {"momentum": 0.5}}}
    )
    optimizers = {name: config.optimizer for name, config in configurations(sweep).items()}
    assert {(one.name, one.b1) for one in optimizers.values()} == set(itertools.product(("adamw", "lamb"), (0.8, 0.9)))


def test_names_stay_short_and_unambiguous():
    names = crossed({"optimizer.name": ("sgd", "adamw"), "schedule.name": ("cosine", "linear")}).systems
    assert next(iter(names)) == "a,optimizer=sgd,schedule=cosine"
    weights = ("/data/one/pre.safetensors", "package:lite0", "")
    names = crossed({"model.weights": weights}).systems
    assert list(names)[:3] == ["a,weights=pre.safetensors", "a,weights=package:lite0", "a,weights=none"]
    names = crossed({"model.weights": ("one/pre.safetensors", "two/pre.safetensors")}).systems
    assert list(names)[:2] == ["a,weights=pre.safetensors-1", "a,weights=pre.safetensors-2"]
    with pytest.raises(UserError, match="a directory may have 180"):
        crossed({"model.weights": ("x" * 200, "")})


@pytest.mark.parametrize(
    ("cross", "of_a", "message"),
    [
        ({"optimizer.learning_rat": RATES}, {}, "config.cross.optimizer.learning_rat: no run has such a key; did you"),
        ({"optimizer..name": RATES}, {}, "'optimizer..name' is not the dotted key of a configuration"),
        ({"batch_size": ()}, {}, "config.cross.batch_size: there is no value; give some, or remove the key"),
        ({"batch_size": (8, 8)}, {}, "config.cross.batch_size: 8 is there twice"),
        ({"batch_size": 8}, {}, "several values are needed here, such as (0.1, 0.3), not 8; one value for all runs"),
        ({"seed": (1, 2)}, {}, "config.cross: seed is the same for all systems; set the sweep's own key seeds"),
        ({"optimizer": ({"name": "sgd"},), "optimizer.name": ("sgd",)}, {}, "optimizer.name is a part of optimizer"),
        ({}, {"cross": {"batch_size": ()}}, "config.systems.a.cross.batch_size: there is no value, and no such key"),
        (CROSS, {"leave_out": ({"batch_size": 8},)}, "leave_out[0]: batch_size is not crossed for this system"),
        (
            CROSS,
            {"leave_out": ({"data.image_size": 8},)},
            "leave_out[0]: 8 is not among the values of data.ima",
        ),
        (CROSS, {"leave_out": ({},)}, "values by crossed key are needed here"),
        (CROSS, {"leave_out": ({"data.image_size": 32},) * 2}, "leave_out[1]: {'data.image_size': 32} was left out"),
        ({"batch_size": (8,)}, {"leave_out": ({"batch_size": 8},)}, "no combination remains; remove the system"),
    ],
)
def test_what_cannot_be_crossed_is_refused_with_the_remedy(cross, of_a, message):
    with pytest.raises(UserError, match=re.escape(message)):
        crossed(cross, a=of_a)


def test_a_searched_key_is_not_crossed():
    with pytest.raises(UserError, match=r"systems\.a\.search: optimizer\.learning_rate is crossed as well"):
        resolve_sweep(small_sweeps.settings(cross=CROSS))


def test_a_setting_that_one_system_cannot_have_is_refused_with_the_system_and_the_remedy():
    sweep = crossed({"optimizer.momentum": (0.8, 0.9)}, b={"set": {"optimizer": {"name": "adamw"}}})
    message = (
        "config.cross.optimizer.momentum: b cannot have the value 0.8 (config.optimizer.momentum: no such key for"
        " name='adamw'"
    )
    with pytest.raises(UserError, match=re.escape(message)) as error:
        configurations(sweep)
    assert "config.systems.b.cross = {'optimizer.momentum': ()}" in str(error.value)
    wrong = crossed(CROSS, b={"set": {"batch_sise": 3}})  # the cross is not blamed for another mistake
    with pytest.raises(UserError, match=r"config\.systems\.b,learning_rate=0\.1,image_size=32: config\.batch_sise"):
        configurations(wrong)


def test_the_command_line_crosses_any_sweep_and_replaces_a_files_values(tmp_path):
    file = tmp_path / "sweep.py"
    file.write_text(
        "def get_config():\n"
        "    systems = {'a': {'config': 'configs/alexnet.py'}}\n"
        "    return {'systems': systems, 'cross': {'optimizer.learning_rate': (0.5,)}}\n"
    )
    texts = {"cross.optimizer.learning_rate": "0.1,3e-1", "cross.optimizer.name": "adamw,sgd", "cross.batch_size": "8"}
    assert list(load_sweep(str(file), texts).systems) == [
        f"a,learning_rate={rate},batch_size=8,optimizer={name}" for rate in (0.1, 0.3) for name in ("adamw", "sgd")
    ]
    with pytest.raises(UserError, match=r"config\.cross\.batch_size: 'x' is not valid; a whole number is needed"):
        load_sweep(str(file), {"cross.batch_size": "x,8"})
