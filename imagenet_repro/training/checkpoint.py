"""Checkpoints, written by Orbax in the background and checked for damage before they are restored.

A checkpoint holds everything that a run needs to continue: the train state (parameters, statistics, optimizer,
average, step, random state) and the budget spent so far. Once a checkpoint is complete, a seal with the length and the
CRC-32 of every file is written beside it: without it, a flipped bit in an array would be restored unnoticed.

Where several processes restore a checkpoint, the first one lists the checkpoints and checks the seal for all, so that
all continue from the same step and only one reads every file.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import user
from imagenet_repro.training import hosts
from imagenet_repro.training.state import TrainState

user.tolerate_unknown_owners()

SEAL = "seal.json"
METRICS = "metrics"  # Orbax's directory for the error of a checkpoint, and the file in it


@dataclasses.dataclass(frozen=True)
class Restored:
    """The contents of a checkpoint."""

    state: TrainState
    info: dict[str, Any]  # the `info` that `save` was given
    step: int


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      directory: the directory of the checkpoints; it is created if missing.
      keep: the number of latest checkpoints to keep. The one with the lowest top-1 error is kept as well.
      say: called with one line about a checkpoint that is damaged and skipped.
    """

    def __init__(self, directory: Path, keep: int, say: Callable[[str], None] = print):
        self._directory = directory.absolute()
        self._say = say
        best = policies.BestN(
            get_metric_fn=lambda metrics: -metrics["top1_error"], n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            create=False,
            cleanup_tmp_directories=os.access(self._directory, os.W_OK),
            best_fn=lambda metrics: metrics["top1_error"],  # without it Orbax stores no metrics
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            enable_background_delete=False,
        )
        self._prepare_directory()
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._sealer = ThreadPoolExecutor(1, "seal")
        self._sealing: Future | None = None
        self._broken = False

    def save(self, step: int, state: TrainState, info: dict[str, Any], top1_error: float | None = None) -> None:
        """Start to write a checkpoint; return when the state has been copied off the devices.

        Args:
          step: the number of the step, which names the checkpoint.
          state: arrays over all devices; every process can address a part of each.
          info: JSON values to store beside the state.
          top1_error: the top-1 error of an evaluation at this step, in [0, 1]; the checkpoint with the lowest one is
            the best.

        Raises:
          SaveError: this checkpoint or the one before it could not be written.
        """
        self.wait()
        self._check_space(step, state)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_plain(state)), info=ocp.args.JsonSave(info))
        metrics = None if top1_error is None else {"top1_error": top1_error}
        try:
            self._manager.save(step, args=arguments, metrics=metrics, force=True)
        except Exception as error:
            raise self._failed(step, error) from error
        self._sealing = self._sealer.submit(self._finish, step)

    def rate(self, step: int, top1_error: float) -> None:
        """Store the error of a checkpoint that was saved before it was evaluated.

        Raises:
          SaveError: it could not be written.
        """
        if jax.process_index() == 0:
            try:
                folder = self._path(step) / METRICS
                folder.mkdir(exist_ok=True)
                part = folder / f".{METRICS}.part"
                part.write_text(json.dumps({"top1_error": top1_error}))
                part.replace(folder / METRICS)
            except OSError as error:
                raise self._failed(step, error) from error
        self._manager.reload()

    def rated(self, step: int) -> bool:
        """Return whether the error of a checkpoint is stored."""
        self._manager.reload()
        return hosts.from_first(bool(self._manager.metrics(step)))

    def check(self) -> None:
        """Raise SaveError if the checkpoint being written has failed; do not wait for it."""
        if self._sealing is not None and self._sealing.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint being written; raise SaveError if it failed."""
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def close(self) -> None:
        """Wait for the checkpoint being written, and stop the background threads."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            ignored = (Exception,) if self._broken else ()
            with contextlib.suppress(*ignored):  # Orbax raises again what `wait` has raised
                self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps of complete checkpoints, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Return the step of the checkpoint with the lowest top-1 error; None if none was evaluated."""
        errors = {}
        for step in self.steps():
            metrics = self._manager.metrics(step)
            if metrics and "top1_error" in metrics:
                errors[step] = metrics["top1_error"]
        return min(errors, key=lambda step: (errors[step], -step)) if errors else None

    def restore(self, like: TrainState, which: str = "last") -> Restored | None:
        """Restore the last, the best or a numbered checkpoint, with the shardings of `like`.

        Args:
          like: arrays, or their shapes, types and shardings; any number of devices.
          which: "last", "best" or a step. The last is the newest that is not damaged.

        Returns:
          The checkpoint; None if `which` is "last" and there is no checkpoint.

        Raises:
          UserError: the checkpoint is missing or damaged, or belongs to another network; or all are damaged.
        """
        steps = hosts.from_first(self.steps())
        if which == "last":
            return self._restore_newest(steps, like)
        best = hosts.from_first(self.best_step() if which == "best" else None)
        step = int(which) if which.isdecimal() else best
        if step is None or step not in steps:
            raise UserError(f"{self._directory}: no checkpoint '{which}'; there are: last, best, {steps}")
        return self._restore(step, like)

    def _restore_newest(self, steps: list[int], like: TrainState) -> Restored | None:
        for step in reversed(steps):
            try:
                return self._restore(step, like)
            except DamagedError as error:
                if jax.process_index() == 0:
                    self._say(f"{error}; using the one before it")
        if steps:
            raise UserError(f"{self._directory}: every checkpoint is damaged; restore a copy or use a new --workdir")
        return None

    def _restore(self, step: int, like: TrainState) -> Restored:
        # The first process reads every file, so that the others need not.
        if damage := hosts.from_first(self._damage(step) if jax.process_index() == 0 else ""):
            raise DamagedError(damage)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(like))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), info=ocp.args.JsonRestore())
        try:
            contents: Any = self._manager.restore(step, args=arguments)
        except Exception as error:
            raise self._unreadable(step, error) from error
        return Restored(_typed(contents.state, like), dict(contents.info), step)

    def _unreadable(self, step: int, error: Exception) -> UserError:
        """Return the error of a checkpoint that Orbax cannot restore.

        One process of several cannot use the checkpoint before it by itself: the others may have restored this one, or
        wait for it within Orbax.
        """
        if jax.process_count() == 1:
            return DamagedError(f"{self._path(step)} cannot be restored ({_short(error)})")
        return UserError(
            f"process {jax.process_index()} cannot restore {self._path(step)} ({_short(error)}). If its files are"
            " damaged, delete this directory, and the same command continues from the checkpoint before it"
        )

    def _prepare_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(
                f"{self._directory} cannot be created: {error.strerror}; choose another --workdir"
            ) from error

    def _check_space(self, step: int, state: TrainState) -> None:
        """Raise SaveError if the disk is too full, instead of filling it up in the middle of a checkpoint."""
        needed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            message = f"it needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free: no space left"
            raise self._failed(step, OSError(message))

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _finish(self, step: int) -> None:
        """Wait until Orbax has renamed the checkpoint into place, then seal it."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if jax.process_index() == 0:
                seal = json.dumps(_fingerprints(self._path(step)), indent=1)
                (self._path(step) / SEAL).write_text(seal)
        except Exception as error:
            raise self._failed(step, error) from error

    def _failed(self, step: int, error: Exception) -> SaveError:
        self._broken = True
        steps = sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdecimal() and p.name != str(step))
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "no earlier checkpoint exists"
        return SaveError(
            f"the checkpoint of step {step} could not be written to {self._directory} ({_short(error)}); {kept}."
            " Fix the cause (free space, permissions) and run the same command again"
        )

    def _damage(self, step: int) -> str:
        """Return what is wrong with the files of a checkpoint according to its seal; empty if nothing is."""
        seal = self._path(step) / SEAL
        if not seal.exists():  # the run ended between the commit and the seal, so only Orbax's own checks remain
            return ""
        try:
            expected = json.loads(seal.read_text())
        except ValueError:
            return f"{seal} is damaged"
        actual = _fingerprints(self._path(step))
        for name, fingerprint in expected.items():
            if actual.get(name) != fingerprint:
                state = "is missing" if name not in actual else "has changed since it was written"
                return f"checkpoint {self._path(step)} is damaged: {name} {state}"
        return ""


