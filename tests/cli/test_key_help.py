"""Tests of `main.py train --help`: every key of the schema with its meaning, 80 columns wide."""

import re

import pytest

import main
from imagenet_repro.cli import key_help
from imagenet_repro.config import Config, FeatureConfig, FrozenConfig, config_to_dict, flatten_settings
from imagenet_repro.config.described import Seen, describe
from imagenet_repro.errors import UserError


@pytest.fixture(scope="module")
def listing():
    return key_help.key_help("")


def test_every_key_of_a_run_is_listed_in_80_columns(listing):
    listed = set(re.findall(r"^  ([a-z][\w.]*) ", listing, flags=re.MULTILINE))
    for config in (Config(), FeatureConfig(), FrozenConfig()):
        keys = {key for key in flatten_settings(config_to_dict(config)) if not key.endswith(".name")}
        sections_as_above = re.findall(r"^([\w.]+): as ", listing, flags=re.MULTILINE)
        keys = {key for key in keys if not key.startswith(tuple(f"{section}." for section in sections_as_above))}
        assert keys - listed <= {"channels", "teacher"}
    assert max(map(len, listing.splitlines())) <= key_help.WIDTH


def meanings(group):
    yield from ((key.key, key.meaning) for key in group.keys)
    for section in group.sections:
        for inner in section.groups:
            yield from meanings(inner)


def test_every_key_has_a_meaning():
    seen = Seen()
    keys = [pair for _, kind in key_help.ROOTS for pair in meanings(describe(kind, seen))]
    assert len(keys) > 200
    assert [key for key, meaning in keys if not meaning] == []


def test_default_range_and_meaning_of_a_key(listing):
    lines = " ".join(listing.split())
    assert "optimizer.momentum 0.9 number in [0, 1] share of the last update that is kept " in lines
    assert "probe.linear.head '' text a file of a head" in lines
    assert "optimizer: optimizer.name is one of sgd, adamw," in listing
    assert " mean (0.485, 0.456, 0.406) 3 values: number in [0, 1] of RGB" in lines  # not "Augment().mean"


def test_a_section_or_a_key_alone():
    text = key_help.key_help("checkpoint")
    assert "checkpoint.every  '1ep'  amount" in text
    assert "batch_size" not in text
    assert key_help.key_help("loss.threshold").count("loss.threshold") == 1
    with pytest.raises(UserError, match=r"--help=optimiser: .*did you mean 'optimizer'"):
        key_help.key_help("optimiser")


def test_the_help_of_train_has_options_and_keys_and_pages_on_a_terminal(capsys, monkeypatch):
    def help_of(*words):
        with pytest.raises(SystemExit) as ended:
            main.main(["train", *words])
        return ended.value.code, capsys.readouterr()

    code, printed = help_of("--help")
    assert code == 0
    assert "--workdir DIR" in printed.out
    assert "optimizer.learning_rate" in printed.out
    code, printed = help_of("--help=checkpoint")
    assert (code, "--workdir" in printed.out, "checkpoint.keep" in printed.out) == (0, False, True)
    code, printed = help_of("--help", "checkpiont")
    assert (code, "did you mean 'checkpoint'" in printed.err) == (2, True)
    paged = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("pydoc.pager", paged.append)
    assert help_of("-h")[1].out == ""
    assert "optimizer.learning_rate" in paged[0]
