"""The checker of annotations in tests: beartype, which accepts an int for a float, as PEP 484 does.

It takes the place of `jaxtyping.jaxtyped` in jaxtyping's import hook. That one checks the arguments of a function
twice and compiles two checks whenever a function inside another is defined, which took a fifth of the time of tests
of networks. Here each function has one check, and none if it has no annotations.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
library = jaxtyping.jaxtyped
shapes = library("context")  # within it, the axes of a call's arrays have one size by each name


def jaxtyped(function: Any = None, *, typechecker: Callable = check) -> Any:
    """Return a function that checks its arguments and its result whenever it is called.

    Args:
      function: the function, or another object that jaxtyping checks; None: return a decorator.
      typechecker: the checker of the import hook, which is `check`.
    """
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = jaxtyped(function.__init__)
        return function
    if not isinstance(function, types.FunctionType) or inspect.isgeneratorfunction(function):
        return library(function, typechecker=typechecker)
    if not function.__annotations__:
        return function
    checked = check(_with_known_annotations(function))
    if any("{" in str(annotation) for annotation in function.__annotations__.values()):
        checked = library(checked, typechecker=None)  # these annotations name arguments

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        with shapes:
            return checked(*args, **kwargs)

    return call


def _with_known_annotations(function: types.FunctionType) -> types.FunctionType:
    """Return the function, or a copy with `Any` for annotations whose names are not imported at run time."""
    if not any(map(_has_names_in_text, function.__annotations__.values())):
        return function
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    functools.update_wrapper(copy, function)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = {
        name: _known(hint, function.__globals__) for name, hint in function.__annotations__.items()
    }
    del copy.__wrapped__
    return copy


def _has_names_in_text(annotation: Any) -> bool:
    return isinstance(annotation, str) or (not isinstance(annotation, type) and "'" in str(annotation))


def _known(annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation with the types for their names, or `Any` if one is unknown, as jaxtyping does."""
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["value"]
    except Exception:
        return Any


def install() -> None:
    """Check all functions of the package, which must not have been imported yet."""
    jaxtyping.install_import_hook("imagenet_repro", f"{__name__}.check")
    jaxtyping.jaxtyped = jaxtyped
