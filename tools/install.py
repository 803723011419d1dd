"""Makes `.venv` and installs Trimtab in it from the pinned constraints. Needs only Python and pip.

`TORCH_INDEX=URL` takes torch from another package index, such as PyTorch's own index of CPU builds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
# What torch's CUDA build brings along on Linux, download size, from its wheels' sizes.
CUDA_DOWNLOAD = "about 3 GB"


def pip(*arguments: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments], check=True, cwd=ROOT)


def torch_pin() -> str:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def torch_index() -> list[str]:
    index = os.environ.get("TORCH_INDEX")
    return ["--index-url", index] if index else []


def torch_build() -> str | None:
    """The version that pip would take, such as `2.13.0+cpu`; None where pip cannot tell."""
    command = [
        PYTHON,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--dry-run",
        "--no-deps",
    ]
    found = subprocess.run(
        [*command, "--ignore-installed", "--report", "-", *torch_index(), torch_pin()],
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        return json.loads(found.stdout)["install"][0]["metadata"]["version"]
    except (ValueError, LookupError):
        return None


def warn_of_cuda(build: str | None) -> None:
    is_cpu_build = build is not None and "+cpu" in build
    if sys.platform == "linux" and not is_cpu_build and not shutil.which("nvidia-smi"):
        print(
            f"note: pip would take torch {build or 'from its index'}, which may be a CUDA build ({CUDA_DOWNLOAD} with "
            "its libraries), and this machine shows no NVIDIA GPU.\n"
            "      TORCH_INDEX=<PyTorch's index of CPU builds> make install  avoids that. Going on.",
            flush=True,
        )


def main() -> None:
    if sys.version_info < OLDEST:
        sys.exit(
            f"error: Python {'.'.join(map(str, OLDEST))} or newer is needed, this is {sys.version.split()[0]}."
        )
    if not PYTHON.exists():
        print("creating .venv", flush=True)
        venv.create(VENV, with_pip=True, clear=True)
        pip("install", "--quiet", "--upgrade", "-c", "constraints.txt", "pip")
    warn_of_cuda(torch_build())
    print("installing (a few minutes on a first run)", flush=True)
    pip("install", "--quiet", "-c", "constraints.txt", *torch_index(), torch_pin())
    pip("install", "--quiet", "-c", "constraints.txt", "--group", "dev", "--editable", ".[all]")
    subprocess.run(
        [
            PYTHON,
            "-c",
            "import torch; print('torch', torch.__version__, '(CUDA)' if torch.version.cuda else '(CPU)')",
        ],
        check=True,
    )


if __name__ == "__main__":
    main()
