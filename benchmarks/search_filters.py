"""What a filter costs a query, and what recall it leaves.

    python -m benchmarks.search_filters LIBRARY SIZE VECTORS.npy QUERIES

LIBRARY may be written to. For each share of the images and each kind of filter, queries with it and
without are asked in turns through `Library.search`: *repeated*, one filter over and over; and
*first*, another one each time, where something is committed before each query, so that nothing
holds that was found out about the filter before. Queries are vectors of photographs that are not in
the library. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import photographs
from benchmarks.common import median, module_command, percentile, run
from benchmarks.search_library import SHARES, SearchLibrary, filters
from benchmarks.table import Row
from searchlib import open_library
from searchlib.catalog import Catalog
from searchlib.encoder import ImageEncoder
from searchlib.library import Library
from searchlib.search import Term

MOST_SLOWER = 1.5
LEAST_RECALL = 0.99
K = 10

WHEN = {"first": "first time", "repeated": "again"}

_ROWS = 50_000
_SAME_SCORE = 1e-6
_WARM_UP = 3


def measure(
    library: SearchLibrary, origin: photographs.Source, scratch: Path, queries: int
) -> tuple[list[Row], dict[str, Any]]:
    """All filters, in a process of its own; the rows and every figure."""
    vectors = scratch / "queries.npy"
    encoder = ImageEncoder()
    pictures = photographs.pictures(origin, "filters", "500px", queries)
    np.save(vectors, np.stack([encoder.embed(image) for image, _ in pictures]))
    copy = library.copy(scratch / f"library-{library.size}")
    done = run([*module_command("search_filters"), copy, str(library.size), vectors])
    raw: dict[str, Any] = json.loads(done.stdout)
    return _rows(library.size, raw), raw


def _rows(size: int, raw: dict[str, Any]) -> list[Row]:
    rows = []
    for share in SHARES:
        for when in WHEN:
            kinds = raw[str(share)]
            ratios = {kind: figures[when]["ratio"] for kind, figures in kinds.items()}
            plain = median([figures[when]["unfiltered_p50_ms"] for figures in kinds.values()])
            times = " / ".join(f"{figures[when]['p50_ms']:.1f}" for figures in kinds.values())
            what = f"{size:,} images, filter of {share:.1%}, {WHEN[when]}: {' / '.join(kinds)}"
            target = f"<= {MOST_SLOWER} x"
            worst = max(ratios.values())
            said = f"{times} ({worst:.2f}x of {plain:.1f})"
            rows.append(Row(f"{what}, p50 ms", said, {}, target, worst <= MOST_SLOWER))
        recalls = [figures["recall"] for figures in raw[str(share)].values()]
        words = f"{size:,} images, filter of {share:.1%}: recall@10"
        said = " / ".join(f"{recall:.4f}" for recall in recalls)
        rows.append(Row(words, said, {}, f">= {LEAST_RECALL}", min(recalls) >= LEAST_RECALL))
    return rows


class Oracle:
    """All vectors of a library, and which of them a filter keeps, without the library's help.

    Args:
        library: its folder.
    """

    def __init__(self, library: Path) -> None:
        catalog = Catalog(library, create=False)
        try:
            model = catalog.model()
            if model is None:
                raise SystemExit(f"{library}: this library is empty")
            _, self.ids, self._vectors = catalog.all_vectors(model)
            # Rounded to float16 they are not quite of length 1; a cosine is of their directions.
            blocks = range(0, len(self.ids), _ROWS)
            lengths = [np.linalg.norm(self._block(first), axis=1) for first in blocks]
            self._lengths = np.concatenate(lengths)
        finally:
            catalog.close()

    def _block(self, first: int) -> NDArray[np.float32]:
        return self._vectors[first : first + _ROWS].astype(np.float32)

    def recall(
        self, query: NDArray[np.float32], kept: NDArray[np.int64], found: list[int]
    ) -> float:
        """What share of the nearest K among the images that are kept was found.

        A match that scores as the last of them counts, whichever of the equals it is.
        """
        places = np.searchsorted(self.ids, kept)
        scores = np.empty(len(places), np.float32)
        for first in range(0, len(places), _ROWS):
            some = places[first : first + _ROWS]
            cosines = self._vectors[some].astype(np.float32) @ query / self._lengths[some]
            scores[first : first + _ROWS] = cosines
        wanted = min(K, len(kept))
        last = np.partition(scores, -wanted)[-wanted]
        among = np.isin(kept, found)
        if among.sum() != len(found):
            raise SystemExit("a match does not meet the filter")
        return float((scores[among] >= last - _SAME_SCORE).sum() / wanted)


def _filter(
    opened: Library, oracle: Oracle, queries: NDArray[np.float32], size: int, share: float,
    kind: str,
) -> dict[str, Any]:  # fmt: skip
    result: dict[str, Any] = {}
    expected = round(share * size)
    for when in ("repeated", "first"):
        filtered: list[float] = []
        plain: list[float] = []
        for place, query in enumerate(queries):
            number = place if when == "first" else 0
            where = filters(share, size, number)[kind]
            asked = [(where, filtered), (None, plain)]
            for words, times in asked if place % 2 else asked[::-1]:
                if when == "first":
                    opened.set_properties(1, {"touched": str(time.time_ns())})
                start = time.perf_counter()
                found = opened.search(Term(vector=query), where=words, k=K)
                took = 1000 * (time.perf_counter() - start)
                wanted = min(K, expected) if words else K
                if len(found) != wanted:
                    raise SystemExit(f"{words}: {len(found)} matches, not {wanted}")
                if place >= _WARM_UP:
                    times.append(took)
        result[when] = {
            "where": where,
            "p50_ms": median(filtered),
            "p95_ms": percentile(filtered, 95),
            "unfiltered_p50_ms": median(plain),
            "ratio": median(filtered) / median(plain),
            "ms": filtered,
            "unfiltered_ms": plain,
        }
    where = filters(share, size, 0)[kind]
    kept = _kept(opened, where)
    if not 0.5 * expected <= len(kept) <= 1.5 * expected + 1:
        raise SystemExit(f"{where}: keeps {len(kept)} images, not about {expected}")
    recalls = []
    for query in queries:
        found = opened.search(Term(vector=query), where=where, k=K)
        recalls.append(oracle.recall(query, kept, [match.image.id for match in found]))
    return {"kept": len(kept), "recall": sum(recalls) / len(recalls), **result}


def _kept(opened: Library, where: str) -> NDArray[np.int64]:
    ids: list[int] = []
    while page := opened.images(
        where, after=ids[-1] if ids else None, limit=5000, newest_first=False
    ):
        ids += [image.id for image in page]
    return np.asarray(ids, np.int64)


def main() -> None:
    """Measure."""
    folder, size, vectors = sys.argv[1:]
    queries = np.load(vectors)
    oracle = Oracle(Path(folder))
    with open_library(folder, create=False, background=False) as opened:
        found = {
            str(share): {
                kind: _filter(opened, oracle, queries, int(size), share, kind)
                for kind in filters(share, int(size), 0)
            }
            for share in SHARES
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
