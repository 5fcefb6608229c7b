"""Tests of values from text: what a text means follows from the declared type of its key."""

import dataclasses
import math
import random
import types
import typing
from typing import Literal

import pytest

from imagenet_repro import models
from imagenet_repro.config import (
    Data,
    FeatureConfig,
    Model,
    build_section,
    flatten_settings,
    load_config,
    parse_text,
    set_texts,
)
from imagenet_repro.config.keys import find_keys
from imagenet_repro.config.model import OPTION_TYPES
from imagenet_repro.config.run import Config
from imagenet_repro.config.sweep import SweepConfig, load_sweep
from imagenet_repro.errors import UserError
from tests.conftest import REPOSITORY

RESNET = str(REPOSITORY / "configs/resnet.py:50")
LIKE_VALUES = ("2024_01", "1e3", "0x10", "1.50", "true", "None", "[1]", "(1,)", "1:2", "a=b", "{}", "1e999", "nan", "")


@pytest.mark.parametrize("text", LIKE_VALUES)
def test_a_text_stays_a_text(text):
    assert load_config(RESNET, {"data.data_dir": text}).data.data_dir == text


@pytest.mark.parametrize("text", LIKE_VALUES)
def test_a_text_stays_a_text_in_a_sweep_and_an_option(text):
    sweep = load_sweep(
        str(REPOSITORY / "configs/sweeps/demo.py"),
        {"set.data.data_dir": text, "systems.alexnet.set.data.data_dir": text, "set.model.options.stem": text},
    )
    assert sweep.set["data"]["data_dir"] == text
    assert sweep.systems["alexnet"].set["data"]["data_dir"] == text
    assert sweep.set["model"]["options"]["stem"] == text


def test_a_new_data_set_of_a_sweep_keeps_the_keys_beside_it():
    file = str(REPOSITORY / "configs/sweeps/decade.py:small")
    texts = {"systems.resnet50.set.data.name": "cifar10", "systems.resnet50.set.train_crop.name": "pad"}
    settings = load_sweep(file, texts).systems["resnet50"].set
    assert settings["data"] == {"image_size": 64, "name": "cifar10"}
    assert settings["train_crop"] == {"name": "pad"}


def test_overrides_of_one_system_do_not_reach_the_others():
    file = str(REPOSITORY / "configs/sweeps/decade.py:small")  # its systems share one dictionary of settings
    sweep = load_sweep(file, {"systems.resnet50.set.data.image_size": "32"})
    assert sweep.systems["resnet50"].set["data"]["image_size"] == 32
    assert sweep.systems["alexnet"].set["data"]["image_size"] == 64


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1_000", int, 1000),
        ("1e3", int, 1000),
        ("0x10", int, 16),
        ("010", int, 10),
        (" -2.0 ", int, -2),
        ("0e999", int, 0),
        ("5", float, 5.0),
        (".5", float, 0.5),
        ("1_0e-1", float, 1.0),
        ("0e-999", float, 0.0),
        ("TRUE", bool, True),
        ("off", bool, False),
        ("0", bool, False),
        ("'true'", str, "true"),
        ("''a''", str, "'a'"),
        ("'", str, "'"),
        ("None", str, "None"),
        ("None", int | None, None),
        ("null", bool | None, None),
        ("7", int | None, 7),
        ("7", str | int, 7),
        ("(0.2,1)", tuple[float, float], (0.2, 1.0)),
        ("[0.2, 1,]", tuple[float, float], (0.2, 1.0)),
        ("0.2,1", tuple[float, float], (0.2, 1.0)),
        ("64", tuple[int, ...], (64,)),
        ("()", tuple[int, ...], ()),
        ("1x1,3x1", tuple[str, ...], ("1x1", "3x1")),
        ("('1e3', \"a,b\", it's)", tuple[str, ...], ("1e3", "a,b", "it's")),
        ("{'a': (1, None)}", dict, {"a": (1, None)}),
        ('{"a": true}', dict, {"a": True}),
    ],
)
def test_a_text_is_read_by_its_type(text, hint, value):
    parsed = parse_text(text, hint, "key")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "message"),
    [
        ("1.5", int, "key: '1.5' is not valid; a whole number is needed"),
        ("1e999999999", int, "too large"),
        ("9" * 5000, int, "too large"),
        ("９", int, "a whole number is needed"),  # digits of another script
        ("inf", int, "a whole number is needed"),
        ("true", int, "a whole number is needed"),
        ("1e999", float, "too large for a number"),
        ("-1e999", float, "too large for a number"),
        ("1e-999", float, "too small for a number"),
        ("nan", float, "a finite number is needed"),
        ("-Infinity", float, "a finite number is needed"),
        ("1__0", float, "a finite number is needed"),
        ("", float, "a finite number is needed"),
        ("0x" + "f" * 300, float, "a finite number is needed"),
        ("2", bool, "true or false is needed"),
        ("(1,x)", tuple[int, ...], "'x' is not valid; a whole number is needed"),
        ("stem", dict, "set one of its keys, key.KEY=VALUE"),
        ("{[]: 1}", dict, "write a dictionary"),
        ("[" * 9999, dict, "write a dictionary"),
    ],
)
def test_a_text_of_another_type_is_refused(text, hint, message):
    with pytest.raises(UserError) as error:
        parse_text(text, hint, "key")
    assert message in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("0.5", 0.5), ("true", True), ("none", None), ("wide", "wide"), ("'4'", "4")]
)
def test_the_text_of_an_option_of_an_own_network_decides_its_type(text, value):
    settings = {}
    set_texts(settings, {"model.options.width": text}, Config)
    assert settings == {"model": {"options": {"width": value}}}
    assert type(settings["model"]["options"]["width"]) is type(value)


