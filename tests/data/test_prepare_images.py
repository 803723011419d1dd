"""Images and labelled text, prepared: what is right is written as it was, what is wrong gets a sentence."""

import sys

import numpy as np
import pytest

from trimtab.data.classes import class_names
from trimtab.data.prepare import prepare
from trimtab.data.prepare_images import prepare_images
from trimtab.spec.errors import DataError, UsageError
from trimtab.spec.recipe_data import Data, Source


def drawn(count=60, shape=(8, 6, 3), seed=0, classes=("cat", "dog", "ant")):
    random = np.random.Generator(np.random.PCG64(seed))
    images = random.integers(256, size=(count, *shape), dtype=np.uint8)
    return images, np.array(classes)[np.arange(count) % len(classes)]


@pytest.fixture
def npz(tmp_path):
    """`npz("a.npz", images=…, labels=…)` → Source."""

    def write(name, **arrays):
        np.savez(tmp_path / name, **arrays)
        return Source(npz=str(tmp_path / name))

    return write


def test_pixels_classes_and_scale_are_those_of_the_file(npz, tmp_path):
    images, labels = drawn()
    more, others = drawn(9, seed=1)
    data = Data(
        train=npz("a.npz", images=images, labels=labels),
        validation=npz("b.npz", images=more, labels=others),
        test=npz("c.npz", images=drawn(5, seed=2)[0], labels=drawn(5)[1]),
    )
    prepared = prepare_images(data, tmp_path / "p")
    assert prepared.classes == ("ant", "cat", "dog")
    assert np.array_equal(prepared.pixels("train"), images.transpose(0, 3, 1, 2))
    assert [prepared.classes[number] for number in prepared.labels("validation")] == others.tolist()
    scaled = images / 255
    assert prepared.record.mean == pytest.approx(scaled.mean((0, 1, 2)))
    assert prepared.record.std == pytest.approx(scaled.std((0, 1, 2)))
    again = prepare_images(data, tmp_path / "p")
    assert again.record == prepared.record
    npz("a.npz", images=images[:50], labels=labels[:50])
    assert prepare_images(data, tmp_path / "p").record.images["train"] == 50


def test_splits_that_are_not_named_are_set_apart(npz, tmp_path):
    images, _ = drawn(300, shape=(4, 4))
    prepared = prepare_images(
        Data(train=npz("a.npz", images=images, labels=np.arange(300) % 12)), tmp_path / "p"
    )
    assert sum(prepared.record.images.values()) == 300
    assert all(prepared.record.images.values())
    # Whole numbers in their own order, and one channel.
    assert prepared.classes == tuple(map(str, range(12)))
    assert prepared.record.shape == (1, 4, 4)


def test_a_model_that_knows_the_classes_keeps_their_order():
    assert class_names(["dog", "cat"], ("dog", "cat", "ant")) == ("dog", "cat", "ant")
    assert class_names(["dog", "cat"], ("LABEL_0", "LABEL_1")) == ("cat", "dog")


IMAGES, LABELS = drawn()
OBJECTS = np.empty(2, dtype=object)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": OBJECTS, "labels": LABELS}, "pickled objects"),
        ({"images": IMAGES, "classes": LABELS}, "no labels. Arrays here: images, classes"),
        ({"images": IMAGES.astype(float), "labels": LABELS}, r"images is float64 \(60, 8, 6, 3\)"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "1 or 3 channels"),
        ({"images": IMAGES, "labels": np.zeros((60, 3), int)}, r"labels is int64 \(60, 3\)"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "60 images and 9 labels"),
        ({"images": IMAGES, "labels": np.full(60, "cat")}, "one class alone, 'cat'"),
    ],
)
def test_arrays_that_cannot_be_used(npz, tmp_path, arrays, says):
    with pytest.raises(DataError, match=says) as caught:
        prepare_images(Data(train=npz("a.npz", **arrays)), tmp_path / "p")
    assert caught.value.where
    assert not (tmp_path / "p").exists()
    assert list(tmp_path.glob(".p*")) == []


