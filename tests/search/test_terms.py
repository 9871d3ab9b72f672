"""Terms as words of a command line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.errors import InputError
from searchlib.search.terms import parse_terms


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that the command is called in, with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("beach.jpg", "night.jpg"):
        (tmp_path / name).write_bytes(b"a picture")
    return tmp_path


def read(*words):
    """What each term is, and its weight."""
    kinds = ("image", "stored", "vector", "text")
    result = []
    for term in parse_terms(words):
        ((kind, given),) = (
            (kind, getattr(term, kind)) for kind in kinds if getattr(term, kind) is not None
        )
        result.append((kind, given, term.weight))
    return result


def test_terms_stand_between_plus_and_minus():
    assert read("2:dog", "+", "beach.jpg", "-", "night.jpg") == [
        ("text", "dog", 2.0),
        ("image", Path("beach.jpg"), 1.0),
        ("image", Path("night.jpg"), -1.0),
    ]
    assert read() == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("dog on a beach", ("text", "dog on a beach", 1.0)),
        ("0.5:dog", ("text", "dog", 0.5)),
        (".5:dog", ("text", "dog", 0.5)),
        ("beach.jpg", ("image", Path("beach.jpg"), 1.0)),
        ("3:./beach.jpg", ("image", Path("beach.jpg"), 3.0)),
        ("id:7", ("stored", 7, 1.0)),
        ("2:ID:7", ("stored", 7, 2.0)),
        ("https://example.org/a.jpg", ("image", "https://example.org/a.jpg", 1.0)),
        ("2:HTTP://example.org/a", ("image", "HTTP://example.org/a", 2.0)),
        ("data:image/png;base64,AAAA", ("image", "data:image/png;base64,AAAA", 1.0)),
        ("ftp://example.org/a.jpg", ("image", "ftp://example.org/a.jpg", 1.0)),
        ("file:///x.jpg", ("image", "file:///x.jpg", 1.0)),
        ("data: what it means", ("text", "data: what it means", 1.0)),
        ("a: b", ("text", "a: b", 1.0)),
        ("c++", ("text", "c++", 1.0)),
    ],
)
def test_a_term_is_a_file_a_url_an_id_or_words(word, meant):
    assert read(word) == [meant]
    (kind, given, weight) = meant
    assert read("x", "-", word) == [("text", "x", 1.0), (kind, given, -weight)]


@pytest.mark.parametrize("name", ["2:dog", "id:7", "dog", "0:x", "https:x"])
def test_a_file_is_meant_whatever_else_its_name_could_mean(folder, name):
    (folder / name).write_bytes(b"a picture")
    assert read(name) == [("image", Path(name), 1.0)]
    assert read(f"2:{name}") == [("image", Path(name), 2.0)]


def test_a_folder_of_the_same_name_does_not_keep_a_word_from_being_searched_for(folder):
    (folder / "beach").mkdir()
    assert read("beach") == [("text", "beach", 1.0)]


def test_a_tilde_is_the_home_folder_also_behind_a_weight(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert read("2:~/beach.jpg") == [("image", folder / "beach.jpg", 2.0)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dog", "beach"], "no + or - between 'dog' and 'beach'"),
        (["dog", "+", "a", "b"], "no + or - between 'a' and 'b'"),
        (["-", "dog"], "'-' stands before the first term"),
        (["+"], "'+' stands before the first term"),
        (["dog", "+"], "nothing follows the last '+'"),
        (["dog", "+", "-", "cat"], "'+' and '-' follow each other"),
        (["nothing.jpg"], "nothing.jpg: no such file"),
        (["2:nothing.NEF"], "nothing.NEF: no such file"),
        (["pictures/nothing"], "pictures/nothing: no such file"),
        (["./"], "./: is a folder"),
        (["id:x"], "'id:x': an id is a number"),
        (["id:-1"], "'id:-1': an id is a number"),
        (["id:99999999999999999999"], "an id is a number"),
        (["0:dog"], "'0:dog' counts 0 times"),
        (["0.0:dog"], "counts 0 times"),
        ([""], "a term is empty"),
        (["2:"], "a term is empty"),
        (["dog", "+", " "], "a term is empty"),
        (["a\nb.jpg"], r"a\nb.jpg: no such file"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(words, said):
    with pytest.raises(InputError) as caught:
        parse_terms(words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


WORDS = st.one_of(
    st.sampled_from(["+", "-", "2:", "id:", "dog", "beach.jpg", "1:beach.jpg", "id:7", "\udcff"]),
    st.text(max_size=10),
)


@given(st.lists(WORDS, max_size=6))
@settings(max_examples=150, deadline=None)
def test_no_words_do_anything_but_make_terms_or_be_refused(words):
    try:
        terms = parse_terms(words)
    except InputError as error:
        said = str(error)
    else:
        said = ""
        assert len(terms) * 2 == len(words) + bool(words)
        assert all(term.weight for term in terms)
        assert not terms or terms[0].weight > 0
    assert "\n" not in said
