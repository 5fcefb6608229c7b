"""Errors that the project can explain to the user, and the exit codes of the command line.

A `UserError` is printed as its message only. Any other exception is a defect of the project and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

EXIT_FINISHED = 0
EXIT_USER_ERROR = 2
EXIT_DIVERGED = 3  # the loss was not finite; the last good checkpoint is kept
EXIT_LEFT_OUT = 4  # the result is written, and some images could not be read
EXIT_SAVE_FAILED = 74  # EX_IOERR in sysexits.h: a checkpoint or a result could not be written
EXIT_STOPPED = 75  # EX_TEMPFAIL in sysexits.h: stopped by a signal or by a lost process; the same command resumes


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong, where, and what to do."""

    exit_code = EXIT_USER_ERROR


class DivergedError(UserError):
    """The loss is no longer finite."""

    exit_code = EXIT_DIVERGED


class SaveError(UserError):
    """A checkpoint or a result could not be written."""

    exit_code = EXIT_SAVE_FAILED


class InterruptedRunError(UserError):
    """A signal stopped a run before its budget was spent; its state is saved, and the same call continues it."""

    exit_code = EXIT_STOPPED


class LostProcessError(UserError):
    """Another process, on which the work depends, was ended from outside; the same command resumes."""

    exit_code = EXIT_STOPPED


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: a question with the nearest valid name, or all names."""
    names = sorted(valid)
    longer = [other for other in names if other.startswith(f"{name}_")]  # "resnet20" is near to "resnet20_cifar"
    close = longer[:1] if name else []
    close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(names)}"
