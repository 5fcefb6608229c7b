"""Whole runs, started as a person starts them."""

import hashlib
import json
import random
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest

import main
from imagenet_repro.config import resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.runs import evaluate
from imagenet_repro.scoring import predictions
from imagenet_repro.training import devices
from imagenet_repro.training.systems import NetworkSystem
from tests import command_line


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=20)


@pytest.fixture(scope="session")
def whole_run(data_dir, tmp_path_factory):
    """The workdir of a run that nothing disturbed, and what it printed."""
    workdir = tmp_path_factory.mktemp("whole")
    out, _ = command_line.run(*command_line.train_arguments(data_dir, workdir))
    return workdir, out


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a command prints that ends with 2, in this process, whose devices have started already."""
    monkeypatch.chdir(command_line.REPOSITORY)
    monkeypatch.setattr(devices, "start", lambda: None)

    def call(*arguments):
        assert main.main([*arguments]) == 2
        return capsys.readouterr().err

    return call


def assert_same(workdir, reference, step=12):
    found, expected = command_line.arrays(workdir, step), command_line.arrays(reference, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_run_leaves_its_numbers_tables_and_pictures(whole_run):
    workdir, out = whole_run
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [6, 12]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    assert result["spent"]["images"] == 96
    assert result["rates"]["images"] == 42
    assert result["rates"]["top1_wrong"] == evaluations[-1]["top1_wrong"]
    assert "top-1" in out
    assert "| resnet18 |" in (workdir / "table.md").read_text()
    assert (workdir / "curves.png").stat().st_size > 10_000
    assert list((workdir / "tensorboard").glob("events*"))
    with np.load(workdir / result["predictions"]) as file:
        assert len(set(file["id"])) == 42
        wrong = int(np.sum(file["top5"][:, 0] != file["label"]))
    assert wrong == result["rates"]["top1_wrong"]
    provenance = json.loads((workdir / "config.json").read_text())["provenance"]
    assert {"commit", "packages", "devices", "python"} <= provenance.keys()


def test_the_same_command_again_trains_nothing_and_shows_the_table(whole_run, data_dir):
    workdir, _ = whole_run
    before = (workdir / "metrics.jsonl").read_text()
    out, _ = command_line.run(*command_line.train_arguments(data_dir, workdir))
    assert "12st, is spent" in out
    assert "compiled" not in out
    assert "resnet18" in out
    assert (workdir / "metrics.jsonl").read_text() == before


def test_another_configuration_is_refused_and_shown(whole_run, data_dir):
    workdir, _ = whole_run
    _, err = command_line.run(
        *command_line.train_arguments(data_dir, workdir, seed=1, optimizer__learning_rate=0.5), code=2
    )
    assert "optimizer.learning_rate: 0.02 there, 0.5 now" in err
    assert "seed: 0 there, 1 now" in err


def test_a_run_says_what_it_took(whole_run):
    workdir, _ = whole_run
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "save"] == [2, 4, 6, 8, 10, 12]
    assert 0 < sum(row["waiting_seconds"] for row in rows if row["kind"] == "train") < result["spent"]["seconds"]
    assert result["peak_memory"]["of"] == "process"
    assert 1e8 < result["peak_memory"]["bytes"] < 1e11
    assert result["classes"] == [f"ifs_{n:03d}" for n in range(6)]


def test_runs_of_different_budgets_do_not_share_a_page(whole_run, tmp_path):
    workdir, _ = whole_run
    shutil.copytree(workdir / "predictions", tmp_path / "predictions")
    other = json.loads((workdir / "result.json").read_text())
    other["provenance"]["config"]["budget"] = "13st"
    (tmp_path / "result.json").write_text(json.dumps(other))
    _, err = command_line.run("compare", workdir, tmp_path, f"--out={tmp_path / 'out'}", code=2)
    assert "they differ in" in err
    assert f"budget: 12st ({workdir}); 13st ({tmp_path})." in err
    assert not (tmp_path / "out").exists()


def test_a_finished_run_becomes_a_page_with_images_of_its_split(whole_run, tmp_path):
    workdir, _ = whole_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out, _ = command_line.run("compare", workdir, f"--out={tmp_path}")
    assert f"the page: {tmp_path / 'report.html'}" in out
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == min(6, wrong)
    assert (tmp_path / "figures/curves_images.png").stat().st_size > 10_000
    assert f"| resnet18 | {100 * wrong / 42:.1f} |" in (tmp_path / "tables/leaderboard.md").read_text()


def test_evaluate_counts_the_same_on_any_devices_and_batch_size(whole_run, tmp_path):
    workdir, _ = whole_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out = tmp_path / "predictions.npz"
    command_line.run(
        "evaluate", f"--workdir={workdir}", "--data.eval_batch_size=16", f"--out={out}", devices=8
    )  # fmt: skip
    with np.load(out) as file:
        assert len(set(file["id"])) == 42
        assert int(np.sum(file["top5"][:, 0] != file["label"])) == wrong
    printed, _ = command_line.run("score", f"--predictions={out}")
    assert f"{wrong} of 42" in printed


def test_a_run_is_scored_by_protocols_and_each_keeps_its_predictions(whole_run):
    workdir, _ = whole_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out, _ = command_line.run("evaluate", f"--workdir={workdir}", "--protocol=crop,10crop,vgg_dense1", devices=2)
    assert f"{100 * wrong / 42:.1f} " in next(line for line in out.splitlines() if line.startswith(" crop "))
    assert "vgg_dense1 (2 views)" in out
    for name, views in (("_10crop", 10), ("_vgg_dense1", 2), ("", 1)):
        with np.load(workdir / f"predictions/fractal_c6_n20_v7_s32_validation{name}_step12.npz") as file:
            assert len(set(file["id"])) == 42
            assert json.loads(str(file["provenance"]))["protocol"]["parts"][0]["views"] == views


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_same_command_ends_where_an_undisturbed_run_does(number, whole_run, data_dir, tmp_path):
    process = command_line.start(*command_line.train_arguments(data_dir, tmp_path, checkpoint__every="100st"))
    wait_for_step(tmp_path, 4)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, out + err
    assert f"stopped by {number.name} at step" in out
    out, _ = command_line.run(*command_line.train_arguments(data_dir, tmp_path, checkpoint__every="100st"), code=0)
    assert "resumed at step" in out
    assert_same(tmp_path, whole_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [2, 6])
def test_a_run_in_stages_ends_the_same_when_it_is_stopped_in_any_of_them(kill_after, data_dir, tmp_path):
    options = {
        "progressive__stages": 2,
        "progressive__image_size_from": 16,
        "budget": "8st",
        "evaluate_every": "4st",
        "schedule__name": "plateau",
        "schedule__patience": 1,
    }
    out, _ = command_line.run(*command_line.train_arguments(data_dir, tmp_path / "whole", **options))
    assert "images at 24, 32 px" in out
    assert "compiled the steps of 2 stages" in out
    process = command_line.start(*command_line.train_arguments(data_dir, tmp_path / "stopped", **options))
    wait_for_step(tmp_path / "stopped", kill_after, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    command_line.run(*command_line.train_arguments(data_dir, tmp_path / "stopped", **options))
    assert_same(tmp_path / "stopped", tmp_path / "whole", step=8)
    flops, again = (
        [row["flops"] for row in map(json.loads, (place / "metrics.jsonl").open()) if row["kind"] == "train"]
        for place in (tmp_path / "whole", tmp_path / "stopped")
    )
    steps = np.diff([0, *flops])
    assert len(set(steps[:4])) == len(set(steps[4:])) == 1
    assert steps[4] > 1.5 * steps[3]
    assert again == flops


def test_a_second_signal_ends_at_once(data_dir, tmp_path):
    process = command_line.start(
        *command_line.train_arguments(data_dir, tmp_path, budget="100000st", evaluate_every="100000st")
    )
    wait_for_step(tmp_path, 2)
    process.send_signal(signal.SIGSTOP)  # so that both signals are there before the step ends
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def kill_until_done(data_dir, workdir, kills, seed):
    """Kills a run with SIGKILL `kills` times at random moments and lets it end the next time."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = command_line.start(*command_line.train_arguments(data_dir, workdir))
        known = steps_done(workdir)
        wait_for_step(workdir, min(known + 1, 12), process)
        time.sleep(moments.uniform(0, 1.5))
        process.kill()
        process.communicate()
    command_line.run(*command_line.train_arguments(data_dir, workdir))


