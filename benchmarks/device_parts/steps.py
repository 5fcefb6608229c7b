"""The timed training steps of networks, and those of PyTorch's networks."""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from benchmarks import network_steps
from benchmarks.device_parts import bound
from benchmarks.device_parts.bench import Bench, MeasuredNetwork, Part
from benchmarks.device_parts.errors import LeftOutError
from benchmarks.pytorch_steps import PeerStep
from imagenet_repro.models.nn import target
from imagenet_repro.training import parallel
from imagenet_repro.training.systems import NetworkSystem

HALVINGS = 4  # of a batch that does not fit into memory
FAST, DETERMINISTIC = "fast", "deterministic"


class PreparedStep:
    """A network's training step: traced, its programs compiled ahead, its state on the host until it is measured.

    Args:
      bench: the shared state.
      network: the network.
      variants: which programs are compiled: `FAST`, `DETERMINISTIC` or both; only a GPU has two.
      traced_for: the platform whose forms of layers are traced; empty: the devices'.
      settings: more settings of the configuration.
    """

    def __init__(
        self,
        bench: Bench,
        network: MeasuredNetwork,
        variants: Iterable[str] = (FAST,),
        *,
        traced_for: str = "",
        **settings: Any,
    ):
        self.bench, self.network, self.settings = bench, network, settings
        self.variants = tuple(variants) if bench.platform == "gpu" else (FAST,)
        self._traced_for = traced_for or bench.platform
        self._prepare(network.batch * jax.device_count())

    def _prepare(self, batch: int) -> None:
        bench, network = self.bench, self.network
        self.batch = batch
        config = network_steps.create_config(
            network.name, network.image_size, batch, bench.scale.precision, network.options, **self.settings
        )
        with bench.matmul_precision(config.precision), target.compile_for(self._traced_for):
            self.system = NetworkSystem.create(config, 1000)
            state = self.system.initial_state()
            spread = self.system.spread
            device_batch = spread.put_batch(network_steps.resident_batch(batch, network.image_size))
            lowered = spread.lower_training(self.system.train_step(1), state, device_batch)
        self.host_state = jax.device_get(state)
        options = {
            f"{network.title}, {variant}": parallel.create(
                config.parallel, deterministic=variant == DETERMINISTIC
            ).compiler_options
            for variant in self.variants
        }
        futures = bench.compiler.submit_variants(lowered, options)
        self._programs: dict[str, Future] = dict(zip(self.variants, futures.values(), strict=True))

    def program(self, variant: str) -> Any:
        """Return a compiled program, as soon as it is compiled; raise TimeoutError as `measure`."""
        return self.bench.result_of(self._programs[variant])

    def measure(self, variant: str, seconds: float, kind: str = "step", **values: Any) -> float:
        """Time one program, write the result, and return the images per second; halve a batch that does not fit.

        Raises:
          LeftOutError: not even a sixteenth of the batch fits.
          TimeoutError: it was not compiled in time.
        """
        for _ in range(HALVINGS):
            try:
                return self._measure(variant, seconds, kind, values)
            except Exception as error:
                if not network_steps.is_out_of_memory(error):
                    raise
                self.bench.record("out_of_memory", network=self.network.title, variant=variant, batch=self.batch)
            self._prepare(self.batch // 2)  # outside of the handler, whose traceback holds the arrays
        raise LeftOutError(f"{self.network.title} does not fit with a batch of {self.batch}")

    def _measure(self, variant: str, seconds: float, kind: str, values: dict[str, Any]) -> float:
        bench, spread = self.bench, self.system.spread
        compiled = self.program(variant)
        state = spread.put_state(self.host_state)
        batch = spread.put_batch(network_steps.resident_batch(self.batch, self.network.image_size))
        with bench.timing():
            rate, state = network_steps.measure(compiled, state, batch, self.batch, seconds)
        bench.rates[self.network.title, variant] = rate.median
        limit: dict[str, Any] = {}
        with bench.attempt("the share of the bound"):
            limit = bound.compute(bench, compiled, self.network, self.batch)
        bench.record(
            kind,
            network=self.network.title,
            variant=variant,
            image_size=self.network.image_size,
            batch=self.batch,
            precision=bench.scale.precision,
            images_per_second=rate.median,
            spread=rate.spread,
            milliseconds=1e3 * self.batch / rate.median,
            **memory(compiled),
            **limit,
            **values,
        )
        share = f", {100 * rate.median / limit['bound_images_per_second']:.0f} % of the bound" if limit else ""
        bench.say(f"{self.network.title}, {variant}, batch {self.batch}: {rate.median:,.1f} images/s{share}")
        return rate.median


def memory(compiled: Any) -> dict[str, int]:
    """Return the bytes that a program needs on a device, and the highest use of the device so far."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return {}
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    needed = getattr(sizes, "peak_memory_in_bytes", 0) or held + sizes.temp_size_in_bytes
    statistics = jax.local_devices()[0].memory_stats() or {}
    used = {"peak_bytes_so_far": statistics["peak_bytes_in_use"]} if "peak_bytes_in_use" in statistics else {}
    return {"program_bytes": int(needed), **used}


class NetworkRates(Part):
    """The rates of some networks' steps.

    Args:
      name, title: as of `Part`.
      choose: returns the networks of a scale.
      variants: as of `PreparedStep`.
      both_attentions: whether a ViT is also measured with XLA's attention, where it has another.
    """

    compiles = True

    def __init__(self, name: str, title: str, choose: Any, variants: Iterable[str] = (FAST,), both_attentions=False):
        self.name, self.title, self._choose, self._variants = name, title, choose, tuple(variants)
        self._both_attentions = both_attentions
        self._prepared: list[PreparedStep] = []

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        networks = self._networks(bench)
        variants = len(self._variants) if bench.platform == "gpu" else 1
        programs = variants * len(networks)
        tracing = len(networks) * bench.scale.trace_seconds
        return tracing + bench.compile_time(programs) + programs * (bench.scale.seconds + 1)

    def _networks(self, bench: Bench) -> list[tuple[MeasuredNetwork, str]]:
        """Return the networks, each with the platform for which it is traced."""
        chosen = [(network, "") for network in self._choose(bench.scale)]
        if self._both_attentions and bench.platform == "gpu":
            # Traced as for a TPU, attention has XLA's form and not cuDNN's.
            vits = [network for network, _ in chosen if network.name.startswith("vit")]
            chosen += [(dataclasses.replace(n, label=f"{n.title}, XLA's attention"), "tpu") for n in vits]
        return chosen

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        for network, platform in self._networks(bench):
            bench.say(f"tracing {network.title}")
            with bench.attempt(network.title):
                self._prepared.append(PreparedStep(bench, network, self._variants, traced_for=platform))

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        while self._prepared:
            prepared = self._prepared.pop(0)
            for variant in prepared.variants:
                with bench.attempt(f"{prepared.network.title}, {variant}"):
                    prepared.measure(variant, bench.scale.seconds)


class PeerRates(Part):
    """The rates of the same networks in PyTorch, and their ratios.

    Args:
      name, title: as of `Part`.
      choose: returns the networks of a scale.
      compiled: whether `torch.compile` compiles them on a GPU.
    """

    def __init__(self, name: str, title: str, choose: Any, *, compiled: bool):
        self.name, self.title, self._choose, self._compiled = name, title, choose, compiled
        self._requests: list[tuple[MeasuredNetwork, PeerStep, Future]] = []

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        compilation = 15.0 if self._compiled and bench.platform == "gpu" else 2.0  # more, but beside ours
        count = len(self._choose(bench.scale)) if bench.peer else 0
        return count * (compilation + bench.scale.seconds + 1)

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        if not bench.peer:
            return
        for network in self._choose(bench.scale):
            batch = network.batch  # one process of PyTorch uses one device
            precision = bench.scale.precision
            step = network_steps.peer_step(network.name, network.image_size, batch, precision, compiled=self._compiled)
            self._requests.append((network, step, bench.peer.prepare(step)))

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        if not bench.peer:
            raise LeftOutError("PyTorch is not installed; --peer_python names an interpreter that has it")
        for network, step, prepared in self._requests:
            with bench.attempt(f"{network.title} in PyTorch"):
                seconds = bench.result_of(prepared)["seconds"]
                bench.compiler.wait(bench.box_left)
                answer = bench.result_of(bench.peer.measure(step, bench.scale.seconds))
                self._write(bench, network, step, answer | {"prepared_in_seconds": seconds})

    def _write(self, bench: Bench, network: MeasuredNetwork, step: PeerStep, answer: dict[str, Any]) -> None:
        rate = answer.pop("images_per_second")
        ours = {v: bench.rates.get((network.title, v)) for v in (FAST, DETERMINISTIC)}
        ratios = {f"ratio_{v}": r / jax.device_count() / rate for v, r in ours.items() if r}
        bench.record(
            "peer",
            network=network.title,
            compiled=self._compiled and bench.platform == "gpu",
            image_size=step.image_size,
            batch=step.batch,
            precision=step.precision,
            images_per_second=rate,
            **ratios,
            **answer,
        )
        ratio = f"; ours is {ratios[f'ratio_{FAST}']:.2f} times as fast" if f"ratio_{FAST}" in ratios else ""
        bench.say(f"{network.title} in PyTorch: {rate:,.1f} images/s{ratio}")


class AugmentationRates(Part):
    """The rate of the main network's step with none of the augmentations, with RandAugment, and with mixup."""

    name, title = "augmentation", "the step with RandAugment and mixup"
    compiles = True
    _SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
        ("none", {"flip": False}),
        ("randaugment", {"policy": {"name": "randaugment"}}),
        ("randaugment_timm", {"policy": {"name": "randaugment_timm"}}),
        ("mixup", {"mixup": 0.2}),
    )

    def __init__(self):
        self._prepared: list[tuple[str, PreparedStep]] = []

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        count = len(self._SETTINGS)
        return count * (bench.scale.trace_seconds + bench.scale.seconds + 1) + bench.compile_time(count)

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        for label, settings in self._SETTINGS:
            network = dataclasses.replace(bench.scale.main, label=f"{bench.scale.main.name}, {label}")
            bench.say(f"tracing {network.title}")
            with bench.attempt(network.title):
                self._prepared.append((label, PreparedStep(bench, network, augment=settings)))

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        for label, prepared in self._prepared:
            with bench.attempt(prepared.network.title):
                prepared.measure(FAST, bench.scale.seconds, kind="augmentation", augmentation=label)


def equal_bits(one: Any, other: Any) -> bool:
    """Return whether two trees of arrays have the same bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
