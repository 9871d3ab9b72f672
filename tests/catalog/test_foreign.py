"""What the exchange asks of the catalog, on a real database."""

import numpy as np
import pytest
from sqlalchemy import text

from searchlib.catalog import Facts, NewContent, ReadFile, Stat, foreign
from searchlib.errors import LibraryDamagedError

DIMENSION = 8
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


def vector(number: int) -> np.ndarray:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def picture(path: str, number: int) -> ReadFile:
    return ReadFile(
        path, Stat(10, number, 2), digest(number), None, NewContent(FACTS, vector(number))
    )


@pytest.fixture(scope="module")
def model(shared_catalog):
    return shared_catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)


@pytest.fixture(scope="module")
def filled(shared_catalog, model):
    """603 images; every third has a second place, and every fifth is missing everywhere.

    Not to be written to, but for vectors of another model.
    """
    catalog = shared_catalog
    files = [picture(f"/b/{n}.jpg", n) for n in range(603)]
    files += [picture(f"/a/{n}.jpg", n) for n in range(0, 603, 3)]
    catalog.record(model, files, gone=lambda *_: False)
    catalog.places.mark_missing([f"/{folder}/{n}.jpg" for n in range(0, 603, 5) for folder in "ab"])
    return catalog


def test_images_are_known_by_their_digest_with_their_vector(filled, model):
    asked = [digest(n) for n in range(400, 700)]
    found = filled.known_images(asked, model)
    assert set(found) == {digest(n) for n in range(400, 603)}
    for number in (400, 602):
        known = found[digest(number)]
        assert known.digest == digest(number)
        np.testing.assert_allclose(known.vector, vector(number), atol=1e-3)
        assert np.linalg.norm(known.vector) == pytest.approx(1, abs=1e-6)


def test_an_image_without_a_vector_of_the_model_is_known_without_it(filled):
    other = filled.known_model(identity="b" * 64, name="other", dimension=2)
    for asked in (other, None):
        assert filled.known_images([digest(7)], asked)[digest(7)].vector is None
    filled.put_vectors(
        other, [(filled.known_images([digest(7)], None)[digest(7)].id, np.eye(2)[0])]
    )
    assert filled.known_images([digest(7)], other)[digest(7)].vector.tolist() == [1, 0]
    assert filled.known_images([digest(8)], other)[digest(8)].vector is None


def test_files_in_place_are_known_by_their_path(filled):
    asked = [f"/{folder}/{n}.jpg" for n in range(603) for folder in "ab"]
    expected = {
        f"/{folder}/{n}.jpg": (Stat(10, n, 2), digest(n))
        for n in range(603)
        for folder in "ab"
        if n % 5 and (folder == "b" or n % 3 == 0)
    }
    assert filled.digests_at(asked) == expected


@pytest.mark.parametrize("include_missing", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_the_vector_set_comes_whole_in_blocks(include_missing, rows, filled, model, monkeypatch):
    monkeypatch.setattr(foreign, "BLOCK_ROWS", rows)
    wanted = [n for n in range(603) if include_missing or n % 5]
    with filled.stored_vectors(model, include_missing=include_missing) as stored:
        assert (stored.count, stored.left_out) == (len(wanted), 603 - len(wanted))
        blocks = list(stored.blocks)
    assert max(len(block.digests) for block in blocks) <= rows
    assert [d for block in blocks for d in block.digests] == [digest(n) for n in wanted]
    places = [
        tuple(f"/{f}/{n}.jpg" for f in "ab" if n % 5 and (f == "b" or n % 3 == 0)) for n in wanted
    ]
    assert [paths for block in blocks for paths in block.paths] == places
    vectors = np.concatenate([block.vectors for block in blocks])
    np.testing.assert_allclose(vectors, [vector(n) for n in wanted], atol=1e-3)
    assert vectors.dtype == np.float32


@pytest.fixture
def few(catalog):
    """30 images in a library of the test's own."""
    model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    files = [picture(f"/{n}.jpg", n) for n in range(30)]
    catalog.record(model, files, gone=lambda *_: False)
    return catalog


def test_what_is_committed_meanwhile_is_not_seen(few, monkeypatch):
    monkeypatch.setattr(foreign, "BLOCK_ROWS", 10)
    model = few.model()
    with few.stored_vectors(model, include_missing=True) as stored:
        first = next(stored.blocks)
        few.record(model, [picture("/new.jpg", 5000)], gone=lambda *_: False)
        rest = list(stored.blocks)
    assert len(first.digests) + sum(len(block.digests) for block in rest) == stored.count == 30
    with few.stored_vectors(model, include_missing=True) as stored:
        assert stored.count == 31


def test_a_library_without_a_model_has_none(catalog):
    with catalog.stored_vectors(None, include_missing=True) as stored:
        assert (stored.count, stored.left_out, list(stored.blocks)) == (0, 0, [])


def test_a_damaged_vector_is_said(few):
    with few.database.writing() as connection:
        torn = text("UPDATE embedding SET vector = :torn WHERE image_id = 9")
        connection.execute(torn, {"torn": b"\0\0"})
    with (
        few.stored_vectors(few.model(), include_missing=True) as stored,
        pytest.raises(LibraryDamagedError, match="a stored vector has 2 bytes"),
    ):
        list(stored.blocks)