def test_a_killed_run_ends_with_the_same_parameters(whole_run, data_dir, tmp_path):
    kill_until_done(data_dir, tmp_path, kills=1, seed=0)
    assert_same(tmp_path, whole_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_of_ten_runs_killed_twice_end_with_the_same_parameters(seed, whole_run, data_dir, tmp_path):
    kill_until_done(data_dir, tmp_path, kills=2, seed=seed)
    assert_same(tmp_path, whole_run[0])


def steps_done(workdir):
    metrics = workdir / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_for_step(workdir, step, process=None):
    deadline = time.monotonic() + 300
    while steps_done(workdir) < step and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.05)


def test_a_loss_that_is_not_finite_stops_and_names_step_and_images(data_dir, tmp_path):
    arguments = command_line.train_arguments(data_dir, tmp_path, optimizer__learning_rate=1e25, schedule__warmup=0.0)
    _, err = command_line.run(*arguments, code=3)
    assert "the loss is" in err
    assert "images train/ifs_" in err
    for step in [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]:
        assert all(np.isfinite(value).all() for value in command_line.arrays(tmp_path, step).values())


def check_scored_split(workdir, whole):
    """The curves are of the first 20 images that the whole run was scored on, the result of the other 22."""
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {row["evaluated"] for row in rows if row["kind"] == "eval"} == {20}
    assert result["rates"]["images"] == 22
    names = [json.loads((one / "result.json").read_text())["predictions"] for one in (workdir, whole)]
    with np.load(workdir / names[0]) as file, np.load(whole / names[1]) as every:
        np.testing.assert_array_equal(file["id"], every["id"][20:])


