"""Tests of `main.py power`."""

import re
import subprocess
import sys

import pytest

from imagenet_repro.cli.main import main
from imagenet_repro.statistics.crossed_effects import Noise, minimal_gap, noise_of, power, summarize
from imagenet_repro.sweeps.compare import gather
from tests import finished_runs
from tests.conftest import REPOSITORY

ASSUMED = Noise(0.002, 0.1, 0.075)


def printed(capsys, *arguments, systems=5, images=50_000, gap=0.3):
    assert main(["power", f"--systems={systems}", f"--images={images}", f"--gap={gap}", *arguments]) == 0
    return capsys.readouterr().out


def test_power_and_the_smallest_gap_are_those_of_the_core(capsys):
    text = printed(capsys, "--seeds=3", gap=0.8)
    assert "assumed: a standard deviation over seeds of 0.2 points; two systems disagree on 10 % of the images" in text
    assert f"a gap of 0.8 points would be found {100 * power(5, 3, 50_000, 0.008, ASSUMED):.0f} % of the time" in text
    assert f"a gap of {100 * minimal_gap(5, 3, 50_000, ASSUMED):.2f} points would be found 80 % of the time" in text


def test_the_simulated_power_of_the_table_is_answered(capsys):
    """The row of results/statistics.md for 5 systems, 3 seeds, 50,000 images and a deviation of 0.1 points."""
    text = printed(capsys, "--seeds=3", "--seed_sd=0.1", gap=0.5)
    assert "found 67 % of the time" in text
    assert "a gap of 0.57 points would be found 80 %" in text


def test_the_seeds_that_are_found_are_the_fewest(capsys):
    text = printed(capsys, "--find_seeds", gap=0.5)
    (seeds,) = map(int, re.findall(r"^(\d+) seeds of each of 5 systems are needed to find a gap of 0\.5", text, re.M))
    assert power(5, seeds, 50_000, 0.005, ASSUMED) >= 0.8 > power(5, seeds - 1, 50_000, 0.005, ASSUMED)


def test_too_few_images_cannot_be_replaced_by_seeds(capsys):
    assert "are too few to find a gap of 0.3 points" in printed(capsys, "--find_seeds", images=1_000)


def test_noise_is_measured_on_finished_runs(tmp_path, capsys):
    workdirs = finished_runs.systems(tmp_path, count=3, seeds=2)
    comparison = gather(workdirs, allow_mixed=False)
    noise = noise_of(summarize([system.wrong(1) for system in comparison.systems]))
    text = printed(capsys, "--seeds=2", "--from", *workdirs)
    assert f"two systems disagree on {100 * noise.disagreement:.3g} % of the images" in text
    assert f"a gap of 0.3 points would be found {100 * power(5, 2, 50_000, 0.003, noise):.0f} % of the time" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--seeds=N is needed, or --find_seeds"),
        (["--seeds=3", "--from", "a", "--seed_sd=1"], "leave out --seed_sd and --disagreement"),
    ],
)
def test_errors(capsys, arguments, message):
    assert main(["power", "--systems=5", "--images=1000", "--gap=1", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_runs_of_one_seed_tell_nothing_of_seeds(tmp_path, capsys):
    workdirs = finished_runs.systems(tmp_path, count=2, seeds=1)
    assert main(["power", "--systems=5", "--images=1000", "--gap=1", "--seeds=3", "--from", *workdirs]) == 2
    assert "and two seeds of one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_jax_is_not_imported():
    code = (
        "import sys\nfrom imagenet_repro.cli.main import main\n"
        "main(['power', '--systems=2', '--seeds=3', '--images=1000', '--gap=1'])\n"
        "sys.exit('imported' if 'jax' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
