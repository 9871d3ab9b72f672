"""`MilvusIndex`: the vectors of one library and model in Milvus, for those who outgrow a machine.

A collection for each library and model, named `searchlib_LIBRARY_IDENTITY`, so that vectors of two
models never meet:

    id      int64, the primary key; -1 is the row that keeps the position in the change log
    vector  float32[dimension], indexed for inner products: FLAT in Milvus Lite, otherwise HNSW
    seq     int64, the position in the row -1, else 0

The position stands in the same collection as the vectors, and the collection has one shard, so
that one log of Milvus holds both in the order in which they were written: whatever an outage
takes away, the position is never ahead of the vectors. Replaying from it is harmless, however
often.

Milvus finds candidates; they come with their vectors and are scored and ordered here, so that a
score is that of the stored vector whatever index Milvus searches, and equal vectors have equal
scores. Reads are of strong consistency: a search sees every write that ended before it, also one
of another process.
"""

from __future__ import annotations

import math
import operator
import re
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchlib.errors import IndexServiceError, InputError, VectorError
from searchlib.index.checks import check_dimension, check_ids, check_k, check_pairs, check_vectors
from searchlib.index.milvus_service import Gate, MilvusService
from searchlib.index.protocol import Ids, Neighbours, Subset, Vectors

POSITION_ID = -1
"""The row that keeps the position; ids begin at 0. Its vector is zero, so it is nobody's best."""

MOST = 16_384
"""How many results Milvus gives for a query, and queries it takes in a request."""

MESSAGE_BYTES = 16 << 20
"""How much of vectors is in a request or an answer; Milvus refuses more than 64 MB."""

FILTER_IDS = 10_000
"""How many ids are in a filter: about 100 KB that Milvus has to parse."""

MARGIN = 8
"""How many more than `k` are fetched at first, so that a few equal scores need no second look.
Each comes with its vector, so more of them cost more than a second look now and then."""

WIDEN = 8
"""How many times as many are fetched where that was not enough."""

NOISE = 1e-5
"""How far a score of Milvus, added up in another order, may lie from the one of here."""

COMPARED_HERE = 1_000
"""Up to how many vectors of a subset are read and compared here, which is exact."""

OVERFETCHED = 2_048
"""Up to how many results are fetched to find those of a larger subset among them."""

HNSW = {"M": 32, "efConstruction": 200}
"""256 bytes for each vector beside its own; a recall above 0.99 with `ef` of 256."""

EF = 256

Found = tuple[Ids, Vectors]
"""Ids int64[m] and scores float32[m], the best first, equal scores by ascending id."""

_gates: weakref.WeakValueDictionary[tuple[str, str], Gate] = weakref.WeakValueDictionary()


