"""Tests of `main.py human` on a small data set of fractals."""

import json
import signal
import urllib.request

import pytest

import main
from imagenet_repro.config import Data
from imagenet_repro.data import sources
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.errors import SaveError
from imagenet_repro.human.game import Game
from imagenet_repro.scoring import predictions
from tests import command_line

NAME = "fractal/c6_n15_v5_s32"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("data"))
    sizes = {"categories": 6, "train_images": 15, "validation_images": 5, "size": 32}
    prepare_dataset("fractal", data_dir=directory, **sizes)
    return directory


def arguments(data_dir, workdir, *more):
    data = [f"--data.name={NAME}", f"--data.data_dir={data_dir}"]
    return ["human", *data, "--images=4", "--name=Ada", f"--workdir={workdir}", *more]


def answer(url, position, guesses):
    body = json.dumps({"position": position, "guesses": guesses}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}answer", body), timeout=300) as got:
        return json.load(got)


def started(data_dir, workdir):
    """Start a game; return its process and the address that it printed."""
    process = command_line.start(*arguments(data_dir, workdir))
    lines = [process.stdout.readline() for _ in range(2)]
    return process, lines[0], lines[1].strip()


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def inherited(request):
    """The handler of SIGINT that a started process inherits; background jobs of a shell script ignore the signal."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_game_is_killed_stopped_and_finished(data_dir, tmp_path, capsys, inherited, stop):
    workdir = tmp_path / "ada"
    process, printed, url = started(data_dir, workdir)
    try:
        assert printed.startswith("image 1 of 4: ")
        answer(url, 0, [0, 1])
    finally:
        process.kill()
        process.wait()
    process, printed, url = started(data_dir, workdir)
    try:
        assert printed.startswith("image 2 of 4: ")
        assert answer(url, 0, [0, 1])["position"] == 1  # the same answer again
        answer(url, 1, [2])
    finally:
        process.send_signal(stop)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "2 of 4 images guessed and saved; the same command resumes the game" in out
    assert main.main(arguments(data_dir, workdir, "--finish")) == 0
    printed = capsys.readouterr().out
    assert "after 500 images of practice: top-5 error 5.1 %, 95 % interval [4.1, 6.3]" in printed
    assert "after 100 images of practice: top-5 error 12.0 %, 95 % interval [8.6, 16.6]" in printed
    path = workdir / "predictions/fractal_c6_n15_v5_s32_validation.npz"
    stored = predictions.load(path)
    assert stored.top5.tolist() == [[0, 1, -1, -1, -1], [2, -1, -1, -1, -1]]
    assert f"Ada, {NAME} validation: {stored.error_rates()}" in printed
    assert (stored.provenance["system"], stored.provenance["name"]) == ("human", "Ada")
    assert main.main(["score", f"--predictions={path}"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split=train"], "train, which provides example images of the classes, shares images with train"),
        (["--split=nothing"], "nothing"),
        (["--images=31"], "has 30 images"),
        (["--name= "], "--name is empty"),
        (["--port=70000"], "cannot listen on --port=70000"),
        (["--finish"], "there are no guesses yet"),
        (["--data.nme=x"], "nme"),
    ],
)
def test_games_that_cannot_be_scored_are_refused(data_dir, tmp_path, more, message, capsys):
    assert main.main(arguments(data_dir, tmp_path / "ada", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_missing_data_set_is_reported(tmp_path, capsys):
    assert main.main(["human", "--name=Ada", f"--workdir={tmp_path}"]) == 2
    assert "which data set? --data.name=NAME" in capsys.readouterr().err


def test_the_workdir_of_a_training_run_is_refused(data_dir, tmp_path, capsys):
    (tmp_path / "result.json").write_text("{}")
    assert main.main(arguments(data_dir, tmp_path)) == 2
    assert "holds a training run" in capsys.readouterr().err


def test_a_full_disk_at_the_end_costs_neither_the_rates_nor_the_guesses(data_dir, tmp_path, capsys, monkeypatch):
    def full(path, guesses):
        raise SaveError("the disk is full")

    data = Data(name=NAME, data_dir=data_dir)
    game = Game(sources.open_split(data, "validation"), tmp_path, n_images=4, seed=0, name="Ada")
    game.answer(0, [0, 1])
    with monkeypatch.context() as context:
        context.setattr(predictions, "save", full)
        assert main.main(arguments(data_dir, tmp_path, "--finish")) == 74
    printed = capsys.readouterr()
    assert f"Ada, {NAME} validation: top-1 error" in printed.out
    assert "the disk is full" in printed.err
    assert main.main(arguments(data_dir, tmp_path, "--finish")) == 0
    (tmp_path / "answers.jsonl").unlink()
    (tmp_path / "predictions/fractal_c6_n15_v5_s32_validation.npz").unlink()
    (tmp_path / "predictions").rmdir()
    (tmp_path / "predictions").touch()
    assert main.main(arguments(data_dir, tmp_path)) == 74  # before a game is played
    assert "the predictions: " in capsys.readouterr().err
