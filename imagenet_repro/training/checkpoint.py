"""Checkpoints, written by Orbax in the background and checked for damage before they are restored.

A checkpoint holds everything that a run needs to continue: the train state (parameters, statistics, optimizer,
average, step, random state) and the budget spent so far. Once a checkpoint is complete, it is sealed (`seals.py`):
without a seal, a flipped bit in an array would be restored unnoticed.

Where several processes restore a checkpoint, the first one lists the checkpoints and checks the seal for all, so that
all continue from the same step and only one reads every file.
"""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.storage import files, user
from imagenet_repro.training import hosts, seals
from imagenet_repro.training.best_evaluation import best_step
from imagenet_repro.training.seals import DamagedError
from imagenet_repro.training.state import TrainState

user.tolerate_unknown_owners()

# Orbax expands "[", "*" and "?" in the paths of checkpoints, and tensorstore refuses some other characters.
PLAIN_PATH = re.compile(r"[\w./=+,@~ -]+")
DAMAGED = ".damaged"  # added to the name of a checkpoint that is set aside


@dataclasses.dataclass(frozen=True)
class Restored:
    """The contents of a checkpoint."""

    state: TrainState
    info: dict[str, Any]  # the `info` that `save` was given
    step: int


class Checkpoints:
    """The checkpoints of one workdir.

    What a killed run left incomplete is removed, and a damaged checkpoint is set aside when an older one is restored.
    Both need the run's lock; a reader of another run's checkpoints changes nothing.

    Args:
      directory: the directory of the checkpoints; it is created if missing.
      keep: the number of latest checkpoints to keep. The one with the lowest top-1 error is kept as well.
      say: called with one line about a checkpoint that is damaged.
      read_only: whether the checkpoints are only read; the directory must exist.

    Raises:
      SaveError: the directory cannot be created.
      UserError: checkpoints cannot be written under such a name on this system.
    """

    def __init__(self, directory: Path, keep: int, say: Callable[[str], None] = print, *, read_only: bool = False):
        self._directory, self._keep, self._read_only = directory.absolute(), keep, read_only
        self._is_first = jax.process_index() == 0
        self._say = say if self._is_first else lambda _: None
        if not read_only:
            self._prepare_directory()
        self._place, self._descriptor = _open_place(self._directory)
        self._errors = self._read_errors()
        _keep_libraries_quiet()
        self._manager = self._open_manager()
        self._sealer = ThreadPoolExecutor(1, "seal")
        self._sealing: Future | None = None
        self._broken = False

    def save(self, step: int, state: TrainState, info: dict[str, Any], top1_error: float | None = None) -> None:
        """Start to write a checkpoint; return when the state has been copied off the devices.

        Args:
          step: the number of the step, which names the checkpoint.
          state: arrays over all devices; every process can address a part of each.
          info: JSON values to store beside the state, with at least `steps` and `seconds`.
          top1_error: the top-1 error of an evaluation at this step, in [0, 1]; the checkpoint with the lowest one is
            the best.

        Raises:
          SaveError: this checkpoint or the one before it could not be written.
        """
        self.wait()
        self._check_space(step, state)
        plain = _plain(state)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(plain), info=ocp.args.JsonSave(info))
        metrics = None if top1_error is None else {"top1_error": top1_error}
        if top1_error is not None:
            self._errors[step] = top1_error
        try:
            self._manager.save(step, args=arguments, metrics=metrics, force=True)
        except Exception as error:
            raise self._failed(step, error) from error
        self._sealing = self._sealer.submit(self._finish, step, _shapes(plain))

    def rate(self, step: int, top1_error: float) -> None:
        """Store the error of a checkpoint that was saved before it was evaluated.

        Raises:
          SaveError: it could not be written.
        """
        self.wait()
        if self._is_first:
            try:
                seals.write_error(self._path(step), top1_error)
            except (OSError, UserError) as error:
                raise self._failed(step, error) from error
        self._errors[step] = top1_error

    def rated(self, step: int) -> bool:
        """Return whether the error of a checkpoint is known."""
        return hosts.from_first(step in self._errors)

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
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def steps(self) -> list[int]:
        """Return the steps of complete checkpoints, oldest first."""
        return list_steps(self._directory)

    def best_step(self) -> int | None:
        """Return the step of the checkpoint with the lowest top-1 error; None if none was evaluated."""
        return self._best_of(self.steps())

    def _best_of(self, steps: Sequence[int]) -> int | None:
        return best_step({step: self._errors[step] for step in steps if step in self._errors})

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
        step = int(which) if re.fullmatch("[0-9]{1,18}", which) else best
        if step is None or step not in steps:
            raise UserError(f"{self._directory}: no checkpoint '{which}'; there are: last, best, {steps}")
        return self._restore(step, like)

    def _restore_newest(self, steps: list[int], like: TrainState) -> Restored | None:
        damaged: dict[int, DamagedError] = {}
        for step in reversed(steps):
            try:
                restored = self._restore(step, like)
            except DamagedError as error:
                damaged[step] = error
            else:
                self._clean_up(damaged, [good for good in steps if good <= step])
                return restored
        if damaged:
            raise UserError(
                f"{self._directory}: every checkpoint is damaged. {next(iter(damaged.values()))}. Restore a copy, or"
                f" use a new --workdir. If nothing but a {seals.SEAL} is damaged, remove that file, and its checkpoint"
                " is used unchecked"
            )
        return None

    def _restore(self, step: int, like: TrainState) -> Restored:
        plain = _plain(like)
        is_sealed = self._check(step, _shapes(plain))
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, plain)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), info=ocp.args.JsonRestore())
        try:
            contents: Any = self._manager.restore(step, args=arguments)
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(step, error, is_sealed=is_sealed) from error
        info = contents.info
        if not (isinstance(info, dict) and {"steps", "seconds"} <= info.keys()):
            raise DamagedError(f"checkpoint {self._path(step)} is damaged: {seals.INFO} lacks the budget spent")
        if not is_sealed and not self._read_only and self._is_first:
            self._sealing = self._sealer.submit(self._seal, step)
        return Restored(_typed(contents.state, like), dict(info), step)

    def _check(self, step: int, shapes: dict[str, tuple[int, ...]]) -> bool:
        """Return whether a checkpoint is sealed; raise DamagedError if its files are damaged.

        The first process reads every file, so that the others need not.
        """
        damage, is_sealed = "", False
        if self._is_first:
            try:
                is_sealed = seals.is_sealed(self._path(step))
                seals.check(self._path(step))
                if not is_sealed:
                    seals.check_arrays(self._place / str(step), shapes)
            except (OSError, DamagedError) as error:
                damage = self._readable(error)
        damage, is_sealed = hosts.from_first([damage, is_sealed])
        if damage:
            raise DamagedError(damage)
        return is_sealed

    def _clean_up(self, damaged: dict[int, DamagedError], good: list[int]) -> None:
        """Set damaged checkpoints aside, and remove old ones that a killed run should have removed.

        A reader only names the damaged ones.
        """
        for step, error in damaged.items():
            self._errors.pop(step, None)
            if self._read_only:
                self._say(f"{error}; using the one before it")
            elif self._is_first:  # so that the run can save this step again
                self._say(f"{error}; it is now {self._rename(step).name}, and the one before it is used")
        surplus = hosts.from_first(sorted({*good[: -self._keep]} - {self._best_of(good)}))
        if self._read_only or not (damaged or surplus):
            return
        for step in surplus if self._is_first else ():
            shutil.rmtree(self._path(step), ignore_errors=True)
        hosts.from_first(None)  # no process lists the checkpoints before all are renamed and removed
        self._manager.close()
        self._manager = self._open_manager()

    def _rename(self, step: int) -> Path:
        """Add `.damaged` to the name of a checkpoint, with a number if that name is taken."""
        path, number = self._directory / f"{step}{DAMAGED}", 1
        while os.path.lexists(path):
            number += 1
            path = self._directory / f"{step}{DAMAGED}{number}"
        try:
            return self._path(step).rename(path)
        except OSError as error:
            raise SaveError(
                f"{self._path(step)} is damaged and cannot be renamed: {error.strerror}; move or remove it"
            ) from error

    def _unreadable(self, step: int, error: Exception, *, is_sealed: bool) -> UserError:
        """Return the error of a checkpoint that Orbax cannot restore.

        One process of several cannot use the checkpoint before it by itself: the others may have restored this one, or
        wait for it within Orbax.
        """
        if jax.process_count() > 1:
            return UserError(
                f"process {jax.process_index()} cannot restore {self._path(step)} ({self._readable(error)}). If its"
                " files are damaged, delete this directory, and the same command continues from the checkpoint before"
                " it"
            )
        if is_sealed:
            return UserError(
                f"{self._path(step)} cannot be restored ({self._readable(error)}), and its files are as they were"
                " written; it may belong to another network or optimizer"
            )
        return DamagedError(f"{self._path(step)} cannot be restored ({self._readable(error)})")

    def _open_manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=False,
            read_only=self._read_only,
            cleanup_tmp_directories=not self._read_only,
            lightweight_initialize=True,  # the errors of checkpoints are read here, which survives damaged ones
            best_fn=lambda metrics: metrics["top1_error"],  # without it Orbax stores no metrics
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(self._keep), _Best(self._best_of)]),
            enable_background_delete=False,
        )
        return ocp.CheckpointManager(self._place, options=options)

    def _read_errors(self) -> dict[int, float]:
        """Return the known errors by step; name those that are damaged, and count them as unknown."""
        errors = {}
        for step in self.steps():
            try:
                error = seals.top1_error(self._path(step))
            except DamagedError as damage:
                self._say(f"{damage}; the error of step {step} is unknown, and that step is not the best")
                continue
            if error is not None:
                errors[step] = error
        return errors

    def _prepare_directory(self) -> None:
        """Create the directory, and remove the partial files that killed runs left in checkpoints."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.iterdir() if self._is_first else ():
                files.remove_parts(path)
                files.remove_parts(path / seals.METRICS)
        except OSError as error:
            raise SaveError(
                f"{self._directory} cannot be created: {error.strerror}; choose another --workdir"
            ) from error

    def _check_space(self, step: int, state: TrainState) -> None:
        """Raise SaveError if the disk is too full, instead of filling it up in the middle of a checkpoint."""
        needed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        try:
            free = shutil.disk_usage(self._directory).free
        except OSError as error:
            raise self._failed(step, error) from error
        if free < needed:
            message = f"it needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free: no space left"
            raise self._failed(step, OSError(message))

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _finish(self, step: int, shapes: dict[str, tuple[int, ...]]) -> None:
        """Wait until Orbax has renamed the checkpoint into place, check that it can be restored, and seal it."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if self._is_first:
                seals.check_arrays(self._place / str(step), shapes)
        except Exception as error:
            raise self._failed(step, error) from error
        if self._is_first:
            self._seal(step)

    def _seal(self, step: int) -> None:
        try:
            seals.write(self._path(step))
        except (OSError, UserError) as error:
            raise self._failed(step, error) from error

    def _failed(self, step: int, error: Exception) -> SaveError:
        self._broken = True
        if not self._directory.is_dir():
            return SaveError(
                f"the checkpoint of step {step} could not be written: {self._directory} was removed while the run"
                " trained. Put a copy of the workdir back to continue; otherwise the same command starts from step 0"
            )
        steps = [other for other in self.steps() if other != step]
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "no earlier checkpoint exists"
        return SaveError(
            f"the checkpoint of step {step} could not be written to {self._directory} ({self._readable(error)});"
            f" {kept}. Fix the cause (free space, permissions) and run the same command again"
        )

    def _readable(self, error: Exception) -> str:
        """Return the message of an error on one line, with the path that the user knows."""
        text = " ".join(str(error).split()).replace(str(self._place), str(self._directory)) or type(error).__name__
        return text if len(text) < 300 else text[:300] + " …"


