"""The list of packages for setuptools; everything else is in pyproject.toml.

The recipes lie in configs/ at the top of a clone and are installed inside the package, where no other project's
`configs` can clash with them. `tool.setuptools` cannot add a mapped directory to the packages that it finds.
"""

from setuptools import find_packages, setup

RECIPES = {"imagenet_repro.configs": "configs"}
RECIPES |= {f"imagenet_repro.configs.{name}": f"configs/{name}" for name in ("ensembles", "sweeps")}

setup(packages=[*find_packages(include=["imagenet_repro*"]), *RECIPES], package_dir=RECIPES)
