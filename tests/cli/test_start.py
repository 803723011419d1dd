"""A fast start: what `import trimtab` and `trimtab --help` may bring along."""

import subprocess
import sys

import trimtab

HEAVY = (
    "torch",
    "transformers",
    "openvino",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "jinja2",
    "numpy",
    "cryptography",
)


def _brought_along(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint(' '.join(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_import_trimtab_brings_nothing_heavy() -> None:
    assert _brought_along("import trimtab") == set()


def test_the_command_line_brings_nothing_heavy() -> None:
    assert _brought_along("import trimtab.cli.main") == set()


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in trimtab.__all__:
        assert getattr(trimtab, name) is not None
    assert not hasattr(trimtab, "no_such_name")
    assert set(trimtab.__all__) <= set(dir(trimtab))
