"""Chat templates: where models keep them, and what a hostile one may not do."""

import json
import os
import signal
import threading
import time

import psutil
import pytest

from trimtab.spec.errors import EngineError, ModelError, UsageError
from trimtab.text import templates
from trimtab.text.templates import ChatTemplate

PLAIN = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
HELLO = [{"role": "user", "content": " hi "}]


@pytest.fixture
def rendering():
    made = []

    def make(source, variables=None):
        made.append(ChatTemplate(source, variables or {}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_renders_with_special_tokens(rendering):
    template = rendering(PLAIN, {"bos_token": "<s>"})
    assert template.render(HELLO) == "<s><user>hi\n<assistant>"
    assert template.render(HELLO, add_generation_prompt=False) == "<s><user>hi\n"


def test_a_template_may_refuse(rendering):
    template = rendering("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UsageError, match="roles must alternate"):
        template.render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ ('a' * 1000000) * 1000000 }}",
        "{{ 'a' * 2000000 }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        # growth: of a constant while it is compiled, of what comes in, of loops, of what filters make
        "{{ 'a' * 10**9 }}",
        "{{ messages[0].content * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(9999) %}xxxxxxxx{% endfor %}{% endfor %}",
        "{{ messages[0].content | indent(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(messages[0].role) }}",
        "{{ (('a' * 1000000) | list) | tojson(indent=9) }}",
        # depth
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set n = namespace(l=[]) %}{% for i in range(99999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l | tojson }}",
        # not a text at all
        "{{ '\\ud800' }}",
        # computing, in C code that gives nothing back
        "{% set n = messages | length %}{% set big = (9 + n) ** ((9 + n) ** 8) %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_hostile_templates_are_refused(rendering, source):
    template = rendering(source)
    begun = time.process_time()
    with pytest.raises(UsageError, match="template refused"):
        template.render(HELLO)
    assert time.process_time() - begun < 1.0  # nothing of it happens here
    if template._child is not None:
        assert psutil.Process(template._child.pid).memory_info().rss < 200 * 2**20


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 10 ** (10 ** 8) }}", "takes too long"),
        ("{{ 'a' | center(300000000) }}", "too much memory"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
        ("{{ " + "-" * 20000 + "1 }}", "nested too deeply"),
        ("{% for m in messages %}\n{% endfor %}\n{{ 1 + }}", "line 3: "),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
        ("{% unknown_tag %}", "unknown_tag"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused_when_it_is_loaded(tmp_path, source, why):
    (tmp_path / "chat_template.jinja").write_text(source)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=why) as caught:
        ChatTemplate.load(tmp_path)
    assert caught.value.where == str(tmp_path / "chat_template.jinja")
    assert caught.value.exit_code == 2
    assert time.monotonic() - begun < 15


def test_a_stopped_process_is_replaced_and_holds_nobody_for_long(rendering):
    template = rendering(PLAIN)
    template.check()
    os.kill(template._child.pid, signal.SIGSTOP)
    # More than a pipe takes: writing to it must not wait for ever either.
    many = [{"role": "user", "content": "x" * 1000}] * 500
    begun = time.monotonic()
    assert template.render(many).count("<user>") == 500
    assert time.monotonic() - begun < templates.RENDER_SECONDS


def test_a_process_that_cannot_be_had_is_not_the_clients_fault(rendering, monkeypatch):
    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    template = rendering(PLAIN)
    monkeypatch.setattr(templates.processes, "start", fail)
    with pytest.raises(EngineError, match="Too many open files"):
        template.render(HELLO)
    monkeypatch.undo()
    assert template.render(HELLO)


def test_closing_ends_what_is_being_rendered(rendering, monkeypatch):
    monkeypatch.setattr(templates, "RENDER_CPU_SECONDS", 60.0)
    monkeypatch.setattr(templates, "RENDER_SECONDS", 60.0)
    template = rendering("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    template.check()
    child, answers = psutil.Process(template._child.pid), []

    def ask():
        try:
            template.render(HELLO)
        except EngineError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    template.close()
    assert time.monotonic() - begun < 2
    thread.join(5)
    assert not thread.is_alive()
    assert answers
    assert not child.is_running()


def test_memory_that_a_template_took_does_not_stay(rendering):
    template = rendering("{{ (messages[0].content * 200000000) | length }}")
    assert template.render([{"role": "user", "content": "x"}]) == "200000000"
    assert template._child is None  # the next chat gets a fresh one
    assert template.render([{"role": "user", "content": ""}]) == "0"


def test_an_endless_template_is_killed_and_the_next_call_works(rendering, monkeypatch):
    monkeypatch.setattr(templates, "RENDER_CPU_SECONDS", 0.3)
    template = rendering(
        "{% if messages[0].content == 'go' %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}ok"
    )
    started = time.monotonic()
    with pytest.raises(UsageError, match="too long"):
        template.render([{"role": "user", "content": "go"}])
    assert time.monotonic() - started < 10
    monkeypatch.setattr(templates, "RENDER_CPU_SECONDS", 5.0)
    assert template.render(HELLO) == "ok"


def test_a_broken_template_is_the_models_fault(rendering):
    with pytest.raises(ModelError, match="cannot be read"):
        rendering("{% if %}").render(HELLO)


PLACES = {
    "a text": ({"chat_template": "A"}, {}, "A"),
    "named ones": (
        {"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "A"}]},
        {},
        "A",
    ),
    "an object": ({"chat_template": {"default": "A", "rag": "R"}}, {}, "A"),
    "named ones without a default": ({"chat_template": [{"name": "rag", "template": "R"}]}, {}, None),
    "a file over the settings": ({"chat_template": "A"}, {"chat_template.jinja": "B"}, "B"),
    "files of several names": (
        {"chat_template": "A"},
        {"chat_template.jinja": "B", "chat_templates/tool_use.jinja": "{% broken"},
        "B",
    ),
    "a folder's default": ({}, {"chat_template.jinja": "B", "chat_templates/default.jinja": "C"}, "C"),
    "a folder without a default": ({"chat_template": "A"}, {"chat_templates/rag.jinja": "R"}, None),
    "nothing": ({"chat_template": None}, {}, None),
    "an empty one": ({"chat_template": ""}, {}, ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_load_finds_the_template_where_models_keep_it(tmp_path, place):
    settings, files, expected = PLACES[place]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    template = ChatTemplate.load(tmp_path)
    if expected is None:
        assert template is None
        return
    try:
        assert template.render(HELLO) == expected
    finally:
        template.close()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("chat_template.jinja", "{{ 'é' }}".encode("latin-1"), "not UTF-8"),
        ("chat_template.jinja", "{{ 'x' }}".encode("utf-16"), "not UTF-8"),
        ("chat_template.jinja", b"{# " + b"x" * 300_000 + b" #}", "over 262144 bytes"),
        ("tokenizer_config.json", b'{"chat_template": "' + b"x" * 300_000 + b'"}', "over 262144 bytes"),
        ("tokenizer_config.json", b'{"chat_template": 7}', "neither a text"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}', "neither a text"),
        ("tokenizer_config.json", b'{"chat_template": "{% if %}"}', "line 1"),
        ("tokenizer_config.json", b'{"chat_template": ', "Not a JSON object"),
        ("tokenizer_config.json", b"[]", "Not a JSON object"),
        ("tokenizer_config.json", b'{"a": ' + b"[" * 100_000, "Not a JSON object"),
        ("tokenizer_config.json", b'{"chat_template": "x", "bos_token": "\xe9"}', "not JSON"),
        ("tokenizer_config.json", b" " * (2**24 + 1), "over 16777216 bytes"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name_when_loaded(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=why) as caught:
        ChatTemplate.load(tmp_path)
    assert caught.value.where == str(tmp_path / name)
