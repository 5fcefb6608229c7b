"""Tests of `main.py train` and of the commands that use its run. They share one run, because training takes long."""

import hashlib
import json
import random
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from imagenet_repro.config import load_config
from imagenet_repro.planning import fit
from imagenet_repro.runs import estimate_cost
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import memory
from tests import command_line
from tests.pretrained import hub_server


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=20)


# main.py, which at its end prints the modules that it imported.
LISTING = """
import sys, main
code = main.main(sys.argv[1:])
print("modules:", *sys.modules)
sys.exit(code)
"""


@pytest.fixture(scope="session")
def finished_run(data_dir, tmp_path_factory):
    """Return the workdir and the output of an uninterrupted run, with the names of the modules that it imported."""
    workdir = tmp_path_factory.mktemp("finished")
    out, _ = command_line.run(*command_line.train_arguments(data_dir, workdir), program=("-c", LISTING))
    return workdir, out


def assert_same(workdir, reference, step=12):
    actual, expected = command_line.arrays(workdir, step), command_line.arrays(reference, step)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_a_run_writes_numbers_tables_and_figures(finished_run):
    workdir, out = finished_run
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [6, 12]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    assert result["spent"]["images"] == 96
    assert result["rates"]["images"] == 42
    assert result["rates"]["top1_wrong"] == evaluations[-1]["top1_wrong"]
    assert "top-1" in out
    assert "| resnet20_cifar |" in (workdir / "table.md").read_text()
    assert (workdir / "curves.png").stat().st_size > 10_000
    assert list((workdir / "tensorboard").glob("events*"))
    with np.load(workdir / result["predictions"]) as file:
        assert len(set(file["id"])) == 42
        wrong = int(np.sum(file["top5"][:, 0] != file["label"]))
    assert wrong == result["rates"]["top1_wrong"]
    provenance = json.loads((workdir / "config.json").read_text())["provenance"]
    assert {"commit", "packages", "devices", "python"} <= provenance.keys()


def test_repeating_the_command_trains_nothing_and_prints_the_table(finished_run, data_dir):
    workdir, _ = finished_run
    before = (workdir / "metrics.jsonl").read_text()
    out, _ = command_line.call(*command_line.train_arguments(data_dir, workdir))
    assert "12st, is spent" in out
    assert "compiled" not in out
    assert "resnet20_cifar" in out
    assert (workdir / "metrics.jsonl").read_text() == before


def test_another_configuration_is_refused_with_the_differences(finished_run, data_dir):
    workdir, _ = finished_run
    _, err = command_line.call(
        *command_line.train_arguments(data_dir, workdir, seed=1, optimizer__learning_rate=0.5), code=2
    )
    assert "optimizer.learning_rate: 0.02 there, 0.5 now" in err
    assert "seed: 0 there, 1 now" in err


def test_a_run_records_its_time_and_memory(finished_run):
    workdir, _ = finished_run
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "save"] == [2, 4, 6, 8, 10, 12]
    assert 0 < sum(row["waiting_seconds"] for row in rows if row["kind"] == "train") < result["spent"]["seconds"]
    assert result["peak_memory"]["of"] == "process"
    assert 1e8 < result["peak_memory"]["bytes"] < 1e11
    assert result["classes"] == [f"ifs_{n:03d}" for n in range(6)]


def test_runs_of_different_budgets_are_not_compared(finished_run, tmp_path):
    workdir, _ = finished_run
    shutil.copytree(workdir / "predictions", tmp_path / "predictions")
    other = json.loads((workdir / "result.json").read_text())
    other["provenance"]["config"]["budget"] = "13st"
    (tmp_path / "result.json").write_text(json.dumps(other))
    _, err = command_line.call("compare", workdir, tmp_path, f"--out={tmp_path / 'out'}", code=2)
    assert "they differ in" in err
    assert f"budget: 12st ({workdir}); 13st ({tmp_path})." in err
    assert not (tmp_path / "out").exists()


