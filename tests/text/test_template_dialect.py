"""Chats render exactly as transformers renders them: same text, or refused by both."""

import json

import pytest
import tokenizer_folders as folders
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from trimtab.spec.errors import UsageError
from trimtab.text.templates import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# In the manner of well-known families; every line is our own.
CHATML_WITH_TOOLS = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == 'user' and message.content is string %}
        {%- set ns.multi_step = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content if message.content is string else '' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and reasoning %}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}{%- endif %}
        {%- generation %}{{- content }}{%- endgeneration %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
LLAMA_WITH_DATE = """
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- 'Today Date: ' + date_string + '\\n\\n' + system_message + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception('one call at a time') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
MISTRAL_STRICT = """
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}
{%- else %}{%- set rest = messages %}{%- endif %}
{%- set users = rest | selectattr('role', 'equalto', 'user') | list %}
{{- bos_token }}
{%- for m in rest | rejectattr('role', 'equalto', 'tool') | rejectattr('tool_calls', 'defined') %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate user/assistant') }}
    {%- endif %}
{%- endfor %}
{%- for m in rest %}
    {%- if m['role'] == 'user' %}
        {%- if tools is not none and (m == users[-1]) %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) }}{%- endif %}
        {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}
        {%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}
    {%- elif m['role'] == 'assistant' and m.tool_calls is defined and m.tool_calls is not none %}
        {{- '[TOOL_CALLS]' + (m.tool_calls | map(attribute='function') | list | tojson) + eos_token }}
    {%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] | trim + eos_token }}
    {%- elif m['role'] == 'tool' %}{{- '[TOOL_RESULTS]' + (m.content | string | tojson) }}
    {%- else %}{{- raise_exception('Only user, assistant and tool roles are supported, not ' + m['role']) }}
    {%- endif %}
{%- endfor %}
"""
GEMMA_LIKE = """
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}{%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
FAMILIES = {
    "chatml": CHATML_WITH_TOOLS,
    "llama": LLAMA_WITH_DATE,
    "mistral": MISTRAL_STRICT,
    "gemma": GEMMA_LIKE,
}

GUARDS = [
    "{% if tools is not none %}[TOOLS]{% endif %}{% if tools is none %}[PLAIN]{% endif %}",
    "{% if tools is defined and tools is not none %}[TOOLS]{% endif %}{{ tools is defined }}{{ tools }}",
    "{% if documents is not none %}[DOCS]{% endif %}{{ documents is defined }}",
    "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools == none }}",
    "{{ messages | tojson(separators=(',', ':')) }}",
    "{{ messages | tojson(indent=2) }}{{ messages | tojson(ensure_ascii=True, sort_keys=True) }}",
    "{{ messages | tojson(True, 1) }}",  # the order of arguments
    "{{ {'b': 'é<b>&\\'', 'a': none} | tojson(sort_keys=true) }}",
    "{{ undefined_thing | tojson }}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}{{ x }}{% endfor %}",
    "{% set x = 0 %}{% generation %}{% set x = 1 %}{% endgeneration %}{{ x }}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% else %}{% continue %}{% endif %}{% endfor %}",
    "{{ strftime_now('%Y %B') }}|{{ strftime_now('%Z%z') }}",
    "{% set ns = namespace(x='', a=1) %}{% set ns.x = ns.x + 'y' %}{{ ns.x }}{{ ns.a }}",
    "{% set ns = namespace(_x=1) %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace({'self': 1}, other=2) %}{{ ns.other }}",
    "{{ dict(a=1) | tojson }}{{ dict.fromkeys(['a'], 2) | tojson }}",
    "{{ dict.__class__ }}",
    "{{ dict.mro() }}",
    "{{ messages[0].content[::-1] }}{{ messages[0].content.split(' ') }}{{ messages[0]['nothing'] }}",
    "{{ messages[0].nothing.deeper }}",
    "{{ messages.append(1) }}",
    "{{ raise_exception('no') }}",
    "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}",
    "  {% if true %}\n  a\n  {% endif %}\n b {{ 1 }}\n",
    "{{ add_generation_prompt }}{{ 7 // 2 }}{{ 2 ** 5 }}{{ 'a' ~ 1 }}{{ [1, 2] | sum }}",
    "{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{% call f(3) %}{% endcall %}",
    "{{ range(3) | list }}{{ range(1000000) | list | length }}",
    "{{ '%s-%s' | format(1, 'é') }}{{ 'A b' | title }}{{ 'x' | center(5) }}{{ '<a>' | escape }}",
    "{% include 'other' %}",
    "{% set x %}kept{% endset %}{{ x }}{% filter upper %}up{% endfilter %}{# not seen #}{% raw %}{{ }}{% endraw %}",
]

CHATS = [
    [{"role": "user", "content": " hi "}],
    [{"role": "system", "content": "be\nkind"}, {"role": "user", "content": "héllo <b> 'x' \"y\""}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c"},
    ],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "assistant", "content": "a"}],
    [{"role": "critic", "content": "a"}],
    [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "look it up",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "get", "arguments": {"city": "Zürich"}}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sunny, 20 °C"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "tool_calls": None, "reasoning_content": None, "refusal": None},
        {"role": "user", "content": [{"type": "text", "text": " parts "}, {"type": "image"}]},
    ],
    [{"role": "user", "content": "x", "name": "bob", "weight": 0, "thinking": "t"}],
]


@pytest.fixture(scope="module")
def ours():
    """One process for each template, over all chats."""
    made = {}

    def render(source, messages, *, add_generation_prompt=True):
        if source not in made:
            made[source] = ChatTemplate(source, TOKENS)
        try:
            return made[source].render(messages, add_generation_prompt=add_generation_prompt)
        except UsageError:
            return None

    yield render
    for each in made.values():
        each.close()


