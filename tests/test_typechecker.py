"""Tests of the checks that `typechecker.install` adds to functions."""

import dataclasses

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError

from imagenet_repro.models.nn import windows
from imagenet_repro.statistics import intervals
from tests.typechecker import jaxtyped

Vector = Float[np.ndarray, " n"]
ONE, TWO = np.zeros(1), np.zeros(2)


@jaxtyped
def total(x: Vector, y: Vector) -> Vector:
    return x + y


@jaxtyped
def repeated(x: Float[np.ndarray, "1"], n: int) -> Float[np.ndarray, " {n}"]:
    return np.repeat(x, min(n, 3))


@jaxtyped
@dataclasses.dataclass
class Point:
    x: float
    y: Vector


def test_one_name_has_one_size_within_a_call():
    assert total(TWO, TWO).shape == (2,)
    with pytest.raises(TypeCheckError, match="parameter y"):
        total(ONE, TWO)
    assert total(x=ONE, y=ONE).shape == (1,)  # the failed call left no size behind


def test_results_are_checked_against_arguments():
    assert repeated(ONE, 3).shape == (3,)
    with pytest.raises(TypeCheckError, match="return"):
        repeated(ONE, n=4)


def test_fields_are_checked_and_an_int_is_a_float():
    assert Point(1, ONE).x == 1
    with pytest.raises(TypeCheckError):
        Point("1", ONE)


@jaxtyped
def scaled(x: "Unknown", y: "Vector", *, by: "float" = 2) -> "list[Unknown]":  # noqa: F821
    return [x, y * by]


def test_annotations_in_text_are_checked_where_their_names_are_known():
    assert scaled("anything", ONE, by=3)[0] == "anything"
    with pytest.raises(TypeCheckError):
        scaled(ONE, "2")
    assert scaled.__annotations__["y"] == "Vector"


def test_checks_can_be_turned_off():
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert total(ONE, 2)[0] == 2
        assert repeated(ONE, n=4).shape == (3,)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_functions_without_annotations_stay_as_they_are():
    def function(x):
        return x

    assert jaxtyped(function) is function
    assert jaxtyped(typechecker=None)(function) is function


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        windows.Windows(3, 3, 3, 3)
    with pytest.raises(TypeCheckError):
        intervals.student_interval(np.zeros((2, 2)))
