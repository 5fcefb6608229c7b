import pytest

from imagenet_repro.cli.main import main
from imagenet_repro.planning import command


def run(*arguments):
    return main(["plan", "--config=configs/resnet.py:18", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=h300:1"], "no device is called 'h300': did you mean 'h"),
        (["--topology=v5e:4"], "a slice of TPU v5e has 2 numbers, as v5e:4x4"),
        (["--topology=h200:1", "--efficiency=1.5"], "--efficiency=1.5: a share of the bound in (0, 1] is needed"),
        (["--topology=h200:1", "--config.precision=float64"], "config.precision=float64 is for the CPU"),
        (["--topology=h200:1", "--config.data.name=cifar10"], "say its size with --num_classes and --num_examples"),
    ],
)
def test_errors(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_hand_made_features_cannot_be_planned(capsys):
    assert main(["plan", "--config=configs/xrce_2011.py", "--topology=h200:1"]) == 2
    assert "xrce_2011 is a system of hand-made features; only networks can be planned" in capsys.readouterr().err


def test_options_reach_the_plan(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command, "plan_run", lambda *arguments: calls.append(arguments) or 0)
    file = str(tmp_path / "plan.json")
    assert run("--topology=v5e:2x2", "--level=O1", "--price=2", f"--json={file}", "--config.batch_size=512") == 0
    ((config, topology, options),) = calls
    assert (config.batch_size, topology) == (512, "v5e:2x2")
    assert options == command.PlanOptions(level="O1", price=2.0, json_file=file)