class MilvusIndex:
    """A `VectorIndex` in Milvus. Several processes may use one at a time.

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
        index_type: how Milvus searches a new collection; None for FLAT in Milvus Lite and HNSW in
            a server.

    Raises:
        InputError: an argument that is not as described, or pymilvus is not installed.
        VectorError: the dimension is no whole number of at least 1.
        IndexServiceError: Milvus cannot be reached, takes too long or refuses, here and in every
            method; or the collection has another form than the one above.
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
        self.collection = f"searchlib_{library}_{identity}"
        self._index_type = index_type
        self._flat = False
        self._opened = False
        self._row_bytes = 4 * self._dimension + 32
        self._most = max(1, min(MOST, MESSAGE_BYTES // self._row_bytes))
        self._service = MilvusService(uri, token=token, timeout=timeout, ready=self._open)
        key = (self._service.name, self.collection)
        self._gate = _gates.setdefault(key, Gate())
        with self._gate.writing(), self._service.client():
            self._opened = True

    def __repr__(self) -> str:
        return f"MilvusIndex({self._service.name!r}, collection={self.collection!r})"

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
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        with self._gate.reading(), self._service.client() as client:
            return self._count(client, "id >= 0")

    def __contains__(self, id: object) -> bool:
        try:
            # Whatever is no integer raises, which mypy wants to be told beforehand.
            number = operator.index(id)  # type: ignore[arg-type]
        except TypeError:
            return False
        if not 0 <= number < 2**63:
            return False
        with self._gate.reading(), self._service.client() as client:
            return bool(self._query(client, f"id == {number}", "id"))

    def ids(self) -> Ids:
        with self._gate.reading(), self._service.client() as client:
            pages = [[row["id"] for row in page] for page in self._pages(client, "id", MOST)]
        return np.array(sorted(id for page in pages for id in page), np.int64)

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        wanted = check_ids(ids)
        with self._gate.reading(), self._service.client() as client:
            blocks = list(self._read(client, wanted))
        have, vectors = _joined(blocks, self._dimension)
        unknown = np.setdiff1d(wanted, have)
        if unknown.size:
            raise VectorError(f"id {unknown[0]} is not in the index")
        order = np.argsort(have)
        return vectors[order[np.searchsorted(have, wanted, sorter=order)]]

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        new_ids, new_vectors = check_pairs(ids, vectors, self._dimension)
        with self._gate.writing(), self._service.client() as client:
            for start in range(0, len(new_ids), self._most):
                block = slice(start, start + self._most)
                self._write(client, new_ids[block].tolist(), new_vectors[block], 0)

    def remove(self, ids: npt.ArrayLike) -> int:
        unwanted = check_ids(ids)
        count = 0
        with self._gate.writing(), self._service.client() as client:
            for block in _slices(unwanted, FILTER_IDS):
                present = [row["id"] for row in self._query(client, _among(block), "id")]
                if present:
                    client.delete(self.collection, ids=present, timeout=self._service.timeout)
                    count += len(present)
        return count

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
        with self._gate.reading(), self._service.client() as client:
            if not len(checked):
                width = min(wanted, self._allowed(client, among))
                return Neighbours(np.empty((0, width), np.int64), np.empty((0, width), np.float32))
            few = among is not None and len(among) <= COMPARED_HERE
            if few or wanted >= self._most or (exact and not self._flat):
                found = self._compared(client, checked, wanted, among)
            else:
                found = self._found(client, checked, wanted, among)
        return Neighbours(np.stack([ids for ids, _ in found]), np.stack([s for _, s in found]))

    def seq(self) -> int:
        """The position in the change log that was stored with `set_seq`, or 0."""
        with self._gate.reading(), self._service.client() as client:
            rows = self._query(client, f"id == {POSITION_ID}", "seq")
        return int(rows[0]["seq"]) if rows else 0

    def set_seq(self, seq: int) -> None:
        """Stores up to where the change log was applied; to be called after the changes.

        Raises:
            InputError: it is below 0.
        """
        if seq < 0:
            raise InputError(f"seq is {seq}; give at least 0")
        zero = np.zeros((1, self._dimension), np.float32)
        with self._gate.writing(), self._service.client() as client:
            self._write(client, [POSITION_ID], zero, seq)

    def clear(self) -> None:
        """Removes all vectors and the position."""
        with self._gate.writing(), self._service.client() as client:
            client.drop_collection(self.collection, timeout=self._service.timeout)
            self._create(client)
            client.load_collection(self.collection, timeout=self._service.timeout)

    def _open(self, client: Any) -> None:
        """Looks whether a new connection leads to the right collection; at first it may make it."""
        timeout = self._service.timeout
        if not client.has_collection(self.collection, timeout=timeout):
            if self._opened:
                raise IndexServiceError(
                    f"{self._service.name}: the collection {self.collection} is gone; "
                    "open the index again to fill it anew"
                )
            self._create(client)
        fields = client.describe_collection(self.collection, timeout=timeout)["fields"]
        form = {field["name"]: field["params"].get("dim") for field in fields}
        if form != {"id": None, "vector": self._dimension, "seq": None}:
            raise IndexServiceError(
                f"{self._service.name}: the collection {self.collection} is not for vectors of "
                f"{self._dimension} numbers; drop it there, or use another database"
            )
        names = client.list_indexes(self.collection, timeout=timeout)
        if not names:
            # The process that made the collection ended before it made the index.
            self._create_index(client)
            names = client.list_indexes(self.collection, timeout=timeout)
        about = client.describe_index(self.collection, names[0], timeout=timeout)
        self._flat = about["index_type"] == "FLAT"
        client.load_collection(self.collection, timeout=timeout)

    def _create(self, client: Any) -> None:
        from pymilvus import DataType  # type: ignore[import-not-found, unused-ignore]

        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dimension)
        schema.add_field("seq", DataType.INT64)
        client.create_collection(
            self.collection,
            schema=schema,
            consistency_level="Strong",
            num_shards=1,
            timeout=self._service.timeout,
        )
        self._create_index(client)

    def _create_index(self, client: Any) -> None:
        lite = "lite" in client.get_server_version(timeout=self._service.timeout)
        kind = self._index_type or ("FLAT" if lite else "HNSW")
        params = client.prepare_index_params()
        params.add_index(
            "vector", index_type=kind, metric_type="IP", params=HNSW if kind == "HNSW" else {}
        )
        client.create_index(
            self.collection, params, sync=False, timeout=self._service.timeout
        )

    def _write(self, client: Any, ids: list[int], vectors: Vectors, seq: int) -> None:
        rows = [
            {"id": id, "vector": vector, "seq": seq}
            for id, vector in zip(ids, vectors, strict=True)
        ]
        client.upsert(self.collection, rows, timeout=self._service.timeout)

    def _query(self, client: Any, condition: str, *fields: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = client.query(
            self.collection,
            filter=condition,
            output_fields=list(fields),
            consistency_level="Strong",
            timeout=self._service.timeout,
        )
        return rows

    def _count(self, client: Any, condition: str) -> int:
        return int(self._query(client, condition, "count(*)")[0]["count(*)"])

    def _allowed(self, client: Any, among: Subset | None) -> int:
        """How many vectors a search may return."""
        if among is None:
            return self._count(client, "id >= 0")
        blocks = _slices(among.ids, FILTER_IDS)
        return sum(self._count(client, _among(block)) for block in blocks)

    def _pages(self, client: Any, field: str, size: int) -> Iterator[list[dict[str, Any]]]:
        """All rows by ascending id, of one state of the collection."""
        pages = client.query_iterator(
            self.collection,
            batch_size=size,
            filter="id >= 0",
            output_fields=[field],
            consistency_level="Strong",
            timeout=self._service.timeout,
        )
        try:
            while page := pages.next():
                yield page
        finally:
            pages.close()

    def _read(self, client: Any, ids: Ids) -> Iterator[tuple[Ids, Vectors]]:
        """The vectors of those of these ids that there are, in any order."""
        for block in _slices(ids, min(self._most, FILTER_IDS)):
            yield _table(self._query(client, _among(block), "vector"), self._dimension)

    def _compared(
        self, client: Any, queries: Vectors, k: int, among: Subset | None
    ) -> list[Found]:
        """The best `k` of each query by comparing it here with every vector it may find."""
        if among is None:
            pages = self._pages(client, "vector", self._most)
            blocks = (_table(page, self._dimension) for page in pages)
        else:
            blocks = self._read(client, among.ids)
        found = [_none() for _ in queries]
        for ids, vectors in blocks:
            found = [
                _best([kept, (ids, _scores(vectors, query))], k)
                for kept, query in zip(found, queries, strict=True)
            ]
        return found

    def _found(self, client: Any, queries: Vectors, k: int, among: Subset | None) -> list[Found]:
        """The best `k` of each query as Milvus finds them."""
        if among is None:
            found = self._nearest(client, queries, k, "")
        else:
            found = self._nearest_among(client, queries, k, among)
        if not self._flat and min(len(ids) for ids, _ in found) < k:
            # A graph may not lead to every vector.
            expected = min(k, self._allowed(client, among))
            short = [row for row, (ids, _) in enumerate(found) if len(ids) < expected]
            if short:
                again = self._compared(client, queries[short], k, among)
                for row, better in zip(short, again, strict=True):
                    found[row] = better
        return found

    def _nearest_among(
        self, client: Any, queries: Vectors, k: int, among: Subset
    ) -> list[Found]:
        """The best `k` of each query in a subset.

        One that is too large for a filter is looked for among more results than are wanted, and
        where they hold too few of it, by several filters.
        """
        if len(among) <= FILTER_IDS:
            return self._nearest(client, queries, k, _among(among.ids))
        found: dict[int, Found] = {}
        fetch = 2 * math.ceil(k * self._count(client, "id >= 0") / len(among)) + MARGIN
        if fetch <= min(OVERFETCHED, self._most):
            for row, (ids, scores, unseen) in enumerate(self._asked(client, queries, fetch, "")):
                held = among.holds(ids)
                best = _best([(ids[held], scores[held])], k)
                if len(best[0]) == k and best[1][-1] > unseen:
                    found[row] = best
        rest = [row for row in range(len(queries)) if row not in found]
        parts: list[list[Found]] = [[] for _ in rest]
        if rest:
            for block in _slices(among.ids, FILTER_IDS):
                answers = self._nearest(client, queries[rest], k, _among(block))
                for part, answer in zip(parts, answers, strict=True):
                    part.append(answer)
        found |= {row: _best(part, k) for row, part in zip(rest, parts, strict=True)}
        return [found[row] for row in range(len(queries))]

    def _nearest(self, client: Any, queries: Vectors, k: int, condition: str) -> list[Found]:
        """The best `k` of each query among the rows of a condition; all where there are fewer.

        Milvus does not say which of several equal scores it returns. So some more than `k` are
        fetched, and more again for those queries whose k-th score might be shared by a vector that
        was not fetched.
        """
        found = [_none() for _ in queries]
        rows = list(range(len(queries)))
        fetch = min(k + MARGIN, self._most)
        while rows:
            again = []
            answers = self._asked(client, queries[rows], fetch, condition)
            for row, (ids, scores, unseen) in zip(rows, answers, strict=True):
                found[row] = _best([(ids, scores)], k)
                if unseen > -math.inf and found[row][1][-1] <= unseen:
                    again.append(row)
            rows = again
            if fetch == self._most:
                break
            fetch = min(fetch * WIDEN, self._most)
        for row in rows:
            found[row] = self._settled(client, queries[row], found[row], k, condition)
        return found

    def _settled(
        self, client: Any, query: Vectors, found: Found, k: int, condition: str
    ) -> Found:
        """The best `k` where more vectors share the k-th score than Milvus returns.

        Each look asks for smaller ids than the last of the best `k`, until there are none that
        score as much.
        """
        while len(found[0]) == k:
            last = int(found[0][-1])
            smaller = f"id < {last}" + (f" and {condition}" if condition else "")
            ((ids, scores, unseen),) = self._asked(client, query[None], self._most, smaller)
            better = _best([found, (ids, scores)], k)
            changed = not np.array_equal(better[0], found[0])
            found = better
            if not changed or found[1][-1] > unseen:
                break
        return found

    def _asked(
        self, client: Any, queries: Vectors, fetch: int, condition: str
    ) -> Iterator[tuple[Ids, Vectors, float]]:
        """What Milvus finds for each query, and which score something that it left out may have.

        Yields ids int64[m] and scores float32[m] in any order, and a number that is -inf where
        nothing was left out.
        """
        step = max(1, min(MOST, MESSAGE_BYTES // (fetch * self._row_bytes)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            answers = client.search(
                self.collection,
                data=list(block),
                anns_field="vector",
                limit=fetch,
                filter=condition,
                output_fields=["vector"],
                search_params={
                    "metric_type": "IP",
                    "params": {} if self._flat else {"ef": max(EF, fetch)},
                },
                consistency_level="Strong",
                timeout=self._service.timeout,
            )
            for query, hits in zip(block, answers, strict=True):
                unseen = -math.inf
                if len(hits) >= fetch:
                    unseen = min(hit["distance"] for hit in hits) + NOISE
                rows = [hit["entity"] | {"id": hit["id"]} for hit in hits]
                ids, vectors = _table(rows, self._dimension)
                real = ids != POSITION_ID
                yield ids[real], _scores(vectors[real], query), unseen


def _slices(ids: Ids, size: int) -> Iterator[Ids]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _among(ids: Ids) -> str:
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def _none() -> Found:
    return np.empty(0, np.int64), np.empty(0, np.float32)


def _table(rows: Sequence[dict[str, Any]], dimension: int) -> tuple[Ids, Vectors]:
    ids = np.array([row["id"] for row in rows], np.int64)
    vectors = np.empty((len(rows), dimension), np.float32)
    for place, row in enumerate(rows):
        vectors[place] = row["vector"]
    return ids, vectors


def _joined(blocks: list[tuple[Ids, Vectors]], dimension: int) -> tuple[Ids, Vectors]:
    if not blocks:
        return np.empty(0, np.int64), np.empty((0, dimension), np.float32)
    ids, vectors = zip(*blocks, strict=True)
    return np.concatenate(ids), np.concatenate(vectors)


def _scores(vectors: Vectors, query: Vectors) -> Vectors:
    """Not a matrix product, so that equal vectors have equal scores wherever they stand."""
    scores: Vectors = (vectors.astype(np.float64) * query).sum(axis=1).astype(np.float32)
    return scores


def _best(parts: list[Found], k: int) -> Found:
    """The best `k` of all parts; an id that is in several is taken once."""
    ids = np.concatenate([ids for ids, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    ids, first = np.unique(ids, return_index=True)
    scores = scores[first]
    order = np.argsort(-scores, kind="stable")[:k]
    return ids[order], scores[order]
