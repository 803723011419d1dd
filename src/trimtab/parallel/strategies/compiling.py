"""Compiled layers: torch translates every block by itself, once for all that are alike.

torch (2.13) writes some paths into the compiler's command line without quotes: those of its own and Python's libraries,
and its cache. Where one holds a space, a link without stands in for it.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path

from torch import nn

from trimtab.parallel.strategies.blocks import blocks_of
from trimtab.spec.errors import UsageError

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# Where anybody may write, if the folder for temporary files has a space in its path.
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (a folder of our own in it, mode 0700)


def compile_blocks(module: nn.Module) -> None:
    """Raises `UsageError` where there is no path without a space for what the compiler reads and writes."""
    avoid_spaces()
    for block in blocks_of(module):
        block.compile()


def avoid_spaces() -> None:
    """Changes this process alone; nothing where no path holds a space."""
    from torch.utils import cpp_extension

    cache = os.environ.get(_CACHE) or tempfile.gettempdir()
    if " " in cache:
        os.environ[_CACHE] = str(_own_folder() / "cache")
    if " " in cpp_extension.TORCH_LIB_PATH:
        cpp_extension.TORCH_LIB_PATH = _link(cpp_extension.TORCH_LIB_PATH)
    variables = sysconfig.get_config_vars()
    if " " in str(variables.get("LIBDIR", "")):
        variables["LIBDIR"] = _link(variables["LIBDIR"])


def _link(target: str) -> str:
    """A path without a space to a folder, the same in every process of this user."""
    link = _own_folder() / sha256(target.encode()).hexdigest()[:16]
    if not link.is_symlink():
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)
    return str(link)


def _own_folder() -> Path:
    """Of this user alone: what lies in it is loaded as code."""
    for root in (tempfile.gettempdir(), *_SHORT):
        folder = Path(root, f"trimtab-compiled-{os.getuid()}")
        if " " in root or not os.access(root, os.W_OK):
            continue
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if (
            folder.is_dir()
            and not folder.is_symlink()
            and found.st_uid == os.getuid()
            and not found.st_mode & 0o022
        ):
            return folder
    raise UsageError(
        "compiling needs a folder whose path holds no space, and there is none.",
        where="training.compile",
        remedy="Set TMPDIR to such a folder, or leave compile out.",
    )
