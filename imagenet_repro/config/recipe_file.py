"""Configuration files as Python modules: found, imported by themselves, and called for their settings.

A file may import modules and packages beside it, and other recipes as `configs.NAME`. Each call imports all of them
anew and forgets them afterwards, so that two files of one name, or their helpers, never mix in one process.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from imagenet_repro.config.recipes import ELSEWHERE, RECIPES, find_recipe, make_recipes_importable, recipe_names
from imagenet_repro.config.text import shown
from imagenet_repro.errors import UserError, nearest

DEEPEST = 32  # levels of settings in settings
LONGEST_CAUSE = 500  # characters of an exception's message
MODULE = "imagenet_repro_recipe"  # the name of a file's module
_SHARED = {*sys.stdlib_module_names, "imagenet_repro"}  # names that never mean a file beside the recipe
_OTHER_FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}


def call_get_config(spec: str) -> dict[str, Any]:
    """Return the nested settings of `FILE.py` or `FILE.py:ARGUMENT`, as dictionaries that belong to the caller.

    Raises:
      UserError: there is no such file, it is not Python, it raises an exception, or it returns no settings; the
        message names the file and the line.
    """
    path, argument = split_spec(spec)
    file = _find(spec, path)
    with _own_modules(file):
        get_config = getattr(_import(spec, path, file), "get_config", None)
        if not callable(get_config):
            raise UserError(f"--config={spec}: '{path}' defines no get_config(argument=None)")
        try:
            returned = get_config(argument) if argument else get_config()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's file raises, SystemExit too
            raise UserError(f"--config={spec}: {_refusal(error, path, file, argument)}") from error
        return _read_returned(returned, f"--config={spec}: get_config of '{path}'")


def split_spec(spec: str) -> tuple[str, str]:
    """Return the path and the argument of `FILE.py[:ARGUMENT]`; the longest part that is a file is the path."""
    for end in (len(spec), *(match.start() for match in reversed(list(re.finditer(":", spec))))):
        if find_recipe(spec[:end]) is not None:
            return spec[:end], spec[end + 1 :]
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, re.DOTALL)
    path, _, argument = (match[1], "", match[2] or "") if match else spec.partition(":")
    return path, argument


def _find(spec: str, path: str) -> Path:
    file = find_recipe(path)
    if file is None:
        directory = os.path.expanduser(path)
        if os.path.isdir(directory):
            raise UserError(f"--config={spec}: '{path}' is a directory; name a file in it")
        parent = Path(directory).parent
        existing = [str(file) for file in parent.glob("*.py")] if os.path.isdir(parent) else []
        if not path.startswith(ELSEWHERE):
            existing += [f"{RECIPES}/" * path.startswith(f"{RECIPES}/") + name for name in recipe_names()]
        hint = nearest(path, existing) if existing else f"there is no Python file in '{parent}'"
        raise UserError(f"--config={spec}: there is no file '{path}'; {hint}")
    if file.suffix != ".py":
        form = _OTHER_FORMATS.get(file.suffix.lower())
        problem = f"is {form}, and not a Python file" if form else "is not a Python file; its name must end in .py"
        raise UserError(f"--config={spec}: '{path}' {problem}. A configuration is Python that defines get_config()")
    return file.absolute()


def _import(spec: str, path: str, file: Path) -> ModuleType:
    """Return the module of a file, which `_own_modules` forgets."""
    loader = _SourceLoader(MODULE, str(file))
    module_spec = importlib.util.spec_from_file_location(MODULE, file, loader=loader)
    assert module_spec is not None, "a loader was given"
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[MODULE] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's file raises, SystemExit too
        raise UserError(f"--config={spec}: {_explanation(error, path, file)}") from error
    return module


def _refusal(error: BaseException, path: str, file: Path, argument: str) -> str:
    """Return a sentence about an exception of get_config, with a hint where its argument may be the cause."""
    explanation = _explanation(error, path, file)
    if not isinstance(error, KeyError | ValueError | TypeError):
        return explanation
    given = f"the argument '{argument}'" if argument else "a call without an argument"
    return f"'{path}' does not accept {given} ({explanation}); its docstring says which arguments it accepts"


def _explanation(error: BaseException, path: str, file: Path) -> str:
    """Return the place and the message of an exception of a file or of a module beside it."""
    if isinstance(error, SyntaxError):
        place = path if error.filename in (None, str(file)) else error.filename
        return f"{place}, line {error.lineno} is not Python: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(file.parent)]
    place = path
    if own:
        place = f"{path if own[-1].filename == str(file) else own[-1].filename}, line {own[-1].lineno}"
    try:
        cause = f"{type(error).__name__}: {error}"
    except Exception:  # an exception of the user's whose own text fails
        cause = type(error).__name__
    return f"{place}: {cause[:LONGEST_CAUSE]}"


def _read_returned(returned: Any, name: str) -> dict[str, Any]:
    """Return what get_config returned as nested dictionaries."""
    try:
        settings = _copied(returned)
    except Exception as error:  # the methods of the user's objects raise any type
        raise UserError(f"{name} returned settings that cannot be read: {error}") from error
    if not isinstance(settings, dict):
        result = "None; is a `return` missing?" if settings is None else shown(settings)
        raise UserError(f"{name} must return a dictionary, but returned {result}")
    return settings


def _copied(value: Any, depth: int = 0) -> Any:
    """Return settings whose dictionaries and lists belong to nobody else, since overrides are written into them."""
    if depth > DEEPEST:
        raise ValueError(f"settings are nested in more than {DEEPEST} levels, or contain themselves")
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # ml_collections.ConfigDict
    if isinstance(value, Mapping):
        if (key := next((key for key in value if not isinstance(key, str)), None)) is not None:
            raise TypeError(f"{shown(key)} cannot be a key; a text is needed")
        return {name: _copied(part, depth + 1) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(part, depth + 1) for part in value)
    return value


# --- modules ------------------------------------------------------------------------------------------------------


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """A loader that compiles the source each time: compiled files miss a second change within the same second."""

    def get_code(self, fullname: str) -> Any:
        """Return the code of a module."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Neighbours(importlib.abc.MetaPathFinder):
    """A finder of the modules and packages in a directory, before any installed ones of the same names."""

    def __init__(self, directory: Path):
        self._directory = str(directory)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module or package in the directory; None for any other."""
        if path is not None or fullname in (*_SHARED, RECIPES):
            return None
        spec = importlib.machinery.FileFinder(self._directory, (_SourceLoader, [".py"])).find_spec(fullname)
        return spec if spec is not None and spec.loader is not None else None


@contextlib.contextmanager
def _own_modules(file: Path) -> Iterator[None]:
    """Let a file import its neighbours and other recipes, and forget all of them at the end of the block."""
    directory, before, search_path = file.parent, dict(sys.modules), list(sys.path)
    hiding = {top for top in {name.partition(".")[0] for name in before} if _hides_neighbour(top, directory)}
    for name in before:
        if name.partition(".")[0] in (MODULE, RECIPES, *hiding):
            del sys.modules[name]
    finder = _Neighbours(directory)
    sys.meta_path.insert(0, finder)
    sys.path.append(str(directory))  # for packages without __init__.py
    sys.path_importer_cache.pop(str(directory), None)
    make_recipes_importable(file)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = search_path
        for name, module in list(sys.modules.items()):
            top = name.partition(".")[0]
            if top in (MODULE, RECIPES, *hiding) or (name not in before and _is_neighbour(module, top, directory)):
                del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


def _is_neighbour(module: ModuleType | None, top: str, directory: Path) -> bool:
    """Return whether a module is in a directory, or in a package there."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    paths = [Path(place) for place in places if isinstance(place, str)]
    return top not in _SHARED and any(
        path == directory / f"{top}.py" or path.is_relative_to(directory / top) for path in paths
    )


def _hides_neighbour(top: str, directory: Path) -> bool:
    """Return whether a module that is imported already has the name of another one in a directory."""
    if top in _SHARED or _is_neighbour(sys.modules.get(top), top, directory):
        return False
    return os.path.isfile(directory / f"{top}.py") or os.path.isfile(directory / top / "__init__.py")
