"""The door of the command line: what surrounds a command is put right or refused in a sentence before it begins, and
what comes out of it is its answer or one sentence and an exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from trimtab.cli.console import say
from trimtab.cli.output import open_streams
from trimtab.spec.errors import EXIT_FAILED, TrimtabError, UsageError
from trimtab.spec.processes import name_of_user

EXIT_STOPPED = 130
DEBUG = "TRIMTAB_DEBUG"


def run(application: Callable[[], object]) -> None:
    """Run a typer application: an expected fault is one sentence and its exit code, Ctrl-C is 130, a reader that has
    gone a quiet end. Faults of the machine (no room, no right) are sentences too; `TRIMTAB_DEBUG=1` shows where they
    arose.
    """
    open_streams()
    try:
        _check_surroundings()
        try:
            application()
        finally:
            # Here, where a reader that has gone is still our business.
            sys.stdout.flush()
    except TrimtabError as error:
        _leave(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped", EXIT_STOPPED)
    except BrokenPipeError:
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if os.environ.get(DEBUG):
            raise
        _leave(f"error: {_sentence(error)}", EXIT_FAILED)
    except UnicodeEncodeError as error:
        if os.environ.get(DEBUG):
            raise
        _leave(f"error: {_unwritable(error)}", EXIT_FAILED)


def _check_surroundings() -> None:
    """Raises `UsageError` where a working folder that is gone would be a library's riddle later."""
    try:
        os.getcwd()  # noqa: PTH109 - only whether there is one
    except OSError as error:
        raise UsageError(
            "the working folder is gone.", where="current directory", remedy="Change to one that is there."
        ) from error
    # Libraries ask for the user's name and do not bear that there is none.
    os.environ.update(name_of_user())


def _leave(words: str, code: int) -> None:
    try:
        say(words)
    except BrokenPipeError:
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Nobody reads: what is still to be written at the end of the process must not fail there."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _sentence(error: OSError) -> str:
    """What the system refused, of which file, in the form of our own errors."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}. {_remedy(error)}"


def _remedy(error: OSError) -> str:
    import errno

    if "temporary directory" in str(error):
        return "Set TMPDIR to a folder that you may write to."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room there and run the command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Use a place that you may read and write."
    return f"{DEBUG}=1 shows where it arose."


def _unwritable(error: UnicodeEncodeError) -> str:
    text = Path(error.object).name if "/" in error.object else error.object
    shown = text.encode("ascii", "backslashreplace").decode("ascii")[:120]
    return (
        f"'{shown}' holds a character that {error.encoding} cannot write. "
        "Use a name in UTF-8, and set PYTHONUTF8=1 where the locale is not UTF-8."
    )
