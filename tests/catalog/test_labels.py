"""Tags and properties: they stay with the image, whatever becomes of its files."""

from __future__ import annotations

import threading
import unicodedata
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from searchlib.catalog import Catalog, Facts, ImageRecord, ModelRecord, NewContent, ReadFile, Stat
from searchlib.catalog.conditions import Has, Number, Tagged, Value
from searchlib.errors import InputError
from tests.catalog.places import Place, emptied

VECTOR = np.array([1, 0], np.float32)
FACTS = Facts(bytes=1, format="JPEG", width=2, height=3, camera_make="Canon")


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="a" * 64, name="test", dimension=2)


def put(catalog: Catalog, model: ModelRecord, path: str, content: int, *, gone: str = "") -> int:
    """Write a file and give the id of its image."""
    file = ReadFile(path, Stat(1, 1, 1), content.to_bytes(32), None, NewContent(FACTS, VECTOR))
    catalog.record(model, [file], gone=lambda place, _: place == gone)
    return catalog.selection.find([path])[path]


def labels(catalog: Catalog, id: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    image = catalog.images([id])[id]
    return image.tags, image.properties


def test_labels_are_on_the_record_in_order(catalog: Catalog, model: ModelRecord) -> None:
    one, two = (put(catalog, model, f"/{n}.jpg", n) for n in (1, 2))
    assert catalog.labels.tag([one, two, one], ["sea", "Beach", "a b"]) == 6
    catalog.labels.put([one], {"who": "Ann", "Rating": "5"})
    assert labels(catalog, one) == (("a b", "Beach", "sea"), (("Rating", "5"), ("who", "Ann")))
    assert labels(catalog, two) == (("a b", "Beach", "sea"), ())
    assert catalog.labels.tags() == {"a b": 2, "Beach": 2, "sea": 2}
    assert list(catalog.labels.tags()) == ["a b", "Beach", "sea"]


def test_case_and_the_encoding_of_accents_do_not_count(
    catalog: Catalog, model: ModelRecord
) -> None:
    one, two = (put(catalog, model, f"/{n}.jpg", n) for n in (1, 2))
    assert catalog.labels.tag([one], [" Straße ", "STRASSE"]) == 1
    assert catalog.labels.tag([one, two], ["strasse"]) == 1
    assert labels(catalog, two)[0] == ("strasse",)
    # The spelling that was there stays, and the list shows one of both.
    assert labels(catalog, one)[0] == ("Straße",)
    assert catalog.labels.tags() == {"Straße": 2}
    assert catalog.labels.tag([one], [unicodedata.normalize("NFD", "Café")]) == 1
    assert catalog.labels.tag([one], [unicodedata.normalize("NFC", "café")]) == 0
    assert catalog.selection.ids(Tagged("CAFE\u0301")).tolist() == [one]
    assert catalog.labels.untag([one, two], ["Strasse"]) == 2
    catalog.labels.put([one], {"Who": "Ann"})
    catalog.labels.put([one], {"WHO": "Bob"})
    assert labels(catalog, one) == (("Café",), (("WHO", "Bob"),))
    catalog.labels.put([one, two], {"who": None})
    assert labels(catalog, one)[1] == ()


@pytest.mark.parametrize(
    ("value", "number"),
    [("5", 5.0), ("-.5", -0.5), ("1e3", 1000.0), ("1e999", None), ("nan", None), ("five", None),
     ("1_000", None), ("٥", None), ("0x5", None), ("+5.", 5.0)],
)  # fmt: skip
def test_a_value_is_a_number_where_it_is_written_as_one(
    catalog: Catalog, model: ModelRecord, value: str, number: float | None
) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    catalog.labels.put([id], {"n": value})
    expected = [] if number is None else [id]
    assert catalog.selection.ids(Number("n", None, None)).tolist() == expected
    assert catalog.selection.ids(Number("N", number, number)).tolist() == expected
    assert catalog.selection.ids(Value("n", value)).tolist() == [id]


@pytest.mark.parametrize(
    "word", ["", " ", "x" * 201, "a\nb", "a\0b", "\x7f", "\ud800", "\u2028a\u2028b"]
)
def test_words_that_cannot_be_kept_are_refused(
    catalog: Catalog, model: ModelRecord, word: str
) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    version = catalog.selection.version()
    for refused in (
        lambda: catalog.labels.tag([id], ["fine", word]),
        lambda: catalog.labels.untag([id], [word]),
        lambda: catalog.labels.put([id], {word: "fine"}),
        lambda: catalog.labels.put([id], {"fine": "fine", "other": word}),
    ):
        with pytest.raises(InputError) as raised:
            refused()
        assert "\n" not in str(raised.value)
        str(raised.value).encode()
    assert labels(catalog, id) == ((), ())
    if catalog.database.is_sqlite:
        assert catalog.selection.version() == version


def test_unknown_ids_are_named_and_nothing_is_written(catalog: Catalog, model: ModelRecord) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    with pytest.raises(InputError, match="99"):
        catalog.labels.tag([id, 99], ["a"])
    with pytest.raises(InputError, match="7, 8, 9, 10, 11 and others"):
        catalog.labels.untag([id, *range(7, 20)], ["a"])
    with pytest.raises(InputError, match="-1"):
        catalog.labels.put([id, -1], {"a": "b"})
    # More than one statement takes: what the first has written is taken back.
    with pytest.raises(InputError, match="1000"):
        catalog.labels.tag([*[id] * 700, *range(1000, 2000)], ["a"])
    assert labels(catalog, id) == ((), ())
    assert catalog.labels.tag([], ["a"]) == catalog.labels.tag([id], []) == 0


def test_labels_stay_when_a_file_is_moved_copied_or_edited(
    catalog: Catalog, model: ModelRecord
) -> None:
    id = put(catalog, model, "/a.jpg", 1)
    catalog.labels.tag([id], ["beach"])
    catalog.labels.put([id], {"rating": "5"})
    assert put(catalog, model, "/copy.jpg", 1) == id
    assert put(catalog, model, "/moved.jpg", 1, gone="/copy.jpg") == id
    edited = put(catalog, model, "/a.jpg", 2)
    assert edited != id
    assert labels(catalog, edited) == labels(catalog, id) == (("beach",), (("rating", "5"),))
    # From then on they are two.
    catalog.labels.untag([edited], ["beach"])
    assert labels(catalog, id)[0] == ("beach",)
    assert catalog.selection.ids(Number("rating", 5, 5)).tolist() == [id, edited]


def test_an_edit_into_an_image_that_is_known_changes_no_labels(
    catalog: Catalog, model: ModelRecord
) -> None:
    one, two = (put(catalog, model, f"/{n}.jpg", n) for n in (1, 2))
    catalog.labels.tag([one], ["one"])
    catalog.labels.tag([two], ["two"])
    assert put(catalog, model, "/1.jpg", 2) == two
    assert labels(catalog, two)[0] == ("two",)


def test_labels_of_what_is_missing_come_back_and_go_with_the_image(
    catalog: Catalog, model: ModelRecord
) -> None:
    one, _ = (put(catalog, model, f"/{n}.jpg", n) for n in (1, 2))
    catalog.labels.tag([one], ["beach"])
    catalog.labels.put([one], {"rating": "5"})
    catalog.places.mark_missing(["/1.jpg"])
    assert catalog.labels.tags() == {}
    assert catalog.selection.ids(Has("tag")).tolist() == []
    # What is only missing can be tagged: its drive may be away.
    assert catalog.labels.tag([one], ["sea"]) == 1
    assert put(catalog, model, "/1.jpg", 1) == one
    assert labels(catalog, one)[0] == ("beach", "sea")
    catalog.places.mark_missing(["/1.jpg"])
    assert catalog.places.purge(missing_before=1e12).files == 1
    with catalog.database.reading() as connection:
        for table in ("tag", "property"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0
    with pytest.raises(InputError, match="no image"):
        catalog.labels.tag([one], ["beach"])


def test_labels_of_the_newest_image_go_with_it_though_its_row_stays(
    catalog: Catalog, model: ModelRecord
) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    catalog.labels.tag([id], ["beach"])
    catalog.places.mark_missing(["/1.jpg"])
    catalog.places.purge(missing_before=1e12)
    # The same bytes are the same image again, but what was said of it was given up.
    assert put(catalog, model, "/1.jpg", 1) == id
    assert labels(catalog, id) == ((), ())


def test_images_that_an_edit_replaced_are_given_up_with_their_labels(
    catalog: Catalog, model: ModelRecord
) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    catalog.labels.tag([id], ["beach"])
    edited = put(catalog, model, "/1.jpg", 2)
    assert len(catalog.places.purge_replaced(added_before=1e12).digests) == 1
    assert labels(catalog, edited)[0] == ("beach",)
    assert catalog.labels.tags() == {"beach": 1}


def test_of_many_who_tag_at_once_each_tag_is_counted_once(
    catalog: Catalog, model: ModelRecord, place: Place
) -> None:
    ids = [put(catalog, model, f"/{n}.jpg", n) for n in range(1, 4)]
    counts: list[int] = []
    with closing(place.open()) as other:
        threads = [
            threading.Thread(
                target=lambda c=each: counts.append(c.labels.tag(ids, ["a", "A", "b"]))
            )
            for each in [catalog, other] * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == 6
    assert len(counts) == 8


def test_many_images_are_tagged_at_once(catalog: Catalog, model: ModelRecord) -> None:
    files = [
        ReadFile(f"/{n}", Stat(1, 1, 1), n.to_bytes(32), None, NewContent(FACTS, VECTOR))
        for n in range(1200)
    ]
    catalog.record(model, files, gone=lambda *_: False)
    ids = catalog.selection.ids(None).tolist()
    assert catalog.labels.tag(ids, ["all"]) == len(ids) == 1200
    assert catalog.labels.tags() == {"all": 1200}
    assert catalog.selection.among(ids, Tagged("all")) == set(ids)
    assert len(catalog.images(ids)) == 1200
    assert catalog.labels.untag(ids, ["ALL"]) == 1200


KEYS = st.sampled_from(["a", "A", "b", "é", "É"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tag", "untag", "put", "take"]),
        st.lists(st.integers(1, 3), max_size=3),
        st.lists(KEYS, max_size=3),
    ),
    max_size=10,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_labels_are_as_they_were_put_last(
    shared_catalog: Catalog, steps: list[tuple[str, list[int], list[str]]]
) -> None:
    catalog = emptied(shared_catalog)
    model = catalog.use_model(identity="a" * 64, name="test", dimension=2)
    ids = [put(catalog, model, f"/{n}.jpg", n) for n in (1, 2, 3)]
    tags: dict[int, dict[str, str]] = {id: {} for id in ids}
    properties: dict[int, dict[str, tuple[str, str]]] = {id: {} for id in ids}
    for number, (what, some, words) in enumerate(steps):
        # Of tags the first spelling, of properties the last.
        by_key = {word.casefold(): word for word in (reversed(words) if "tag" in what else words)}
        if what == "tag":
            new = {(id, key) for id in some for key in by_key if key not in tags[id]}
            assert catalog.labels.tag(some, words) == len(new)
            for id, key in new:
                tags[id][key] = by_key[key]
        elif what == "untag":
            gone = {(id, key) for id in some for key in by_key if key in tags[id]}
            assert catalog.labels.untag(some, words) == len(gone)
            for id, key in gone:
                del tags[id][key]
        else:
            value = str(number) if what == "put" else None
            catalog.labels.put(some, dict.fromkeys(words, value))
            for id in some:
                for key, word in by_key.items():
                    properties[id].pop(key, None)
                    if value is not None:
                        properties[id][key] = (word, value)
    found: dict[int, ImageRecord] = catalog.images(ids)
    for id in ids:
        assert found[id].tags == tuple(tags[id][key] for key in sorted(tags[id]))
        assert found[id].properties == tuple(properties[id][key] for key in sorted(properties[id]))


def test_labels_are_there_in_another_process_and_the_next_time(
    catalog: Catalog, model: ModelRecord, place: Place
) -> None:
    id = put(catalog, model, "/1.jpg", 1)
    with closing(place.open(create=False)) as other:
        catalog.labels.tag([id], ["beach"])
        assert other.images([id])[id].tags == ("beach",)