def test_minus_zero_is_zero():
    assert math.copysign(1, parse_text("-0.0", float, "key")) == 1
    assert math.copysign(1, build_section(Config, {"clip_norm": -0.0}).clip_norm) == 1


def test_types_of_options_are_those_of_the_published_networks():
    for name in models.published_names():
        for option, default in models.spec(name).options.items():
            hint = OPTION_TYPES[option]
            kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            assert type(default) in (*kinds, type(None)), (name, option)


# --- properties over the whole schema ------------------------------------------------------------------------------


def draw_text(rng):
    letters = "ab 01_.,:;/\\'\"()[]{}=-+xeE\n\té９中\u202e\ud800"
    return rng.choice([*LIKE_VALUES, "".join(rng.choices(letters, k=rng.randrange(12)))])


def draw(rng, hint, field):
    """Return a random value of a type, in the range of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        hint = rng.choice(arguments)
    if hint is type(None):
        return None
    if dataclasses.is_dataclass(hint):
        return draw_section(rng, hint)
    if dict in (hint, origin):
        return draw_dictionary(rng, arguments, field)
    if tuple in (hint, origin):
        return draw_tuple(rng, arguments, field)
    return rng.choice(arguments) if origin is Literal else draw_scalar(rng, hint, field)


def draw_dictionary(rng, hints, field):
    if "schemas" in field.metadata:
        drawn = draw_section(rng, rng.choice(field.metadata["schemas"]))
        if field.metadata.get("has_several"):
            drawn = {key: (value, value) for key, value in drawn.items() if not isinstance(value, tuple | dict)}
        return {key: drawn[key] for key in rng.sample(sorted(drawn), 4)}
    if "types" in field.metadata:
        names = rng.sample(sorted(field.metadata["types"]), 3)
        return {name: draw(rng, field.metadata["types"][name], field) for name in names}
    return {f"n{number}": draw(rng, hints[1], field) for number in range(2)}


def draw_tuple(rng, hints, field):
    if not hints:
        return tuple(rng.sample([1, 0.5, "1e3", True], 2))
    length = rng.randrange(4) if hints[-1] is Ellipsis else len(hints)
    parts = [draw(rng, hints[0], field) for _ in range(length)]
    return tuple(sorted(parts) if field.metadata.get("increasing") else parts)


def draw_scalar(rng, hint, field):
    if hint is str:
        is_amount = field.metadata.get("is_amount")
        return f"{rng.uniform(1, 99)}{rng.choice(['ep', 's'])}" if is_amount else draw_text(rng)
    if hint is bool:
        return rng.random() < 0.5
    low, high = field.metadata.get("low"), field.metadata.get("high")
    low, high = (-1e6 if low is None else low), (1e6 if high is None else high)
    return rng.randint(int(low), int(high)) if hint is int else rng.choice([low, rng.uniform(low, high)])


def draw_section(rng, kind):
    """Return random settings of a section; what is filled in when a sweep is loaded is never typed."""
    hints = typing.get_type_hints(kind)
    settings = {}
    for field in dataclasses.fields(kind):
        is_variant = field.name == "name" and kind not in (Data, Model)
        if field.name not in ("base", "crossed"):
            settings[field.name] = field.default if is_variant else draw(rng, hints[field.name], field)
    return settings


def write(value):
    """Return a value as a person types it."""
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        return repr(list(value))
    if isinstance(value, tuple):
        return "(" + ",".join(f'"{part}"' if isinstance(part, str) else write(part) for part in value) + ")"
    if isinstance(value, str):
        return f'"{value}"' if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    return repr(value)


def quotable(value):
    """Return whether no text of a list contains the quotes that `write` puts around it."""
    return not isinstance(value, tuple) or not any(isinstance(part, str) and '"' in part for part in value)


@pytest.mark.parametrize("kind", [Config, FeatureConfig, SweepConfig])
def test_every_value_of_every_field_written_as_text_reads_back_equal(kind):
    rng = random.Random(kind.__name__)
    for _ in range(12):
        drawn = draw_section(rng, kind)
        settings: dict = {}
        texts = {key: write(value) for key, value in flatten_settings(drawn).items() if quotable(value)}
        expected = {key: value for key, value in flatten_settings(drawn).items() if key in texts}
        set_texts(settings, texts, kind)
        read = flatten_settings(settings)
        assert {key: tuple(v) if isinstance(v, list) else v for key, v in read.items()} == expected
        build_section(kind, settings)


@pytest.mark.parametrize("kind", [Config, FeatureConfig, SweepConfig])
def test_any_text_is_read_or_refused_in_a_sentence(kind):
    rng, refused = random.Random(kind.__name__), []
    for _ in range(6):
        for key in sorted(flatten_settings(draw_section(rng, kind))):
            settings: dict = {}
            try:
                set_texts(settings, {key: draw_text(rng)}, kind)
                build_section(kind, settings)
            except UserError as error:
                refused.append((key, str(error)))
    assert len(refused) > 50
    assert all(message.startswith(f"config.{key.split('.')[0]}") for key, message in refused)


@pytest.mark.parametrize("kind", [Config, FeatureConfig])
def test_no_key_of_a_sweep_can_mean_a_text_or_another_value(kind):
    """Check that the variant of a section, which a sweep may not know, does not decide what a text means."""
    rng = random.Random(kind.__name__)
    for _ in range(20):
        for key in flatten_settings(draw_section(rng, kind)):
            hints = {one.hint for one in find_keys(SweepConfig, {}, ["set", *key.split(".")])}
            assert hints, key
            assert str not in hints or hints == {str}, key
