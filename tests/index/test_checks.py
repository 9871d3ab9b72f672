"""What passes the checks, and what the refusals say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from searchlib.errors import VectorError
from searchlib.index import check_ids, check_vectors
from searchlib.index.checks import UNIT_TOLERANCE


def test_good_vectors_are_passed_on_without_a_copy() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert check_vectors(vectors, 4) is vectors
    ids = np.arange(4)
    assert check_ids(ids) is ids


def test_float64_is_rounded_to_the_nearest_float32() -> None:
    vector = np.array([[1 / 3, 2 / 3, 2 / 3]])
    checked = check_vectors(vector, 3)
    assert checked.dtype == np.float32
    assert (checked == vector.astype(np.float32)).all()


def test_the_length_may_be_off_by_the_tolerance_and_no_more() -> None:
    vector = np.eye(3, dtype=np.float32)
    for factor in (1 + 0.9 * UNIT_TOLERANCE, 1 - 0.9 * UNIT_TOLERANCE):
        check_vectors(vector * np.float32(factor), 3)
    for factor in (1 + 1.1 * UNIT_TOLERANCE, 1 - 1.1 * UNIT_TOLERANCE, -1.1, 0.0):
        with pytest.raises(VectorError):
            check_vectors(vector * np.float32(factor), 3)


@given(hnp.arrays(np.float32, (3, 6)))
def test_whatever_passes_is_finite_and_of_unit_length(vectors: np.ndarray) -> None:
    try:
        checked = check_vectors(vectors, 6)
    except VectorError:
        return
    assert np.isfinite(checked).all()
    assert np.allclose(np.linalg.norm(checked.astype(np.float64), axis=1), 1, atol=1.1e-2)


@given(st.lists(st.integers(-3, 2**64), max_size=20))
def test_whatever_passes_as_ids_is_unique_and_not_negative(ids: list[int]) -> None:
    if len(set(ids)) == len(ids) and all(0 <= id < 2**63 for id in ids):
        assert check_ids(ids).dtype == np.int64
        assert check_ids(ids).tolist() == ids
    else:
        with pytest.raises(VectorError):
            check_ids(ids)


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        (np.eye(5, dtype=np.float32), "vectors have 5 dimensions and this index has 4"),
        (np.eye(4, dtype=np.float32)[0], r"vectors have shape \(4,\); give one row"),
        (np.eye(4, dtype=np.int32), "vectors are int32; give float32"),
        (np.diag(np.float32([1, 1, np.nan, 1])), "vector 2 holds NaN, infinity or a huge number"),
        (np.diag(np.float32([1, 0, 1, 1])), "vector 1 is zero; give vectors of length 1"),
        (np.diag(np.float32([1, 1, 1, 3])), "vector 3 has length 3; give vectors of length 1"),
    ],
)
def test_a_refusal_says_which_vector_and_why(vectors: np.ndarray, text: str) -> None:
    with pytest.raises(VectorError, match=text):
        check_vectors(vectors, 4)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([4, 7, 4], "id 4 is given twice in one call"),
        ([4, -7], "id -7 is negative"),
        ([0.5], "ids are float64; give integers"),
        (np.array([2**63], np.uint64), "id 9223372036854775808 is too large"),
    ],
)
def test_a_refusal_says_which_id_and_why(ids: object, text: str) -> None:
    with pytest.raises(VectorError, match=text):
        check_ids(ids)
