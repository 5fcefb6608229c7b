"""Devices that are not here, by the name of their topology: TPU slices (v5e:4x4) and hosts of GPUs (h100:8, h100:2x8).

libtpu describes TPUs, and the CUDA plugin of JAX describes GPUs from a text with their properties. Neither needs a
device or a driver.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

from imagenet_repro.config import parse_text
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.planning.collectives import Interconnect
from imagenet_repro.planning.facts import DeviceFacts, all_devices

# Properties of GPUs that XLA's compiler reads: NVIDIA's CUDA C++ Programming Guide, "Compute Capabilities"; cores,
# clock and L2 cache of the architectures' white papers.
_GPU_DESCRIPTION = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} l2_cache_size: {l2_cache} clock_rate_ghz: {clock}
  device_memory_size: {memory:.0f} shared_memory_per_block_optin: {shared_memory_optin}
  cuda_compute_capability {{ major: {major} }} registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{description}"
"""
_HOPPER = {
    "shared_memory": 233472, "shared_memory_optin": 232448, "cores": 132, "fpus": 128, "clock": 1.98, "major": 9,
}  # fmt: skip
_GPUS: dict[str, dict[str, Any]] = {
    "a100": {
        "shared_memory": 167936, "shared_memory_optin": 166912, "cores": 108, "fpus": 64, "clock": 1.41, "major": 8,
        "l2_cache": 40 * 2**20, "description": "NVIDIA A100-SXM4-80GB",
    },
    "h100": _HOPPER | {"l2_cache": 50 * 2**20, "description": "NVIDIA H100 80GB HBM3"},
    "h200": _HOPPER | {"l2_cache": 60 * 2**20, "description": "NVIDIA H200"},
}  # fmt: skip
EXAMPLES = {"v4": "v4:2x2x1", "v5e": "v5e:4x4", "v5p": "v5p:2x2x1", "v6e": "v6e:4x4"}
FORMS = "v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4, a100:8, h100:8, h200:1, or several hosts of GPUs: h100:2x8"
# By platform: the module that compiles, and the extra that installs it.
_PACKAGES = {"tpu": ("libtpu", "plan-tpu"), "gpu": ("jax_cuda13_plugin", "plan-gpu")}
MEMORY_FRACTION = 0.75  # of a GPU's memory, which JAX reserves where its environment variable says nothing else


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that a step is compiled for.

    Attributes:
      name: as typed, such as "v5e:4x4".
      facts: of each device.
      devices: as JAX describes them.
      sides: devices along each axis of a TPU slice; hosts and devices of each host for GPUs.
    """

    name: str
    facts: DeviceFacts
    devices: Sequence[Any]
    sides: tuple[int, ...]

    @property
    def platform(self) -> str:
        """The platform for `target.compile_for`."""
        return self.facts.platform

    @property
    def interconnect(self) -> Interconnect:
        """The links of a device to the others.

        A TPU has two links along each axis of the slice, one where the axis has two chips, and sends over all of them
        at once. Longer axes are taken to be rings; only those of complete slices are, so this is an optimistic bound.
        """
        facts = self.facts
        if self.platform == "tpu":
            links = sum(min(2, side - 1) for side in self.sides)
            return Interconnect(min(links, facts.links) * facts.link_bandwidth, len(self.devices))
        hosts, each = self.sides
        network = facts.network_bandwidth if hosts > 1 else 0.0
        return Interconnect(facts.links * facts.link_bandwidth, each, network)

    @property
    def memory_share(self) -> float:
        """The part of a device's memory that JAX takes: of a GPU's XLA_PYTHON_CLIENT_MEM_FRACTION, 0.75 by default."""
        if self.platform != "gpu":
            return 1.0
        share = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
        return parse_text(share, float, "XLA_PYTHON_CLIENT_MEM_FRACTION") if share else MEMORY_FRACTION

    @property
    def usable_memory(self) -> float:
        """Bytes of a device that a step may take."""
        return self.memory_share * self.facts.memory


def silence() -> None:
    """Keep JAX on the CPU, and the compilers from printing to the terminal. Call it before JAX is imported."""
    for name, value in {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TPU_SKIP_MDS_QUERY": "1",  # libtpu would ask Google Cloud's metadata server where it runs
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any: it complains without one, and takes that of the topology
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # only one process may use TPUs, but any number may compile for them
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }.items():
        os.environ.setdefault(name, value)


def open_topology(name: str) -> Topology:
    """Return the devices of a topology.

    Raises:
      UserError: the name is not valid, the compiler for such devices is not installed, or it does not know this size.
    """
    facts, sides = parse_topology(name)
    module, extra = _PACKAGES[facts.platform]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"--topology={name} needs the compiler for it, but no {facts.platform.upper()}: pip install"
            f" 'imagenet_repro[{extra}]', or in a clone pip install -r requirements/{extra}.txt"
        )
    silence()
    from jax.experimental import topologies

    try:
        if facts.platform == "tpu":
            # v4's two cores work as one device, as on Google Cloud.
            options = {"chip_config_name": "megacore"} if facts.kind == "v4" else {}
            described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
        else:
            hosts, each = sides
            described = topologies.get_topology_desc(
                platform="cuda", target_config=_describe_gpu(facts), topology=f"1x{hosts}x{each}"
            )
    except Exception as error:  # the plugins raise several types, from C++
        raise UserError(f"--topology={name}: its compiler does not know this size: {_first_line(error)}") from error
    return Topology(name, facts, described.devices, sides)


def parse_topology(name: str) -> tuple[DeviceFacts, tuple[int, ...]]:
    """Return the kind of device of a topology's name, and its sides (hosts and devices of each host for GPUs).

    Raises:
      UserError: the name is not valid.
    """
    known = all_devices()
    kind, colon, size = name.partition(":")
    if kind not in known:
        raise UserError(f"--topology={name}: no device is called '{kind}': {nearest(kind, known)}. Forms: {FORMS}")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5})*", size):
        raise UserError(f"--topology={name}: a size is needed after the colon. Forms: {FORMS}")
    sides = tuple(int(side) for side in size.split("x"))
    facts = known[kind]
    if facts.platform == "gpu":
        if len(sides) > 2:
            raise UserError(f"--topology={name}: GPUs have two numbers at most, hosts and GPUs of each: {kind}:2x8")
        return facts, (1, *sides) if len(sides) == 1 else sides
    dimensions = EXAMPLES[kind].count("x") + 1
    if len(sides) != dimensions:
        raise UserError(f"--topology={name}: a slice of {facts.name} has {dimensions} numbers, as {EXAMPLES[kind]}")
    return facts, sides


def _describe_gpu(facts: DeviceFacts) -> str:
    return _GPU_DESCRIPTION.format(memory=facts.memory, bandwidth=facts.bandwidth, **_GPUS[facts.kind])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
