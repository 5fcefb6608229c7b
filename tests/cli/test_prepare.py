"""Tests of `main.py prepare`."""

import pytest

import main


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("quality=5", "--fractal.quality: no such key; valid: categories, "),
        ("catgories=5", "--fractal.catgories: no such key; did you mean 'categories'?"),
        ("size=abc", "--fractal.size: 'abc' is not valid; a whole number is needed"),
    ],
)
def test_unknown_keys_and_values_of_fractals_are_refused(option, message, tmp_path, capsys):
    assert main.main(["prepare", "fractal", f"--data_dir={tmp_path}", f"--fractal.{option}"]) == 2
    assert message in capsys.readouterr().err
