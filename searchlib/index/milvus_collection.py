"""A collection of Milvus that holds the vectors of one library and model, and the requests to it.

It is named `searchlib_LIBRARY_IDENTITY`, so that vectors of two models never meet:

    id      int64, the primary key; -1 is the row that keeps the position in the change log
    vector  float32[dimension], indexed for inner products: FLAT in Milvus Lite, otherwise HNSW
    seq     int64, the position in the row -1, else 0

The position stands in the same collection as the vectors, and the collection has one shard, so
that one log of Milvus holds both in the order in which they were written: whatever an outage
takes away, the position is never ahead of the vectors. Replaying from it is harmless, however
often.

Reads are of strong consistency: they see every write that ended before them, also one of another
process.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from searchlib.errors import IndexServiceError
from searchlib.index.protocol import Ids, Subset, Vectors

POSITION_ID = -1
"""The row that keeps the position; ids begin at 0. Its vector is zero, so it is nobody's best."""

MOST = 16_384
"""How many results Milvus gives for a query, and queries it takes in a request."""

MESSAGE_BYTES = 16 << 20
"""How much of vectors is in a request or an answer; Milvus refuses more than 64 MB."""

FILTER_IDS = 10_000
"""How many ids are in a filter: about 100 KB that Milvus has to parse."""

NOISE = 1e-5
"""How far a score of Milvus, added up in another order, may lie from the one of here."""

HNSW = {"M": 32, "efConstruction": 200}
"""256 bytes for each vector beside its own."""

EF = 256
"""How many candidates a search of the graph keeps, at least."""

Found = tuple[Ids, Vectors]
"""Ids int64[m] and scores float32[m], the best first, equal scores by ascending id."""


