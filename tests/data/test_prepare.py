import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from trimtab.data.chat import PLAIN_TEMPLATE, Message, render_plain
from trimtab.data.prepare import prepare
from trimtab.data.prepared import Prepared
from trimtab.data.tokenizer import load_tokenizer
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Data, Source
from trimtab.text.templates import ChatTemplate
from trimtab.text.tokenizer import Tokenizer


def lines(write_lines, name, count, word):
    return Source(
        jsonl=write_lines(name, [{"t": f"{word} {n} the cat\nsat on {n}"} for n in range(count)]), text="t"
    )


def test_tokens_are_the_documents_with_ends_between(write_lines, tmp_path):
    rows = [{"t": f"document number {n} says naïve <|endoftext|> {n}"} for n in range(40)]
    test = Source(jsonl=write_lines("x.jsonl", rows), text="t")
    prepared = prepare(
        Data(train=lines(write_lines, "t.jsonl", 50, "word"), test=test),
        tmp_path / "p",
        tokenizer=None,
        vocabulary=400,
    )
    tokenizer = load_tokenizer(prepared.tokenizer_folder)
    ids, offsets = prepared.tokens("test"), prepared.offsets("test")
    assert offsets[0] == 0
    assert offsets[-1] == len(ids) == prepared.record.tokens["test"]
    for number, (start, end) in enumerate(pairwise(offsets)):
        # What a text spells is never a special token; the one end-of-text is ours.
        assert np.flatnonzero(ids[start:end] == prepared.record.eos_id).tolist() == [end - start - 1]
        assert tokenizer.decode(ids[start : end - 1].tolist()) == rows[number]["t"]
    assert prepared.names("test")[3] == "x.jsonl:4"
    windows, owners = prepared.windows("test", 16)
    assert windows.shape == (len(ids) // 16, 16)
    assert owners.shape == (len(windows),)
    assert set(owners.tolist()) <= set(range(40))


def test_stock_transformers_loads_the_tokenizer_and_agrees(write_lines, tmp_path):
    from transformers import AutoTokenizer

    prepared = prepare(
        Data(train=lines(write_lines, "t.jsonl", 50, "wörd")), tmp_path / "p", tokenizer=None, vocabulary=350
    )
    text = "wörd 3 the cat\n  sat"
    stock = AutoTokenizer.from_pretrained(prepared.tokenizer_folder)
    assert stock.eos_token == "<|endoftext|>"
    assert stock.encode(text) == load_tokenizer(prepared.tokenizer_folder).encode(text).ids
    assert stock.encode(text) == list(Tokenizer.load(prepared.tokenizer_folder).encode(text))
    assert stock.decode(stock.encode(text)) == text


def test_same_request_is_found_again_and_a_changed_file_is_not(write_lines, tmp_path):
    data = Data(train=lines(write_lines, "t.jsonl", 50, "word"))
    first = prepare(data, tmp_path / "p", tokenizer=None, vocabulary=400)
    stamp = (tmp_path / "p" / "prepared.json").stat().st_mtime_ns
    prepare(data, tmp_path / "p", tokenizer=None, vocabulary=400)
    assert (tmp_path / "p" / "prepared.json").stat().st_mtime_ns == stamp
    again = prepare(data, tmp_path / "q", tokenizer=None, vocabulary=400)
    assert again.digest == first.digest
    lines(write_lines, "t.jsonl", 51, "word")
    changed = prepare(data, tmp_path / "p", tokenizer=None, vocabulary=400)
    assert changed.digest != first.digest
    assert prepare(data, tmp_path / "p", tokenizer=None, vocabulary=270).digest != changed.digest


def test_chats_are_rendered_as_the_service_renders_them(write_lines, tokenizer, tmp_path):
    chat = [
        {"role": "user", "content": "the <|endoftext|> cat?"},
        {"role": "assistant", "content": "sat\nhere"},
    ]
    source = Source(jsonl=write_lines("c.jsonl", [{"m": chat}] * 3), messages="m")
    prepared = prepare(Data(test=source), tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
    template = ChatTemplate(PLAIN_TEMPLATE, {})
    rendered = template.render(chat, add_generation_prompt=False)
    template.close()
    assert rendered == render_plain(tuple(Message(**message) for message in chat))
    start, end = prepared.offsets("test")[:2]
    ids = prepared.tokens("test")[start : end - 1].tolist()
    assert load_tokenizer(tokenizer).decode(ids, skip_special_tokens=False) == rendered


def test_a_models_own_template_and_its_refusal(write_lines, tokenizer, tmp_path):
    (tokenizer / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "[{{ m.content }}]{% endfor %}"
    )
    good = Source(jsonl=write_lines("c.jsonl", [{"m": [{"role": "user", "content": "cat"}]}]), messages="m")
    prepared = prepare(Data(test=good), tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
    assert load_tokenizer(tokenizer).decode(prepared.tokens("test")[:-1].tolist()) == "[cat]"
    bad = Source(jsonl=write_lines("d.jsonl", [{"m": [{"role": "system", "content": "cat"}]}]), messages="m")
    with pytest.raises(DataError, match="no system here") as caught:
        prepare(Data(test=bad), tmp_path / "q", tokenizer=tokenizer, vocabulary=None)
    assert "d.jsonl:1" in str(caught.value)


def test_shared_text_is_refused_and_nothing_is_left(write_lines, tmp_path):
    train = lines(write_lines, "t.jsonl", 50, "word")
    with pytest.raises(DataError, match=r"9\d\.\d% of the test"):
        prepare(Data(train=train, test=train), tmp_path / "p", tokenizer=None, vocabulary=300)
    assert not list(tmp_path.glob("*p*/"))


def test_no_text_at_all(tmp_path, tokenizer):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no text"):
        prepare(
            Data(test=Source(text=str(tmp_path / "empty.txt"))),
            tmp_path / "p",
            tokenizer=tokenizer,
            vocabulary=None,
        )


def test_missing_file_missing_split_and_short_split(write_lines, tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        prepare(Data(test=Source(text="/nowhere.txt")), tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
    prepared = prepare(
        Data(test=lines(write_lines, "t.jsonl", 2, "word")),
        tmp_path / "p",
        tokenizer=tokenizer,
        vocabulary=None,
    )
    with pytest.raises(DataError, match="no train split"):
        prepared.tokens("train")
    with pytest.raises(DataError, match="less than a window of 5000"):
        prepared.windows("test", 5000)
    with pytest.raises(DataError, match="no prepared data"):
        Prepared.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("settings", [{"eos_token": {"content": "<|endoftext|>"}}, {}])
def test_end_of_text_from_tokenizer_or_config(tokenizer, tmp_path, write_lines, settings):
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    (tokenizer / "config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    prepared = prepare(
        Data(test=lines(write_lines, "t.jsonl", 2, "word")),
        tmp_path / "p",
        tokenizer=tokenizer,
        vocabulary=None,
    )
    assert prepared.record.eos_id == 0


def test_no_end_of_text(tokenizer, tmp_path, write_lines):
    (tokenizer / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match="end-of-text"):
        prepare(
            Data(test=lines(write_lines, "t.jsonl", 2, "w")),
            tmp_path / "p",
            tokenizer=tokenizer,
            vocabulary=None,
        )


def test_data_needs_no_torch():
    rooms = ("data.prepare", "data.loader", "models.info", "parallel.launching.launch", "training.job")
    modules = ", ".join(f"trimtab.{room}" for room in rooms)
    code = f"import sys; sys.modules['torch'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
