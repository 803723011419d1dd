"""A tokenizer's parts come with a model: what may take too much is run apart, within bounds, or refused."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import tokenizer_folders as made
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Rust

from trimtab.spec.errors import ModelError, UsageError
from trimtab.text.components import KNOWN_PATTERNS
from trimtab.text.guarded import GuardedEncoder
from trimtab.text.stock_tokenizer import build, read_folder
from trimtab.text.tokenizer import Tokenizer

FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def split_by(pattern):
    rust = made.byte_level()
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return rust


def normalized_by(*steps):
    rust = made.byte_level()
    rust.normalizer = normalizers.Sequence(list(steps))
    return rust


def written_twice():
    rust = made.byte_level()
    rust.post_processor = processors.TemplateProcessing(single="$A $A", pair="$A $B", special_tokens=[])
    return rust


def long_words():
    words = models.WordPiece(vocab={"a": 0, "[UNK]": 1}, unk_token="[UNK]", max_input_chars_per_word=10**9)
    return Rust(words)


UNBOUNDED = {
    "backtracking": lambda: split_by(r"(a+)+$"),
    "backtracking in a normalizer": lambda: normalized_by(normalizers.Replace(Regex(r"(x+x+)+y"), "")),
    "every end from every place": lambda: split_by(r"\s+$"),
    "a replacement that grows": lambda: normalized_by(normalizers.Replace("a", "a" * 10_000)),
    "replacements that grow each other": lambda: normalized_by(*[normalizers.Replace("a", "aa")] * 12),
    "a long beginning": lambda: normalized_by(normalizers.Prepend("a" * 10_000)),
    "more steps than anybody has": lambda: normalized_by(*[normalizers.NFC()] * 100),
    "a text taken twice": written_twice,
    "words of any length": long_words,
    "Unigram": made.unigram,
}
BOUNDED = {
    "bytes": made.byte_level,
    "Llama 2": made.sentencepiece,
    "Llama 2, first": lambda: made.sentencepiece(scheme="first"),
    "words": made.wordpiece,
    **{pattern: (lambda pattern=pattern: split_by(pattern)) for pattern in KNOWN_PATTERNS},
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_may_take_too_much_is_told(name, tmp_path):
    assert read_folder(made.write(tmp_path, UNBOUNDED[name](), FAST)).unbounded


@pytest.mark.parametrize("name", BOUNDED)
def test_known_parts_are_bounded(name, tmp_path):
    folder = read_folder(made.write(tmp_path, BOUNDED[name](), FAST))
    assert folder.unbounded is None
    build(folder)


def seconds(rust, text):
    started = time.process_time()
    rust.encode_batch_fast([text])
    return time.process_time() - started


@pytest.mark.parametrize("pattern", sorted(KNOWN_PATTERNS))
def test_known_patterns_take_time_in_proportion(pattern):
    """Those that do not take half a minute for as much."""
    rust = split_by(pattern)
    for unit in ("a", "A", " ", "\n", " \n", "1", "'", "é", "日", "\t a", "!", "aA", "e\u0301", "'s"):
        assert seconds(rust, unit * (80_000 // len(unit)) + "a") < 2, unit


REFUSED = {
    "a decoder that searches": decoders.Sequence([decoders.Replace(Regex(r"(a+)+$"), "")]),
    "a decoder that grows": decoders.Sequence([decoders.Replace("a", "a" * 100)]),
    "a decoder that the library panics in": decoders.Strip(" ", 0, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_decoders_run_in_the_service_so_others_are_refused(name, tmp_path):
    rust = made.byte_level()
    rust.decoder = REFUSED[name]
    with pytest.raises(ModelError, match="decoder"):
        Tokenizer.load(made.write(tmp_path, rust, FAST))


def test_added_tokens_without_number_are_refused(tmp_path):
    folder = made.write(tmp_path, made.byte_level(), FAST)
    file = json.loads((folder / "tokenizer.json").read_text())
    first = file["added_tokens"][0]
    file["added_tokens"] += [{**first, "id": 1000 + n, "content": f"<{n}>"} for n in range(70_000)]
    (folder / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(ModelError, match="added tokens"):
        Tokenizer.load(folder)


def test_a_file_without_measure_is_refused(tmp_path):
    folder = made.write(tmp_path, made.byte_level(), FAST)
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(ModelError, match="bytes"):
        Tokenizer.load(folder)


@pytest.fixture
def opened(tmp_path):
    encoders = []

    def start(rust, **bounds):
        folder = made.write(tmp_path, rust, FAST)
        encoders.append(GuardedEncoder(folder, **bounds))
        return encoders[-1]

    yield start
    for each in encoders:
        each.close()


def ids(encoder, text):
    return encoder.encode([text], add_special_tokens=True)[0]


def test_the_guarded_gives_what_the_library_gives(tmp_path):
    rust = split_by(r"[aeiou]+")
    tokenizer = Tokenizer.load(made.write(tmp_path, rust, FAST))
    try:
        assert tokenizer.guarded
        for text in made.SAMPLES:
            assert tokenizer.encode(text) == rust.encode(text).ids
            assert tokenizer.decode(tokenizer.encode(text)) == rust.decode(rust.encode(text).ids)
        assert tokenizer.encode_many(["a", "b"]) == [rust.encode("a").ids, rust.encode("b").ids]
        plain = tokenizer.encode_plain("<|endoftext|>")
        assert len(plain) > 1
        assert b"".join(tokenizer.pieces[token] for token in plain) == b"<|endoftext|>"
    finally:
        tokenizer.close()


def test_a_panic_of_the_library_is_a_sentence(opened):
    encoder = opened(split_by(r"(a+)+$"))
    with pytest.raises(UsageError, match="cannot encode"):
        ids(encoder, "a" * 60 + "b")
    assert ids(encoder, "hello")


def test_a_panic_in_this_process_is_a_sentence():
    with pytest.raises(UsageError, match="cannot encode"):
        Tokenizer(split_by(r"(a+)+$")).encode("a" * 60 + "b")


def test_time_is_bounded_and_the_next_text_is_encoded(opened):
    encoder = opened(split_by(r"\s+$"), encode_seconds=1)
    started = time.monotonic()
    with pytest.raises(UsageError, match="too long or too much"):
        ids(encoder, " " * 500_000 + "a")
    assert time.monotonic() - started < 30
    assert ids(encoder, "hello")


def test_memory_is_bounded_and_the_next_text_is_encoded(opened):
    encoder = opened(normalized_by(normalizers.Replace("a", "a" * 100_000)))
    with pytest.raises(UsageError, match="cannot encode"):
        ids(encoder, "a" * 200_000)
    assert ids(encoder, "hello")


def test_a_stopped_process_does_not_hold_anybody(opened):
    encoder = opened(made.unigram(), encode_seconds=1)
    encoder._child.send_signal(signal.SIGSTOP)
    with pytest.raises(UsageError, match="too long"):
        ids(encoder, "a" * 500_000)
    assert ids(encoder, "hello")


def test_closing_ends_it_in_the_middle_of_its_work(opened):
    import threading

    encoder = opened(split_by(r"\s+$"), encode_seconds=60)
    failed = []

    def work():
        try:
            ids(encoder, " " * 2_000_000 + "a")
        except UsageError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    child = psutil.Process(encoder._child.pid)
    while child.cpu_times().user < 0.3 and thread.is_alive():
        time.sleep(0.05)
    started = time.monotonic()
    encoder.close()
    thread.join(20)
    assert failed
    assert time.monotonic() - started < 20
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_pattern_that_cannot_be_compiled_is_refused(tmp_path):
    pattern = "(" * 20_000 + ")" * 20_000
    folder = made.write(tmp_path, made.byte_level(), FAST)
    file = json.loads((folder / "tokenizer.json").read_text())
    file["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(ModelError, match="cannot be loaded"):
        GuardedEncoder(folder)


WORKS_FOR_EVER = """
import sys
from pathlib import Path
from trimtab.text.guarded import GuardedEncoder
encoder = GuardedEncoder(Path(sys.argv[1]), encode_seconds=2)
print(encoder._child.pid, flush=True)
encoder.encode([" " * 5_000_000 + "a"], add_special_tokens=True)
"""


def test_no_encoder_outlives_its_service(tmp_path):
    folder = made.write(tmp_path, split_by(r"\s+$"), FAST)
    parent = subprocess.Popen([sys.executable, "-c", WORKS_FOR_EVER, str(folder)], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))
    while child.cpu_times().user < 0.3 and parent.poll() is None:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs([child], timeout=30)
    assert not alive
