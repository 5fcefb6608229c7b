"""Locations of configuration files: the current directory, or the recipes that are installed with the package."""

import importlib.util
import os
import sys
import types
from pathlib import Path

RECIPES = "configs"  # the directory of recipes, and the name under which they import each other
INSTALLED_RECIPES = Path(__file__).parents[1] / RECIPES  # setup.py installs them there; a clone has no such directory
ELSEWHERE = (".", "/", "~")  # the first letters of a path that names no recipe of the package
CLONED_RECIPES = Path(__file__).parents[2] / RECIPES


def package_recipes() -> Path:
    """Return the directory of the recipes that belong to the package, installed or in a clone."""
    return INSTALLED_RECIPES if INSTALLED_RECIPES.is_dir() else CLONED_RECIPES


def recipe_names() -> list[str]:
    """Return the names of the package's recipes, such as `resnet.py` and `sweeps/demo.py`."""
    directory = package_recipes()
    files = (path.relative_to(directory) for path in directory.rglob("*.py"))
    return sorted(path.as_posix() for path in files if path.name != "__init__.py")


def find_recipe(path: str) -> Path | None:
    """Return the file of a configuration, or None if there is none.

    Args:
      path: a path, in which `~` is the home directory. One that does not exist is the name of a recipe of the
        package, from any directory, with or without `configs/` before it.
    """
    file = Path(os.path.expanduser(path))
    if not os.path.isfile(file) and not path.startswith(ELSEWHERE):
        parts = file.parts[1:] if file.parts[:1] == (RECIPES,) else file.parts
        file = package_recipes().joinpath(*parts)
    return file if os.path.isfile(file) else None  # False too for a name that no file can have


def make_recipes_importable(file: Path) -> None:
    """Make other recipes importable from a recipe as `configs.NAME`.

    Python itself finds them in a clone, where main.py is beside configs/. For the installed command, they are
    searched for in the recipe's own `configs`, then in that of the current directory, then in that of the package.

    Args:
      file: the recipe.
    """
    roots = [parent for parent in file.absolute().parents if parent.name == RECIPES]
    candidates = (*roots[:1], Path(RECIPES).absolute(), package_recipes())
    directories = [str(directory) for directory in dict.fromkeys(candidates) if directory.is_dir()]
    if directories and directories[0] not in _search_path():
        recipes = types.ModuleType(RECIPES)
        recipes.__path__ = directories
        sys.modules[RECIPES] = recipes


def _search_path() -> list[str]:
    """Return the directories in which Python looks for the modules of `configs`."""
    if RECIPES in sys.modules:
        return [str(Path(directory).absolute()) for directory in getattr(sys.modules[RECIPES], "__path__", ())]
    spec = importlib.util.find_spec(RECIPES)
    locations = (spec.submodule_search_locations if spec else None) or ()
    return [str(Path(directory).absolute()) for directory in locations]
