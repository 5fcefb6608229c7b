"""Predictions for image files: those of `evaluate` for the same images, and every file that has none is named."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

import main
from imagenet_repro import models, pretrained
from imagenet_repro.config import resolve_config
from imagenet_repro.data import image_files, sources
from imagenet_repro.errors import UserError
from imagenet_repro.runs import predict
from imagenet_repro.runs.evaluate import evaluate
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint, devices
from imagenet_repro.training.systems import NetworkSystem
from tests.scoring import synthetic_sets

CLASSES = ("cat", "dog", "fish")
ROWS = [(f"{number}.png", 3000 * number, {"label": number % 3}) for number in range(11)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the workdir of a run, and a folder with the images of the data set that it is evaluated on."""
    directory = tmp_path_factory.mktemp("data")
    synthetic_sets.write(directory, "animals", "train", ROWS, classes=CLASSES)
    data = {"name": "animals", "data_dir": str(directory), "eval_split": "train", "image_size": 32, "workers": 0}
    model = {"name": "lenet5"}
    config = resolve_config({"batch_size": 8, "precision": "float32", "budget": "1st", "model": model, "data": data})
    workdir = Workdir(tmp_path_factory.mktemp("runs") / "run")
    workdir.lock()
    workdir.record_config(config, {"classes": list(CLASSES)})
    checkpoints = checkpoint.Checkpoints(workdir.checkpoints, 1)
    checkpoints.save(1, NetworkSystem.create(config, 3).initial_state(), {"steps": 1, "seconds": 0.0})
    checkpoints.close()
    photographs = tmp_path_factory.mktemp("photographs")
    for number, record in enumerate(sources.open_split(config.data, "train").records):
        place = photographs / ("deep/er" if number % 2 else ".") / record.id
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(record.image)
    return workdir.path, photographs


@pytest.fixture(autouse=True)
def started(monkeypatch):
    monkeypatch.setattr(devices, "start", lambda: None)


def rows_of(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {os.path.basename(row["file"]): row for row in csv.DictReader(file)}


def test_a_run_predicts_what_evaluate_scores(run, tmp_path, monkeypatch, capsys):
    workdir, photographs = run
    result = evaluate(workdir, out=str(tmp_path / "out.npz"))
    capsys.readouterr()
    scored = predictions.load(tmp_path / "out.npz")
    assert result.predictions == (tmp_path / "out.npz",)
    assert result["crop"].top1.wrong == (scored.top5[:, 0] != scored.label).sum()
    assert result.to_dict()["protocols"][0]["top1"]["images"] == 11
    seen = []
    most_probable = predict.most_probable
    monkeypatch.setattr(predict, "most_probable", lambda *given: seen.append(given[0]) or most_probable(*given))
    table, page = tmp_path / "out.csv", tmp_path / "out.html"
    arguments = [f"--workdir={workdir}", "--top=2", f"--csv={table}", f"--page={page}"]
    assert main.main(["predict", *arguments, str(photographs)]) == 0
    rows = rows_of(table)
    assert list(next(iter(rows.values()))) == [
        *("file", "class_1", "index_1", "probability_1", "class_2", "index_2", "probability_2", "error")
    ]
    paths = sorted(map(str, photographs.rglob("*.png")), key=lambda path: (os.path.dirname(path), path))
    assert [row["file"] for row in rows.values()] == paths
    logits = dict(zip((os.path.basename(path) for path in paths), np.concatenate(seen), strict=False))
    for name, expected, best in zip(scored.id, scored.logits, scored.top5, strict=True):
        np.testing.assert_array_equal(
            predictions.to_float16(logits[name][None])[0], expected
        )  # two batches of 8, as evaluate's
        assert [int(rows[name]["index_1"]), int(rows[name]["index_2"])] == best[:2].tolist()
        assert rows[name]["class_1"] == CLASSES[best[0]]
        shares = np.exp(np.float64(logits[name])) / np.exp(np.float64(logits[name])).sum()
        assert float(rows[name]["probability_1"]) == pytest.approx(shares.max(), rel=1e-5)
    output = capsys.readouterr().out
    assert "11 images in" in output
    assert "images/s" in output
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 11
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_files_that_cannot_be_read_are_named_and_change_the_exit_code(run, tmp_path, capsys):
    workdir, photographs = run
    good = next(photographs.glob("*.png"))
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(30))
    (tmp_path / "text").write_text("not an image")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["cut.jpg", "text", "pipe.png"]
    table, page = tmp_path / "out.csv", tmp_path / "out.html"
    arguments = [f"--workdir={workdir}", f"--csv={table}", f"--page={page}", "--top=9"]
    assert main.main(["predict", *arguments, str(good), *(str(tmp_path / name) for name in names)]) == 4
    captured = capsys.readouterr()
    result = predict.predict(workdir, [good, *(tmp_path / name for name in names)])
    assert (result.paths, result.classes.shape, len(result.left_out)) == ((str(good),), (1, 3), 3)
    ((path, guesses),) = result
    assert path == str(good)
    assert sum(share for _, share in guesses) == pytest.approx(1)
    assert "1 images in" in captured.out
    assert "3 files or folders could not be read and have no prediction:" in captured.err
    assert f"{tmp_path / 'pipe.png'}: it is not a file" in captured.err
    rows = rows_of(table)
    assert [bool(rows[name]["error"]) for name in (good.name, *names)] == [False, True, True, True]
    assert [rows[good.name][f"class_{rank}"] for rank in (1, 2, 3)] == [name for name, _ in guesses]
    assert rows[good.name]["class_3"] in CLASSES  # --top is larger than the number of classes
    assert rows[good.name]["class_4"] == ""
    assert "no known image format" in page.read_text()