def test_the_page_of_a_run_has_images_of_its_split(finished_run, tmp_path):
    workdir, _ = finished_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out, _ = command_line.call("compare", workdir, f"--out={tmp_path}")
    assert f"the page: {tmp_path / 'report.html'}" in out
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == min(6, wrong)
    assert (tmp_path / "figures/curves_images.png").stat().st_size > 10_000
    assert f"| resnet20_cifar | {100 * wrong / 42:.1f} |" in (tmp_path / "tables/leaderboard.md").read_text()


def test_evaluate_agrees_on_any_number_of_devices_and_batch_size(finished_run, tmp_path):
    workdir, _ = finished_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out = tmp_path / "predictions.npz"
    command_line.call("evaluate", f"--workdir={workdir}", "--data.eval_batch_size=16", f"--out={out}")  # on 8 devices
    with np.load(out) as file:
        assert len(set(file["id"])) == 42
        assert int(np.sum(file["top5"][:, 0] != file["label"])) == wrong
    printed, _ = command_line.call("score", f"--predictions={out}")
    assert f"{wrong} of 42" in printed


def test_a_run_is_scored_by_several_protocols_which_store_their_predictions(finished_run):
    workdir, _ = finished_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    out, _ = command_line.call("evaluate", f"--workdir={workdir}", "--protocol=crop,10crop,vgg_dense1")
    assert f"{100 * wrong / 42:.1f} " in next(line for line in out.splitlines() if line.startswith(" crop "))
    assert "vgg_dense1 (2 views)" in out
    for name, views in (("_10crop", 10), ("_vgg_dense1", 2), ("", 1)):
        with np.load(workdir / f"predictions/fractal_c6_n20_v7_s32_validation{name}_step12.npz") as file:
            assert len(set(file["id"])) == 42
            assert json.loads(str(file["provenance"]))["protocol"]["parts"][0]["views"] == views


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_stopped_by_a_signal_resumes_to_the_same_parameters(number, finished_run, data_dir, tmp_path):
    arguments = command_line.train_arguments(data_dir, tmp_path, checkpoint__every="100st")
    out, _ = command_line.run(int(number), "train 2", *arguments, program=("-c", command_line.SIGNALLED), code=75)
    assert f"stopped by {number.name} at step" in out
    out, _ = command_line.run(*arguments)
    assert "resumed at step" in out
    assert_same(tmp_path, finished_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [2, 6])
def test_a_run_in_stages_resumes_to_the_same_parameters_from_any_stage(kill_after, data_dir, tmp_path):
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
    arguments = command_line.train_arguments(data_dir, tmp_path / "stopped", **options)
    event = (int(signal.SIGTERM), f"train {kill_after}")
    command_line.run(*event, *arguments, program=("-c", command_line.SIGNALLED), code=75)
    command_line.run(*arguments)
    assert_same(tmp_path / "stopped", tmp_path / "whole", step=8)
    flops, again = (
        [row["flops"] for row in map(json.loads, (directory / "metrics.jsonl").open()) if row["kind"] == "train"]
        for directory in (tmp_path / "whole", tmp_path / "stopped")
    )
    steps = np.diff([0, *flops])
    assert len(set(steps[:4])) == len(set(steps[4:])) == 1
    assert steps[4] > 1.5 * steps[3]
    assert again == flops


