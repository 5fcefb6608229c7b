"""Networks: a module for each architecture family, a registry of all variants, and their shared layers in `nn`.

`create(name)` makes a network, `abstract(name)` makes one that holds shapes only, `names()` lists all of them, and
`spec(name)` describes one. Every network is built of `features`, `pool` and `head` (`Network`).
"""

from imagenet_repro.models.nn.network import Network, WithAuxiliary
from imagenet_repro.models.registry import (
    SPECS,
    abstract,
    aliases,
    build,
    canonical,
    create,
    names,
    published_names,
    spec,
)
from imagenet_repro.models.spec import Origin, Preprocessing, Spec

__all__ = [
    "SPECS",
    "Network",
    "Origin",
    "Preprocessing",
    "Spec",
    "WithAuxiliary",
    "abstract",
    "aliases",
    "build",
    "canonical",
    "create",
    "names",
    "published_names",
    "spec",
]
