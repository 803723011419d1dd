"""What loaders take for encoders and classifiers; decoders' windows are in `test_loader`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.frame import Frame, frame_of
from trimtab.data.loader import Loader
from trimtab.data.samples.base import IGNORED
from trimtab.data.samples.masked import MaskedWindows
from trimtab.data.samples.texts import LabelledTexts
from trimtab.data.tokenizer import load_tokenizer, train_bpe
from trimtab.spec.errors import DataError

FRAME = Frame(starts=(1,), ends=(2,), pad=0, mask=3, special=frozenset(range(4)))
VOCABULARY = 1000


def masked(count=64, length=130, seed=0):
    tokens = np.random.Generator(np.random.PCG64(7)).integers(4, VOCABULARY, size=count * (length - 2))
    # A separator inside of a window, as between two documents.
    tokens[5] = 2
    return MaskedWindows(tokens.astype("<u2"), FRAME, length=length, vocabulary=VOCABULARY, seed=seed), tokens


@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4))
def test_masks_depend_on_seed_and_place_alone(world, before, other_world):
    """Also of a run that goes on in another number of ranks."""
    samples, _ = masked(count=8, length=20)
    alone = Loader(samples, batch=4, seed=3)
    for _ in range(before):
        alone.next()
    wanted = alone.next()
    for ranks in (world, other_world):
        parts = [
            Loader(samples, batch=4, seed=3, rank=rank, world=ranks, position=4 * before).next()
            for rank in range(ranks)
        ]
        for name, values in wanted.items():
            assert np.array_equal(np.concatenate([part[name] for part in parts]), values)


def test_fifteen_percent_are_asked_and_most_of_them_masked():
    samples, tokens = masked()
    taken = samples.take(range(64), range(64))
    ids, labels = taken["input_ids"], taken["labels"]
    assert ids.shape == labels.shape == (64, 130)
    whole = np.concatenate([np.ones((64, 1)), tokens.reshape(64, 128), np.full((64, 1), 2)], 1)
    asked = labels != IGNORED
    assert (labels[asked] == whole[asked]).all()
    assert (ids[~asked] == whole[~asked]).all()
    assert asked.sum(1).tolist() == [round(0.15 * 127)] + [round(0.15 * 128)] * 63
    assert not np.isin(labels[asked], [0, 1, 2, 3]).any()
    masks, kept = (ids[asked] == 3).mean(), (ids[asked] == labels[asked]).mean()
    assert masks == pytest.approx(0.8, abs=0.05)
    assert kept == pytest.approx(0.1, abs=0.05)


def test_another_epoch_or_seed_masks_other_tokens():
    samples, _ = masked()
    first = samples.take([0], [0])["labels"]
    assert not np.array_equal(first, samples.take([0], [64])["labels"])
    assert not np.array_equal(first, masked(seed=1)[0].take([0], [0])["labels"])


def test_texts_are_framed_cut_and_padded():
    texts = LabelledTexts(
        np.arange(10, 22, dtype="<u2"),
        np.array([0, 2, 3, 12]),
        np.array([1, 0, 1], dtype="<i4"),
        FRAME,
        length=6,
    )
    taken = texts.take([2, 1, 0], [0, 1, 2])
    assert taken["input_ids"].tolist() == [[1, 13, 14, 15, 16, 2], [1, 12, 2, 0, 0, 0], [1, 10, 11, 2, 0, 0]]
    assert taken["attention_mask"].sum(1).tolist() == [6, 3, 4]
    assert taken["labels"].tolist() == [1, 0, 1]


def test_what_an_encoder_needs_of_its_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    text = ["the cat sat on the mat and the hat\n" * 5]
    folder = train_bpe(text, 300, tmp_path / "encoder", encoder=True)
    stock = AutoTokenizer.from_pretrained(folder)
    assert frame_of(folder) == Frame((2,), (3,), 0, 4, frozenset(range(5)))
    assert (stock.pad_token, stock.mask_token, stock.cls_token, stock.sep_token) == (
        "[PAD]",
        "[MASK]",
        "[CLS]",
        "[SEP]",
    )
    # The mask takes its space along, as the word did that it stands for.
    assert stock.decode(stock("the [MASK] sat")["input_ids"]) == "[CLS]the[MASK] sat[SEP]"
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert frame_of(folder).ends == (3,)
    decoder = frame_of(train_bpe(text, 300, tmp_path / "decoder"))
    with pytest.raises(DataError, match="no mask token"):
        MaskedWindows(np.arange(99, dtype="<u2"), decoder, length=9, vocabulary=300, seed=0)
    with pytest.raises(DataError, match="no padding token"):
        LabelledTexts(np.arange(9, dtype="<u2"), np.array([0, 9]), np.array([0], "<i4"), decoder, length=9)