def test_exported_weights_score_as_the_run_does_and_a_run_starts_from_them(whole_run, data_dir, tmp_path):
    workdir, _ = whole_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    weights, predictions = tmp_path / "resnet18.safetensors", tmp_path / "predictions.npz"
    out, _ = command_line.run("export", f"--workdir={workdir}", f"--out={weights}")
    assert "averaged weights of resnet18 at step 12, 6 classes" in out
    data = ["--data.name=fractal/c6_n20_v7_s32", f"--data.data_dir={data_dir}", "--data.eval_batch_size=8"]
    command_line.run("evaluate", f"--weights={weights}", *data, f"--out={predictions}")
    with np.load(predictions) as file:
        assert int(np.sum(file["top5"][:, 0] != file["label"])) == wrong
    splits = {"data__eval_split": "validation[:20]", "data__test_split": "validation[20:]"}
    arguments = command_line.train_arguments(
        data_dir, tmp_path / "run", budget="2st", model__weights=weights, **splits
    )
    out, _ = command_line.run(*arguments)
    assert f"weights of {weights}" in out
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["provenance"]["weights"] == {"path": str(weights), "sha256": digest}
    check_scored_split(tmp_path / "run", workdir)
    weights.unlink()  # it is read at the first step alone
    (tmp_path / "run" / "result.json").unlink()
    out, _ = command_line.run(*arguments)
    assert "resumed at step 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=absent.pth", "--data.name=cifar10"], "absent.pth: there is no such file of weights"),
        (["--weights=tests/pretrained/files/zip.pth"], "which data set? --data.name=NAME"),
        (["--weights=tests/pretrained/files/zip.pth", "--data.name=cifar10"], "does not say of which network it is"),
    ],
)
def test_what_is_wrong_with_weights_is_said_in_a_sentence(arguments, message, refused):
    assert message in refused("evaluate", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x", "--model=resnet18"], "--model belongs to --weights"),
        (["--workdir=x", "--options={}"], "--options belongs to --weights"),
        (["--workdir=x", "--drop_background"], "--drop_background belongs to --weights"),
        (["--weights=x.pth", "--checkpoint=last"], "--checkpoint belongs to --workdir"),
        (["--workdir=x", "--protocol=11crop"], "there is no '11crop'; did you mean '10crop'"),
        (["--workdir=x", "--protocol=crop,10crop", "--out=x.npz"], "--out=x.npz is one file"),
        (["--workdir=x", "--protocol=crop,10crop", "--protocol.flips=False"], "belongs to one protocol"),
    ],
)
def test_evaluate_refuses_what_it_would_ignore(arguments, message, capsys):
    assert main.main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("quality=5", "--fractal.quality: no such key; valid: categories, "),
        ("catgories=5", "--fractal.catgories: no such key; did you mean 'categories'?"),
        ("size=abc", "fractal: size = 'abc' is not valid; a value of type int is needed"),
    ],
)
def test_prepare_refuses_what_a_fractal_does_not_have(option, message, tmp_path, capsys):
    assert main.main(["prepare", "fractal", f"--data_dir={tmp_path}", f"--fractal.{option}"]) == 2
    assert message in capsys.readouterr().err


