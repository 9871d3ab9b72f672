"""The subset of ids that a search may be confined to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.errors import VectorError
from searchlib.index import Subset

any_ids = st.lists(st.integers(0, 40) | st.integers(0, 2**63 - 1), max_size=30)


@given(any_ids)
def test_a_subset_holds_each_id_once_in_ascending_order(ids: list[int]) -> None:
    subset = Subset.of(ids)
    assert subset.ids.dtype == np.int64
    assert subset.ids.tolist() == sorted(set(ids))
    assert len(subset) == len(set(ids))


@given(any_ids, any_ids)
def test_holds_answers_for_each_id_by_itself(ids: list[int], asked: list[int]) -> None:
    asked += ids[::2]
    held = Subset.of(ids).holds(np.array(asked, np.int64))
    assert held.dtype == np.bool_
    assert held.tolist() == [id in ids for id in asked]


@pytest.mark.parametrize(
    "ids",
    [
        [3, 1, 2],
        (3, 1, 2),
        range(1, 4),
        np.array([1, 2, 3, 2, 1], np.uint8),
        np.array([3, 2, 1], ">i8"),
        np.array([3, 9, 2, 9, 1])[::2],
    ],
    ids=["list", "tuple", "range", "uint8", "big-endian", "strided"],
)
def test_ids_come_in_any_form(ids: object) -> None:
    assert Subset.of(ids).ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("nothing", [[], (), np.empty(0, np.int64), np.empty(0)])
def test_a_subset_may_be_empty(nothing: object) -> None:
    subset = Subset.of(nothing)
    assert len(subset) == 0
    assert subset.ids.dtype == np.int64
    assert subset.holds(np.arange(3)).tolist() == [False] * 3
    assert subset.holds(np.empty(0, np.int64)).tolist() == []


def test_a_subset_does_not_change_with_the_array_it_was_made_of() -> None:
    for given_ids in ([1, 2, 3], [3, 2, 1]):
        ids = np.array(given_ids)
        subset = Subset.of(ids)
        ids[:] = 7
        assert subset.ids.tolist() == [1, 2, 3]


def test_the_largest_ids_are_told_apart() -> None:
    subset = Subset.of([2**63 - 1, 2**53])
    asked = np.array([2**63 - 1, 2**63 - 2, 2**53, 2**53 + 1, 0])
    assert subset.holds(asked).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    "ids",
    [
        [1, -1],
        [-(2**63)],
        np.array([2**63], np.uint64),
        [2**70],
        [1.0, 2.0],
        [np.nan],
        [True, False],
        ["1"],
        None,
        [None, 1],
        5,
        [[1, 2], [3, 4]],
        [[1], [2, 3]],
        np.empty((0, 3), np.int64),
        {1, 2},
    ],
    ids=repr,
)
def test_what_is_not_a_row_of_ids_is_refused(ids: object) -> None:
    with pytest.raises(VectorError):
        Subset.of(ids)
