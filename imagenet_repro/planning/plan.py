"""The plan of a run on a topology: memory, operations, traffic, messages, and the bound that follows from them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from imagenet_repro.config import AnyConfig, Config, ContrastiveConfig
from imagenet_repro.errors import UserError
from imagenet_repro.planning import hlo
from imagenet_repro.planning.collectives import find_collectives, summarise
from imagenet_repro.planning.compiled_step import CompiledStep, abstract_step, compile_step
from imagenet_repro.planning.topology import Topology, open_topology
from imagenet_repro.planning.traffic import Traffic, count_traffic, executed
from imagenet_repro.training.systems.network import with_image_size

LIMITS = ("arithmetic", "memory traffic", "interconnect")


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a step, in seconds: each part alone, at the device's published rates.

    Attributes:
      arithmetic: the operations of the traced step at the peak of its precision.
      traffic: the bytes between the chip and its main memory at the memory's bandwidth.
      interconnect: the collectives over the links.
    """

    arithmetic: float
    traffic: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The least time of a step: that of the slowest part, as if the others ran at the same time."""
        return max(self.arithmetic, self.traffic, self.interconnect)

    @property
    def limiter(self) -> str:
        """The slowest part: one of `LIMITS`."""
        return LIMITS[int(np.argmax([self.arithmetic, self.traffic, self.interconnect]))]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The needs and the bound of one configuration on one topology.

    Attributes:
      topology: the devices.
      network: the network's name.
      parallel: the way in which the step is spread.
      precision: of the computation.
      batch_size: images of a step over all devices.
      image_size: pixels.
      parameters: the number of parameters.
      level: the optimisation level of the compilation; empty: the default.
      flops: floating point operations of a step on one device.
      compiled: what the compiler says.
      tried: the bytes needed with each rematerialisation that was compiled; the last is the plan's.
      traffic: the kernels and their bytes; None where the step does not fit.
      collectives: `count` and `bytes` of each kind.
      aliases: the number of results that take a donated buffer.
      bound: the least time of a step; None where the step does not fit.
      estimated_seconds: the time of a step by the cycles that a TPU's compiler expects of each kernel; None where it
        says nothing (GPU).
    """

    topology: Topology
    network: str
    parallel: str
    precision: str
    batch_size: int
    image_size: int
    parameters: int
    level: str
    flops: float
    compiled: CompiledStep
    tried: dict[str, int]
    traffic: Traffic | None = None
    collectives: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    aliases: int = 0
    bound: Bound | None = None
    estimated_seconds: float | None = None

    @property
    def memory(self) -> float:
        """The bytes of a device that a step may take: the compiler's limit, where it says one."""
        return self.compiled.memory_limit or self.topology.usable_memory

    @property
    def fits(self) -> bool:
        """Whether the step fits into a device's memory."""
        return self.compiled.is_compiled and self.compiled.needed_bytes <= self.memory

    @property
    def images_per_second(self) -> float | None:
        """The bound over all devices; None where there is no program."""
        return self.batch_size / self.bound.seconds if self.bound else None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values; seconds, bytes of one device, images/s over all devices."""
        compiled = dataclasses.asdict(self.compiled)
        del compiled["text"]
        result: dict[str, Any] = {
            "topology": self.topology.name,
            "device": self.topology.facts.name,
            "devices": len(self.topology.devices),
            **{
                key: getattr(self, key)
                for key in ("network", "parallel", "precision", "batch_size", "image_size", "parameters", "level")
            },
            "fits": self.fits,
            "memory": self.memory,
            "flops": self.flops,
            "needed_bytes": self.compiled.needed_bytes,
            "tried": self.tried,
            **compiled,
            "collectives": self.collectives,
            "aliases": self.aliases,
        }
        if self.traffic and self.bound:
            result |= {
                "traffic_bytes": self.traffic.total_bytes,
                "unknown_loops": len(self.traffic.unknown_loops),
                "arithmetic_seconds": self.bound.arithmetic,
                "traffic_seconds": self.bound.traffic,
                "interconnect_seconds": self.bound.interconnect,
                "limiter": self.bound.limiter,
                "estimated_seconds": self.estimated_seconds,
                "images_per_second": self.images_per_second,
            }
        return result


def plan_step(
    config: AnyConfig,
    topology: Topology | str,
    *,
    num_classes: int = 1000,
    level: str = "",
    options: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda stage: None,
) -> Plan:
    """Compile the training step of a configuration for a topology, and return what it needs and can reach.

    Nothing is run and no parameter is allocated.

    Args:
      config: the configuration of a network's run; its `parallel` says how the step is spread.
      topology: the devices, or their name.
      num_classes: the number of classes of the data set.
      level: as for `compile_step`.
      options: more options of XLA.
      say: called with the name of each stage when it begins: "tracing", "compiling", "counting".

    Where a step does not fit, a network that leaves rematerialisation open is compiled with more of it, as in a run.

    Raises:
      UserError: the topology or the configuration is not valid, or the step is one of hand-made features.
    """
    config = with_image_size(require_network(config))
    if isinstance(topology, str):
        topology = open_topology(topology)
    step = abstract_step(config, num_classes, topology)
    tried: dict[str, int] = {}
    for policy in step.policies:  # as a run does: fitting.compile_training
        compiled = compile_step(step, topology, policy, level=level, options=options, say=say)
        tried[policy] = compiled.needed_bytes
        if compiled.is_compiled and compiled.needed_bytes <= topology.usable_memory:
            break
    say("counting")
    flops = step.flops(compiled.remat) / len(topology.devices)
    plan = Plan(
        topology=topology,
        network=config.model.name,
        parallel=config.parallel,
        precision=config.precision,
        batch_size=config.batch_size,
        image_size=config.data.image_size,
        parameters=sum(int(np.prod(x.shape)) for x in step.system.network.params.values()),
        level=level,
        flops=flops,
        compiled=compiled,
        tried=tried,
    )
    return _with_bound(plan) if compiled.is_compiled else plan


def require_network(config: AnyConfig) -> Config:
    """Return `config` if its training step can be planned.

    Raises:
      UserError: it describes a system of hand-made features or two towers, or computes in float64.
    """
    if not isinstance(config, Config):
        raise UserError(f"{config.system_name} is a system of hand-made features; only networks can be planned")
    if isinstance(config, ContrastiveConfig):
        raise UserError(f"{config.system_name} has two towers; only networks with one can be planned")
    if config.precision == "float64":
        raise UserError("config.precision=float64 is for the CPU; plan with bfloat16 or float32")
    return config


def _with_bound(plan: Plan) -> Plan:
    """Return the plan with what is counted in the compiled program."""
    facts, devices = plan.topology.facts, len(plan.topology.devices)
    module = hlo.parse(plan.compiled.text)
    traffic = count_traffic(module)
    collectives = find_collectives(module, devices)
    bound = Bound(
        arithmetic=plan.flops / facts.peak(plan.precision),
        traffic=traffic.total_bytes / facts.bandwidth,
        interconnect=sum(map(plan.topology.interconnect.seconds, collectives)),
    )
    cycles = sum(times * instruction.cycles for _, instruction, times in executed(module))
    return dataclasses.replace(
        plan,
        traffic=traffic,
        collectives=summarise(collectives),
        aliases=module.aliases,
        bound=bound,
        estimated_seconds=cycles / facts.clock if cycles and facts.clock else None,
    )
