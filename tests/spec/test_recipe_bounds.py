"""A recipe from a stranger costs little, whatever is in it: it is read, or refused in a sentence."""

import time

import pytest

from trimtab.spec.errors import RecipeError
from trimtab.spec.recipe import Recipe
from trimtab.spec.recipe_yaml import MAX_BYTES

HEAD = "version: 1\nname: x\nmodel: ./m\n"
UNITS = {
    "keys": (HEAD, "k{}: 1\n"),
    "keys below a key": (HEAD + "data:\n", "  k{}: 1\n"),
    "keys in braces": (HEAD + "data: {", "k{}: 1,"),
    "a list": (HEAD + "data: [", "1,"),
    "brackets": (HEAD + "data: ", "["),
    "dashes": ("", "- "),
    "questions": ("", "? "),
    "anchors": (HEAD, "k{}: &a{} 1\n"),
    "tags": (HEAD, "k{}: !!python/object:os.system 1\n"),
    "a word": (HEAD + "x: ", "a"),
    "a text": (HEAD + 'x: "', "a\\n"),
    "a block": (HEAD + "x: |\n", "  a\n"),
    "a number": (HEAD + "seed: ", "9"),
    "colons": (HEAD + "x: ", "a:"),
    "comments": ("", "#\n"),
    "blank lines": ("", "\n"),
    "documents": ("", "---\n"),
    "the same key": (HEAD, "<<: {{a: 1}}\n"),
}


@pytest.mark.parametrize("kind", list(UNITS))
def test_the_largest_recipe_of_a_kind_is_refused_soon(kind):
    head, unit = UNITS[kind]
    count = (MAX_BYTES - len(head)) // len(unit.format(12345, 12345))
    text = head + "".join(unit.format(number, number) for number in range(count))
    start = time.process_time()
    with pytest.raises(RecipeError):
        Recipe.parse(text[:MAX_BYTES])
    assert time.process_time() - start < 1  # unbounded it took up to a minute


def test_eighty_thousand_keys_in_a_file_are_not_read(tmp_path):
    (tmp_path / "r.yaml").write_text(HEAD + "".join(f"k{number}: 1\n" for number in range(80_000)))
    with pytest.raises(RecipeError, match=r"r\.yaml: the file is over"):
        Recipe.load(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text(HEAD + "".join(f"k{number}: 1\n" for number in range(2_000)))
    with pytest.raises(RecipeError, match=r"r\.yaml: it has over 2000 keys and values"):
        Recipe.load(tmp_path / "r.yaml")