@dataclasses.dataclass(frozen=True)
class _Best:
    """Orbax's policy that keeps the checkpoint which `best_of` selects among steps."""

    best_of: Callable[[Sequence[int]], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        best = self.best_of([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step == best for checkpoint in checkpoints]


def list_steps(directory: Path) -> list[int]:
    """Return the steps of complete checkpoints in a directory of checkpoints, oldest first; none if it is missing."""
    try:
        return sorted(int(path.name) for path in directory.iterdir() if _is_checkpoint(path))
    except OSError:
        return []


def _is_checkpoint(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and str(int(path.name)) == path.name and path.is_dir()


def _open_place(directory: Path) -> tuple[Path, int | None]:
    """Return a path of a directory that no library misreads, and the descriptor to close when it is not needed.

    Raises:
      UserError: the directory's name has special characters, and the system has no other path to it.
    """
    if PLAIN_PATH.fullmatch(str(directory)):
        return directory, None
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"{directory} cannot be opened: {error.strerror}") from error
    place = Path("/proc/self/fd") / str(descriptor)  # Linux
    if not place.is_dir():
        os.close(descriptor)
        raise UserError(
            f"checkpoints cannot be written to {directory} on this system: its name has other characters than letters,"
            " digits, spaces and ./=+,@~_-; choose another --workdir"
        )
    return place, descriptor


def _keep_libraries_quiet() -> None:
    """Drop the tracebacks that Orbax logs before it raises the same errors, which `Checkpoints` explains."""
    logger = logging.getLogger("absl")
    if _is_not_of_orbax not in logger.filters:
        logger.addFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


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


def _shapes(plain: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of `_plain` values by the name that Orbax gives it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(plain)
    return {".".join(str(entry.key) for entry in path): tuple(leaf.shape) for path, leaf in leaves}
