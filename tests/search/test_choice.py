"""Which index a library should have, and when it is to be built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.catalog import Catalog
from searchlib.errors import InputError
from searchlib.index import load_recipe, recipe_names
from searchlib.search import (
    IndexChoice,
    read_choice,
    recall_of,
    recipe_figures,
    recipe_for,
    write_choice,
)
from searchlib.search.choice import (
    BACK_AGAIN,
    EXACT_BYTES,
    FRESH_AT_LEAST,
    FRESH_AT_MOST,
    Parts,
    is_build_due,
)

EXACT, INVERTED = load_recipe("exact"), load_recipe("inverted")
MILVUS = IndexChoice("milvus", uri="http://localhost:19530")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path, create=True)
    yield catalog
    catalog.close()


@pytest.mark.parametrize(
    "choice",
    [
        IndexChoice(),
        IndexChoice("exact"),
        IndexChoice("inverted", 0.95),
        IndexChoice(recall=1.0),
        MILVUS,
    ],
    ids=lambda choice: choice.recipe,
)
def test_what_was_chosen_is_read_back_and_another_choice_takes_its_place(
    catalog: Catalog, choice: IndexChoice
) -> None:
    assert read_choice(catalog) == IndexChoice()
    write_choice(catalog, MILVUS)
    write_choice(catalog, choice)
    assert read_choice(catalog) == choice
    assert recall_of(catalog) == choice.recall
    write_choice(catalog, IndexChoice())
    assert read_choice(catalog) == IndexChoice()


@pytest.mark.parametrize(
    "stored",
    ["nonsense", "[]", '{"recipe": "of-tomorrow"}', '{"recall": "high"}', '{"later": 1}', "1"],
)
def test_a_choice_of_another_version_is_refused_and_can_be_replaced(
    catalog: Catalog, stored: str
) -> None:
    catalog.put_setting("index", stored)
    with pytest.raises(InputError):
        read_choice(catalog)
    assert recall_of(catalog) == 0.99
    write_choice(catalog, IndexChoice("exact"))
    assert read_choice(catalog) == IndexChoice("exact")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": "nonsense"}, "there is no index recipe 'nonsense'"),
        ({"recall": 0.0}, "recall is 0.0"),
        ({"recall": 1.01}, "recall is 1.01"),
        ({"recall": float("nan")}, "recall is nan"),
        ({"recipe": "milvus"}, "needs the URI of its server"),
        ({"recipe": "milvus", "uri": ""}, "needs the URI of its server"),
        ({"recipe": "inverted", "uri": "http://localhost"}, "takes no URI"),
        ({"uri": "http://localhost"}, "takes no URI"),
    ],
)
def test_what_cannot_be_chosen_is_said(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        IndexChoice(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://localhost:19530", "http://localhost:19530"),
        ("https://me:secret@host:19530/photos", "https://host:19530/photos"),
        ("https://me:se@cr/e#t@host/photos", "https://host/photos"),
        ("https://host?token=secret", "https://host"),
        ("https://host/photos#secret", "https://host/photos"),
        ("me:secret@host:19530", "host:19530"),
        ("/data/vectors.db", "/data/vectors.db"),
    ],
)
def test_a_password_is_never_shown(uri: str, shown: str) -> None:
    choice = IndexChoice("milvus", uri=uri)
    assert choice.shown_uri == shown
    assert "secret" not in repr(choice)


def test_the_size_decides_where_nobody_did_and_does_not_waver() -> None:
    limit = EXACT_BYTES // (2 * 512)

    def chosen(vectors: int, now: str | None = None) -> str:
        return recipe_for(IndexChoice(), vectors=vectors, dimension=512, now=now).name

    assert chosen(limit) == "exact"
    assert chosen(limit + 1) == "inverted"
    assert chosen(limit // 2 + 1, "inverted") == "inverted"
    assert chosen(int(limit * BACK_AGAIN), "inverted") == "exact"
    for name in recipe_names():
        for vectors in (0, limit * 10):
            assert (
                recipe_for(IndexChoice(name), vectors=vectors, dimension=512, now=None).name == name
            )


def test_an_exact_index_is_due_where_there_is_a_base_to_be_taken_back() -> None:
    assert not is_build_due(EXACT, Parts(10**6, 10**6))
    assert is_build_due(EXACT, Parts(10**6, 0, recipe="inverted", rows=10**6))
    assert is_build_due(EXACT, Parts(10**6, 0, recipe=None, rows=10**6))


def test_an_approximate_index_is_due_from_its_least_size_on() -> None:
    assert not is_build_due(INVERTED, Parts(INVERTED.least - 1, INVERTED.least - 1))
    assert is_build_due(INVERTED, Parts(INVERTED.least, INVERTED.least))
    # What FAISS made of the base is damaged, or is of another recipe.
    assert is_build_due(INVERTED, Parts(10**5, 0, recipe=None, rows=10**5))
    assert is_build_due(INVERTED, Parts(10**5, 0, recipe="graph", rows=10**5))
    assert not is_build_due(INVERTED, Parts(10**5, 0, recipe="inverted", rows=10**5))


@given(
    vectors=st.integers(INVERTED.least, 10**8),
    fresh=st.integers(0, 10**6),
    dead=st.integers(0, 10**6),
)
def test_a_base_is_merged_again_when_much_lies_beside_it_or_much_of_it_is_dead(
    vectors: int, fresh: int, dead: int
) -> None:
    fresh = min(fresh, vectors)
    rows = vectors - fresh + dead
    due = is_build_due(INVERTED, Parts(vectors, fresh, recipe="inverted", rows=rows, dead=dead))
    if fresh > FRESH_AT_MOST or dead > rows / 8:
        assert due
    elif fresh <= FRESH_AT_LEAST:
        assert not due
    else:
        assert due == (fresh > vectors / 16)


@pytest.mark.parametrize("name", recipe_names())
def test_figures_of_a_recipe_are_what_its_file_says(name: str) -> None:
    assert isinstance(recipe_figures(name), dict)
    assert recipe_figures("exact")["recall_at_10"]["10k"] == 1.0


def test_figures_are_of_known_recipes() -> None:
    with pytest.raises(InputError, match="there is no index recipe"):
        recipe_figures("../pyproject")
