"""Locations of configuration files: the current directory, or the recipes that are installed with the package."""

import importlib.util
import os
import sys
import types
from pathlib import Path

RECIPES = "configs"  # the directory of recipes, and the name under which they import each other
INSTALLED_RECIPES = Path(__file__).parents[1] / RECIPES  # setup.py installs them there; a clone has no such directory


def find_recipe(path: str) -> Path | None:
    """Return the file of a configuration, or None if there is none.

    Args:
      path: a path, in which `~` is the home directory; one that begins with `configs/` and does not exist names an
        installed recipe.
    """
    file = Path(os.path.expanduser(path))
    if not os.path.isfile(file) and file.parts[:1] == (RECIPES,):
        file = INSTALLED_RECIPES.joinpath(*file.parts[1:])
    return file if os.path.isfile(file) else None  # False too for a name that no file can have


def make_recipes_importable(file: Path) -> None:
    """Make other recipes importable from a recipe as `configs.NAME`.

    Python itself finds them in a clone, where main.py is beside configs/. For the installed command, they are
    searched for in the recipe's own `configs`, then in that of the current directory, then in that of the package.

    Args:
      file: the recipe.
    """
    roots = [parent for parent in file.absolute().parents if parent.name == RECIPES]
    candidates = (*roots[:1], Path(RECIPES).absolute(), INSTALLED_RECIPES)
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