def theirs(source, messages, *, add_generation_prompt=True):
    """As `apply_chat_template` does it; None where it raises."""
    given = [{key: value for key, value in message.items() if value is not None} for message in messages]
    try:
        (text,), _ = render_jinja_template(
            [given], chat_template=source, add_generation_prompt=add_generation_prompt, **TOKENS
        )
    except Exception:  # noqa: BLE001 - that it raises is the answer
        return None
    return text


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_templates_like_those_of_known_families_render_the_same(ours, family, prompt):
    answers = [
        (
            ours(FAMILIES[family], chat, add_generation_prompt=prompt),
            theirs(FAMILIES[family], chat, add_generation_prompt=prompt),
        )
        for chat in CHATS
    ]
    assert [mine for mine, _ in answers] == [other for _, other in answers]
    assert sum(mine is not None for mine, _ in answers) >= 3


@pytest.mark.parametrize("source", GUARDS)
def test_what_templates_rely_on_is_the_same(ours, source):
    for chat in (CHATS[0], CHATS[6]):
        assert ours(source, chat) == theirs(source, chat)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": st.one_of(
                st.none(),
                TEXTS,
                st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=2),
            ),
            "reasoning_content": st.none() | TEXTS,
            "thinking": st.none() | TEXTS,
            "name": TEXTS,
            "tool_calls": st.none()
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "function": st.fixed_dictionaries(
                            {"name": TEXTS, "arguments": st.dictionaries(TEXTS, TEXTS, max_size=2)}
                        )
                    }
                ),
                max_size=2,
            ),
        },
    ),
    min_size=1,
    max_size=4,
)


@given(messages=MESSAGES, family=st.sampled_from(sorted(FAMILIES)), prompt=st.booleans())
@settings(max_examples=150)
def test_any_chat_renders_the_same_or_is_refused_by_both(ours, messages, family, prompt):
    source = FAMILIES[family]
    assert ours(source, messages, add_generation_prompt=prompt) == theirs(
        source, messages, add_generation_prompt=prompt
    )


NAMES = [
    f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image", "boi", "audio")
]
NAMES += ["extra"]
SHOW = "".join(f"[{name}={{{{ {name} }}}}]{{{{ {name} is defined }}}}" for name in NAMES)
ADDED = {"__type": "AddedToken", "content": "<e>", "lstrip": False, "normalized": False, "rstrip": False}
FILES = {
    "settings": {"tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": None}},
    "records": {"tokenizer_config.json": {"eos_token": ADDED, "image_token": "<img>", "audio_token": ADDED}},
    "an old map": {
        "special_tokens_map.json": {
            "bos_token": "<b>",
            "eos_token": {
                "content": "<e>",
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
            },
        }
    },
    "a map over settings": {
        "tokenizer_config.json": {"bos_token": "<s>", "mask_token": "<m>"},
        "special_tokens_map.json": {"bos_token": "<b>", "boi_token": "<boi>"},
    },
    "a map beside newer settings": {
        "tokenizer_config.json": {"bos_token": "<s>", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"bos_token": "<b>", "cls_token": "<c>"},
    },
    "extra, named": {
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<img>", "extra": "<x>"}}
    },
    "extra, a list": {"tokenizer_config.json": {"additional_special_tokens": ["<x>"], "cls_token": "<c>"}},
    "model-specific": {"tokenizer_config.json": {"model_specific_special_tokens": {"boi_token": "<boi>"}}},
    "no file": {},
}


@pytest.mark.parametrize("which", FILES)
@pytest.mark.parametrize("padding", [None, "<pad>"])
def test_a_template_sees_the_special_tokens_of_every_file(tmp_path, which, padding):
    rust = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
    if padding:
        rust.enable_padding(pad_token=padding, pad_id=1)
    rust.save(str(tmp_path / "tokenizer.json"))
    for name, content in FILES[which].items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "chat_template.jinja").write_text(SHOW)
    stock = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert shown(tmp_path) == stock.apply_chat_template(CHATS[0], tokenize=False)


def shown(folder):
    template = ChatTemplate.load(folder)
    try:
        return template.render(CHATS[0])
    finally:
        template.close()


CLASSES = ("GPT2", "Bert", "Roberta", "Llama", "Qwen2", "GPTNeoX", "Gemma", "Bart")


@pytest.mark.parametrize(
    "settings", [{}, {"bos_token": "<b>", "unk_token": None, "cls_token": "<c>"}], ids=str
)
@pytest.mark.parametrize("padding", [None, "<s>"])
@pytest.mark.parametrize("which", CLASSES)
def test_a_template_sees_the_special_tokens_that_only_the_tokenizers_class_names(
    tmp_path, which, settings, padding
):
    rust = folders.wordpiece() if which == "Bert" else folders.sentencepiece()
    if padding:
        rust.enable_padding(pad_token=padding, pad_id=1)
    folders.write(tmp_path, rust, {"tokenizer_class": f"{which}Tokenizer", **settings})
    (tmp_path / "chat_template.jinja").write_text(SHOW)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert shown(tmp_path) == stock.apply_chat_template(CHATS[0], tokenize=False)


@pytest.mark.parametrize("model", ["gpt2", "qwen2", "qwen3", "llama", "mistral"])
def test_a_template_sees_the_special_tokens_of_the_class_that_goes_with_the_model(tmp_path, model):
    folders.write(tmp_path, folders.byte_level(), {}, config={"model_type": model})
    (tmp_path / "chat_template.jinja").write_text(SHOW)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert shown(tmp_path) == stock.apply_chat_template(CHATS[0], tokenize=False)
