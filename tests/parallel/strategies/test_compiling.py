"""`compile: true` where paths hold a space, which torch's own compiler call does not bear."""

import os
import subprocess
import sys
import sysconfig
import tempfile
import textwrap

import pytest
from torch.utils import cpp_extension

from trimtab.parallel.strategies import compiling
from trimtab.spec.errors import UsageError


@pytest.fixture
def spaced(tmp_path, monkeypatch):
    """Libraries of torch and of Python, and temporary files, each in a folder with a space."""
    folders = {}
    for name in ("torch lib", "python lib", "tmp files"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", str(folders["torch lib"]))
    monkeypatch.setitem(sysconfig.get_config_vars(), "LIBDIR", str(folders["python lib"]))
    monkeypatch.setattr(tempfile, "tempdir", str(folders["tmp files"]))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    return folders


def test_a_link_without_a_space_stands_in_for_each_path(spaced, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_SHORT", (str(tmp_path),))
    for _ in range(2):
        compiling.avoid_spaces()
        found = cpp_extension.TORCH_LIB_PATH, sysconfig.get_config_var("LIBDIR")
        assert [os.path.realpath(path) for path in found] == [
            str(spaced["torch lib"]),
            str(spaced["python lib"]),
        ]
        paths = (*found, os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert not any(" " in path for path in paths)


@pytest.mark.usefixtures("spaced")
def test_without_a_place_for_it_compiling_is_refused_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_SHORT", (str(tmp_path / "not there"),))
    with pytest.raises(UsageError, match="a folder whose path holds no space") as caught:
        compiling.avoid_spaces()
    assert caught.value.where == "training.compile"


@pytest.mark.usefixtures("spaced")
def test_a_folder_that_others_planted_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_SHORT", (str(tmp_path),))
    planted = tmp_path / f"trimtab-compiled-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(UsageError):
        compiling.avoid_spaces()


def test_nothing_changes_where_no_path_holds_a_space(monkeypatch):
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", "/plain/lib")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setitem(sysconfig.get_config_vars(), "LIBDIR", "/plain/python")
    compiling.avoid_spaces()
    assert cpp_extension.TORCH_LIB_PATH == "/plain/lib"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


@pytest.mark.slow
def test_an_environment_in_a_folder_with_a_space_compiles(tmp_path):
    """The whole way, with a real compiler, in a process whose environment is reached by such a path."""
    (tmp_path / "an env").symlink_to(sys.prefix)
    code = textwrap.dedent("""
        import torch
        from trimtab.parallel.strategies.compiling import compile_blocks
        assert " " in torch.__file__, torch.__file__
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
        compile_blocks(model)
        model(torch.randn(4, 8)).sum().backward()
        print("compiled")
    """)
    done = subprocess.run(
        [tmp_path / "an env" / "bin" / "python", "-c", code],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "a cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "compiled\n", done.stderr[-2000:]
