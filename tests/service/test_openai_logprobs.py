"""Log-probabilities in reports: where tokens begin, what they are called, and that no better one is overwritten."""

import json
from array import array
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, processors

from trimtab.service.model import Model, Scores
from trimtab.service.openai_chat import ChatAnswer
from trimtab.service.openai_completions import CompletionAnswer
from trimtab.service.openai_logprobs import LOWEST, Told, chat_logprobs, completion_logprobs
from trimtab.service.orders import Order, Prompt
from trimtab.service.prompts import answer_text, readable
from trimtab.service.sequence import Sequence
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Event, Sampling
from trimtab.text.stops import StopStrings
from trimtab.text.token_names import TokenNames
from trimtab.text.tokenizer import Tokenizer

BEGIN, HIDDEN, PAD = 256, 257, 300


def tokenizer():
    """Bytes, `<s>` (256) that begins every text, and `<|end|>` (257)."""
    written = Tokenizer.of_bytes().written
    rust = Rust(models.BPE(vocab={written(byte): byte for byte in range(256)}, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(["<s>", "<|end|>"])
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BEGIN)])
    return Tokenizer(rust)


MODEL = Model(
    "m", ServingConfiguration(engine="mock"), [], tokenizer=tokenizer(), template=None, encoding=None
)


class Owner:
    def notify(self, sequence):
        pass

    def stop(self, sequence):
        pass


def answering(kind, prompt=None, *, stops=(), stream=False, alternatives=0, echo=False, include_usage=False):
    """An answer in the making, and its one sequence."""
    order = Order(
        prompts=(prompt or Prompt(ids=[1]),),
        sampling=Sampling(max_tokens=100),
        alternatives=alternatives,
        stream=stream,
        echo=echo,
        include_usage=include_usage,
    )
    matched = StopStrings(stops) if stops else None
    sequence = Sequence(
        Owner(), 0, order.prompts[0], answer_text(MODEL, order.prompts[0]), matched, MODEL.markup, 1
    )
    generation = SimpleNamespace(order=order, sequences=[sequence], prompt_tokens=1, generated_tokens=1)
    exchange = SimpleNamespace(id="req_1", timing=dict)
    return kind(exchange, MODEL, generation), sequence


def streamed(answer, sequence, tokens, cuts):
    """All events of an answer whose tokens come in the pieces that `cuts` make."""
    edges = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    events = answer.opening()
    for start, end in pairwise(edges):
        part = tuple(tokens[start:end])
        finish = "length" if end == len(tokens) else None
        sequence.on_event(Event(id=1, tokens=part, logprobs=(-1.0,) * len(part), finish=finish))
        events += answer.piece(sequence)
    lines = (events + answer.closing()).decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]


def whole(answer, sequence, tokens, scores=None):
    logprobs = (-1.0,) * len(tokens)
    sequence.on_event(Event(id=1, tokens=tuple(tokens), logprobs=logprobs, finish="length"))
    return json.loads(b"".join(answer.whole([scores])))["choices"][0]


tokens_lists = st.lists(st.sampled_from([*"aé😀".encode(), HIDDEN, PAD]), min_size=1, max_size=30)


@given(tokens_lists, st.lists(st.integers(0, 60), max_size=6), st.sampled_from([(), ("aa",), ("<|end|>a",)]))
def test_text_offset_is_where_a_token_begins_and_goes_on_over_events(tokens, cuts, stops):
    one = whole(*answering(CompletionAnswer, stops=stops), tokens)
    offsets, names = one["logprobs"]["text_offset"], one["logprobs"]["tokens"]
    events = streamed(*answering(CompletionAnswer, stream=True, stops=stops), tokens, cuts)
    choices = [event["choices"][0] for event in events]
    assert [place for choice in choices for place in choice["logprobs"]["text_offset"]] == offsets
    assert [name for choice in choices for name in choice["logprobs"]["tokens"]] == names
    assert "".join(choice["text"] for choice in choices) == one["text"]
    for name, place, following in zip(names, offsets, offsets[1:], strict=False):
        if name in ("<|end|>", f"token_id:{PAD}"):
            assert following == place
    for name, place in zip(names, offsets, strict=True):
        if name == "a" and place < len(one["text"]) and not stops:
            assert one["text"][place] in ("a", "\N{REPLACEMENT CHARACTER}")


def scored(ids, top, row):
    """Scores in which every place has the same alternatives."""
    return Scores(
        logprobs=array("f", [-0.5] * len(ids)),
        top=top,
        top_ids=array("i", [token for _ in ids for token, _ in row]),
        top_logprobs=array("f", [logprob for _ in ids for _, logprob in row]),
    )


@pytest.mark.parametrize("text", ["héllo", "a<|end|>b", "  x", "😀"])
def test_text_offset_with_the_prompt(text):
    """A beginning that was added takes no room; markup that the client wrote does."""
    ids = MODEL.tokenizer.encode(text)
    prompt = readable(Prompt(ids=ids, text=text), MODEL, starts=True)
    answer, sequence = answering(CompletionAnswer, prompt, echo=True)
    choice = whole(answer, sequence, [97, HIDDEN, 98], scored([*ids, 97, HIDDEN, 98], 0, []))
    assert choice["text"] == text + "ab"
    offsets = choice["logprobs"]["text_offset"]
    assert offsets[:2] == [0, 0]
    assert offsets[-3:] == [len(text), len(text) + 1, len(text) + 1]
    for token, place in zip(ids[1:], offsets[1:], strict=False):
        name = MODEL.names[token].text
        assert name.startswith("bytes:") or choice["text"].startswith(name, place)