def test_splits_that_do_not_fit_together(npz, tmp_path):
    train = npz("a.npz", images=IMAGES, labels=LABELS)
    small = npz("b.npz", images=drawn(9, shape=(4, 4, 3))[0], labels=LABELS[:9])
    with pytest.raises(DataError, match="4 × 4 × 3, and others are 8 × 6 × 3") as caught:
        prepare_images(Data(train=train, validation=small), tmp_path / "p")
    assert caught.value.where == "b.npz#0"
    unknown = npz("c.npz", images=drawn(9, seed=3)[0], labels=np.full(9, "cow"))
    with pytest.raises(
        DataError, match="validation split has the class 'cow', which train has not"
    ) as caught:
        prepare_images(Data(train=train, validation=unknown), tmp_path / "p")
    assert caught.value.where == "c.npz#0"
    with pytest.raises(DataError, match=r"95.0% of the test data's images are in the training data too"):
        prepare_images(Data(train=train, test=train), tmp_path / "p")


@pytest.mark.parametrize("content", [b"no zip", b"\x80\x04N."])
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"no \.npz of arrays"):
        prepare_images(Data(train=Source(npz=str(tmp_path / "a.npz"))), tmp_path / "p")
    with pytest.raises(DataError, match="no such file"):
        prepare_images(Data(train=Source(npz=str(tmp_path / "b.npz"))), tmp_path / "p")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none")
    with pytest.raises(DataError, match="holds no images") as caught:
        prepare_images(Data(train=Source(images=str(tmp_path))), tmp_path / "p")
    assert "a folder for every class" in caught.value.remedy


def test_without_pillow_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="needs Pillow") as caught:
        prepare_images(Data(train=Source(images=str(tmp_path))), tmp_path / "p")
    assert "trimtab[images]" in caught.value.remedy


def test_a_folder_of_every_class(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(40):
            pixels = np.full((8 + number % 2, 8, 3), level + number, dtype=np.uint8)
            pillow.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    source = Source(images=str(tmp_path / "data"))
    with pytest.raises(DataError, match="others are"):
        prepare_images(Data(train=source), tmp_path / "p")
    prepared = prepare_images(Data(train=source.model_copy(update={"size": 6})), tmp_path / "p")
    assert prepared.classes == ("dark", "light")
    assert prepared.record.shape == (3, 6, 6)
    levels = prepared.pixels("train").mean((1, 2, 3))
    assert ((levels > 120) == prepared.labels("train").astype(bool)).all()
    (tmp_path / "data" / "light" / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        prepare_images(Data(train=source.model_copy(update={"size": 6})), tmp_path / "p")


def labelled(write_lines, name, rows):
    return Source(jsonl=write_lines(name, rows), text="t", label="y")


def test_labelled_text(write_lines, tmp_path):
    rows = [{"t": f"number {n} of {n % 7}", "y": n % 3} for n in range(60)]
    held = [{"t": f"held out {n}", "y": str(n % 3)} for n in range(9)]
    data = Data(
        train=labelled(write_lines, "a.jsonl", rows), validation=labelled(write_lines, "b.jsonl", held)
    )
    prepared = prepare(data, tmp_path / "p", tokenizer=None, vocabulary=300, encoder=True)
    assert prepared.classes == ("0", "1", "2")
    assert prepared.labels("validation").tolist() == [n % 3 for n in range(9)]
    assert len(prepared.labels("train")) == prepared.train_samples < 60
    # A text stands for itself: nothing is put after it.
    assert not np.isin(prepared.tokens("train"), range(5)).any()


@pytest.mark.parametrize(
    ("rows", "held", "where", "says"),
    [
        ([{"t": "a", "y": 1}, {"t": "b"}], None, "a.jsonl:2", "no field 'y'"),
        ([{"t": "a", "y": 1.5}], None, "a.jsonl:1 y", "label is 1.5, neither a word nor a whole number"),
        ([{"t": "a", "y": None}], None, "a.jsonl:1 y", "neither a word"),
        ([{"t": f"ab {n}", "y": "x"} for n in range(20)], None, "data.train", "one class alone, 'x'"),
        (
            [{"t": f"{n}", "y": n % 2} for n in range(20)],
            [{"t": "q", "y": 1}, {"t": "r", "y": "new"}],
            "b.jsonl:2",
            "validation split has the class 'new', which train has not",
        ),
    ],
)
def test_labels_that_cannot_be_used(write_lines, tmp_path, rows, held, where, says):
    train = labelled(write_lines, "a.jsonl", rows)
    validation = labelled(write_lines, "b.jsonl", held) if held else None
    with pytest.raises(DataError, match=says) as caught:
        prepare(
            Data(train=train, validation=validation),
            tmp_path / "p",
            tokenizer=None,
            vocabulary=300,
            encoder=True,
        )
    assert where in caught.value.where
