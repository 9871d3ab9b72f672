"""Which model is in use, and what another one lacks, against a plain model of the catalog."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, SkippedFile, Stat
from searchlib.errors import ModelMismatchError
from tests.catalog.places import emptied

DIMENSION = 8
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


def vector(number: int) -> NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def picture(path: str, number: int) -> ReadFile:
    content = NewContent(FACTS, vector(number))
    return ReadFile(path, Stat(10, 1, 2), number.to_bytes(32, "big"), None, content)


def models_of(catalog: Catalog) -> tuple[ModelRecord, ModelRecord]:
    """One in use and one that is not."""
    used = catalog.use_model(identity="a" * 64, name="used", dimension=DIMENSION)
    return used, catalog.known_model(identity="b" * 64, name="next", dimension=DIMENSION)


def never(_: str, _device: int | None) -> bool:
    return False


def test_a_known_model_is_not_in_use_and_known_once(catalog: Catalog) -> None:
    used, other = models_of(catalog)
    assert catalog.model() == used
    assert models_of(catalog) == (used, other)


def test_the_switch_waits_for_every_image_but_the_excused(catalog: Catalog) -> None:
    used, other = models_of(catalog)
    catalog.record(used, [picture(f"/{n}.jpg", n) for n in (1, 2, 3)], gone=never)
    assert not catalog.switch_model(other, without=[])
    catalog.put_vectors(other, [(1, vector(11)), (2, vector(12))])
    assert not catalog.switch_model(other, without=[1, 2])
    assert catalog.model() == used
    assert catalog.switch_model(other, without=[3])
    assert catalog.model() == other
    assert catalog.switch_model(used, without=[])
    assert catalog.model() == used


def test_a_vector_that_is_there_stays_and_makes_no_change(catalog: Catalog) -> None:
    used, other = models_of(catalog)
    catalog.record(used, [picture("/1.jpg", 1), picture("/2.jpg", 2)], gone=never)
    catalog.put_vectors(other, [(1, vector(11))])
    seq = catalog.last_seq(other)
    catalog.put_vectors(other, [(1, vector(99)), (2, vector(12))])
    catalog.put_vectors(other, [(1, vector(99))])
    assert catalog.changes(other, after=seq).ids.tolist() == [2]
    _, ids, vectors = catalog.all_vectors(other)
    assert ids.tolist() == [1, 2]
    np.testing.assert_array_equal(vectors, np.stack([vector(11), vector(12)]).astype(np.float16))
    assert catalog.all_vectors(used)[1].tolist() == [1, 2]


def test_nothing_is_marked_for_a_model_that_is_not_in_use(catalog: Catalog) -> None:
    used, other = models_of(catalog)
    catalog.record(used, [picture("/1.jpg", 1)], gone=never)
    for act in (
        lambda: catalog.record(other, [picture("/2.jpg", 2)], gone=never),
        lambda: catalog.record(other, [SkippedFile("/3", Stat(1, 1, 1), None, "torn")], gone=never),
        lambda: catalog.places.mark_present(other, [1]),
    ):
        with pytest.raises(ModelMismatchError, match=r"library: the library changed to the model"):
            act()
    assert set(catalog.places.known("/", used)) == {"/1.jpg"}


def test_the_counts_name_the_models_that_have_vectors(catalog: Catalog) -> None:
    used, other = models_of(catalog)
    catalog.record(used, [picture(f"/{n}.jpg", n) for n in (1, 2)], gone=never)
    assert [(m.name, m.vectors, m.in_use) for m in catalog.counts(used).models] == [
        ("used", 2, True)
    ]
    catalog.put_vectors(other, [(1, vector(1))])
    catalog.switch_model(other, without=[2])
    counts = catalog.counts(other)
    assert [(m.name, m.vectors, m.in_use) for m in counts.models] == [
        ("next", 1, True),
        ("used", 2, False),
    ]
    assert counts.vectors == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 5), st.integers(1, 4)),
        st.tuples(st.just("lose"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("find"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("embed"), st.integers(1, 4), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, page=st.integers(1, 3))
def test_what_a_model_lacks_is_what_has_a_file_and_no_vector(
    shared_catalog: Catalog, steps: list[tuple[str, int, int]], page: int
) -> None:
    catalog = emptied(shared_catalog)
    used, other = models_of(catalog)
    places: dict[str, int] = {}  # path to content
    missing: set[str] = set()
    embedded: set[int] = set()
    ids: dict[int, int] = {}  # content to image id: given in order
    for what, number, content in steps:
        path = f"/{number}.jpg"
        if what == "put":
            catalog.record(used, [picture(path, content)], gone=never)
            ids.setdefault(content, len(ids) + 1)
            places[path] = content
            missing.discard(path)
        elif what == "lose" and path in places:
            catalog.places.mark_missing([path])
            missing.add(path)
        elif what == "find" and path in places:
            catalog.places.mark_present(used, [catalog.places.known(path, used)[path].id])
            missing.discard(path)
        elif what == "embed" and number in ids:
            catalog.put_vectors(other, [(ids[number], vector(number))])
            embedded.add(number)
    present = {c: sorted(p for p in places if places[p] == c and p not in missing) for c in ids}
    present = {c: paths for c, paths in present.items() if paths}
    lacking = set(present) - embedded

    found = []
    after = 0
    while some := catalog.without_vector(other, after=after, limit=page):
        assert len(some) <= page
        found += some
        after = some[-1].id
    assert [image.id for image in found] == sorted(ids[content] for content in lacking)
    for image in found:
        assert sorted(image.paths) == present[int.from_bytes(image.digest, "big")]
    assert catalog.coverage(other) == (len(present) - len(lacking), len(lacking))
    assert catalog.coverage(used) == (len(present), 0)
    known = catalog.places.known("/", other)
    assert {path: file.embedded for path, file in known.items()} == {
        path: content in embedded for path, content in places.items()
    }
    assert all(file.embedded for file in catalog.places.known("/", used).values())
    assert catalog.switch_model(other, without=[]) == (not lacking)
