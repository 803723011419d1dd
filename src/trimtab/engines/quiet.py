"""Keeps libraries off our terminal and off the network. Must run before they are imported.

OpenVINO and NNCF report every import and conversion to their maker; without `openvino_telemetry` they fall back
to stubs of their own, so that package is made unimportable. Errors of theirs are still raised as exceptions.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def without_telemetry() -> None:
    """Nothing is sent and no file is written into the user's home. No effect if the package is loaded already."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyrefly: ignore[no-matching-overload]


def quiet_libraries() -> None:
    """For a process of ours that runs torch or OpenVINO: no progress bars, no configs printed, no hub."""
    without_telemetry()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


@contextmanager
def captured_output() -> Iterator[None]:
    """Whatever this process and its libraries print goes to a file, which is shown on stderr if the block fails.

    Works on the descriptors, so that it holds for native code too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        kept = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            if failed:
                log.seek(0)
                sys.stderr.buffer.write(log.read())
                sys.stderr.flush()