def test_a_file_system_that_refuses_a_checkpoint_is_an_error(data_dir, tmp_path):
    def small_files_only():  # the kernel refuses to write beyond a megabyte
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    arguments = command_line.train_arguments(data_dir, tmp_path / "run", checkpoint__every="1st")
    # The array library's own threads print what they met, around our message.
    _, err = command_line.run(
        *arguments, code=74, tracebacks=True, preexec_fn=small_files_only, environment=environment
    )
    assert "main.py: the checkpoint of step 1 could not be written" in err


def test_two_processes_give_the_parameters_of_one(data_dir, tmp_path):
    common = {"budget": "4st", "model__name": "resnet20_cifar", "augment__cutmix": 0.0, "evaluate_every": "4st"}
    common["cross_device_norm"] = True
    command_line.run(*command_line.train_arguments(data_dir, tmp_path / "one", **common), devices=2)
    run_in_two_processes(*command_line.train_arguments(data_dir, tmp_path / "two", **common))
    one, two = command_line.arrays(tmp_path / "one", 4), command_line.arrays(tmp_path / "two", 4)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    results = [json.loads((tmp_path / run / "result.json").read_text())["rates"]["images"] for run in ("one", "two")]
    assert results == [42, 42]
    check_protocols_in_two_processes(tmp_path / "two")


def run_in_two_processes(*arguments):
    environment = {"COORDINATOR_ADDRESS": f"127.0.0.1:{random.randint(20_000, 60_000)}", "NUM_PROCESSES": "2"}
    processes = [command_line.start(*arguments, environment=environment | {"PROCESS_ID": str(i)}) for i in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, out + err


def check_protocols_in_two_processes(workdir):
    """Crops in the order of the split, dense evaluation group by group: every image once, the same scores."""
    paths = [
        workdir / f"predictions/fractal_c6_n20_v7_s32_validation_{name}_step4.npz" for name in ("10crop", "vgg_dense1")
    ]
    found = []
    for run in (run_in_two_processes, command_line.run):
        run("evaluate", f"--workdir={workdir}", "--protocol=10crop,vgg_dense1")
        found.append([predictions.load(path) for path in paths])
    for two, one in zip(*found, strict=True):
        order = np.argsort(two.id), np.argsort(one.id)
        np.testing.assert_array_equal(two.id[order[0]], one.id[order[1]])
        np.testing.assert_allclose(two.logits[order[0]], one.logits[order[1]], atol=5e-3)  # float16


RECIPE = "--config=tests/recipe.py:x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([RECIPE, "--config.bach_size=3"], "config.bach_size: no such key; did you mean 'batch_size'"),
        ([RECIPE, "--config.optimizer.b1=0.9"], "config.optimizer.b1: no such key for name='sgd'"),
        ([RECIPE, "--config.budget=90"], "config.budget: '90' is not an amount"),
        (["--config=tests/recipes.py"], "did you mean 'tests/recipe.py'?"),
        ([RECIPE, "--cofig.seed=1"], "unknown argument '--cofig.seed=1'"),
        ([RECIPE, "--config.data.name=fractl"], "did you mean 'fractal'"),
        ([RECIPE, "--config.data.name=fractal"], "python main.py prepare fractal"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments, message, tmp_path, refused):
    assert message in refused("train", *arguments, f"--workdir={tmp_path}")


@pytest.mark.parametrize(
    ("option", "source"),
    [("num_classes", "the data set"), ("dtype", "config.precision"), ("seed", "config.seed"), ("name", "model.name")],
)
def test_an_option_that_the_run_sets_itself_is_refused(option, source):
    config = resolve_config({"model": {"name": "resnet18", "options": {option: 3}}})
    with pytest.raises(UserError, match=rf"config\.model\.options: '{option}' follows from .*{source}; leave it out"):
        NetworkSystem.create(config, 10)


def test_a_system_is_built_on_devices_that_do_not_divide_the_training_batch():
    config = resolve_config({"batch_size": 12, "model": {"name": "lenet5"}, "data": {"image_size": 32}})
    assert jax.device_count() == 8
    assert NetworkSystem.create(config, 10).network.params
    assert evaluate._divided(config).data.eval_batch_size == 16
    assert evaluate._divided(resolve_config({"batch_size": 16})).data.eval_batch_size == 0
    asked = resolve_config({"batch_size": 12, "data": {"eval_batch_size": 3}})
    assert evaluate._divided(asked) == asked


def test_training_imports_no_tensorflow(data_dir, tmp_path):
    import subprocess
    import sys

    arguments = command_line.train_arguments(data_dir, tmp_path, budget="1st")
    code = f"import sys, main; main.main({arguments!r}); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=command_line.REPOSITORY, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--boxes=b.csv"], "--boxes belongs to --task=localization and detection and would be ignored for classific"),
        (["--task=detection", "--boxes=b", "--classes=c", "--real=r"], "--real belongs to --task=classification"),
        (["--task=localization"], "--task=localization needs --boxes"),
        (["--task=detection", "--boxes=b"], "--task=detection needs --classes"),
        (["--task=localization", "--boxes=b", "--against=q"], "--against belongs to --task=detection"),
    ],
)
def test_options_of_another_task_are_refused(refused, arguments, message):
    assert message in refused("score", "--predictions=p.txt", *arguments)


