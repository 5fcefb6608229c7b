"""PyTorch in a child process, which prepares its steps while ours are compiled and measures them on request."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks.device_parts.errors import LeftOutError
from benchmarks.pytorch_steps import PeerStep

REPOSITORY = Path(__file__).resolve().parents[2]


class PeerError(LeftOutError):
    """PyTorch could not prepare or measure a step."""


class Peer:
    """The child process; one request is worked on at a time, in order.

    Args:
      python: the interpreter that has PyTorch.
      folder: the directory of its log and its cache of compiled programs.
    """

    def __init__(self, python: str, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "OMP_WAIT_POLICY": "passive",
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
        }
        with (folder / "pytorch.log").open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.device_parts.peer"],
                env=environment,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                start_new_session=True,  # a group of processes of its own, which can be paused
            )
        self._answers: dict[int, Future] = {}
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self) -> Future:
        """Ask for the versions of PyTorch and its libraries, once they are imported."""
        return self._ask({"do": "start"})

    def prepare(self, step: PeerStep) -> Future:
        """Ask for a step to be built and compiled; the result has `seconds`."""
        return self._ask({"do": "prepare", "step": dataclasses.asdict(step)})

    def measure(self, step: PeerStep, seconds: float) -> Future:
        """Ask for a prepared step to be measured and dropped; the result has `images_per_second`."""
        return self._ask({"do": "measure", "step": dataclasses.asdict(step), "seconds": seconds})

    def pause(self) -> None:
        """Stop the child and what it started where they are, so that they use no core and start no work on a GPU."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the child continue."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the child."""
        self._signal(signal.SIGKILL)
        self._process.wait(timeout=10)

    def _ask(self, request: dict[str, Any]) -> Future:
        self._number += 1
        future = self._answers[self._number] = Future()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request | {"number": self._number}) + "\n")
            self._process.stdin.flush()
        except OSError:
            future.set_exception(PeerError("the process of PyTorch has ended; pytorch.log has its last words"))
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            future = self._answers.pop(answer.pop("number"))
            if "error" in answer:
                future.set_exception(PeerError(answer["error"]))
            else:
                future.set_result(answer)
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(PeerError("the process of PyTorch has ended; pytorch.log has its last words"))

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


# --- the child ---------------------------------------------------------------------------------------------------


class _Steps:
    """The steps that the child has prepared."""

    def __init__(self):
        self._prepared: dict[str, tuple[Any, ...]] = {}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import PyTorch; return the versions of what there is, and the device."""
        del request
        versions = {}
        for name in ("torch", "torchvision", "timm"):
            with contextlib.suppress(ImportError):
                versions[name] = __import__(name).__version__
        if "torch" not in versions:
            raise PeerError("torch is not installed")
        torch = sys.modules["torch"]
        on_gpu = torch.cuda.is_available()
        return {"versions": versions, "device": torch.cuda.get_device_name() if on_gpu else "cpu"}

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Build a step and take it twice, which compiles it."""
        import time

        import torch

        from benchmarks import pytorch_steps

        step = PeerStep(**request["step"])
        began = time.perf_counter()
        model, origin = pytorch_steps.create_network(step)
        take, wait = pytorch_steps.training_step(model, step)
        for _ in range(2):
            take()
        wait()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._prepared[json.dumps(request["step"])] = take, wait, origin
        return {"seconds": time.perf_counter() - began}

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Measure a prepared step and drop it."""
        import torch

        from benchmarks import timing

        take, wait, origin = self._prepared.pop(json.dumps(request["step"]))
        step = PeerStep(**request["step"])
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        rate = timing.rate(take, wait, step.batch, request["seconds"])
        answer = {
            "images_per_second": rate.median,
            "spread": rate.spread,
            "origin": f"{origin}, torch {torch.__version__}",
        }
        if torch.cuda.is_available():
            answer["peak_bytes"] = torch.cuda.max_memory_allocated()
            del take
            torch.cuda.empty_cache()
        return answer


def main() -> None:
    """Answer requests, a line of JSON each, until the parent closes the pipe or ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the output of libraries goes to the log
    steps = _Steps()
    work = {"start": steps.start, "prepare": steps.prepare, "measure": steps.measure}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = work[request["do"]](request)
        except Exception as error:  # whatever PyTorch raises is the answer, and the next request may succeed
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(answer | {"number": request["number"]}) + "\n")


def _end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, also while it is paused."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            sys.exit()


if __name__ == "__main__":
    main()