def test_text_offset_goes_on_after_what_a_normalizer_drops():
    """Soft hyphens that no token shows: the tokens behind them begin where they stand."""
    text = "a\u00adb\u00ad\u00adc"
    prompt = readable(Prompt(ids=[BEGIN, *b"abc"], text=text), MODEL, starts=True)
    assert prompt.starts == [0, 0, 1, 3]
    assert readable(Prompt(ids=[*b"xyzw"], text="ab"), MODEL, starts=True).starts == [0, 1, 2, 2]


def test_text_offset_with_a_prompt_of_ids():
    prompt = readable(Prompt(ids=[BEGIN, 104, *"é".encode(), HIDDEN, PAD, 105]), MODEL, starts=True)
    assert (prompt.text, prompt.starts) == ("héi", [0, 0, 1, 1, 2, 2, 2])
    assert readable(Prompt(ids=prompt.ids), MODEL, starts=False).text == "héi"


def test_padded_ids_and_bytes_do_not_overwrite_better_alternatives():
    """Ids without text, and two ids with one text, keep their places in both forms."""
    twice = TokenNames(MODEL.tokenizer, {257: "same", 256: "same"})
    alternatives = [(257, -0.1), (256, -0.2), (PAD, -0.3), (PAD + 1, -0.4), (0xC3, -0.5), (0xA9, -0.6)]
    told = Told(id=256, logprob=-0.2, alternatives=alternatives)
    found = completion_logprobs(twice, [told], tables=True)
    expected = ["same", "token_id:256", "token_id:300", "token_id:301", "bytes:\\xc3", "bytes:\\xa9"]
    assert found["top_logprobs"][0] == dict(zip(expected, [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6], strict=True))
    assert found["tokens"] == ["token_id:256"]
    (entry,) = chat_logprobs(twice, [told])
    assert [each["token"] for each in entry["top_logprobs"]] == expected
    assert (entry["token"], entry["top_logprobs"][2]["bytes"]) == ("token_id:256", None)


@given(st.integers(0, 260), st.lists(st.integers(0, 305), max_size=5, unique=True))
def test_the_chosen_token_is_in_its_table_under_its_name(chosen, others):
    alternatives = [(token, -1.0 - number) for number, token in enumerate(others)]
    logprob = dict(alternatives).get(chosen, -9.0)
    told = Told(id=chosen, logprob=logprob, alternatives=alternatives)
    found = completion_logprobs(MODEL.names, [told], tables=True)
    table = found["top_logprobs"][0]
    assert table[found["tokens"][0]] == logprob
    assert len(table) == len({chosen, *others})
    assert list(table.values())[: len(others)] == [value for _, value in alternatives]


def test_nothing_is_told_of_the_first_token_and_infinity_is_bounded():
    told = [Told(id=97, logprob=None), Told(id=98, logprob=-1e30, alternatives=[(98, -1e30)])]
    found = completion_logprobs(MODEL.names, told, tables=True)
    assert (found["token_logprobs"], found["top_logprobs"]) == ([None, LOWEST], [None, {"b": LOWEST}])
    assert chat_logprobs(MODEL.names, told)[0]["logprob"] == LOWEST


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 700])
@pytest.mark.parametrize("alternatives", [None, 0, 2])
def test_answers_made_in_pieces_are_whole(count, alternatives):
    """Also where there is nothing to tell, and at the borders of the pieces."""
    tokens = [97 + number % 26 for number in range(count)] or [HIDDEN]
    scores = scored([1, *tokens], 2, [(97, -0.1), (98, -0.2)]) if alternatives else None
    text = "".join(map(chr, tokens)) if count else ""
    choice = whole(*answering(CompletionAnswer, alternatives=alternatives), tokens, scores)
    assert (choice["text"], choice["finish_reason"], choice["index"]) == (text, "length", 0)
    chat = whole(*answering(ChatAnswer, alternatives=alternatives), tokens, scores)
    assert chat["message"] == {"role": "assistant", "content": text, "refusal": None}
    if alternatives is None:
        assert choice["logprobs"] is chat["logprobs"] is None
        return
    assert {len(each) for each in choice["logprobs"].values() if each is not None} == {len(tokens)}
    assert (choice["logprobs"]["top_logprobs"] is None) == (alternatives == 0)
    assert len(chat["logprobs"]["content"]) == len(tokens)
    assert [len(each["top_logprobs"]) for each in chat["logprobs"]["content"]] == [alternatives] * len(tokens)


@pytest.mark.parametrize("kind", [ChatAnswer, CompletionAnswer])
@pytest.mark.parametrize("alternatives", [None, 0])
@pytest.mark.parametrize("echo", [False, True])
def test_usage_is_null_on_every_event_but_the_last(kind, alternatives, echo):
    answer, sequence = answering(kind, stream=True, include_usage=True, alternatives=alternatives, echo=echo)
    *events, last = streamed(answer, sequence, list(b"abc"), [1, 2])
    assert len(events) >= 3
    assert all(event["usage"] is None and event["choices"] for event in events)
    assert last["usage"]["total_tokens"] == 2
    assert last["choices"] == []
    answer, sequence = answering(kind, stream=True, alternatives=alternatives, echo=echo)
    assert not any("usage" in event for event in streamed(answer, sequence, list(b"abc"), [1, 2]))
