"""The official client against a real gateway: what it asks for is what it gets, whole and as a stream."""

import openai
import pytest
from fake_worker import SAYS

from trimtab.service.launch import ServedModel, start
from trimtab.spec.serving import ServingConfiguration

HELLO = [{"role": "user", "content": "hi"}]


def said(tokens):
    whole = SAYS * (tokens // len(SAYS) + 1)
    return whole[:tokens].decode(errors="replace")


@pytest.fixture(scope="module")
def client(fake):
    return fake.client()


def complete(client, **settings):
    return client.completions.create(model="fake", **{"prompt": "hi", "max_tokens": 20, **settings})


def test_models(client):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").id == "fake"


def test_completion(client):
    answer = complete(client)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == (said(20), "length", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        2,
        20,
        22,
    )
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"


def test_sixteen_tokens_by_default_and_none_if_asked(client):
    assert client.completions.create(model="fake", prompt="hi").usage.completion_tokens == 16
    answer = complete(client, max_tokens=0, echo=True)
    assert (answer.choices[0].text, answer.usage.completion_tokens) == ("hi", 0)


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        ("abc", 1, 3),
        ([1, 2, 3, 4], 1, 4),
        (["abc", "de"], 2, 5),
        ([[1, 2], [3], [4, 5]], 3, 5),
        ("é" * 1000, 1, 2000),
        ("long text " * 390, 1, 3900),
    ],
)
def test_prompts_of_every_kind(client, prompt, prompts, tokens):
    answer = complete(client, prompt=prompt, max_tokens=3, n=2)
    assert [choice.index for choice in answer.choices] == list(range(2 * prompts))
    assert {choice.text for choice in answer.choices} == {said(3)}
    assert answer.usage.prompt_tokens == tokens
    assert answer.usage.completion_tokens == 6 * prompts


def test_stop_cuts_text_and_count(client, fake, until):
    answer = complete(client, max_tokens=4000, stop=["wör", "xyz"])
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("héllo ", "stop")
    assert answer.usage.completion_tokens == len("héllo wör".encode())
    assert until(lambda: fake.asked("cancel")), "the engine was not told to stop"


@pytest.mark.parametrize("settings", [{}, {"n": 2}, {"stop": "ld"}, {"echo": True}, {"logprobs": 0}])
def test_a_stream_says_the_same(client, settings):
    whole = complete(client, max_tokens=60, **settings)
    texts, finishes = {}, {}
    for event in complete(client, max_tokens=60, stream=True, **settings):
        for choice in event.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                finishes[choice.index] = choice.finish_reason
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert finishes == {choice.index: choice.finish_reason for choice in whole.choices}


def test_usage_and_timing_end_a_stream_that_asks_for_it(fake):
    events = fake.events(prompt="hi", max_tokens=5, stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    assert events[-2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    assert events[-2]["choices"] == []
    assert set(events[-2]["timing_ms"]) == {"tokenize", "first_token", "generate"}
    assert all(event["usage"] is None for event in events[:-2])
    assert "usage" not in fake.events(prompt="hi", max_tokens=5)[-2]


def test_no_event_holds_half_a_character(fake):
    texts = [event["choices"][0]["text"] for event in fake.events(prompt="hi", max_tokens=40)[:-1]]
    assert "".join(texts) == said(40)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)


def test_chat(client):
    answer = client.chat.completions.create(model="fake", messages=HELLO, max_tokens=20)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        said(20),
        "length",
    )
    assert answer.usage.prompt_tokens == len("user: hi\nassistant: ")


def test_chat_takes_parts_and_answers_to_the_end_of_the_context_by_default(client):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = client.chat.completions.create(
        model="fake", messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    )
    assert answer.usage.prompt_tokens == len("system: x\nuser: hi\nassistant: ")
    assert answer.usage.total_tokens == 4096


def test_chat_stream(client):
    chunks = list(
        client.chat.completions.create(model="fake", messages=HELLO, max_tokens=20, stream=True, n=2)
    )
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == said(20)
        assert mine[-1].finish_reason == "length"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_logprobs_of_the_answer_alone(client):
    logprobs = complete(client, max_tokens=4, logprobs=0).choices[0].logprobs
    assert logprobs.tokens == ["h", "bytes:\\xc3", "bytes:\\xa9", "l"]
    assert logprobs.token_logprobs == [-0.5] * 4
    assert logprobs.top_logprobs is None
    assert logprobs.text_offset == [0, 1, 1, 2]


