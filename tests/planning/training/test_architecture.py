import published
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.training.architecture import architecture
from trimtab.planning.training.presets import PRESETS, preset
from trimtab.spec.errors import UsageError

_GPT = {"family": "gpt", "layers": 2, "hidden": 64, "heads": 4, "vocab": 100}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("llama3-405b", 405_853_388_800),
        ("llama2-7b", 6_738_415_616),
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_counts_are_exact(name, parameters):
    assert preset(name, where="test").parameters == parameters


def test_counts_are_those_of_the_published_table():
    for row in published.SC21:
        shape = {
            "family": "gpt",
            "layers": row.layers,
            "hidden": row.hidden,
            "heads": row.heads,
            "vocab": 51200,
        }
        found = architecture(shape, sequence_length=2048, where="test")
        assert found.parameters / 1e9 == pytest.approx(row.billions, abs=0.05)


@given(st.sampled_from([*PRESETS]))
def test_a_count_is_the_sum_of_its_parts(name):
    shape = preset(name, where="test")
    parts = shape.layer_matrices + shape.layer_vectors_split + shape.layer_vectors_whole
    tables = shape.embedding * (1 if shape.tied else 2) + shape.position_parameters
    assert shape.parameters == shape.layers * parts + tables + shape.final_norm


def test_what_is_not_named_has_the_familys_default():
    gpt = architecture(_GPT, sequence_length=128, where="test")
    assert (gpt.ffn, gpt.kv_heads, gpt.tied, gpt.positions, gpt.head_dim) == (256, 4, True, 128, 16)
    llama = architecture(_GPT | {"family": "llama", "ffn": 96}, sequence_length=128, where="test")
    assert (llama.tied, llama.positions, llama.attention_bias) == (False, 0, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 5}, "Nearest that do: 4 heads"),
        ({"kv_heads": 3}, "3 key-value heads do not divide 4"),
        ({"hiden": 5}, "Did you mean 'hidden'"),
        ({"experts": 8}, "Known: family"),
        ({"family": "bert"}, "Use gpt or llama"),
        ({"family": "llama"}, "names no ffn"),
        ({"layers": 0}, "from 1 up"),
        ({"layers": "two"}, "layers is 'two'"),
        ({"layers": True}, "layers is True"),
        ({"vocab": -1}, "vocab is -1"),
        ({"tied": "yes"}, "true or false"),
    ],
)
def test_faults_name_the_remedy(change, words):
    with pytest.raises(UsageError, match=words):
        architecture(_GPT | change, sequence_length=128, where="test")


def test_a_missing_dimension_is_named():
    with pytest.raises(UsageError, match="names no vocab"):
        architecture({k: v for k, v in _GPT.items() if k != "vocab"}, sequence_length=128, where="test")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="llama3-70b"):
        preset("llama3-70", where="test")
