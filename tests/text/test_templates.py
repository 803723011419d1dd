"""Chat templates: transformers' conventions, and what a hostile one may not do."""

import json
import time

import pytest

from trimtab.spec.errors import ModelError, UsageError
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


def test_generation_marks_loops_and_json(rendering):
    source = (
        "{% generation %}{{ messages[0].content }}{% endgeneration %}"
        "{% for m in messages %}{{ m | tojson }}{% break %}{% endfor %}"
    )
    assert rendering(source).render([{"role": "user", "content": "<é>"}]) == (
        '<é>{"role": "user", "content": "<é>"}'
    )


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
    ],
)
def test_hostile_templates_are_refused(rendering, source):
    with pytest.raises(UsageError, match="template refused"):
        rendering(source).render(HELLO)


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


def test_load_finds_the_template_where_models_keep_it(tmp_path):
    assert ChatTemplate.load(tmp_path) is None
    settings = {"bos_token": {"content": "<s>"}, "chat_template": [{"name": "default", "template": PLAIN}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    template = ChatTemplate.load(tmp_path)
    try:
        assert template.render(HELLO).startswith("<s><user>")
    finally:
        template.close()
    (tmp_path / "chat_template.jinja").write_text("own file")
    template = ChatTemplate.load(tmp_path)
    try:
        assert template.render(HELLO) == "own file"
    finally:
        template.close()
