"""What a user did or met that the project can explain, and the exit codes of `main.py`.

A `UserError` reaches the terminal as its message alone. Anything else is a defect of the project and keeps its
traceback.
"""

import difflib
from collections.abc import Iterable

EXIT_FINISHED = 0
EXIT_USER_ERROR = 2
EXIT_DIVERGED = 3  # the loss was not finite; the last good checkpoint is kept
EXIT_SAVE_FAILED = 74  # sysexits.h EX_IOERR: a checkpoint could not be written
EXIT_STOPPED = 75  # sysexits.h EX_TEMPFAIL: stopped by a signal, saved; the same command resumes


class UserError(Exception):
    """A message for the person at the terminal: what was wrong, where, and what to do."""

    exit_code = EXIT_USER_ERROR


class DivergedError(UserError):
    """The loss stopped being a finite number."""

    exit_code = EXIT_DIVERGED


class SaveError(UserError):
    """A checkpoint or a result could not be written."""

    exit_code = EXIT_SAVE_FAILED


def nearest(name: str, valid: Iterable[str]) -> str:
    """Half a sentence for a message about an unknown name: the nearest valid one, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(names)}"
