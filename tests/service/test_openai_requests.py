"""Requests as clients send them: what asks for nothing is taken, what would be ignored is refused by name."""

import json

import pytest

from trimtab.service import limits
from trimtab.service.openai_messages import for_template, refuse_left_out
from trimtab.service.openai_neutral import IGNORED, NEUTRAL
from trimtab.service.openai_orders import sampling_of
from trimtab.service.openai_requests import ChatRequest, CompletionRequest, decode
from trimtab.spec.errors import UsageError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}


def asked(body, **more):
    kind = ChatRequest if "messages" in body else CompletionRequest
    return decode(json.dumps({**body, **more}).encode(), kind)


def rendered(*messages):
    return for_template(asked({"model": "m", "messages": list(messages)}).messages)


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_knob_that_is_not_served_is_taken_while_it_asks_for_nothing(name):
    for body in (CHAT, TEXT):
        for value in (None, *NEUTRAL[name]):
            asked(body, **{name: value})
    if name not in ("best_of", "echo"):
        for body in (CHAT, TEXT):
            with pytest.raises(UsageError, match=f"'{name}' is not served") as caught:
                asked(body, **{name: 0.73})
            assert caught.value.where == name


@pytest.mark.parametrize(
    "sent",
    [
        {"top_p": 0},
        {"top_p": 0.0, "temperature": 0},
        {
            "repetition_penalty": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
        },
        {"metadata": {"trace": "x" * 512, "nested": {"a": [1]}}, "user": "u" * 1000},
        {"max_tokens": 2.0, "n": 1.0, "seed": 7.0},
        {"prompt_cache_retention": "24h", "prompt_cache_key": "k" * 500},
        {"stream_options": {}, "stream": False},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": False}},
        {"extra_body": {}, "chat_template_kwargs": {}, "logit_bias": [], "something_unheard_of": None},
    ],
)
def test_what_sdks_and_front_ends_send_is_taken(sent):
    for body in (CHAT, TEXT):
        asked(body, **sent)


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_changes_no_answer_is_taken_whatever_it_says(name):
    for value in (None, "x" * 2000, {"a": 1}, [1], 5, True):
        asked(CHAT, **{name: value})


def test_the_two_switches_for_log_probabilities():
    assert asked(CHAT, logprobs=False, top_logprobs=0).top_logprobs == 0
    assert asked(TEXT, logprobs=False).logprobs is None
    with pytest.raises(UsageError, match="got bool"):
        asked(TEXT, logprobs=True)


def test_the_smallest_nucleus_is_the_most_probable_token():
    for body in (CHAT, TEXT):
        found = sampling_of(asked(body, top_p=0, temperature=1.3))
        assert (found.temperature, found.top_p) == (0.0, 1.0)


def test_whole_numbers_may_be_written_with_a_point_and_others_are_told():
    found = asked({"model": "m", "prompt": [[97.0, 98], [99]]}, max_tokens=3.0, logprobs=2.0, temperature=0.5)
    assert (found.prompt, found.max_tokens, found.logprobs, found.temperature) == (
        [[97, 98], [99]],
        3,
        2,
        0.5,
    )
    for value in (2.5, -1.0, 1e30, "2", True):
        with pytest.raises(UsageError, match="max_tokens"):
            asked(TEXT, max_tokens=value)


def test_zero_is_not_false_and_one_is_not_true():
    for name, value in {"top_k": False, "min_p": False, "repetition_penalty": True, "store": 0}.items():
        with pytest.raises(UsageError, match=name):
            asked(TEXT, **{name: value})


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": "", "tool_calls": []}, ""),
        ({"content": "x", "refusal": None, "audio": None, "function_call": None, "annotations": []}, "x"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]}, "ab"),
        ({"content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}, "a"),
        ({"content": "x", "cache_control": {"type": "ephemeral"}}, "x"),
        ({"content": []}, ""),
    ],
)
def test_an_assistants_message_may_be_sent_back_as_it_came(message, content):
    assert rendered({"role": "assistant", **message}) == [{"role": "assistant", "content": content}]