def kill_until_done(data_dir, workdir, kills, seed):
    """Kill a run with SIGKILL `kills` times at random moments, then let it finish."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = command_line.start(*command_line.train_arguments(data_dir, workdir))
        n_steps = steps_done(workdir)
        wait_for_step(workdir, min(n_steps + 1, 12), process)
        time.sleep(moments.uniform(0, 1.5))
        process.kill()
        process.communicate()
    command_line.run(*command_line.train_arguments(data_dir, workdir))


def test_a_killed_run_resumes_to_the_same_parameters(finished_run, data_dir, tmp_path):
    kill_until_done(data_dir, tmp_path, kills=1, seed=0)
    assert_same(tmp_path, finished_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_runs_killed_twice_resume_to_the_same_parameters(seed, finished_run, data_dir, tmp_path):
    kill_until_done(data_dir, tmp_path, kills=2, seed=seed)
    assert_same(tmp_path, finished_run[0])


def steps_done(workdir):
    metrics = workdir / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_for_step(workdir, step, process):
    deadline = time.monotonic() + 1500
    while steps_done(workdir) < step and process.poll() is None:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.05)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_images(data_dir, tmp_path):
    arguments = command_line.train_arguments(data_dir, tmp_path, optimizer__learning_rate=1e25, schedule__warmup=0.0)
    _, err = command_line.run(*arguments, code=3)
    assert "the loss is" in err
    assert "images train/ifs_" in err
    for step in [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]:
        assert all(np.isfinite(value).all() for value in command_line.arrays(tmp_path, step).values())


@pytest.mark.slow
def test_an_extended_run_equals_one_of_the_larger_budget(data_dir, tmp_path):
    def arguments(name, budget, schedule="constant"):
        settings = {"model__name": "lenet5", "schedule__name": schedule, "schedule__warmup": 0.0, "budget": budget}
        return command_line.train_arguments(data_dir, tmp_path / name, **settings)

    command_line.run(*arguments("whole", "10st"))
    command_line.run(*arguments("extended", "4st"))
    _, err = command_line.run(*arguments("extended", "10st"), code=2)
    assert "budget: 4st there, 10st now" in err
    assert "--extend continues it to a larger budget" in err
    out, _ = command_line.run(*arguments("extended", "10st"), "--extend")
    assert "extends the run of 4st from step 4 to 10st" in out
    assert_same(tmp_path / "extended", tmp_path / "whole", step=10)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("extended", "whole")]
    assert [result["spent"]["images"] for result in results] == [80, 80]
    assert [result["budget"] for result in results] == ["10st", "10st"]
    assert [result["extended"] for result in results] == [[{"budget": "4st", "step": 4}], []]
    assert results[0]["rates"] == results[1]["rates"]
    assert json.loads((tmp_path / "extended/result_4st.json").read_text())["budget"] == "4st"
    out, _ = command_line.run(*arguments("extended", "10st"), "--extend")  # the same command again
    assert "10st, is spent" in out

    command_line.run(*arguments("cosine", "4st", "cosine"))
    before = (tmp_path / "cosine/config.json").read_text()
    _, err = command_line.run(*arguments("cosine", "10st", "cosine"), "--extend", code=2)
    assert "the schedule 'cosine' follows the share of the budget" in err
    assert (tmp_path / "cosine/config.json").read_text() == before
    command_line.run(*arguments("cosine", "4st", "cosine"))


def test_a_dry_run_prints_the_cost_and_writes_nothing(data_dir, tmp_path, monkeypatch):
    arguments = command_line.train_arguments(data_dir, tmp_path / "run", model__name="lenet5", batch_size=16)
    without = [argument for argument in arguments if not argument.startswith("--workdir")]
    assert len(without) < len(arguments)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate_cost, "SECONDS", 0.0)
    monkeypatch.setattr(estimate_cost, "WARM_UP", 0.0)
    monkeypatch.setattr(estimate_cost, "EVALUATED_BATCHES", 1)
    monkeypatch.setattr(estimate_cost, "_save", lambda state: None)
    out, _ = command_line.call(*without, "--dry_run")
    assert "lenet5: 0.06 M parameters, float32, on 8 x cpu" in out
    assert "budget 12st: 12 steps, 192 images" in out
    assert "activations, gradients, scratch memory" in out
    assert "s a step, the second one. Checkpoints are not included" in out
    assert ", evaluate " in out
    assert not [*tmp_path.iterdir()]
    _, err = command_line.call(*without, code=2)
    assert "train needs --workdir=DIR" in err


@pytest.mark.slow
def test_an_evaluation_that_does_not_fit_stops_before_training(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free", iter((None, 1_000_000)).__next__)  # the step fits, and the evaluation does not
    arguments = command_line.train_arguments(data_dir, tmp_path, model__name="lenet5", batch_size=16)
    _, err = command_line.call(*arguments, "--config.data.eval_batch_size=1024", code=2)
    assert "config.data.eval_batch_size: an evaluation of 1,024 images at a time needs" in err
    assert "1.00 MB are free" in err
    assert "--config.data.eval_batch_size=" in err
    assert not (tmp_path / "result.json").exists()


def test_a_step_that_does_not_fit_stops_before_training(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1_000_000)
    monkeypatch.setattr(fit.StepMeter, "measure", lambda meter, candidate: None)  # seconds for each
    arguments = command_line.train_arguments(data_dir, tmp_path, model__name="lenet5", batch_size=16)
    _, err = command_line.call(*arguments, code=2)
    assert "config.batch_size: a step of 16 images needs" in err
    assert "1.00 MB are free" in err
    assert not (tmp_path / "result.json").exists()


def check_scored_split(workdir, finished):
    """Check that the curves use the first 20 images that the finished run was scored on, and the result the others."""
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {row["evaluated"] for row in rows if row["kind"] == "eval"} == {20}
    assert result["rates"]["images"] == 22
    names = [json.loads((path / "result.json").read_text())["predictions"] for path in (workdir, finished)]
    with np.load(workdir / names[0]) as file, np.load(finished / names[1]) as every:
        np.testing.assert_array_equal(file["id"], every["id"][20:])


def test_exported_weights_score_like_the_run_and_can_start_a_run(finished_run, data_dir, tmp_path):
    workdir, _ = finished_run
    wrong = json.loads((workdir / "result.json").read_text())["rates"]["top1_wrong"]
    weights, predictions = tmp_path / "weights.safetensors", tmp_path / "predictions.npz"
    out, _ = command_line.call("export", f"--workdir={workdir}", f"--out={weights}")
    assert "averaged weights of resnet20_cifar at step 12, 6 classes" in out
    data = ["--data.name=fractal/c6_n20_v7_s32", f"--data.data_dir={data_dir}", "--data.eval_batch_size=8"]
    command_line.call("evaluate", f"--weights={weights}", *data, f"--out={predictions}")
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
    weights.unlink()  # the file is read only at the start of the run
    (tmp_path / "run" / "result.json").unlink()
    out, _ = command_line.run(*arguments)
    assert "resumed at step 2" in out


def test_a_run_on_the_hub_scores_as_its_card_says_and_its_recipe_is_the_runs(
    finished_run, data_dir, tmp_path, monkeypatch
):
    workdir, _ = finished_run
    with hub_server.library(tmp_path, monkeypatch) as hub:
        out, _ = command_line.call("export", f"--workdir={workdir}", "--hub=me/net", "--license=mit")
        assert "hub:me/net: averaged weights of resnet20_cifar at step 12, 6 classes" in out
        data = ["--data.name=fractal/c6_n20_v7_s32", f"--data.data_dir={data_dir}", "--data.eval_batch_size=8"]
        command_line.call("evaluate", "--weights=hub:me/net", *data, f"--out={tmp_path / 'p.npz'}")
        files = hub.commits[hub.branches["me/net"]["main"]]
    with np.load(tmp_path / "p.npz") as file:
        wrong = int(np.sum(file["top5"][:, 0] != file["label"]))
    config = json.loads(files["config.json"])
    assert config["result"]["top1_wrong"] == wrong
    assert config["sha256"] == hashlib.sha256(files["model.safetensors"]).hexdigest()
    from huggingface_hub import ModelCard

    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "imagenet_repro")
    assert card.data.eval_results[0].metric_value == wrong / 42
    assert f"| top-1 | 42 | {100 * wrong / 42:.2f} | [" in card.text
    assert str(tmp_path.parent) not in "".join(files[name].decode() for name in files if name != "model.safetensors")
    (tmp_path / "recipe.py").write_bytes(files["recipe.py"])
    again = load_config(str(tmp_path / "recipe.py"), {"data.data_dir": str(data_dir)})
    assert again == Workdir(workdir).config()


def test_a_checkpoint_that_cannot_be_written_is_an_error(data_dir, tmp_path):
    # How Orbax spreads the arrays over files depends on the timing of its threads, but an array is never split. The
    # largest are kernels of 3 x 3 x 64 x 64 float32 values, 136 kB when compressed: no checkpoint fits the limit.
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (96 * 2**10,) * 2)

    environment = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}  # compiled programs are read, not written
    arguments = command_line.train_arguments(data_dir, tmp_path / "run", checkpoint__every="1st")
    # Threads of the array library print their own tracebacks around our message.
    _, err = command_line.run(
        *arguments, code=74, tracebacks=True, preexec_fn=limit_file_size, environment=environment
    )
    assert "main.py: the checkpoint of step 1 could not be written" in err


def test_two_processes_train_the_same_parameters_as_one(data_dir, tmp_path):
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
    with command_line.coordinator() as shared:
        processes = [command_line.start(*arguments, environment=shared | {"PROCESS_ID": str(i)}) for i in range(2)]
        for process in processes:
            out, err = process.communicate(timeout=1500)
            assert process.returncode == 0, out + err


def check_protocols_in_two_processes(workdir):
    """Check that both protocols score every image once with the same scores, whether by crops or densely."""
    paths = [
        workdir / f"predictions/fractal_c6_n20_v7_s32_validation_{name}_step4.npz" for name in ("10crop", "vgg_dense1")
    ]
    scores = []
    for run in (run_in_two_processes, command_line.call):
        run("evaluate", f"--workdir={workdir}", "--protocol=10crop,vgg_dense1")
        scores.append([predictions.load(path) for path in paths])
    for two, one in zip(*scores, strict=True):
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
def test_an_error_is_one_message(arguments, message, tmp_path, refused):
    assert message in refused("train", *arguments, f"--workdir={tmp_path}")


@pytest.mark.parametrize("key", ["data__eval_split", "data__test_split"])
def test_a_split_that_holds_an_image_twice_is_refused_before_anything_is_built(key, data_dir, tmp_path, refused):
    splits = {key: "validation[:60%]+validation[40%:]"}
    message = refused(*command_line.train_arguments(data_dir, tmp_path / "run", **splits))
    assert "'validation[:60%]+validation[40%:]' of data set 'fractal' holds" in message
    assert not (tmp_path / "run").exists()


def test_evaluation_of_an_image_twice_is_refused(finished_run, refused):
    workdir, _ = finished_run
    message = refused("evaluate", f"--workdir={workdir}", "--data.eval_split=validation+validation")
    assert "images of 'validation' twice" in message


def test_training_does_not_import_tensorflow_nor_what_takes_long(finished_run):
    modules = finished_run[1].rpartition("modules: ")[2].split()
    assert {"imagenet_repro.runs.train", "jax", "orbax"} <= {*modules}
    assert {"tensorflow", "scipy.stats", "sklearn", "optuna"}.isdisjoint(modules)


def test_boxes_from_the_network_of_a_run(finished_run, tmp_path):
    workdir, _ = finished_run
    with np.load(workdir / json.loads((workdir / "result.json").read_text())["predictions"]) as file:
        names, wrong = file["id"].tolist(), int(np.sum(file["top5"][:, 0] != file["label"]))
    rows = "".join(f"{name},0,0,31,31\n" for name in names)
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\n" + rows)
    out, _ = command_line.call("localize", f"--workdir={workdir}", f"--boxes={tmp_path / 'boxes.csv'}", "--method=cam")
    assert f"Class alone: top-1 error {100 * wrong / len(names):.1f} %" in out
    (stored,) = (workdir / "predictions").glob("*_boxes_activation_maps.npz")
    out, _ = command_line.call(
        "score", "--task=localization", f"--predictions={stored}", f"--boxes={tmp_path / 'boxes.csv'}"
    )
    assert "localization error with 5 guesses" in out
    assert (workdir / "localization" / stored.name.split("_boxes")[0] / "images.png").stat().st_size > 10_000


def test_options_of_localize_are_checked(finished_run, tmp_path, refused):
    workdir, _ = finished_run
    (tmp_path / "boxes.csv").write_text("file,x_min,y_min,x_max,y_max\n7,0,0,31,31\n")
    arguments = ["localize", f"--workdir={workdir}", f"--boxes={tmp_path / 'boxes.csv'}"]
    assert "--threshold=1.5 is a share" in refused(*arguments, "--threshold=1.5")
    assert "train shares images with train" in refused(*arguments, "--data.eval_split=train")
