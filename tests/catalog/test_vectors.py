"""Stored vectors by the ids of their images, against a plain dictionary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.errors import LibraryDamagedError

DIMENSION = 8
IMAGES = 600
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


def vector(number: int) -> NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


@pytest.fixture(scope="module")
def filled(shared_catalog: Catalog) -> Catalog:
    """Images 1 to IMAGES with vectors of the model in use, every third with one of another too."""
    catalog = shared_catalog
    model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    files = [
        ReadFile(f"/{n}.jpg", Stat(1, 1, 1), n.to_bytes(32), None, NewContent(FACTS, vector(n)))
        for n in range(1, IMAGES + 1)
    ]
    catalog.record(model, files, gone=lambda *_: False)
    other = catalog.known_model(identity="b" * 64, name="other", dimension=DIMENSION)
    catalog.put_vectors(other, [(n, vector(-n % 7919)) for n in range(3, IMAGES + 1, 3)])
    return catalog


@pytest.fixture
def model(filled: Catalog) -> ModelRecord:
    model = filled.model()
    assert model is not None
    return model


@settings(max_examples=40, deadline=None)
@given(asked=st.lists(st.integers(-5, IMAGES + 50), max_size=30))
def test_those_that_are_there_are_found_once_by_id(filled: Catalog, asked: list[int]) -> None:
    model = filled.model()
    assert model is not None
    ids, vectors = filled.vectors(model, asked)
    assert (ids.dtype, vectors.dtype) == (np.int64, np.float16)
    assert ids.tolist() == sorted({id for id in asked if 1 <= id <= IMAGES})
    assert vectors.shape == (len(ids), DIMENSION)
    for id, found in zip(ids.tolist(), vectors, strict=True):
        np.testing.assert_array_equal(found, vector(id).astype(np.float16))


def test_more_than_a_statement_takes_are_read_in_one_call(
    filled: Catalog, model: ModelRecord
) -> None:
    asked = np.random.default_rng(0).permutation(np.arange(-100, 40_000))
    ids, vectors = filled.vectors(model, asked)
    _, all_ids, all_vectors = filled.all_vectors(model)
    np.testing.assert_array_equal(ids, all_ids)
    np.testing.assert_array_equal(vectors, all_vectors)


def test_vectors_of_another_model_are_not_mixed_in(filled: Catalog, model: ModelRecord) -> None:
    other = filled.known_model(identity="b" * 64, name="other", dimension=DIMENSION)
    ids, vectors = filled.vectors(other, range(1, 11))
    assert ids.tolist() == [3, 6, 9]
    np.testing.assert_array_equal(vectors[1], vector(-6 % 7919).astype(np.float16))
    assert filled.vectors(model, range(1, 11))[0].tolist() == list(range(1, 11))


def test_a_vector_of_another_length_is_named_as_damage(catalog: Catalog) -> None:
    model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    file = ReadFile("/1.jpg", Stat(1, 1, 1), bytes(32), None, NewContent(FACTS, vector(1)))
    catalog.record(model, [file], gone=lambda *_: False)
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("UPDATE embedding SET vector = substr(vector, 1, 14)")
    with pytest.raises(LibraryDamagedError, match="14 bytes where test has 16"):
        catalog.vectors(model, [1])
