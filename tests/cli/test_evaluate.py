"""Tests of `main.py evaluate` without a run; tests/cli/test_train.py has those with one."""

import pytest

import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=absent.pth", "--data.name=cifar10"], "absent.pth: there is no such file of weights"),
        (["--weights=tests/pretrained/files/zip.pth"], "which data set? --data.name=NAME"),
        (["--weights=tests/pretrained/files/zip.pth", "--data.name=cifar10"], "does not state its network"),
    ],
)
def test_an_error_about_weights_is_one_message(arguments, message, refused):
    assert message in refused("evaluate", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x", "--model=resnet18"], "--model belongs to --weights"),
        (["--workdir=x", "--options={}"], "--options belongs to --weights"),
        (["--workdir=x", "--drop_background"], "--drop_background belongs to --weights"),
        (["--weights=x.pth", "--checkpoint=last"], "--checkpoint belongs to --workdir"),
        (["--workdir=x", "--protocol=zeroshot"], "a run on image-text pairs is scored by the texts"),
        (["--weights=x.pth", "--protocol=zeroshot", "--drop_background"], "belongs to weights with a head"),
        (["--weights=x.pth", "--templates=t.txt"], "--templates belongs to --protocol=zeroshot"),
        (["--workdir=x", "--protocol=11crop"], "there is no '11crop'; did you mean '10crop'"),
        (["--workdir=x", "--protocol=crop,10crop", "--out=x.npz"], "--out=x.npz is one file"),
        (["--workdir=x", "--protocol=crop,10crop", "--protocol.flips=False"], "belongs to one protocol"),
    ],
)
def test_options_that_would_be_ignored_are_refused(arguments, message, capsys):
    assert main.main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err
