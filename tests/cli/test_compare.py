"""Tests of `main.py compare` with invented runs and sweeps."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

import main
from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.report import comparison_report
from imagenet_repro.scoring import predictions
from imagenet_repro.sweeps import compare
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.queue import SweepQueue
from tests import finished_runs
from tests.report.test_comparison_page import Document, sections
from tests.sweeps import small_sweeps
from tests.sweeps.test_plan import transfer_settings


@pytest.fixture
def undrawn(monkeypatch):
    """Skip the drawing of figures, which takes seconds and has its own tests."""
    monkeypatch.setattr(comparison_report._Drawing, "figures", lambda self: {})


# --- runs -------------------------------------------------------------------------------------------------------


def test_runs_become_a_page_with_its_tables(tmp_path, undrawn, capsys):
    workdirs = finished_runs.systems(tmp_path / "runs", count=3, seeds=2)
    assert main.main(["compare", *workdirs, f"--out={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert "the page has no images: " in out  # the data set does not exist
    assert f"the page: {tmp_path / 'out/report.html'}" in out
    document = Document((tmp_path / "out/report.html").read_text())
    assert sections(document)[0] == "leaderboard"
    rows = {row[0]: row for row in document.tables["table-leaderboard"][1:]}
    assert set(rows) == {"nec_uiuc_2010", "xrce_2011", "alexnet_2012"}
    for name, row in rows.items():
        ends = [json.loads((tmp_path / f"runs/{name}-{seed}/result.json").read_text()) for seed in (0, 1)]
        assert float(row[2]) == pytest.approx(50 * sum(end["rates"]["top1_error"] for end in ends), abs=0.051)
        assert row[11] == "2"
    assert (tmp_path / "out/tables/leaderboard.csv").exists()


def test_the_page_of_one_run_goes_into_its_workdir_and_others_into_the_current_directory(
    tmp_path, undrawn, monkeypatch
):
    a, b = finished_runs.systems(tmp_path)
    compare.compare([a])
    assert (tmp_path / "nec_uiuc_2010-0/report.html").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    compare.compare([a, b])
    assert (tmp_path / "here/report.html").exists()


def played(run, path, *, ids=None, label=None, system="human", **source):
    """Store the predictions of a game that guessed its first ten images right."""
    with np.load(next((Path(run) / "predictions").glob("*.npz"))) as file:
        ids = file["id"][:10] if ids is None else np.array(ids)
        label = file["label"][: len(ids)] if label is None else np.array(label, np.int32)
        logits = np.full((len(ids), file["logits"].shape[1]), -np.inf, np.float16)
    logits[np.arange(len(ids)), label] = 5
    top5 = np.where(np.arange(5) == 0, label[:, None], -1).astype(np.int32)
    predictions.save(
        path, predictions.Predictions(ids, label, top5, logits, {"system": system, "name": "Ada"} | source)
    )
    return str(path)


def test_a_person_is_compared_with_the_systems(tmp_path, undrawn):
    workdirs = finished_runs.systems(tmp_path / "runs")
    game = played(workdirs[0], tmp_path / "game.npz")
    assert main.main(["compare", *workdirs, f"--out={tmp_path / 'out'}", "--people", game]) == 0
    document = Document((tmp_path / "out/report.html").read_text())
    rows = document.tables["table-people"][1:]
    assert [row[:4] for row in rows] == [
        ["Ada", "–", "10", "0.0"],
        *(["Ada", row[1], "10", row[3]] for row in rows[1:]),
    ]
    assert {row[1] for row in rows[1:]} == {"nec_uiuc_2010", "xrce_2011"}
    assert "Ada" in {row[0] for row in document.tables["table-leaderboard"]}


def test_a_persons_guesses_are_read_by_name(tmp_path, undrawn, capsys):
    workdirs = finished_runs.systems(tmp_path / "runs")
    with np.load(next((Path(workdirs[0]) / "predictions").glob("*.npz"))) as file:
        label = 9 - file["label"][:10]
    game = played(workdirs[0], tmp_path / "game.npz", label=label, classes=[f"class {9 - c}" for c in range(10)])
    assert main.main(["compare", *workdirs, f"--out={tmp_path / 'out'}", "--people", game]) == 0
    assert "game.npz has the classes of the runs in another order" in capsys.readouterr().out
    rows = Document((tmp_path / "out/report.html").read_text()).tables["table-people"]
    assert rows[1][:4] == ["Ada", "–", "10", "0.0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "resnet50"}, "does not come from a game of `main.py human`"),
        (
            {"ids": ["elsewhere/1.jpg"], "label": [0]},
            "images that the runs were not scored on, such as elsewhere/1.jpg",
        ),
        ({"label": [9] * 10}, "different labels for the same images"),
        ({"data": {"name": "pets"}}, "game.npz is of pets, and the runs are not"),
        ({"classes": [f"class {c}" for c in range(9)] + ["z"]}, "do not have the same classes: only "),
    ],
)
def test_a_person_who_guessed_other_images_is_refused(tmp_path, capsys, changes, message):
    workdirs = finished_runs.systems(tmp_path / "runs")
    game = played(workdirs[0], tmp_path / "game.npz", **changes)
    assert main.main(["compare", *workdirs, f"--out={tmp_path / 'out'}", "--people", game]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.write_text(""), "is not a directory"),
    ],
)
def test_an_invalid_workdir_is_named(tmp_path, make, message):
    make(tmp_path / "run")
    with pytest.raises(UserError, match=rf"/run {message}; the workdir of a finished run \(train\) or of a sweep"):
        compare.compare([str(tmp_path / "run")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_compared_write_nothing(tmp_path, capsys):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"), **{"provenance.config.budget": "6ep"})
    assert main.main(["compare", a, b, f"--out={tmp_path / 'out'}"]) == 2
    assert "they differ in\n  budget: 5ep" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_allowed_differences_mark_every_table_and_its_files(tmp_path, undrawn, capsys):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"), **{"provenance.config.budget": "6ep"})
    assert main.main(["compare", a, b, f"--out={tmp_path / 'out'}", "--allow_mixed"]) == 0
    files = list((tmp_path / "out/tables").iterdir())
    assert len(files) > 10
    assert all(path.stem.endswith("_mixed") for path in files)
    assert all(f"Mixed: budget: 5ep ({a}); 6ep ({b})." in path.read_text() for path in files if path.suffix == ".md")
    assert f"mixed, budget: 5ep ({a}); 6ep ({b})." in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


def test_runs_on_different_images_get_a_page_without_pairs(tmp_path, undrawn):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    b = finished_runs.write(
        tmp_path / "b", finished_runs.one(1, name="zfnet", images=70), **{"provenance.config.data.eval_split": "test"}
    )
    compare.compare([a, b], str(tmp_path / "out"), allow_mixed=True)
    document = Document((tmp_path / "out/report.html").read_text())
    assert sections(document) == ["warnings", "leaderboard", "what_differs", "provenance"]
    assert "train, scored on test" in document.text


def test_the_page_names_the_evaluated_and_the_scored_splits(tmp_path, undrawn):
    splits = {"provenance.config.data.eval_split": "train[90%:]", "provenance.config.data.test_split": "validation"}
    a = finished_runs.write(tmp_path / "a", finished_runs.one(), **splits)
    compare.compare([a], str(tmp_path / "out"))
    text = Document((tmp_path / "out/report.html").read_text()).text
    assert "scored on the 60 images of validation" in text
    assert "train, evaluated on train[90%:], scored on validation" in text


def test_out_that_is_a_file_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SaveError, match=r"--out=.*/file is a file; a directory is needed"):
        compare.compare(["absent"], str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "kept"


def test_out_below_a_file_says_where_it_cannot_write(tmp_path, undrawn):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SaveError, match=r"--out=.*/file/below/report.html cannot be written: .*/file is a file"):
        compare.compare(finished_runs.systems(tmp_path), str(tmp_path / "file/below"))


def limited(size):
    """Limit the size of files, so that writing fails as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (100, r"--out=.*/report.html cannot be written: File too large"),  # before anything is compared
        (20_000, r"could not write .*: File too large"),  # at the page
    ],
)
def test_a_full_disk_keeps_the_older_page(tmp_path, undrawn, capsys, size, message):
    workdirs, out = finished_runs.systems(tmp_path / "runs"), tmp_path / "out"
    compare.compare(workdirs[:1], str(out))
    before = (out / "report.html").read_bytes()
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited(size)()
    try:
        with pytest.raises(SaveError, match=message):
            compare.compare(workdirs, str(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ("top-1 error %" in capsys.readouterr().out) == ("could not" in message)  # printed before it is saved
    assert (out / "report.html").read_bytes() == before
    assert not list(out.rglob("*.part"))
    assert compare.compare(workdirs, str(out)).page == out / "report.html"


def test_a_workdir_that_cannot_be_written_names_the_option_for_another_place(tmp_path, undrawn):
    workdirs = finished_runs.systems(tmp_path / "runs", count=1)
    (tmp_path / "runs/nec_uiuc_2010-0/tables").write_text("")
    with pytest.raises(SaveError, match=r"the page: .*/tables is a file; .*; name another directory with --out=DIR"):
        compare.compare(workdirs)
    compare.compare(workdirs, str(tmp_path / "elsewhere"))


# --- sweeps -----------------------------------------------------------------------------------------------------

SYSTEMS = {"a": "alexnet_2012", "b": "zfnet"}


def record_sweep(directory, ends, sweep=None, **changes):
    """Record a sweep of two systems and two seeds, or the one that is given.

    `ends` maps names of runs to a value or to the reason of a failure. The first system's runs are those of "a" in
    SYSTEMS, the second's of "b".
    """
    sweep = sweep or small_sweeps.sweep(seeds=(0, 1), **changes)
    sweep_directory = SweepDirectory(directory)
    sweep_directory.record(sweep, sweep_directory.default_storage)
    queue = SweepQueue(sweep_directory.default_storage, sweep, sweep_directory.identity())
    queue.fill()
    while claim := queue.claim("worker"):
        end = ends.get(claim.planned.name)
        if isinstance(end, str):
            queue.fail(claim, end)
        elif end is not None:
            queue.complete(claim, end)
            if not claim.planned.is_trial:
                index = list(sweep.systems).index(claim.planned.system)
                run = finished_runs.one(index, claim.planned.seed, SYSTEMS["ab"[index]])
                finished_runs.write(sweep_directory.path / claim.planned.name, run)
    return str(directory)


RUNS = {f"runs/{system}/seed{seed}": 0.5 for system in "ab" for seed in (0, 1)}


def test_the_runs_of_a_sweep_have_the_names_of_its_systems(tmp_path):
    result = compare.gather([record_sweep(tmp_path / "sweep", RUNS)], allow_mixed=False)
    assert [(one.name, one.network, one.seeds) for one in result.systems] == [
        ("a", "alexnet_2012", (0, 1)),
        ("b", "zfnet", (0, 1)),
    ]
    assert result.failures == ()
    assert result.selection == (
        "No settings were searched. During training, runs were evaluated on validation[:50%]; validation[50%:] was"
        " scored once by each run, at the end of its budget."
    )


def test_the_systems_of_a_cross_are_compared_under_names_that_say_what_differs(tmp_path):
    crossed = small_sweeps.sweep(systems=1, cross={"augment.label_smoothing": (0.0, 0.1)}, seeds=(0, 1))
    ends = {f"runs/a,label_smoothing={value}/seed0": 0.5 for value in (0.0, 0.1)}
    workdir = record_sweep(tmp_path / "sweep", ends, crossed)
    result = compare.gather([workdir], allow_mixed=False)
    assert [(one.name, one.seeds) for one in result.systems] == [
        ("a, label_smoothing=0.0", (0,)),
        ("a, label_smoothing=0.1", (0,)),
    ]
    assert {(failure.name, failure.seed) for failure in result.failures} == {
        ("a, label_smoothing=0.0", 1),
        ("a, label_smoothing=0.1", 1),
    }


def test_failed_and_unfinished_runs_are_on_the_page(tmp_path, undrawn):
    ends = RUNS | {"runs/a/seed1": "the loss is nan at step 7", "runs/b/seed0": None}
    workdir = record_sweep(tmp_path / "sweep", ends)
    compare.compare([workdir])
    text = Document((tmp_path / "sweep/report.html").read_text()).text
    assert "Planned runs without a result; no table includes them:" in text
    assert "a, seed 1: the loss is nan at step 7" in text
    assert "b, seed 0: running" in text


def test_the_selection_describes_the_search_and_the_selected_settings(tmp_path):
    trials = {f"search/{system}/{n:03d}": 0.5 + 0.1 * n for system in "ab" for n in (0, 1)}
    workdir = record_sweep(tmp_path / "sweep", RUNS | trials, search={"trials": 2, "budget": "8st"})
    result = compare.gather([workdir], allow_mixed=False)
    chosen = SweepQueue(
        SweepDirectory(workdir).default_storage, SweepDirectory(workdir).sweep(), SweepDirectory(workdir).identity()
    )
    rates = [chosen.selected_trials()[name].settings["optimizer.learning_rate"] for name in "ab"]
    assert result.selection == (
        "The search gave every system 2 points of one quasi-random sequence over its own ranges, with a budget of 8st"
        " each, and selected the one with the lowest top-1 error on validation[:50%], which was not used for training;"
        f" validation[50%:] was scored once by each run, at the end of its budget. Selected: a:"
        f" optimizer.learning_rate={rates[0]:.3g};"
        f" b: optimizer.learning_rate={rates[1]:.3g}."
    )


def test_a_run_without_a_finished_search_names_the_missing_trials(tmp_path):
    trials = {"search/a/000": 0.5, "search/a/001": 0.4, "search/b/000": "out of memory"}
    workdir = record_sweep(tmp_path / "sweep", RUNS | trials, search={"trials": 2})
    result = compare.gather([workdir], allow_mixed=False)
    assert [one.name for one in result.systems] == ["a"]
    assert [(one.name, one.seed) for one in result.failures] == [("b", 0), ("b", 1)]
    assert result.failures[0].reason == (
        "its search has not ended: search/b/000 failed, out of memory; search/b/001 running"
    )


def test_a_sweep_without_finished_runs_is_reported(tmp_path):
    workdir = record_sweep(tmp_path / "sweep", {})
    with pytest.raises(
        UserError, match=r"no run of this sweep has finished; `main.py sweep --status` shows its progress"
    ):
        compare.gather([workdir], allow_mixed=False)


def test_a_target_without_finished_runs_is_named_and_the_others_are_shown(tmp_path, undrawn, capsys):
    ends = {name: value for name, value in RUNS.items() if "/a/" in name}
    workdir = record_sweep(tmp_path / "sweep", ends, resolve_sweep(transfer_settings(seeds=(0, 1))))
    result = compare.compare([workdir])
    assert (result.page, list(result.targets)) == (tmp_path / "sweep/report.html", ["fractals"])
    assert result.targets["fractals"].page == tmp_path / "sweep/fractals/report.html"
    assert "others: no run under the whole budget has finished" in capsys.readouterr().out
    assert (tmp_path / "sweep/fractals/report.html").exists()
    assert not (tmp_path / "sweep/others").exists()
    overview = (tmp_path / "sweep/report.html").read_text()
    assert 'href="fractals/report.html"' in overview
    assert "others: no run under the whole budget has finished" in overview


def test_a_sweep_with_targets_and_no_finished_run_is_reported(tmp_path, undrawn):
    workdir = record_sweep(tmp_path / "sweep", {}, resolve_sweep(transfer_settings()))
    with pytest.raises(UserError, match="no run of this sweep on target fractals has finished"):
        compare.compare([workdir])


def test_a_sweep_is_compared_alone(tmp_path):
    workdir = record_sweep(tmp_path / "sweep", RUNS)
    other = finished_runs.write(tmp_path / "other", finished_runs.one())
    for workdirs in ([workdir, other], [other, workdir], [workdir, workdir]):
        with pytest.raises(UserError, match="a sweep is compared alone"):
            compare.gather(workdirs, allow_mixed=False)


def test_a_damaged_run_of_a_sweep_is_named(tmp_path):
    workdir = record_sweep(tmp_path / "sweep", RUNS)
    (tmp_path / "sweep/runs/b/seed1/result.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep/runs/b/seed1/result\.json is damaged"):
        compare.gather([workdir], allow_mixed=False)


# --- protocols and sets -----------------------------------------------------------------------------------------


def store(workdir, name, protocol):
    """Store predictions as `evaluate` does, all of them right by the first guess."""
    with np.load(next((Path(workdir) / "predictions").glob("made_up_validation.npz"))) as file:
        ids, label, logits = file["id"], file["label"], file["logits"]
    top5 = np.stack([(label + k) % logits.shape[1] for k in range(5)], axis=1).astype(np.int32)
    config = json.loads((Path(workdir) / "result.json").read_text())["provenance"]["config"]
    source = {"protocol": {"name": protocol}, "step": 1_000, "config": config}
    predictions.save(Path(workdir) / f"predictions/{name}", predictions.Predictions(ids, label, top5, logits, source))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--protocol=10crop", "made_up_validation_10crop_step1000.npz"),
        ("--set=v2", "imagenet_v2_matched-frequency_test_step1000.npz"),
        ("--set=v2 --protocol=10crop", "imagenet_v2_matched-frequency_test_10crop_step1000.npz"),
    ],
)
def test_a_page_for_a_protocol_or_an_evaluation_set_has_its_own_directory(
    tmp_path, undrawn, monkeypatch, options, name
):
    directory_name = "_".join(["compare", *(option.split("=")[1] for option in options.split())])
    workdirs = finished_runs.systems(tmp_path / "runs")
    for workdir in workdirs:
        store(workdir, name, "10crop" if "10crop" in name else "crop")
    monkeypatch.chdir(tmp_path)
    assert main.main(["compare", *workdirs, *options.split()]) == 0
    document = Document((tmp_path / directory_name / "report.html").read_text())
    assert [row[2] for row in document.tables["table-leaderboard"][1:3]] == ["0.0", "0.0"]
    assert not (tmp_path / "report.html").exists()


def test_runs_without_the_protocols_predictions_are_refused_with_the_command(tmp_path, capsys):
    workdirs = finished_runs.systems(tmp_path / "runs")
    store(workdirs[0], "made_up_validation_10crop_step1000.npz", "10crop")
    assert main.main(["compare", *workdirs, "--protocol=10crop", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert f"main.py evaluate --workdir={workdirs[1]} --checkpoint=1000" in error
    assert workdirs[0] not in error
    assert not (tmp_path / "out").exists()


def test_comparing_a_sweep_writes_nothing_into_it(tmp_path, undrawn):
    workdir = record_sweep(tmp_path / "sweep", RUNS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*")}
    assert main.main(["sweep", "--status", f"--workdir={workdir}"]) == 0
    assert main.main(["compare", workdir, f"--out={tmp_path / 'out'}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*")} == before