class MilvusCollection:
    """Requests to one collection; each method takes the client that it goes through.

    Args:
        where: the address, for errors.
        name: of the collection.
        dimension: how many numbers a vector has.
        timeout: seconds that a request may take.
        index_type: for a new collection; None for what suits the server.

    Attributes:
        flat: whether Milvus compares a query with every vector.
        most: how many vectors go into a request or an answer.
    """

    def __init__(
        self,
        where: str,
        name: str,
        *,
        dimension: int,
        timeout: float,
        index_type: Literal["FLAT", "HNSW"] | None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.flat = False
        self._where = where
        self._dimension = dimension
        self._index_type = index_type
        self._row_bytes = 4 * dimension + 32
        self.most = max(1, min(MOST, MESSAGE_BYTES // self._row_bytes))
        self._known = False

    def open(self, client: Any) -> None:
        """Looks whether a new connection leads to the right collection; makes it the first time.

        Raises:
            IndexServiceError: it was there and is not any more, or it has another form.
        """
        if not client.has_collection(self.name, timeout=self.timeout):
            if self._known:
                raise IndexServiceError(
                    f"{self._where}: the collection {self.name} is gone; "
                    "open the index again to fill it anew"
                )
            self._create(client)
        fields = client.describe_collection(self.name, timeout=self.timeout)["fields"]
        form = {field["name"]: field["params"].get("dim") for field in fields}
        if form != {"id": None, "vector": self._dimension, "seq": None}:
            raise IndexServiceError(
                f"{self._where}: the collection {self.name} is not for vectors of "
                f"{self._dimension} numbers; drop it there, or use another database"
            )
        names = client.list_indexes(self.name, timeout=self.timeout)
        if not names:
            # The process that made the collection ended before it made the index.
            self._create_index(client)
            names = client.list_indexes(self.name, timeout=self.timeout)
        about = client.describe_index(self.name, names[0], timeout=self.timeout)
        self.flat = about["index_type"] == "FLAT"
        client.load_collection(self.name, timeout=self.timeout)
        self._known = True

    def count(self, client: Any, among: Subset | None = None) -> int:
        """How many vectors there are, or are of a subset."""
        conditions = ["id >= 0"] if among is None else map(condition_of, blocks_of(among.ids))
        counted = (self._query(client, each, "count(*)") for each in conditions)
        return sum(int(rows[0]["count(*)"]) for rows in counted)

    def ids(self, client: Any) -> Ids:
        """All ids, ascending."""
        pages = self._pages(client, "id", MOST)
        return np.array(sorted(row["id"] for page in pages for row in page), np.int64)

    def vectors(self, client: Any) -> Iterator[tuple[Ids, Vectors]]:
        """All vectors in blocks, of one state of the collection."""
        for page in self._pages(client, "vector", self.most):
            yield self._table(page)

    def vectors_of(self, client: Any, ids: Ids) -> Iterator[tuple[Ids, Vectors]]:
        """The vectors of those of these ids that there are, in blocks, in any order."""
        for block in blocks_of(ids, self.most):
            yield self._table(self._query(client, condition_of(block), "vector"))

    def holds(self, client: Any, id: int) -> bool:
        return bool(self._query(client, f"id == {id}", "id"))

    def present(self, client: Any, ids: Ids) -> Ids:
        """Those of these ids that there are, in any order."""
        blocks = (self._query(client, condition_of(block), "id") for block in blocks_of(ids))
        return np.array([row["id"] for rows in blocks for row in rows], np.int64)

    def seq(self, client: Any) -> int:
        """The position in the change log, or 0."""
        rows = self._query(client, f"id == {POSITION_ID}", "seq")
        return int(rows[0]["seq"]) if rows else 0

    def set_seq(self, client: Any, seq: int) -> None:
        self._write(client, [POSITION_ID], np.zeros((1, self._dimension), np.float32), seq)

    def upsert(self, client: Any, ids: Ids, vectors: Vectors) -> None:
        for start in range(0, len(ids), self.most):
            block = slice(start, start + self.most)
            self._write(client, ids[block].tolist(), vectors[block], 0)

    def remove(self, client: Any, ids: Ids) -> int:
        """Returns how many there were."""
        count = 0
        for block in blocks_of(ids):
            # What Milvus itself counts are the ids that it was given.
            present = self.present(client, block).tolist()
            if present:
                client.delete(self.name, ids=present, timeout=self.timeout)
                count += len(present)
        return count

    def search(
        self, client: Any, queries: Vectors, fetch: int, condition: str
    ) -> Iterator[tuple[Ids, Vectors, float]]:
        """Up to `fetch` candidates for each query, and the score that one left out may have.

        They come with their vectors and are scored here, so that a score is that of the stored
        vector, whatever index Milvus searches, and equal vectors have equal scores.

        Yields ids int64[m] and scores float32[m] in any order, and a number that is -inf where
        nothing was left out.
        """
        step = max(1, min(MOST, MESSAGE_BYTES // (fetch * self._row_bytes)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            answers = client.search(
                self.name,
                data=list(block),
                anns_field="vector",
                limit=fetch,
                filter=condition,
                output_fields=["vector"],
                search_params={
                    "metric_type": "IP",
                    "params": {} if self.flat else {"ef": max(EF, fetch)},
                },
                consistency_level="Strong",
                timeout=self.timeout,
            )
            for query, hits in zip(block, answers, strict=True):
                unseen = -math.inf
                if len(hits) >= fetch:
                    unseen = min(hit["distance"] for hit in hits) + NOISE
                ids, vectors = self._table([hit["entity"] | {"id": hit["id"]} for hit in hits])
                real = ids != POSITION_ID
                yield ids[real], scores_of(vectors[real], query), unseen

    def _create(self, client: Any) -> None:
        kinds = importlib.import_module("pymilvus").DataType
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self._dimension)
        schema.add_field("seq", kinds.INT64)
        client.create_collection(
            self.name,
            schema=schema,
            consistency_level="Strong",
            num_shards=1,
            timeout=self.timeout,
        )
        self._create_index(client)

    def _create_index(self, client: Any) -> None:
        lite = "lite" in client.get_server_version(timeout=self.timeout)
        kind = self._index_type or ("FLAT" if lite else "HNSW")
        params = client.prepare_index_params()
        params.add_index(
            "vector", index_type=kind, metric_type="IP", params=HNSW if kind == "HNSW" else {}
        )
        # There is nothing to index yet, so nothing to wait for.
        client.create_index(self.name, params, sync=False, timeout=self.timeout)

    def _write(self, client: Any, ids: list[int], vectors: Vectors, seq: int) -> None:
        rows = [
            {"id": id, "vector": vector, "seq": seq}
            for id, vector in zip(ids, vectors, strict=True)
        ]
        client.upsert(self.name, rows, timeout=self.timeout)

    def _query(self, client: Any, condition: str, *fields: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = client.query(
            self.name,
            filter=condition,
            output_fields=list(fields),
            consistency_level="Strong",
            timeout=self.timeout,
        )
        return rows

    def _pages(self, client: Any, field: str, size: int) -> Iterator[list[dict[str, Any]]]:
        pages = client.query_iterator(
            self.name,
            batch_size=size,
            filter="id >= 0",
            output_fields=[field],
            consistency_level="Strong",
            timeout=self.timeout,
        )
        try:
            while page := pages.next():
                yield page
        finally:
            pages.close()

    def _table(self, rows: Sequence[dict[str, Any]]) -> tuple[Ids, Vectors]:
        ids = np.array([row["id"] for row in rows], np.int64)
        vectors = np.empty((len(rows), self._dimension), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = row["vector"]
        return ids, vectors


def blocks_of(ids: Ids, size: int = FILTER_IDS) -> Iterator[Ids]:
    """The ids in blocks that a filter can hold, or smaller ones."""
    size = min(size, FILTER_IDS)
    return (ids[start : start + size] for start in range(0, len(ids), size))


def condition_of(ids: Ids) -> str:
    """The filter that lets these ids through."""
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def scores_of(vectors: Vectors, query: Vectors) -> Vectors:
    """Not a matrix product, so that equal vectors have equal scores wherever they stand."""
    scores: Vectors = (vectors.astype(np.float64) * query).sum(axis=1).astype(np.float32)
    return scores