def test_a_template_gets_everything_that_stands_in_a_message():
    message = {"role": "assistant", "content": "x", "reasoning_content": "why", "name": "me", "id": 5}
    assert rendered(message) == [message]
    assert rendered({"role": "developer", "content": "x"}) == [{"role": "system", "content": "x"}]
    found = rendered(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "5 °C", "tool_call_id": "1"},
    )
    # Templates write the arguments themselves.
    assert found[0]["tool_calls"] == [
        {**CALL, "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    ]
    assert found[1] == {"role": "tool", "content": "5 °C", "tool_call_id": "1"}


def test_the_use_of_a_tool_that_the_template_leaves_out_is_refused():
    found = rendered(
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": 'say "5"'},
    )
    refuse_left_out(found, 'weather({"city": "Bern"}) → say "5"')
    refuse_left_out(found, 'weather → {"content": "say \\"5\\""}')
    for text, where in (("weather", r"messages[2]"), ('say "5"', r"messages[1].tool_calls")):
        with pytest.raises(UsageError, match="does not write") as caught:
            refuse_left_out(found, text)
        assert caught.value.where == where


def test_looking_for_what_tools_said_does_not_grow_with_the_square_of_a_chat():
    """Twenty thousand answers of tools in a megabyte: each is looked for where the one before it stands."""

    class Text(str):
        __slots__ = ()
        looked = 0

        def find(self, what, at):
            place = str.find(self, what, at)
            Text.looked += max(place, at) - at
            return place

    found = rendered(*[{"role": "tool", "content": f"answer {number}"} for number in range(20_000)])
    text = Text("\n".join(message["content"] for message in found))
    refuse_left_out(found, text)
    assert 0 < Text.looked < 2 * len(text)


def test_what_is_nested_too_deeply_for_a_template_is_refused():
    value = []
    for _ in range(200):
        value = [value]
    with pytest.raises(UsageError, match="nested too deeply"):
        rendered({"role": "user", "content": "x", "extra": value})
    rendered({"role": "user", "content": "x", "extra": {"a": [{"b": [1]}]}})


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "user"}, "messages[0].content"),
        ({"role": "system", "content": None}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "1"}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[...].type",
        ),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": "assistant", "content": "x", "audio": {"id": "1"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0].function"),
        ("hi", "messages[0]"),
    ],
)
def test_a_wrong_message_is_named(message, where):
    with pytest.raises(UsageError) as caught:
        rendered(message)
    assert caught.value.where.replace("[...]", "[0]") == where.replace("[...]", "[0]")


def test_a_chat_has_as_many_messages_as_a_body_holds():
    message = {"role": "user", "content": ""}
    many = limits.MAX_BODY_BYTES // (len(json.dumps(message, separators=(",", ":"))) + 1)
    assert len(rendered(*[message] * many)) == many
    assert many < limits.MAX_MESSAGES


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"model":"m","messages":[{"role":"user","content":"emoji \\ud83d"}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":"x \\ude00 y"}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\\ud83dx"}]}]}', None),
        (b'{"model":"m","prompt":["a","\\ud83d\\u0041"]}', "prompt[1]"),
        (b'{"model":"\\ud83d","prompt":"a"}', "model"),
        (b'{"model":"m","prompt":"a","metadata":{"\\ud83d":1}}', None),
    ],
)
def test_half_a_character_is_told_as_such_and_where(body, where):
    with pytest.raises(UsageError, match="half a character") as caught:
        decode(body, ChatRequest if b"messages" in body else CompletionRequest)
    assert where is None or caught.value.where == where


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"model":"m","prompt":"\\ud83d\\ude00"}', None),
        (b'{"model":"m","prompt":"\\\\ud83d"}', None),
        (b'\xef\xbb\xbf{"model":"m","prompt":"a"}', None),
        (b'{"model":"m","prompt":"a\\u0000b"}', None),
        ('{"model":"m","prompt":"é"}'.encode("latin-1"), "not UTF-8"),
        ('{"model":"m","prompt":"é"}'.encode("utf-16"), "not UTF-8"),
        ('{"model":"m","prompt":"é"}'.encode("utf-32-le"), "not UTF-8"),
        (b'{"model":"m","prompt":"\xed\xa0\xbd"}', "not UTF-8"),
        (b'{"model":"m","prompt":"a', "not JSON"),
        (b'{"model":"m","prompt":"\\ud83d', "not JSON"),
        (b'{"model":"m","temperature":NaN,"prompt":"a"}', "not JSON"),
        (b'{"model":"m","prompt":' + b"[" * 200_000, "nested"),
        (b'{"model":"m","user":' + b'{"a":' * 500 + b'"\\ud83d"' + b"}" * 500 + b"}", "half|nested|JSON"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
    ],
)
def test_a_body_is_json_in_utf8_or_is_told_what_it_is(body, words):
    if words is None:
        assert decode(body, CompletionRequest).model == "m"
        return
    with pytest.raises(UsageError, match=words):
        decode(body, CompletionRequest)
