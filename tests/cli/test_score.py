"""Tests of `main.py score`."""

import pytest

import main


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


def test_the_other_tasks_of_the_challenge(tmp_path, capsys):
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
    assert "equal 2: neither wins more" in printed
