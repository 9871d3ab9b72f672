"""`Accelerator`: a FAISS index that proposes rows of a table, which are ranked with its vectors.

The table is float16[n, dimension], the codes of unit vectors, and is not part of the accelerator:
what FAISS keeps of a vector is as short as the recipe says, and finds candidates; their scores come
from the codes, with the same bits as an exact search over them gives.

A candidate that is not proposed is missed. How many are proposed, and how far FAISS looks for them,
is a `Tuning`.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.errors import CheckpointError
from searchlib.index.lists import Lists
from searchlib.index.protocol import Ids, Vectors
from searchlib.index.recipes import Recipe
from searchlib.index.scan import load_faiss, search_pool, search_threads
from searchlib.index.segments import Codes
from searchlib.index.training import (
    BLOCK,
    code_size,
    decoded,
    exact_lists,
    first_line,
    kind,
    made,
    openmp_threads,
    trained,
)
from searchlib.index.training import Progress as Progress
from searchlib.index.training import Stop as Stop
from searchlib.index.training import Stopped as Stopped
from searchlib.index.training import ignore as ignore
from searchlib.index.training import never as never

Bitmap = npt.NDArray[np.uint8]

GRAPH_BLOCK = 1024
"""Rows that a graph takes in at once, where a row takes ten times as long as in lists."""

SHARED_FROM = 16
"""From so many queries on they are shared out to several threads."""

SLICE = 64
"""Up to how many queries a thread answers at once, so that others get their turn between."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How far a search looks.

    Attributes:
        probes: lists (inverted) or candidates (graph) that are looked at; nothing else heeds it.
        factor: candidates that are ranked with the stored vectors, for each neighbour asked for.
        recall: the share of the ten true nearest neighbours that it found among the user's own
            vectors, or None where that was not measured.
        target: the recall that was asked for when it was measured.
    """

    probes: int
    factor: int
    recall: float | None = None
    target: float | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Tuning:
        """What the recipe says, not measured."""
        return cls(recipe.probes, recipe.factor)


@dataclass(frozen=True, slots=True, eq=False)
class _Parameters:
    """FAISS's parameters of a search; it does not keep alive what they point to, so this does."""

    base: Any
    refined: Any
    selector: Any
    keep: Bitmap | None


