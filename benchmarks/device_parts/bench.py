"""The common base of the parts of the measurement: results, time, compiler, PyTorch, and the sizes of networks."""

import abc
import contextlib
import dataclasses
import shutil
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax

from benchmarks.device_parts.compiler import Compiler
from benchmarks.device_parts.errors import LeftOutError
from benchmarks.device_parts.peer import Peer
from benchmarks.device_parts.results import Results


@dataclasses.dataclass(frozen=True)
class MeasuredNetwork:
    """A network as it is measured.

    Attributes:
      name: the network's.
      image_size: side of the images in pixels.
      batch: images of a step on each device.
      options: options of the network.
      label: its name in the results, where `name` alone is not enough.
    """

    name: str
    image_size: int
    batch: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    label: str = ""

    @property
    def title(self) -> str:
        """The name in the results."""
        return self.label or self.name


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of everything that is measured, and how long its pieces take, for estimates.

    Attributes:
      name: "full", "small" or "tiny".
      precision: of the timed steps.
      seconds: length of one measurement.
      matrix: rows of the square matrices of the product.
      copied: numbers of the float32 array of the copy.
      first: networks whose float32 step is compared with the CPU's first.
      second: the others that are compared.
      main: the network that is measured most closely.
      others: the networks that follow it, against compiled PyTorch.
      rest: further networks, against eager PyTorch.
      image_side: side in pixels of the images that are drawn for the loader.
      images: their number.
      feature_images: images of 64 pixels that are encoded as Fisher vectors in one turn.
      compile_seconds: of one program on one core.
      trace_seconds: to build, initialise and trace one network.
      margin: seconds over twice its estimate that a part may take.
    """

    name: str
    precision: str
    seconds: float
    matrix: int
    copied: int
    first: tuple[MeasuredNetwork, ...]
    second: tuple[MeasuredNetwork, ...]
    main: MeasuredNetwork
    others: tuple[MeasuredNetwork, ...]
    rest: tuple[MeasuredNetwork, ...]
    image_side: int
    images: int
    feature_images: int
    compile_seconds: float
    trace_seconds: float
    margin: float


def _networks(image_size: int, batch: int, *names: str) -> tuple[MeasuredNetwork, ...]:
    return tuple(MeasuredNetwork(name, image_size, batch) for name in names)


FULL = Scale(
    name="full",
    precision="bfloat16",
    seconds=3.0,
    matrix=8192,
    copied=2**28,
    first=_networks(224, 8, "resnet18", "alexnet_owt", "vit_tiny_patch16"),
    second=_networks(224, 8, "resnet50", "vit_small_patch16"),
    main=MeasuredNetwork("resnet50", 224, 256),
    others=_networks(224, 256, "vit_base_patch16", "convnext_tiny", "efficientnet_b0"),
    rest=(
        *_networks(224, 256, "alexnet_owt", "googlenet_bn"),
        *_networks(224, 128, "vgg16", "seresnext50_32x4d", "resnet152"),
        MeasuredNetwork("inception_v3", 299, 128),
    ),
    image_side=433,  # as many pixels as an average image of ImageNet, 500 x 375
    images=128,
    feature_images=2048,
    compile_seconds=40.0,
    trace_seconds=5.0,
    margin=10.0,
)
SMALL = dataclasses.replace(
    FULL,
    name="small",
    precision="float32",
    seconds=2.0,
    matrix=1024,
    copied=2**24,
    first=_networks(64, 8, "resnet18", "alexnet_owt", "vit_tiny_patch16"),
    second=_networks(64, 8, "resnet50", "vit_small_patch16"),
    main=MeasuredNetwork("resnet50", 64, 8),
    others=_networks(64, 8, "vit_base_patch16", "convnext_tiny", "efficientnet_b0"),
    rest=(
        *_networks(64, 8, "alexnet_owt", "googlenet_bn", "vgg16", "seresnext50_32x4d", "resnet152"),
        MeasuredNetwork("inception_v3", 75, 8),
    ),
    images=32,
    feature_images=256,
    compile_seconds=20.0,
    trace_seconds=6.0,
    margin=60.0,
)
_LENET = MeasuredNetwork("lenet5", 32, 4)
_VIT = MeasuredNetwork("vit_tiny_patch16", 32, 4, {"depth": 1})
TINY = dataclasses.replace(
    SMALL,
    name="tiny",
    seconds=0.05,
    matrix=64,
    copied=2**12,
    first=(_LENET,),
    second=(_VIT,),
    main=_LENET,
    others=(_VIT,),
    rest=(),
    image_side=32,
    images=16,
    feature_images=16,
    compile_seconds=1.0,
    trace_seconds=1.0,
    margin=600.0,
)
SCALES = {scale.name: scale for scale in (FULL, SMALL, TINY)}


@dataclasses.dataclass(frozen=True)
class Options:
    """The choices of a user on the command line.

    Attributes:
      minutes: for everything.
      data_dir: tfds' directory with the data set `data_name`; empty: images are drawn.
      data_name: as `config.data.name`.
      data: a folder or zip of images, for the decade and the loader; empty: none.
      peer_python: the interpreter that has PyTorch.
    """

    minutes: float
    data_dir: str
    data_name: str
    data: str
    peer_python: str


class Bench:
    """The state of one measurement on one host.

    Attributes:
      scale: the sizes.
      options: the user's choices.
      results: where every result goes when it comes.
      compiler: the threads that compile.
      peer: PyTorch's process; None where it was not started.
      rates: images per second by network and label, for ratios.
      peaks: `flops` and `bytes` per second of the device, measured.
      pace: how much longer than estimated the parts before took.
      scratch: the directory of compiled programs, workdirs, and PyTorch's log.
      box_end: when the time of the part that runs is used up.
      running: the name of that part.
    """

    def __init__(self, folder: Path, scratch: Path, scale: Scale, options: Options):
        self.scale, self.options, self.scratch = scale, options, scratch
        self.results = Results(folder)
        self.compiler = Compiler(self.results)
        self.peer: Peer | None = None
        self.rates: dict[tuple[str, str], float] = {}
        self.peaks: dict[str, float] = {}
        self.pace = 1.0
        self.deadline = time.perf_counter() + 60 * options.minutes
        self.box_end = self.deadline
        self.running = "start"

    @property
    def platform(self) -> str:
        """The platform of the devices: "cpu", "gpu" or "tpu"."""
        return jax.default_backend()

    @property
    def left(self) -> float:
        """The seconds that are left for everything."""
        return self.deadline - time.perf_counter()

    @property
    def box_left(self) -> float:
        """The seconds that are left for the part that runs."""
        return self.box_end - time.perf_counter()

    def say(self, text: str) -> None:
        """Print a line with the time that is left."""
        minutes, seconds = divmod(max(0, round(self.left)), 60)
        print(f"[{minutes}:{seconds:02d} left] {text}", flush=True)

    def record(self, kind: str, **values: Any) -> None:
        """Write a result."""
        self.results.write(kind, **values)

    def left_out(self, name: str, reason: str) -> None:
        """Write and print that something was left out."""
        self.record("left_out", name=name, reason=reason)
        self.say(f"left out: {name}: {reason}")

    def result_of(self, future: "Future[Any]") -> Any:
        """Return the result of work in another thread or process, within the time of the part that runs."""
        return future.result(timeout=max(0.0, self.box_left))

    def compile_time(self, programs: int) -> float:
        """Return the estimated seconds that programs add to the compilations of a stage, in all threads."""
        return programs / self.compiler.threads * self.scale.compile_seconds

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Return a context for one measurement of several: its error is written, and the others follow."""
        try:
            yield
        except (LeftOutError, TimeoutError) as error:
            self.left_out(name, str(error) or "the time of this part is used up")
        except Exception as error:
            where = traceback.format_exception(error)[-4:]
            self.record("failed", name=name, reason=f"{type(error).__name__}: {str(error)[:500]}", traceback=where)
            self.say(f"{name} failed: {type(error).__name__}: {str(error)[:300]}")

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Return a context for timings: nothing is being compiled, and PyTorch's process is paused.

        Raises:
          TimeoutError: something is still being compiled when the time of the part is used up.
        """
        self.compiler.wait(self.box_left)
        if self.peer:
            self.peer.pause()
        try:
            yield
        finally:
            if self.peer:
                self.peer.resume()

    @contextlib.contextmanager
    def matmul_precision(self, precision: str) -> Iterator[None]:
        """Trace products as a run of this precision computes them.

        `NetworkSystem.create` sets JAX's default for float32, and a process of one run never sets it back.
        """
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else None)
        yield
        jax.config.update("jax_default_matmul_precision", None)

    def close(self) -> bool:
        """End PyTorch's process and remove workdirs; return whether something is still being compiled."""
        is_compiling = self.compiler.close()
        if self.peer:
            self.peer.close()
        shutil.rmtree(self.scratch / "runs", ignore_errors=True)
        return is_compiling


class Part(abc.ABC):
    """A part of the measurement.

    Attributes:
      name: as on the command line.
      title: a clause for the summary.
      compiles: whether it has steps compiled ahead.
      takes_all: whether it may take all the time that is left, whatever was estimated.
    """

    name: str
    title: str
    compiles = False
    takes_all = False

    @abc.abstractmethod
    def estimate(self, bench: Bench) -> float:
        """Return the seconds that the part will take, preparation included, at the pace of its scale."""

    def prepare(self, bench: Bench) -> None:  # noqa: B027  parts that compile nothing prepare nothing
        """Trace steps and start their compilation; nothing is timed meanwhile."""

    @abc.abstractmethod
    def run(self, bench: Bench) -> None:
        """Measure, and write each result when it comes."""
