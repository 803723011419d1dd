"""The closed table of processes that Trimtab starts, and the one way to start them: exec, never a fork.

A process is named, never given as an import path, so nothing that arrives over a network can choose a module.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence

from trimtab.spec import lifeline

MODULES: Mapping[str, str] = {
    "gateway": "trimtab.service.gateway",
    "worker": "trimtab.engines.worker",
    "build": "trimtab.engines.build",
    "rank": "trimtab.parallel.launching.rank",
    "template": "trimtab.text.template_child",
    "encoder": "trimtab.text.encoder_child",
    "load": "trimtab.bench.load_child",
}


def command(name: str, arguments: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", MODULES[name], *arguments]


def name_of_user() -> dict[str, str]:
    """What the environment needs so that a library which asks for the user's name gets one: nothing where there is a
    name, else `LOGNAME` from the number. Containers often run under a number without a name.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        return {"LOGNAME": f"uid{os.getuid()}" if hasattr(os, "getuid") else "nobody"}
    return {}


def start(
    name: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    **options: object,
) -> subprocess.Popen[bytes]:
    """Start a process of the table, which ends with this one (`spec.lifeline`).

    `options` go to `subprocess.Popen`; `environment` is added to ours. Keep what is returned as long as the process
    shall live.
    """
    held, ours = os.pipe()
    try:
        process = subprocess.Popen(  # pyrefly: ignore[no-matching-overload]
            command(name, arguments),
            env={**os.environ, **name_of_user(), **(environment or {}), lifeline.VARIABLE: str(held)},
            pass_fds=(*pass_fds, held),
            **options,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(held)
    # At our own end the system closes it, and not a moment before.
    weakref.finalize(process, os.close, ours).atexit = False  # pyrefly: ignore[missing-attribute]
    return process
