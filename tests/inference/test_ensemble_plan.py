import pathlib
import re

import pytest

from imagenet_repro import models
from imagenet_repro.config import load_config
from imagenet_repro.errors import UserError
from imagenet_repro.inference import ensemble_plan, protocols
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "configs/ensembles"
# Number of members, top-1 and top-5 error in percent of the first published result (0: not stated), and its images.
STATED = {
    "supervision.py": (5, 38.1, 16.4, "val"),
    "supervision.py:7": (7, 36.7, 15.4, "val"),
    "googlenet.py": (7, 0, 6.67, "val and test"),
    "googlenet.py:10": (7, 0, 7.62, "val"),
    "googlenet.py:1": (7, 0, 8.09, "val"),
    "msra.py": (6, 0, 3.57, "test"),
    "trimps_soushen.py": (5, 0, 2.99, "test"),
    "wmw.py": (3, 0, 2.25, "test"),
}


@pytest.fixture(autouse=True)
def at_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("spec", STATED)
def test_published_ensembles(spec):
    config = ensemble_plan.load_ensemble(f"configs/ensembles/{spec}")
    first = config.published[0]
    assert (len(config.networks), first.top1, first.top5, first.images) == STATED[spec]
    assert config.unknown
    assert all(one.what and one.here for one in config.unknown)
    assert {kind.protocol for kind in config.members} <= set(protocols.PROTOCOLS)
    for kind in config.members:
        assert load_config(kind.recipe).model.name == kind.network
        assert models.canonical(kind.network) == kind.network


def test_every_ensemble_is_tested():
    assert {path.name for path in FOLDER.glob("*.py")} == {spec.partition(":")[0] for spec in STATED}


@pytest.mark.parametrize("spec", STATED)
def test_commands_of_the_plan_are_commands(spec):
    """Check that every member is trained once with its own seed, without held-out images, and scored and averaged."""
    from imagenet_repro.cli.main import build_parser

    path = f"configs/ensembles/{spec}"
    config = ensemble_plan.load_ensemble(path)
    text = ensemble_plan.plan_commands(config, path)
    lines = text.replace("\\\n", "").replace("'", "").splitlines()
    parser = build_parser()
    assert parser.prog == "main.py"
    trained = [line for line in lines if " train " in line]
    assert len(set(trained)) == len(config.networks)
    for line in trained:
        spec_of, rest = re.search(r"--config=(\S+) (.*)", line).groups()
        overrides = dict(re.findall(r"--config\.(\S+?)=(\S+)", rest))
        loaded = load_config(spec_of, overrides)
        assert loaded.model.name in pathlib.Path(re.search(r"--workdir=(\S+)", line)[1]).name
        assert loaded.data.train_split == ("train[:99%]" if config.weights == "accuracy" else "train")
    outs = re.findall(r"evaluate .*--out=(\S+)", "\n".join(lines))
    known, _ = parser.parse_known_args(lines[-1].split()[2:])
    assert [*known.members, *known.select] == [*outs[:: 1 + bool(known.select)], *outs[1::2][: len(known.select)]]
    assert len(known.members) == len(config.networks)
    assert bool(known.select) == (config.weights == "accuracy")


def test_members_must_be_those_of_the_entry():
    config = ensemble_plan.load_ensemble("configs/ensembles/wmw.py")
    ensemble_plan.check_members(config, ["seresnet152", "senet154", "seresnext101_32x4d"])
    with pytest.raises(UserError, match=r"WMW 2017.* has 1 x senet154, .* given are 2 x senet154, 1 x a network that"):
        ensemble_plan.check_members(config, ["senet154", "senet154", ""])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'entry': 'x'}", "an ensemble needs `members`"),
        ("{'members': [{'network': 'resnet500'}]}", "no network is called 'resnet500'"),
        ("{'members': [{'network': 'vgg16', 'number': 2}]}", "no such key; "),
        ("{'members': [{'network': 'vgg16', 'count': 0}]}", "out of range"),
        ("{'members': [{'network': 'vgg16'}], 'average': 'sum'}", "'sum' is not valid"),
    ],
)
def test_files_that_are_no_ensemble_are_refused(tmp_path, text, message):
    path = tmp_path / "made.py"
    path.write_text(f"def get_config():\n    return {text}\n")
    with pytest.raises(UserError, match=message):
        ensemble_plan.load_ensemble(str(path))