def test_the_challenges_other_tasks_from_the_command_line(tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max,class\na.png,0,0,99,99,n1\nb.png,0,0,99,99,n2\n")
    (tmp_path / "guesses.txt").write_text("1 0 0 99 49 2 0 0 9 9\n1 0 0 99 99\n")
    (tmp_path / "labels.txt").write_text("1\n2\n")
    (tmp_path / "classes.txt").write_text("1 n1\n2 n2\n")
    (tmp_path / "detections.txt").write_text("1 1 0.9 0 0 99 49\n2 1 0.8 0 0 99 99\n2 2 0.7 0 0 9 9\n")
    files = {name: f"--{name}={tmp_path / name}" for name in ("boxes", "labels", "classes")}
    boxes, labels, classes = f"{files['boxes']}.csv", f"{files['labels']}.txt", f"{files['classes']}.txt"
    localization = ["--task=localization", f"--predictions={tmp_path / 'guesses.txt'}", boxes, labels, classes]
    assert main.main(["score", *localization]) == 0
    assert "localization error with 5 guesses 50.0 %" in capsys.readouterr().out
    detection = ["--task=detection", f"--predictions={tmp_path / 'detections.txt'}", boxes, classes]
    assert main.main(["score", *detection, f"--against={tmp_path / 'detections.txt'}"]) == 0
    printed = capsys.readouterr().out
    assert "mean average precision 50.0 %" in printed
    assert "equal 2: neither has more" in printed


def test_boxes_of_a_runs_network(whole_run, tmp_path):
    workdir, _ = whole_run
    with np.load(workdir / json.loads((workdir / "result.json").read_text())["predictions"]) as file:
        names, wrong = file["id"].tolist(), int(np.sum(file["top5"][:, 0] != file["label"]))
    rows = "".join(f"{name},0,0,31,31\n" for name in names)
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\n" + rows)
    out, _ = command_line.run("localize", f"--workdir={workdir}", f"--boxes={tmp_path / 'boxes.csv'}", "--method=cam")
    assert f"Class alone: top-1 error {100 * wrong / len(names):.1f} %" in out
    (kept,) = (workdir / "predictions").glob("*_boxes_activation_maps.npz")
    out, _ = command_line.run(
        "score", "--task=localization", f"--predictions={kept}", f"--boxes={tmp_path / 'boxes.csv'}"
    )
    assert "localization error with 5 guesses" in out
    assert (workdir / "localization" / kept.name.split("_boxes")[0] / "images.png").stat().st_size > 10_000


def test_boxes_that_cannot_be_made(whole_run, tmp_path, refused):
    workdir, _ = whole_run
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\n7,0,0,31,31\n")
    arguments = ["localize", f"--workdir={workdir}", f"--boxes={tmp_path / 'boxes.csv'}"]
    assert "--threshold=1.5 is a share" in refused(*arguments, "--threshold=1.5")
    assert "train shares images with train" in refused(*arguments, "--data.eval_split=train")
