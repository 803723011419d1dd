"""Whatever the encoding, the reader or the user: an answer is shown, or one sentence says why not."""

import errno
import getpass
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.cli import door, output
from trimtab.cli.console import table
from trimtab.spec import processes
from trimtab.spec.errors import UsageError
from trimtab.store.home import home

WORDS = "Größe → 3 × 4 ≤ 1 … µ 語 \udcf6"
PLAN = ["llama3-8b", "--accelerator=h100-80gb", "--devices=8", "--sequence-length=8192", "--global-batch=64"]


@pytest.fixture
def stdout(monkeypatch):
    """`stdout("ascii")` puts a stream of that encoding in the place of stdout; its `text()` is what was written."""

    def make(encoding):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        output.open_streams()
        return lambda: (sys.stdout.flush(), raw.getvalue())[1]

    return make


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_text_in_any_encoding_is_written(stdout, encoding):
    written = stdout(encoding)
    print(WORDS)
    print(WORDS, file=sys.stderr)
    table(WORDS, [WORDS, "×"], [["[1, 2]", WORDS]])
    shown = written().decode(encoding)
    assert "3" in shown
    assert "[1, 2]" in shown
    assert ("→" in shown) == (encoding == "utf-8")
    assert ("->" in shown) == (encoding != "utf-8")


def test_a_table_in_ascii_has_straight_edges(stdout):
    written = stdout("ascii")
    table("sizes", ["a → b", "×"], [["語", "1"], ["x", "µ"]])
    title, *lines = written().decode("ascii").splitlines()
    assert title.strip() == "sizes"
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_the_same_in_every_encoding(stdout, encoding):
    written = stdout(encoding)
    output.emit_json({"a": WORDS, "b": float("nan"), "c": (1, float("inf")), 3: None})
    found = json.loads(written().decode("ascii"))
    assert found == {"a": WORDS, "b": None, "c": [1, None], "3": None}


def test_a_path_is_its_own_bytes_and_a_document_is_utf_8(stdout):
    written = stdout("ascii")
    output.emit_path(Path(os.fsdecode("/data/Größe \udcf6".encode("utf-8", "surrogateescape"))))
    output.emit_document("# Größe → 3\n")
    path, document = written().splitlines()
    assert path == "/data/Größe ".encode() + b"\xf6"
    assert document.decode() == "# Größe → 3"


def test_streams_that_were_closed_before_are_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output.open_streams()
    print("nobody reads this")
    output.emit_json({})
    output.emit_path(Path("/somewhere"))
    print("nor this", file=sys.stderr)
    sys.stdout.close()
    sys.stderr.close()


def _trimtab(*arguments, home, **environment):
    wanted = {"TRIMTAB_HOME": str(home), "PATH": os.environ["PATH"], "COLUMNS": "200"} | environment
    return subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments],
        capture_output=True,
        env=wanted,
        check=False,
        timeout=60,
    )


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, C_LOCALE, {"PYTHONIOENCODING": "cp437"}]
)
def test_the_real_command_under_other_encodings(environment, tmp_path):
    done = _trimtab("plan", "train", *PLAN, "--top=2", home=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert b"8.03 B parameters on 8" in done.stdout
    assert b"layouts:" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_ends_the_command_quietly(tmp_path):
    """More than a pipe holds is written, and nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "trimtab", "plan", "train", *PLAN, "--json", "--explain"]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, env={"TRIMTAB_HOME": str(tmp_path)}, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


def test_no_reader_of_either_stream_is_a_quiet_end_too(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", "plan", "train", *PLAN, "--explain"],
        stdout=writer,
        stderr=writer,
        env={"TRIMTAB_HOME": str(tmp_path)},
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1


def _leaves(application):
    with pytest.raises(SystemExit) as caught:
        door.run(application)
    return caught.value.code


def _raising(error):
    def application():
        raise error

    return application


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/out"),
            "/data/out: No space left.*Make room",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data"),
            "/data: Permission denied.*read and write",
        ),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"), "Set TMPDIR"),
        (UnicodeEncodeError("ascii", "/data/ö.txt", 6, 7, "ordinal not in range"), "PYTHONUTF8=1"),
    ],
    ids=["no room", "no right", "no TMPDIR", "a name"],
)
def test_faults_of_the_machine_are_sentences(error, words, capsys, monkeypatch):
    import re

    monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
    assert _leaves(_raising(error)) == 1
    said = capsys.readouterr().err
    assert re.search(words, said), said
    assert len(said.splitlines()) == 1


def test_debugging_shows_where_a_fault_of_the_machine_arose(monkeypatch):
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    with pytest.raises(PermissionError):
        door.run(_raising(PermissionError(errno.EACCES, "Permission denied", "/data")))


def test_a_deleted_working_folder_is_a_sentence(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert _leaves(lambda: None) == 2
    assert "the working folder is gone" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)


def _no_user(monkeypatch):
    def nobody(*_):
        raise KeyError("uid not found: 12345")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TRIMTAB_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)


def test_without_a_home_or_a_user_the_home_is_asked_for(monkeypatch, tmp_path):
    _no_user(monkeypatch)
    with pytest.raises(UsageError, match="Set TRIMTAB_HOME"):
        home()
    monkeypatch.setenv("TRIMTAB_HOME", "~/models")
    with pytest.raises(UsageError, match="Set TRIMTAB_HOME"):
        home()
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    assert home() == tmp_path / "home"


def test_libraries_that_ask_for_the_users_name_get_one(monkeypatch):
    assert processes.name_of_user() == {}
    _no_user(monkeypatch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    door.run(lambda: None)
    assert getpass.getuser() == f"uid{os.getuid()}"
