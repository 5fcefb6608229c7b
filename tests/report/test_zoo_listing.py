"""Tests of the listing that `main.py models` prints."""

import json

import pytest

from imagenet_repro.cli import models
from imagenet_repro.errors import UserError
from imagenet_repro.report import zoo_listing
from imagenet_repro.sweeps.compare import compare


def result(system, top1, top5=0.1, *, name="imagenet2012", split="validation", images=50_000):
    data = {"name": name, "train_split": "train", "eval_split": split}
    wrong = {f"top{k}_wrong": round(error * images) for k, error in ((1, top1), (5, top5))}
    return {
        "system": system,
        "parameters": 1,
        "multiply_adds": 1,
        "spent": {"images": 1, "seconds": 1.0},
        "rates": {"images": images, "top1_error": top1, "top5_error": top5, "cross_entropy": 1.0} | wrong,
        "provenance": {"config": {"budget": "1ep", "data": data}},
    }


def test_our_error_is_the_lowest_on_imagenets_validation_set():
    runs = [
        result("resnet18", 0.31),
        result("resnet18", 0.30, 0.11),
        result("resnet18", 0.20, name="cifar10"),
        result("resnet18", 0.10, split="train[99%:]"),
        result("resnet18", 0.10, split="validation[:50%]", images=25_000),
        result("resnet18", 0.10, split="validation+train[:1]"),
        result("resnet18", 0.10, images=100),
        result("resnet18", 0.10, name="imagenet2012_real"),
        result("resnet18", 0.10, name="imagenet2012_subset/10pct"),
        result("resnet18", 0.10, name="imagenet2012_corrupted/blur_1"),
    ]
    actual = zoo_listing.measured_in(runs)
    assert set(actual) == {"resnet18"}
    assert (actual["resnet18"].top1, actual["resnet18"].top5) == pytest.approx((30.0, 11.0))


def test_smaller_copies_versions_and_other_names_of_a_network_count():
    actual = zoo_listing.measured_in(
        [
            result("alexnet", 0.45),
            result("alexnet_owt", 0.44, name="imagenet2012_side400_q90"),
            result("alexnet", 0.43, name="imagenet2012:5.1.0"),
        ]
    )
    assert {name: one.top1 for name, one in actual.items()} == {"alexnet_owt": pytest.approx(43)}


def save(directory, value):
    directory.mkdir()
    (directory / "result.json").write_text(json.dumps(value))
    return str(directory)


def test_our_errors_are_shown_with_one_network_and_unfinished_runs_are_left_out(tmp_path, capsys):
    (tmp_path / "table.md").write_text("")
    (tmp_path / "unfinished").mkdir()
    run = save(tmp_path / "run", result("alexnet", 0.43, 0.2))
    models.run(pattern="alexnet", runs=[str(tmp_path / "table.md"), str(tmp_path / "unfinished"), run])
    out, err = capsys.readouterr()
    assert "ours          top-1 43.00 %, top-5 20.00 % error" in out
    assert len(err.splitlines()) == 1
    assert "table.md" in err
    assert "unfinished" in err
    assert run not in err


def test_our_errors_are_shown_with_entries_too(tmp_path, capsys):
    models.run(pattern="", runs=[save(tmp_path / "run", result("xrce_2011", 0.4642, 0.2618))])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "XRCE" in line)
    assert line.rstrip().endswith("46.42 / 26.18")


@pytest.mark.parametrize("value", [[], {}, {"system": 3}, result("resnet18", 0.3) | {"rates": {}}])
def test_an_invalid_result_is_reported(value, tmp_path):
    run = save(tmp_path / "run", value)
    for command in (lambda: models.run(pattern="", runs=[run]), lambda: compare([run], str(tmp_path))):
        with pytest.raises(UserError, match=r"run/result\.json is not what train writes: '[a-z.0-9_]+' is"):
            command()


def test_rows_are_ordered_by_year_with_entries_before_networks(capsys):
    zoo_listing.show(["resnet18", "alexnet_owt"], {"resnet18": zoo_listing.MeasuredErrors(30.24, 10.92)})
    lines = capsys.readouterr().out.splitlines()
    years = [int(line[:4]) for line in lines if line[:4].isdigit()]
    assert years == sorted(years)
    of_resnet = next(line for line in lines if "resnet18" in line)
    assert "11.7 M" in of_resnet
    assert "1.81 G" in of_resnet
    assert of_resnet.rstrip().endswith("30.24 / 10.92")
    assert next(i for i, line in enumerate(lines) if "MSRA" in line) < lines.index(of_resnet)


def test_one_networks_name_prints_all_that_is_known_of_it(capsys):
    models.run(pattern="resnet50", runs=[])
    text = capsys.readouterr().out
    for part in ("25,557,032", "4.09 G at 224 px", "arXiv 1512.03385", "zero_init_last=False", "torchvision:resnet50"):
        assert part in text


def test_an_unknown_name_is_refused_and_the_nearest_named():
    with pytest.raises(UserError, match="resnet50"):
        models.run(pattern="resnet5O", runs=[])


def test_networks_with_two_towers_have_a_table_of_their_own(capsys):
    models.run(pattern="clip_vit_base")
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.strip().startswith("clip_vit")] == [
        "clip_vit_base_patch32",
        "clip_vit_base_patch16",
    ]
    assert "--protocol=zeroshot" in out