class DamagedError(UserError):
    """A checkpoint that is incomplete or whose files have changed."""


def _plain(state: TrainState) -> dict[str, Any]:
    """Return a state as dictionaries, which Orbax writes under readable names, unlike optax's tuples."""
    leaves = jax.tree.leaves(state.opt_state)
    return {
        "step": state.step,
        "params": state.params,
        "stats": state.stats,
        "opt_state": {f"{i:05d}": leaf for i, leaf in enumerate(leaves)},
        "ema": state.ema,
        "rng": state.rng,
    }


def _typed(plain: dict[str, Any], like: TrainState) -> TrainState:
    """Return the state of `_plain` values, with the structure of `like`."""
    leaves = [plain["opt_state"][name] for name in sorted(plain["opt_state"])]
    opt_state = jax.tree.unflatten(jax.tree.structure(like.opt_state), leaves)
    ema = plain["ema"] or {}
    return TrainState(plain["step"], plain["params"], plain["stats"], opt_state, ema, plain["rng"])


def _fingerprints(directory: Path) -> dict[str, list[int]]:
    """Return the length and the CRC-32 of every file below `directory` except the seal."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != SEAL)
    return {str(p.relative_to(directory)): [p.stat().st_size, _crc(p)] for p in files}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:300] + " …"
