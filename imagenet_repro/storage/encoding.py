"""Characters under any locale: files are UTF-8, and output never fails because a terminal lacks a character."""

import codecs
import io
import locale
import os
import sys


def restart_in_utf8_mode() -> None:
    """Start the command of this process again in Python's UTF-8 mode, in the same process, if it is not in it.

    Every call of this project names UTF-8 where it reads or writes text. Libraries such as tfds do not, and names of
    files with characters that the locale lacks are unreadable outside this mode. The output keeps its encoding. This
    does nothing where files are read as UTF-8 already, as on almost all machines.
    """
    if sys.flags.utf8_mode or (_is_utf8(sys.getfilesystemencoding()) and _is_utf8(locale.getencoding())):
        return
    # A process without any output has no encoding of it either.
    output = f"{getattr(sys.stdout, 'encoding', 'utf-8')}:backslashreplace"
    environment = {"PYTHONIOENCODING": output} | dict(os.environ) | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def escape_what_a_terminal_lacks() -> None:
    """Print characters that the encoding of the output lacks as escapes, instead of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
