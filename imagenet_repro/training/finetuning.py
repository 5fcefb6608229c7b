"""Parameters that a run trains: frozen parameters, low-rank adapters, and a head that starts at zero.

Every check is made before anything is compiled.
"""

import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator

import jax.numpy as jnp
from flax import nnx

from imagenet_repro.config import Config, Lora, Train
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn import lora
from imagenet_repro.models.nn.layers import Conv, Linear
from imagenet_repro.models.nn.network import Network, tensor_name
from imagenet_repro.models.parameter_names import head_names

ALL_BUT_HEAD = "all_but_head"
FREEZE, TARGETS = "config.train.freeze", "config.train.lora.targets"


def prepare(network: Network, config: Config) -> None:
    """Start the head at zero and attach adapters, in place, as `config.train` says.

    Raises:
      UserError: a target of LoRA matches no matrix, or belongs to the head.
    """
    if config.train.zero_head:
        zero_head(network)
    attach_adapters(network, config.train.lora, config.seed)


def zero_head(network: Network) -> None:
    """Set the weights and biases of every head to zero, in place; shapes stay shapes."""
    names = head_names(network.known_origin)
    for path, variable in nnx.to_flat_state(nnx.state(network, nnx.Param)):
        value = variable.get_raw_value()
        if tensor_name(path) in names and isinstance(value, jnp.ndarray):
            variable.set_value(jnp.zeros_like(value))


def attach_adapters(network: Network, spec: Lora, seed: int) -> None:
    """Give the matrices that `spec` names adapters, in place.

    Raises:
      UserError: a target matches no matrix, or belongs to the head.
    """
    if not spec.rank:
        return
    modules, matrices = lora.modules(network), lora.matrices(network)
    heads = {name.rpartition(".")[0] for name in head_names(network.known_origin)}
    named: dict[str, Conv | Linear] = {}
    for target in spec.targets:
        matching = [name for name in modules if _ends_with(name, target)]
        fitting = {name: matrices[name] for name in matching if name in matrices and name not in heads}
        if not fitting:
            raise UserError(_unfit_target(target, matching, modules, [name for name in matrices if name not in heads]))
        named |= fitting
    if not named:
        raise UserError(f"{TARGETS}: LoRA of rank {spec.rank} needs the name of at least one matrix")
    lora.attach(
        {name: matrices[name] for name in matrices if name in named}, rank=spec.rank, alpha=spec.alpha, seed=seed
    )


def _unfit_target(
    target: str, matching: Collection[str], modules: dict[str, nnx.Module], matrices: Collection[str]
) -> str:
    """Return a message about a target of LoRA that is no matrix with adapters."""
    if not matching:
        endings = {".".join(name.split(".")[-parts:]) for name in matrices for parts in (1, 2)}
        return f"{TARGETS}: '{target}' matches no matrix; {near(target, {*matrices, *endings})}"
    name = next(iter(matching))
    module = modules[name]
    if not isinstance(module, Conv | Linear):
        inside = [other for other in matrices if other.startswith(f"{name}.")]
        hint = f"; below it, '{inside[0]}' is one" if inside else ""
        return f"{TARGETS}: '{name}' is a {type(module).__name__} and not a matrix{hint}"
    if isinstance(module, Conv) and module.groups > 1:
        return f"{TARGETS}: '{name}' is a convolution of {module.groups} groups, which is not one matrix"
    return f"{TARGETS}: '{name}' is the head, which is trained whole; name matrices below it"


def frozen_names(train: Train, network: nnx.Module, names: Collection[str]) -> frozenset[str]:
    """Return the names of the parameters that no step changes.

    Args:
      train: the section `train`.
      network: the network, with its adapters; only a `Network` has a head for `all_but_head`.
      names: of all of its parameters.

    Raises:
      UserError: a pattern matches no parameter, or nothing would be trained.
    """
    patterns = train.freeze
    has_adapters = train.lora.rank > 0
    if has_adapters and not patterns:
        patterns = (ALL_BUT_HEAD,)
    adapters = {name for name in names if name.endswith(lora.NAMES)}
    published = [name for name in names if name not in adapters]
    frozen: set[str] = set()
    for pattern in patterns:
        matching = _matching(pattern.removeprefix("!"), published, network)
        frozen = frozen - matching if pattern.startswith("!") else frozen | matching
    frozen |= {f"{name.rpartition('.lora.')[0]}.weight" for name in adapters}
    if len(frozen) == len(names):
        raise UserError(f"{FREEZE}: {', '.join(patterns)} leaves nothing to train; '{ALL_BUT_HEAD}' trains the head")
    return frozenset(frozen)


def _matching(pattern: str, names: Collection[str], network: nnx.Module) -> set[str]:
    if pattern == ALL_BUT_HEAD and isinstance(network, Network):
        return set(names) - head_names(network.known_origin)
    matching = {name for name in names if any(fnmatch.fnmatchcase(part, pattern) for part in prefixes(name))}
    if not matching:
        valid = {part for name in names for part in prefixes(name)}
        raise UserError(f"{FREEZE}: '{pattern}' matches no parameter; {near(pattern, {*valid, ALL_BUT_HEAD})}")
    return matching


def check_head(replaced: Iterable[str], frozen: Collection[str]) -> None:
    """Raise UserError where a head that the file of weights does not fit starts afresh and is frozen."""
    stuck = [name for name in replaced if name in frozen]
    if stuck:
        raise UserError(
            f"{FREEZE}: the head ({', '.join(stuck)}) is frozen, and that of config.model.weights does not fit these"
            f" classes, so it would keep its initial values; '{ALL_BUT_HEAD}' freezes everything else"
        )


def near(name: str, valid: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest valid name, or the first parts of all."""
    valid = set(valid)
    answer = nearest(name, valid)
    if answer.startswith("did you"):
        return answer
    return f"valid: {', '.join(sorted({re.split(r'[.]', each)[0] for each in valid}))}"


def prefixes(name: str) -> Iterator[str]:
    """Yield the names of the modules that a parameter is in, from the outermost, and its own."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _ends_with(name: str, pattern: str) -> bool:
    pattern = pattern.removesuffix(".weight")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")
