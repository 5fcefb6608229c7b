"""`main.py sweep`: a whole one, and what is refused before anything runs."""

import json
import re

import pytest

from imagenet_repro.config.sweep import load_sweep, resolve_sweep
from imagenet_repro.errors import UserError
from imagenet_repro.sweeps import controller
from imagenet_repro.sweeps.directory import SweepDirectory
from main import main
from tests import command_line
from tests.sweeps import full_sweeps, small_sweeps


@pytest.fixture
def file(fractal, tmp_path_factory):
    return full_sweeps.write(tmp_path_factory.mktemp("sweep"), fractal, seeds=(3,))


def test_a_sweep_whose_worker_is_killed_goes_on_from_the_checkpoint_to_the_page(file, start, tmp_path):
    process = start(*full_sweeps.arguments(file, tmp_path))
    disturbed = full_sweeps.kill_worker_under_way(tmp_path)
    out, err = process.communicate(timeout=full_sweeps.SECONDS)
    assert process.returncode == 0, out + err
    assert "Traceback" not in err
    assert "2 of 2 trainings complete" in out
    assert full_sweeps.resumed(tmp_path) == {disturbed}
    full_sweeps.assert_complete(tmp_path, trainings=2)
    page = (tmp_path / "report.html").read_text()
    assert "lenet5" in page
    assert all(name in page for name in full_sweeps.results(tmp_path))


@pytest.fixture
def settings(fractal):
    data = small_sweeps.LENET["data"] | {"data_dir": fractal}
    found = small_sweeps.settings(systems=2)
    for system in found["systems"].values():
        system["base"] = small_sweeps.LENET | {"data": data}
        del system["search"]
    return found


def test_what_all_systems_are_given_passes(settings):
    assert set(controller.check_sweep(resolve_sweep(settings))) == {"a", "b"}


@pytest.mark.parametrize(
    ("of_b", "message"),
    [
        ({"data": {"name": "fractal/c6_n20_v7_s32"}}, "these systems cannot be compared, they differ in data.name"),
        ({"data": {"data_dir": "/elsewhere"}}, r"b: fractal/c6_n40_v7_s32 in /elsewhere"),
        ({"model": {"name": "lenet6"}}, r"config\.systems\.b.*lenet6.*did you mean 'lenet"),
        ({"batch_sise": 3}, r"config\.systems\.b: config\.batch_sise: no such key"),
        ({"evaluate_every": "often"}, r"systems\.b\.evaluate_every: 'often' is not an amount"),
    ],
)
def test_what_cannot_be_compared_or_built_is_refused_before_anything_runs(of_b, message, settings):
    settings["systems"]["b"]["set"] = of_b
    with pytest.raises(UserError, match=f"(?s){message}"):
        controller.check_sweep(resolve_sweep(settings))


def test_a_split_that_learns_and_judges_is_refused(settings):
    with pytest.raises(UserError, match="share images; hold some out"):
        controller.check_sweep(resolve_sweep(settings | {"test_split": "train[:10%]"}))


def test_another_sweep_in_the_workdir_is_refused_with_what_differs(settings, fractal, tmp_path, capsys):
    file = full_sweeps.write(tmp_path, fractal, seeds=(0,))
    workdir = tmp_path / "sweep"
    begun = load_sweep(str(file))
    place = SweepDirectory(workdir)
    place.record(begun, place.default_storage)
    assert main(full_sweeps.arguments(file, workdir, "--config.budget=61st")) == 2
    said = capsys.readouterr().err
    assert "holds another sweep:\n  budget: 60st there, 61st now" in said
    assert json.loads((workdir / "sweep.json").read_text())["sweep"]["budget"] == "60st"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--status"], "no sweep was begun there"),
        (["--status", "--workers=2"], "--status shows a sweep that has started"),
        (["--status", "--dry_run"], "--status shows a sweep that has started"),
        (["--status", "--config=x.py"], "--status shows a sweep that has started"),
        (["--status", "--config.budget=1ep"], "--status shows a sweep that has started"),
        ([], "which sweep? --config="),
        (["--config=x.py"], "there is no file 'x.py'"),
    ],
)
def test_the_command_line_says_what_it_lacks_or_does_not_read(arguments, message, tmp_path, capsys):
    assert main(["sweep", f"--workdir={tmp_path}", *arguments]) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_cannot_be_built_leaves_the_others_complete(fractal, tmp_path):
    file = full_sweeps.write(tmp_path, fractal, seeds=(0,))
    text = file.read_text().replace(
        "'learning_rate': 0.05}", "'learning_rate': 0.05}, 'model': {'options': {'depth': 3}}"
    )
    file.write_text(text)
    workdir = tmp_path / "sweep"
    out, _ = command_line.run(*full_sweeps.arguments(file, workdir), code=2)
    assert re.search(r"runs/b/seed0 failed: .*depth", out)
    assert "1 failed; their output.log has more, the same command tries them again" in out
    assert list(full_sweeps.results(workdir)) == ["runs/a/seed0"]
    assert main(["compare", str(workdir)]) == 0
    page = (workdir / "report.html").read_text()
    assert re.search(r"depth", page)