def test_weights_predict_with_the_classes_that_the_file_states(run, tmp_path):
    _, photographs = run
    path = tmp_path / "lenet.safetensors"
    pretrained.write(models.create("lenet5", 3, seed=1), path, class_names=CLASSES)
    photo = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, which training ignores
    pixels = np.array(Image.open(next(photographs.glob("*.png"))).convert("RGB"))
    Image.fromarray(pixels).save(photo, quality=100, subsampling=0, exif=exif)
    same = tmp_path / "same.png"
    Image.fromarray(np.array(Image.open(photo))).save(same)
    size = ["--preprocess.size=32", "--data.threads=1", f"--csv={tmp_path / 'out.csv'}"]
    assert main.main(["predict", f"--weights={path}", *size, str(photo), str(same)]) == 0
    rows = rows_of(tmp_path / "out.csv")
    assert {key: rows["turned.jpg"][key] for key in rows["same.png"] if key != "file"} == {
        key: value for key, value in rows["same.png"].items() if key != "file"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir={run}", "nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["--workdir={run}", "{empty}"], "there is no image in"),
        (["--workdir={run}", "--model=lenet5", "{photos}"], "--model belongs to --weights"),
        (["--workdir={run}", "--data.name=x", "{photos}"], "--data.name has no effect on image files"),
        (["--workdir={run}", "--checkpoint=7", "{photos}"], "no checkpoint"),
    ],
)
def test_what_cannot_be_done_is_said(run, tmp_path, capsys, arguments, message):
    workdir, photographs = run
    words = [word.format(run=workdir, photos=photographs, empty=tmp_path) for word in arguments]
    assert main.main(["predict", *words]) == 2
    assert message in capsys.readouterr().err


def test_folders_are_searched_at_any_depth_and_in_order(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "b/.hidden.png", ".git/x.png", "b/notes.txt", "b/c/d/3.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "z").symlink_to(tmp_path)
    found = image_files.find([str(tmp_path), str(tmp_path / "a.webp")])
    assert found.paths == [str(tmp_path / name) for name in ("a.webp", "b/1.png", "b/2.JPG", "b/c/d/3.tif")]
    assert found.n_ignored == 1
    assert found.unreadable == [f"{tmp_path / 'z'}: a link to a folder is not followed; name the folder itself"]
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "x.txt").touch()
    with pytest.raises(UserError, match="1 files have other endings"):
        image_files.find([str(texts)])


def test_ties_go_to_the_lower_class():
    best, shares = predict.most_probable(np.log(np.array([[0.25, 0.5, 0.25]], np.float32)), 3, True)
    assert best.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(shares, [[0.5, 0.25, 0.25]], rtol=1e-6)
    _, scores = predict.most_probable(np.array([[3.0, -1.0]], np.float32), 1, False)
    assert scores.tolist() == [[3.0]]
