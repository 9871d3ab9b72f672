"""`MilvusIndex`: the vectors of one library and model in Milvus, for those who outgrow a machine.

Milvus finds candidates, and which of them are the best is decided here; see `milvus_collection` for
how they are stored and `milvus_service` for what happens in an outage.
"""

from __future__ import annotations

import math
import operator
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchlib.errors import InputError, VectorError
from searchlib.index.checks import check_dimension, check_ids, check_k, check_pairs, check_vectors
from searchlib.index.milvus_collection import (
    FILTER_IDS,
    Found,
    MilvusCollection,
    blocks_of,
    condition_of,
    scores_of,
)
from searchlib.index.milvus_service import Gate, MilvusService
from searchlib.index.protocol import Ids, Neighbours, Subset, Vectors

MARGIN = 8
"""How many more than `k` are fetched at first, so that a few equal scores need no second look.
Each comes with its vector, so more of them cost more than a second look now and then."""

WIDEN = 8
"""How many times as many are fetched where that was not enough."""

COMPARED_HERE = 1_000
"""Up to how many vectors of a subset are read and compared here, which is exact."""

OVERFETCHED = 2_048
"""Up to how many results are fetched to find those of a larger subset among them."""

_gates: weakref.WeakValueDictionary[tuple[str, str], Gate] = weakref.WeakValueDictionary()