def test_alternatives_and_the_prompts_own(client):
    answer = complete(client, max_tokens=2, logprobs=2, echo=True)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "hih\N{REPLACEMENT CHARACTER}"
    assert logprobs.tokens == ["h", "i", "h", "bytes:\\xc3"]
    assert logprobs.token_logprobs == [None, -0.25, -0.5, -0.75]
    assert logprobs.top_logprobs[0] is None
    assert logprobs.top_logprobs[1] == pytest.approx({"i": -0.1, "j": -0.2})


def test_only_scoring(client, fake):
    before = len(fake.asked("generate"))
    answer = complete(client, max_tokens=0, logprobs=1, echo=True, prompt="abc")
    assert answer.choices[0].logprobs.token_logprobs == [None, -0.25, -0.5]
    assert len(fake.asked("generate")) == before


def test_greedy_needs_no_scoring_for_one_alternative(client, fake):
    before = len(fake.asked("score"))
    logprobs = complete(client, max_tokens=2, logprobs=1, temperature=0).choices[0].logprobs
    assert logprobs.top_logprobs[0] == {"h": -0.5}
    assert len(fake.asked("score")) == before


def test_chat_logprobs(client):
    settings = {"model": "fake", "messages": HELLO, "max_tokens": 3, "logprobs": True}
    content = client.chat.completions.create(top_logprobs=2, **settings).choices[0].logprobs.content
    assert [(each.token, each.logprob, each.bytes) for each in content][:2] == [
        ("h", -5.0, [104]),
        ("bytes:\\xc3", -5.25, [195]),
    ]
    assert [top.token for top in content[0].top_logprobs] == ["h", "i"]
    streamed = [
        each.logprob
        for chunk in client.chat.completions.create(stream=True, **settings)
        if chunk.choices[0].logprobs
        for each in chunk.choices[0].logprobs.content
    ]
    assert streamed == [-0.5] * 3


def test_token_ids_beside_the_text(client, fake):
    answer = complete(client, max_tokens=5, extra_body={"return_token_ids": True})
    assert answer.choices[0].token_ids == list(SAYS[:5])
    events = fake.events(prompt="hi", max_tokens=5, extra_body={"return_token_ids": True})[:-1]
    assert [token for event in events for token in event["choices"][0]["token_ids"]] == list(SAYS[:5])


def test_parameters_that_ask_for_nothing_are_taken(client):
    answer = client.chat.completions.create(
        model="fake",
        messages=[*HELLO, {"role": "assistant", "content": "x", "refusal": None, "tool_calls": []}, *HELLO],
        max_completion_tokens=2,
        presence_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        user="me",
        metadata={"a": "b"},
        store=False,
    )
    assert answer.usage.completion_tokens == 2


def test_messages_go_to_the_template_as_they_were_sent(client):
    """An answer sent back with all that servers put into one, and a tool's answer where the template writes it."""
    back = {"content": None, "refusal": None, "tool_calls": [], "reasoning_content": "so", "annotations": []}
    cached = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    answer = client.chat.completions.create(
        model="fake",
        messages=[
            {"role": "user", "content": [cached]},
            {"role": "assistant", **back},
            {"role": "tool", "tool_call_id": "1", "content": "5"},
        ],
        max_tokens=2,
        extra_body={"repetition_penalty": 1.0, "top_k": -1, "extra_body": {}, "max_completion_tokens": 2.0},
    )
    assert answer.usage.prompt_tokens == len("user: hi\nassistant: \ntool: 5\nassistant: ")


def test_the_real_worker_and_its_mock_engine(tmp_path):
    serving = ServingConfiguration(engine="mock", replicas=2)
    with (
        start([ServedModel(name="mock", serving=serving)], home=tmp_path, port=0) as service,
        openai.OpenAI(
            base_url=service.url + "/v1", api_key=service.create_key("me"), max_retries=0
        ) as client,
    ):
        ask = {"model": "mock", "prompt": "abc", "max_tokens": 30, "temperature": 0}
        whole = client.completions.create(**ask).choices[0].text
        assert len(whole) == 30
        assert "".join(e.choices[0].text for e in client.completions.create(stream=True, **ask)) == whole
        scored = client.completions.create(**{**ask, "max_tokens": 1}, echo=True, logprobs=2)
        assert len(scored.choices[0].logprobs.token_logprobs) == 4
        assert len(service.pids()) == 3