class Accelerator:
    """A FAISS index over the rows 0 to n - 1 of a table of codes.

    It never changes: rows are added to a copy. So any number of threads may search it, also while
    another one makes that copy. `trained`, then `extended`, then `attached`, then `search`.
    """

    def __init__(
        self, recipe: Recipe, index: Any, *, trained_for: int, codes: Codes | None = None
    ) -> None:
        """Use `trained` or `from_bytes`."""
        self.recipe = recipe
        self.trained_for = trained_for
        """How many vectors the number of lists was chosen for."""
        self.rows: int = index.ntotal
        self._index = index
        self._lists = load_faiss().try_extract_index_ivf(index)
        self._codes = codes
        self._refined: Any = None
        if codes is not None:
            if codes.shape != (self.rows, self.dimension):
                raise ValueError(f"codes {codes.shape} for {(self.rows, self.dimension)}")
            self._refined = load_faiss().IndexRefine(index, _over(codes))
        # Made at the first search that needs them; two threads may both make the same.
        self._parameters: dict[tuple[int, int, int], _Parameters] = {}
        self._kept: tuple[Bitmap, dict[tuple[int, int, int], _Parameters]] | None = None

    @classmethod
    def trained(
        cls,
        recipe: Recipe,
        codes: Codes,
        *,
        stop: Stop = never,
        on_progress: Progress = ignore,
        threads: int = 1,
    ) -> Accelerator:
        """An accelerator without rows, fit for vectors like these.

        The same codes give the same accelerator.

        Args:
            recipe: how it is built; not an exact one.
            codes: float16[n, dimension], contiguous; a sample of them is looked at.
            stop: asked every second or more often.
            on_progress: called with the work that is done and all of it, in rows looked at.
            threads: how many OpenMP threads to use.

        Raises:
            Stopped: `stop` said so.
            InputError: FAISS does not know the recipe's factory, or it is of no kind known here.
        """
        with openmp_threads(threads):
            index = trained(recipe, codes, stop=stop, on_progress=on_progress)
        return cls(recipe, index, trained_for=len(codes))

    @property
    def codes(self) -> Codes:
        """The codes that it is attached to, float16[rows, dimension]; not to be changed.

        Raises:
            ValueError: it is not attached.
        """
        if self._codes is None:
            raise ValueError("the accelerator is not attached to its codes")
        return self._codes

    @cached_property
    def places(self) -> Lists | None:
        """Where its rows are; None where it has no lists."""
        return None if self._lists is None else Lists(self._lists)

    @property
    def lists(self) -> int:
        """How many lists it has; 0 where it has none."""
        return 0 if self._lists is None else int(self._lists.nlist)

    @property
    def links(self) -> int:
        """How many rows a row of its graph leads to; 0 where it is no graph."""
        return int(self._index.hnsw.nb_neighbors(0)) if hasattr(self._index, "hnsw") else 0

    @property
    def code_size(self) -> int:
        """How many bytes FAISS reads of a row before it is a candidate."""
        return code_size(self._index)

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        dimension: int = self._index.d
        return dimension

    def extended(
        self,
        codes: Codes,
        *,
        stop: Stop = never,
        on_progress: Progress = ignore,
        threads: int = 1,
    ) -> Accelerator:
        """A copy with the rows of `codes`, float16[m, dimension], behind its own; not attached.

        Args:
            codes: the new rows, contiguous.
            stop: asked every second or more often.
            on_progress: called with the rows that are added and all of them.
            threads: how many OpenMP threads to use.

        Raises:
            Stopped: `stop` said so.
        """
        faiss = load_faiss()
        step = GRAPH_BLOCK if self.links else BLOCK
        with openmp_threads(threads):
            index = faiss.clone_index(self._index)
            with exact_lists(index):
                for start in range(0, len(codes), step):
                    if stop():
                        raise Stopped
                    index.add(decoded(codes[start : start + step]))
                    on_progress(min(start + step, len(codes)), len(codes))
        return Accelerator(self.recipe, index, trained_for=self.trained_for)

    def attached(self, codes: Codes) -> Accelerator:
        """The same accelerator with the codes of its rows, float16[rows, dimension], contiguous.

        They are not copied, may lie in a mapped file, and must not change any more.

        Raises:
            ValueError: codes of another shape.
        """
        return Accelerator(self.recipe, self._index, trained_for=self.trained_for, codes=codes)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        tuning: Tuning,
        keep: Bitmap | None = None,
        spare: int = 0,
    ) -> tuple[Ids, Vectors]:
        """The best rows that are found for each query, highest score first.

        Args:
            queries: float32[q, dimension], contiguous.
            k: how many, at least 1.
            tuning: how far to look.
            keep: uint8[(rows + 7) // 8]: a row may be returned where its bit is set, the first row
                at the lowest bit of the first byte; all may where it is None.
            spare: how many more are returned, without looking further for them.

        Returns:
            rows int64[q, k + spare] and scores float32 of that shape; -1 and -inf behind the last
            one found. Equal scores stand in any order.
        """
        candidates, probes, k = tuning.factor * k + spare, tuning.probes, k + spare
        if len(queries) < SHARED_FROM:
            return self.ranked(queries, k, candidates=candidates, probes=probes, keep=keep)
        step = min(SLICE, -(-len(queries) // search_threads()))
        found = list(
            search_pool().map(
                lambda start: self.ranked(
                    queries[start : start + step],
                    k,
                    candidates=candidates,
                    probes=probes,
                    keep=keep,
                ),
                range(0, len(queries), step),
            )
        )
        return np.concatenate([rows for rows, _ in found]), np.concatenate(
            [scores for _, scores in found]
        )

    def ranked(
        self,
        queries: Vectors,
        k: int,
        *,
        candidates: int,
        probes: int,
        keep: Bitmap | None = None,
    ) -> tuple[Ids, Vectors]:
        """As `search`, in the calling thread alone."""
        shape = len(queries), k
        rows, scores = np.empty(shape, np.int64), np.empty(shape, np.float32)
        if not rows.size or not self.rows:
            rows.fill(-1)
            scores.fill(-np.inf)
            return rows, scores
        if k > self.rows:
            rows[:, self.rows :], scores[:, self.rows :] = -1, -np.inf
            rows[:, : self.rows], scores[:, : self.rows] = self.ranked(
                queries, self.rows, candidates=candidates, probes=probes, keep=keep
            )
            return rows, scores
        parameters = self._prepared(k, candidates, probes, keep)
        faiss = load_faiss()
        # Several threads of OpenMP are no faster for a query, and spin. This is `openmp_threads`
        # and the call of FAISS without what Python adds to both, a twentieth of a short search.
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            self._refined.search_c(
                len(queries),
                faiss.swig_ptr(queries),
                k,
                faiss.swig_ptr(scores),
                faiss.swig_ptr(rows),
                parameters.refined,
            )
        finally:
            faiss.omp_set_num_threads(before)
        # Where FAISS gives no row, which is behind the others, it gives any low score.
        if rows.item(-1) < 0 or (len(queries) > 1 and rows.min() < 0):
            scores[rows < 0] = -np.inf
        return rows, scores

    def to_bytes(self) -> npt.NDArray[np.uint8]:
        """The accelerator without its codes, for `from_bytes`; uint8[length]."""
        data: npt.NDArray[np.uint8] = load_faiss().serialize_index(self._index)
        return data

    @classmethod
    def from_bytes(
        cls,
        recipe: Recipe,
        data: bytes | memoryview | mmap.mmap | npt.NDArray[np.uint8],
        *,
        dimension: int,
        rows: int,
        trained_for: int,
    ) -> Accelerator:
        """The accelerator that `to_bytes` gave; not attached.

        The bytes must be whole: FAISS believes what it reads. Keep a checksum with them.

        Args:
            recipe: by which it was built.
            data: the bytes; they are copied.
            dimension: how many numbers a vector has.
            rows: how many rows it has.
            trained_for: as it was.

        Raises:
            CheckpointError: they are no accelerator of this recipe, dimension and number of rows.
        """
        try:
            index = load_faiss().deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise CheckpointError(
                f"FAISS cannot read the index ({first_line(error)}); build it again"
            ) from error
        found = f"{index.ntotal} rows in {kind(index)}"
        wanted = f"{rows} rows in {kind(made(recipe, dimension, trained_for))}"
        if found != wanted:
            raise CheckpointError(f"the index has {found} instead of {wanted}; build it again")
        return cls(recipe, index, trained_for=trained_for)

    def _prepared(self, k: int, candidates: int, probes: int, keep: Bitmap | None) -> _Parameters:
        """FAISS's parameters, kept for the next search: making them takes 13 us."""
        prepared = self._parameters
        if keep is not None:
            kept = self._kept
            if kept is None or kept[0] is not keep:
                kept = self._kept = keep, {}
            prepared = kept[1]
        key = k, candidates, probes
        found = prepared.get(key)
        if found is None:
            if len(prepared) > 64:
                prepared.clear()
            found = prepared[key] = self._new_parameters(k, candidates, probes, keep)
        return found

    def _new_parameters(
        self, k: int, candidates: int, probes: int, keep: Bitmap | None
    ) -> _Parameters:
        faiss = load_faiss()
        selector, chosen = None, {}
        if keep is not None:
            if keep.shape != ((self.rows + 7) // 8,):
                raise ValueError(f"{keep.shape} bytes of bits for {self.rows} rows")
            selector = faiss.IDSelectorBitmap(len(keep), faiss.swig_ptr(keep))
            chosen = {"sel": selector}
        if self._lists is not None:
            probes = min(max(probes, 1), self.lists)
            base = faiss.SearchParametersIVF(nprobe=probes, **chosen)
        elif self.links:
            base = faiss.SearchParametersHNSW(efSearch=max(probes, 1), **chosen)
        else:
            base = faiss.SearchParameters(**chosen)
        # FAISS rounds k * k_factor down, in float32.
        factor = (min(max(candidates, k), self.rows) + 0.5) / k
        refined = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=base)
        return _Parameters(base, refined, selector, keep)


def _over(codes: Codes) -> Any:
    """An index of FAISS that looks at the codes without a copy."""
    faiss = load_faiss()
    index = faiss.IndexScalarQuantizer(
        codes.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    raw = codes.view(np.uint8)
    # The last argument is who owns the memory, for FAISS nobody: the array is kept beside it.
    index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
        faiss.swig_ptr(raw), raw.nbytes, index.codes.owner
    )
    index.ntotal = len(codes)
    index.referenced_objects = [raw]
    return index


def compared(codes: Codes, queries: Vectors, k: int, keep: Bitmap | None) -> tuple[Ids, Vectors]:
    """The `k` best of these rows by comparing with each, and their scores; as `ranked`."""
    faiss = load_faiss()
    options = None
    if keep is not None:
        selector = faiss.IDSelectorBitmap(len(keep), faiss.swig_ptr(keep))
        options = faiss.SearchParameters(sel=selector)
    with openmp_threads(1):
        scores, rows = _over(codes).search(queries, k, params=options)
    return rows, scores
