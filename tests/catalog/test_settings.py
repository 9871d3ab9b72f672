"""What a library is set to: it outlives the process, and no model has to be in use for it."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from searchlib.catalog import Catalog
from searchlib.errors import LibraryError, LibraryReadOnlyError
from tests.catalog.places import Place


def test_nothing_is_set_in_a_new_library(catalog: Catalog) -> None:
    assert catalog.model() is None
    assert catalog.setting("recipe") is None
    catalog.put_setting("recipe", None)
    assert catalog.setting("recipe") is None


def test_a_setting_is_there_for_other_processes_and_the_next_time(
    catalog: Catalog, place: Place
) -> None:
    with closing(place.open(create=False)) as other:
        catalog.put_setting("recipe", "inverted")
        assert other.setting("recipe") == "inverted"
        other.put_setting("recipe", None)
    assert catalog.setting("recipe") is None
    catalog.put_setting("recipe", "")
    catalog.close()
    with closing(place.open(create=False)) as later:
        assert later.setting("recipe") == ""


def test_of_many_who_set_it_at_once_the_first_counts_for_all(
    catalog: Catalog, place: Place
) -> None:
    with closing(place.open(create=False)) as other, ThreadPoolExecutor(8) as pool:
        for turn in range(5):
            given = [
                pool.submit((catalog, other)[n % 2].ensure_setting, f"name {turn}", str(n))
                for n in range(8)
            ]
            (chosen,) = {each.result() for each in given}
            assert catalog.setting(f"name {turn}") == chosen
    assert catalog.ensure_setting("name 0", "later") == catalog.setting("name 0") != "later"


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["a", "A", "b", "", "ä"]), st.none() | WORDS)))
def test_settings_are_as_they_were_put_last(
    shared_catalog: Catalog, steps: list[tuple[str, str | None]]
) -> None:
    expected = {name: shared_catalog.setting(name) for name in ("a", "A", "b", "", "ä")}
    for name, value in steps:
        shared_catalog.put_setting(name, value)
        expected[name] = value
    assert {name: shared_catalog.setting(name) for name in expected} == expected


def test_a_library_that_cannot_be_written_can_be_asked(catalog: Catalog, place: Place) -> None:
    catalog.put_setting("recipe", "inverted")
    catalog.close()
    folder = place.folder
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user writes whatever the modes say")
        with closing(place.open(create=False)) as opened:
            assert opened.setting("recipe") == "inverted"
            with pytest.raises(LibraryReadOnlyError, match="cannot be written"):
                opened.put_setting("recipe", "exact")
    finally:
        folder.chmod(0o755)


def test_a_setting_without_a_value_is_no_setting(catalog: Catalog) -> None:
    catalog.put_setting("recipe", "inverted")
    with (
        pytest.raises(LibraryError, match="value"),
        catalog.database.writing() as connection,
    ):
        connection.execute(text("UPDATE setting SET value = NULL"))
    assert catalog.setting("recipe") == "inverted"
