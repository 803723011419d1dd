"""The commands as a person or a script meets them: exit codes, JSON on stdout only, sentences on stderr."""

import json
import os
import struct
import subprocess
import sys

import pytest

from trimtab.cli.main import main
from trimtab.security.keys import KeyRing
from trimtab.spec.errors import AuthenticationError
from trimtab.store.store import Store


@pytest.fixture
def trimtab(tmp_path, monkeypatch, capsys):
    """`trimtab("models", "ls")` → (exit code, stdout, stderr), without the start of a process."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trimtab", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "Tiny-Model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return folder


def test_a_model_goes_in_gets_a_name_is_checked_and_comes_out(trimtab, model, tmp_path):
    code, out, _ = trimtab("models", "import", str(model), "--json")
    version = json.loads(out)
    assert (code, version["name"], version["version"]) == (0, "tiny-model", 1)
    assert trimtab("models", "alias", "tiny-model:prod", "1")[0] == 0
    code, out, _ = trimtab("models", "ls", "--json")
    assert [(v["version"], v["aliases"]) for v in json.loads(out)["versions"]] == [(1, ["prod"])]
    code, out, _ = trimtab("models", "show", "tiny-model:prod", "--json")
    shown = json.loads(out)
    assert (shown["passport"]["parameters"], shown["serving"]) == (4, None)
    assert shown["version"]["version_digest"] == version["version_digest"]
    code, out, _ = trimtab("models", "show", "tiny-model")
    assert (code, version["content_digest"] in out) == (0, True)
    assert trimtab("models", "export", "tiny-model:prod", str(tmp_path / "out"))[0] == 0
    assert trimtab("models", "verify", f"{tmp_path}/out")[0] == 0
    assert trimtab("models", "verify", "tiny-model")[0] == 0
    (tmp_path / "out" / "config.json").write_text("{}")
    code, _, err = trimtab("models", "verify", f"{tmp_path}/out")
    assert (code, "out/config.json" in err) == (1, True)
    code, _, err = trimtab("models", "rm", "tiny-model")
    assert (code, "tiny-model:prod" in err) == (3, True)
    assert trimtab("models", "alias", "tiny-model:prod", "--delete")[0] == 0
    assert trimtab("models", "rm", "tiny-model@1")[0] == 0
    code, out, err = trimtab("models", "ls")
    assert (code, out, "empty" in err) == (0, "", True)


def test_faults_are_sentences_with_the_right_code(trimtab, model, tmp_path):
    (model / "pytorch_model.bin").write_bytes(b"x")
    code, out, err = trimtab("models", "import", str(model))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {model}/pytorch_model.bin: ")
    assert "safetensors" in err
    assert trimtab("models", "import", str(tmp_path / "nowhere"))[0] == 2
    assert trimtab("models", "show", "nobody")[0] == 2
    assert trimtab("models", "show", "bad name!")[0] == 2
    code, _, err = trimtab("models", "alias", "bot", "1")
    assert (code, "NAME:ALIAS" in err) == (2, True)
    assert trimtab("keys", "create", "--name", "a", "--scope", "root")[0] == 2
    assert trimtab("keys", "create", "--name", "a", "--expires", "soon")[0] == 2
    assert trimtab("keys", "revoke", "nobody")[0] == 2


def test_a_real_process_says_it_in_a_sentence_too(tmp_path):
    command = [sys.executable, "-m", "trimtab", "models", "show", "nobody"]
    environment = {**os.environ, "TRIMTAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "error: no model is named 'nobody'. 'trimtab models ls' shows the names that exist.\n"
    )


def test_the_report_is_found(trimtab, model, tmp_path):
    store = Store(tmp_path / "home")
    store.publish(model, "bot")
    code, _, err = trimtab("models", "report", "bot")
    assert (code, "report.html" in err) == (2, True)
    (tmp_path / "r.html").write_text("<p>")
    store.attach("bot", "report.html", tmp_path / "r.html")
    code, out, _ = trimtab("models", "report", "bot")
    assert (code, out) == (0, f"{store.record('bot', 'report.html')}\n")


def test_a_key_is_shown_once_and_revoked(trimtab, tmp_path):
    code, out, _ = trimtab("keys", "create", "--name", "ci", "--expires", "30d", "--json")
    created = json.loads(out)
    assert (code, created["name"], created["scopes"]) == (0, "ci", ["infer", "read"])
    assert KeyRing(tmp_path / "home").verify(created["key"]).key_id == created["id"]
    code, out, _ = trimtab("keys", "ls", "--json")
    assert [(entry["id"], entry["revoked"]) for entry in json.loads(out)["keys"]] == [(created["id"], None)]
    assert created["key"] not in out
    assert trimtab("keys", "revoke", created["id"])[0] == 0
    with pytest.raises(AuthenticationError):
        KeyRing(tmp_path / "home").verify(created["key"])
    code, out, err = trimtab("keys", "create", "--name", "person")
    assert KeyRing(tmp_path / "home").verify(out.strip()).name == "person"
    assert out.strip() not in err


def test_help_imports_nothing_that_costs():
    code = (
        "import sys, trimtab.cli.main\n"
        "heavy = ('torch', 'sqlalchemy', 'alembic', 'model_signing', 'pydantic', 'cryptography')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
