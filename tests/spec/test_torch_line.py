"""The torch line: what stands at or below the service imports with torch and the engines blocked."""

import pkgutil
import subprocess
import sys

import trimtab

BELOW = ("service", "security", "store", "bench", "text", "stats", "spec")
BLOCKED = ("torch", "transformers", "openvino", "openvino_genai", "nncf")


def test_everything_below_the_line_imports_with_torch_blocked() -> None:
    names = [
        found.name
        for found in pkgutil.walk_packages(trimtab.__path__, "trimtab.")
        if found.name.split(".")[1] in BELOW and "migrations" not in found.name
    ]
    assert len(names) > 40
    block = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    code = block + "".join(f"import {name}\n" for name in names)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
