"""The one place where vectors, ids and k are checked.

FAISS takes NaN, duplicate ids and vectors of any length without complaint and answers nonsense
later, so nothing reaches an index that did not pass here.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.errors import VectorError
from searchlib.index.protocol import Ids, Vectors

UNIT_TOLERANCE = 1e-2
"""How far from 1 the length of a vector may be. Rounding to float16 moves it by up to 1e-3."""


def check_dimension(dimension: int) -> int:
    """Returns the dimension of an index.

    Raises:
        VectorError: it is not a whole number of at least 1.
    """
    return _whole(dimension, "dimension")


def check_k(k: int) -> int:
    """Returns how many neighbours are wanted.

    Raises:
        VectorError: it is not a whole number of at least 1.
    """
    return _whole(k, "k")


def check_vectors(vectors: npt.ArrayLike, dimension: int) -> Vectors:
    """Returns vectors as contiguous float32[n, dimension], copied only where that takes a copy.

    float16, float32 and float64 are taken; float64 is rounded to float32, which loses nothing that
    an index would keep. Integers are refused: a unit vector of integers is a mistake.

    Raises:
        VectorError: another shape, dimension or dtype, NaN or infinity, a zero vector, or one that
            is not of unit length within `UNIT_TOLERANCE`.
    """
    given = _array(vectors, "vectors")
    if given.shape == (1, dimension) and given.dtype == np.float32 and given.flags.c_contiguous:
        # The usual question; what follows takes longer than a short search.
        only: Vectors = given
        if abs(float(only[0] @ only[0]) - 1) < UNIT_TOLERANCE:
            return only
    if given.dtype.kind != "f" or given.dtype.itemsize > 8:
        raise VectorError(f"vectors are {given.dtype}; give float32, float16 or float64")
    if given.ndim != 2:
        raise VectorError(
            f"vectors have shape {given.shape}; give one row for each vector: (n, {dimension})"
        )
    if given.shape[1] != dimension:
        raise VectorError(
            f"vectors have {given.shape[1]} dimensions and this index has {dimension}; "
            "they come from another model"
        )
    with np.errstate(over="ignore"):
        checked = np.ascontiguousarray(given, dtype=np.float32)
        squares = np.einsum("ij,ij->i", checked, checked)
    # A sum of squares is finite only where every number is, and this reads the vectors once.
    if not np.isfinite(squares).all():
        row = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise VectorError(f"vector {row} holds NaN, infinity or a huge number; embed it again")
    lengths = np.sqrt(squares)
    wrong = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if wrong.size:
        row = int(wrong[0])
        what = "is zero" if lengths[row] == 0 else f"has length {lengths[row]:.6g}"
        raise VectorError(f"vector {row} {what}; give vectors of length 1")
    return checked


def check_ids(ids: npt.ArrayLike) -> Ids:
    """Returns ids as contiguous int64[n].

    Raises:
        VectorError: not one row of integers, an id below 0 or above 2**63 - 1, or one given twice.
    """
    given = _array(ids, "ids")
    if given.ndim != 1:
        raise VectorError(f"ids have shape {given.shape}; give them in one row: (n,)")
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.dtype.kind not in "iu":
        raise VectorError(f"ids are {given.dtype}; give integers of 64 bits")
    if given.min() < 0:
        raise VectorError(f"id {given.min()} is negative; ids begin at 0")
    if given.max() > np.iinfo(np.int64).max:
        raise VectorError(f"id {given.max()} is too large; the largest is 2**63 - 1")
    checked = np.ascontiguousarray(given, dtype=np.int64)
    ascending = np.sort(checked)
    twice = np.flatnonzero(ascending[1:] == ascending[:-1])
    if twice.size:
        raise VectorError(f"id {ascending[twice[0]]} is given twice in one call; give it once")
    return checked


def check_pairs(ids: npt.ArrayLike, vectors: npt.ArrayLike, dimension: int) -> tuple[Ids, Vectors]:
    """Returns ids int64[n] and their vectors float32[n, dimension].

    Raises:
        VectorError: what `check_ids` or `check_vectors` refuses, or not one id for each vector.
    """
    checked_ids, checked_vectors = check_ids(ids), check_vectors(vectors, dimension)
    if len(checked_ids) != len(checked_vectors):
        raise VectorError(
            f"{len(checked_ids)} ids for {len(checked_vectors)} vectors; give one id for each"
        )
    return checked_ids, checked_vectors


def _array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise VectorError(f"{name} do not form an array ({error}); give a numpy array") from None


def _whole(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise VectorError(f"{name} is {value!r}; give a whole number") from None
    if isinstance(value, bool | np.bool_) or number < 1:
        raise VectorError(f"{name} is {value}; give at least 1")
    return number