class MilvusIndex:
    """A `VectorIndex` in Milvus, which several processes may share.

    Within a process a search sees all of a change or none of it. Of a change that another process
    makes it may see a part where that is too large for one request (16 MB of vectors).

    Args:
        uri: `http://host:19530`, `https://user:password@host:19530/database`, or the path of a
            file of Milvus Lite that ends in `.db`.
        dimension: how many numbers a vector has.
        identity: the model's identity, hexadecimal; vectors of two models never meet.
        library: whose vectors these are, up to 64 letters, digits and underscores. Two libraries
            of one name would overwrite each other, so it should be random.
        token: `user:password` or an API key, where it is not in the URI.
        timeout: seconds that one request may take; a call may need several.
        index_type: how Milvus searches a new collection: FLAT is exact, HNSW a graph. None for FLAT
            in Milvus Lite and HNSW in a server.

    Raises:
        InputError: an argument that is not as described, or pymilvus is not installed.
        VectorError: the dimension is no whole number of at least 1.
        IndexServiceError: Milvus cannot be reached, takes too long or refuses, here and in every
            method; or there is a collection of this name with another form.
    """

    def __init__(
        self,
        uri: str,
        *,
        dimension: int,
        identity: str,
        library: str,
        token: str | None = None,
        timeout: float = 30.0,
        index_type: Literal["FLAT", "HNSW"] | None = None,
    ) -> None:
        self._dimension = check_dimension(dimension)
        if not re.fullmatch(r"[0-9a-f]{16,128}", identity):
            raise InputError(f"identity is {identity!r}; give the model's, 16 to 128 hex digits")
        if not re.fullmatch(r"\w{1,64}", library, re.ASCII):
            raise InputError(f"library is {library!r}; give 1 to 64 letters, digits or underscores")
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}; give more than 0 seconds")
        self._service = MilvusService(
            uri, token=token, timeout=timeout, ready=lambda client: self._collection.open(client)
        )
        self._collection = MilvusCollection(
            self._service.name,
            f"searchlib_{library}_{identity}",
            dimension=self._dimension,
            timeout=timeout,
            index_type=index_type,
        )
        self._gate = _gates.setdefault((self._service.place, self._collection.name), Gate())
        try:
            # Writing: the collection may have to be made.
            with self._writing():
                pass
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"MilvusIndex({self._service.name!r}, collection={self._collection.name!r})"

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnects, and closes the file of Milvus Lite; a later call connects anew."""
        self._service.close()

    @property
    def address(self) -> str:
        """Where Milvus is, as it may be shown: without user and password."""
        return self._service.name

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        with self._reading() as client:
            return self._collection.count(client)

    def __contains__(self, id: object) -> bool:
        try:
            # Whatever is no integer raises, which mypy wants to be told beforehand.
            number = operator.index(id)  # type: ignore[arg-type]
        except TypeError:
            return False
        if not 0 <= number < 2**63:
            return False
        with self._reading() as client:
            return self._collection.holds(client, number)

    def ids(self) -> Ids:
        with self._reading() as client:
            return self._collection.ids(client)

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        wanted = check_ids(ids)
        have, vectors = [np.empty(0, np.int64)], [np.empty((0, self._dimension), np.float32)]
        with self._reading() as client:
            for block_ids, block in self._collection.vectors_of(client, wanted):
                have.append(block_ids)
                vectors.append(block)
        there = np.concatenate(have)
        unknown = np.setdiff1d(wanted, there)
        if unknown.size:
            raise VectorError(f"id {unknown[0]} is not in the index")
        order = np.argsort(there)
        places = order[np.searchsorted(there, wanted, sorter=order)]
        return np.concatenate(vectors)[places]

    def held(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids, int64[n], have a vector; bool[n]."""
        with self._reading() as client:
            present = self._collection.present(client, ids)
        return np.isin(ids, present)

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        new_ids, new_vectors = check_pairs(ids, vectors, self._dimension)
        with self._writing() as client:
            self._collection.upsert(client, new_ids, new_vectors)

    def remove(self, ids: npt.ArrayLike) -> int:
        unwanted = check_ids(ids)
        with self._writing() as client:
            return self._collection.remove(client, unwanted)

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,
    ) -> Neighbours:
        """See `VectorIndex.search`.

        Where `k` is 16,384 or more, or `exact` is asked of an index that is not FLAT, all vectors
        are read and compared here.
        """
        checked = check_vectors(queries, self._dimension)
        wanted = check_k(k)
        with self._reading() as client:
            if not len(checked):
                width = min(wanted, self._collection.count(client, among))
                return Neighbours(np.empty((0, width), np.int64), np.empty((0, width), np.float32))
            few = among is not None and len(among) <= COMPARED_HERE
            many = wanted >= self._collection.most
            if few or many or (exact and not self._collection.flat):
                found = self._compared(client, checked, wanted, among)
            else:
                found = self._found(client, checked, wanted, among)
        return Neighbours(np.stack([ids for ids, _ in found]), np.stack([s for _, s in found]))

    def seq(self) -> int:
        """The position in the change log that was stored with `set_seq`, or 0."""
        with self._reading() as client:
            return self._collection.seq(client)

    def set_seq(self, seq: int) -> None:
        """Stores up to where the change log was applied; to be called after the changes.

        Raises:
            InputError: it is below 0.
        """
        if seq < 0:
            raise InputError(f"seq is {seq}; give at least 0")
        with self._writing() as client:
            self._collection.set_seq(client, int(seq))

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._gate.reading(), self._service.client() as client:
            yield client

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._gate.writing(), self._service.client() as client:
            yield client

    def _compared(self, client: Any, queries: Vectors, k: int, among: Subset | None) -> list[Found]:
        """The best `k` of each query by comparing it here with every vector it may find."""
        if among is None:
            blocks = self._collection.vectors(client)
        else:
            blocks = self._collection.vectors_of(client, among.ids)
        found = [_nothing() for _ in queries]
        for ids, vectors in blocks:
            found = [
                _best([kept, (ids, scores_of(vectors, query))], k)
                for kept, query in zip(found, queries, strict=True)
            ]
        return found

    def _found(self, client: Any, queries: Vectors, k: int, among: Subset | None) -> list[Found]:
        """The best `k` of each query as Milvus finds them."""
        if among is None:
            found = self._nearest(client, queries, k, "")
        else:
            found = self._nearest_among(client, queries, k, among)
        if not self._collection.flat and min(len(ids) for ids, _ in found) < k:
            # A graph may not lead to every vector.
            expected = min(k, self._collection.count(client, among))
            short = [row for row, (ids, _) in enumerate(found) if len(ids) < expected]
            again = self._compared(client, queries[short], k, among) if short else []
            for row, better in zip(short, again, strict=True):
                found[row] = better
        return found

    def _nearest_among(self, client: Any, queries: Vectors, k: int, among: Subset) -> list[Found]:
        """The best `k` of each query in a subset.

        One that is too large for a filter is looked for among more results than are wanted, and
        where they hold too few of it, by several filters.
        """
        if len(among) <= FILTER_IDS:
            return self._nearest(client, queries, k, condition_of(among.ids))
        found: dict[int, Found] = {}
        fetch = 2 * math.ceil(k * self._collection.count(client) / len(among)) + MARGIN
        if fetch <= min(OVERFETCHED, self._collection.most):
            answers = self._collection.search(client, queries, fetch, "")
            for row, (ids, scores, unseen) in enumerate(answers):
                held = among.holds(ids)
                best = _best([(ids[held], scores[held])], k)
                if len(best[0]) == k and best[1][-1] > unseen:
                    found[row] = best
        rest = [row for row in range(len(queries)) if row not in found]
        parts: list[list[Found]] = [[] for _ in rest]
        for block in blocks_of(among.ids) if rest else ():
            nearest = self._nearest(client, queries[rest], k, condition_of(block))
            for part, each in zip(parts, nearest, strict=True):
                part.append(each)
        found |= {row: _best(part, k) for row, part in zip(rest, parts, strict=True)}
        return [found[row] for row in range(len(queries))]

    def _nearest(self, client: Any, queries: Vectors, k: int, condition: str) -> list[Found]:
        """The best `k` of each query among the rows of a condition; all where there are fewer.

        Milvus does not say which of several equal scores it returns. So some more than `k` are
        fetched, and more again for those queries whose k-th score might be shared by a vector that
        was not fetched.
        """
        found = [_nothing() for _ in queries]
        rows = list(range(len(queries)))
        fetch = min(k + MARGIN, self._collection.most)
        while rows:
            again = []
            answers = self._collection.search(client, queries[rows], fetch, condition)
            for row, (ids, scores, unseen) in zip(rows, answers, strict=True):
                found[row] = _best([(ids, scores)], k)
                if unseen > -math.inf and found[row][1][-1] <= unseen:
                    again.append(row)
            rows = again
            if fetch == self._collection.most:
                break
            fetch = min(fetch * WIDEN, self._collection.most)
        for row in rows:
            found[row] = self._settled(client, queries[row], found[row], k, condition)
        return found

    def _settled(self, client: Any, query: Vectors, found: Found, k: int, condition: str) -> Found:
        """The best `k` where more vectors share the k-th score than Milvus returns.

        Each look asks for smaller ids than the last of the best `k`, until there are none that
        score as much.
        """
        while True:
            smaller = f"id < {found[0][-1]}" + (f" and {condition}" if condition else "")
            ((ids, scores, unseen),) = self._collection.search(
                client, query[None], self._collection.most, smaller
            )
            better = _best([found, (ids, scores)], k)
            if np.array_equal(better[0], found[0]) or better[1][-1] > unseen:
                return better
            found = better


def _nothing() -> Found:
    return np.empty(0, np.int64), np.empty(0, np.float32)


def _best(parts: list[Found], k: int) -> Found:
    """The best `k` of all parts; an id that is in several is taken once."""
    ids = np.concatenate([ids for ids, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    if len(parts) > 1:
        ids, first = np.unique(ids, return_index=True)
        scores = scores[first]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
