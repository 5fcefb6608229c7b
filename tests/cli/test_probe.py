"""Tests of the arguments of `main.py probe`."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x", "--model=resnet18"], "--model belongs to --weights"),
        (["--workdir=x", "--options={}"], "--options belongs to --weights"),
        (["--weights=x.pth", "--checkpoint=last"], "--checkpoint belongs to --workdir"),
        (["--workdir=x", "--method=svm"], "--method=svm: there is no 'svm'"),
        (["--weights=x.pth", "--probe.linear.crops=some"], "probe.linear.crops"),
        (["--weights=x.pth"], "which data set? --data.name=NAME"),
        (["--weights=absent.pth", "--data.name=cifar10"], "absent.pth: there is no such file of weights"),
    ],
)
def test_an_error_is_one_message(arguments, message, refused):
    assert message in refused("probe", *arguments)
