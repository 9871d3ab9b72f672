"""The base of an index: the many vectors that FAISS has prepared, and that do not change.

Rows of a base are never written. One that is replaced or removed stays where it is and is *dead*:
a bitmap that belongs to the state of the index, not to the base, says which rows live. So a search
that has begun, a checkpoint and the index itself may all use one base while it is being changed.

A base proposes candidates through its accelerator and ranks them again with the vectors themselves.
These lie in a mapped file, from which a search touches some hundred rows; where a question is one
that the accelerator cannot answer well (few rows may be returned, or very many are wanted) every
row is compared, as in an index without a base.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from searchlib.index.accelerator import Accelerator, Tuning
from searchlib.index.lists import Counts
from searchlib.index.protocol import Ids, Neighbours, Subset, Vectors
from searchlib.index.scan import Mask, Snapshot
from searchlib.index.segments import SEGMENT_ROWS, Codes, cut

Bitmap = npt.NDArray[np.uint8]

DEAD_ID = -1
"""The id of a row that was dead already when the base was written."""

MARGIN = 2
"""How many neighbours more than `k` are fetched, to see whether the k-th score is shared."""

FEW_ALLOWED = 1000
"""Up to how many rows that may be returned they are compared one by one. That takes about as long
as looking into all lists of a million for them."""

ALLOWED_FOR_ONE = 100
"""The same for each neighbour that is wanted."""

FAR_FACTOR = 16
"""How many times as many candidates are ranked where all rows that may be returned are far from the
query: by what FAISS keeps of them they can hardly be told apart then."""

MANY_WANTED = 0.02
"""From which share of all rows on that are wanted they are compared one by one."""

PROBED_FOR = 10
"""The `k` that tuning measures with."""

MAPPED_ROWS = 6_000
"""After so many rows read from the mapped file its pages are let go. They stay in the page cache
and come back when they are read again, which costs a search among a million about half a
millisecond; but a row brings 64 kB with it, and after some hundred queries all of the file would
count as memory of this process."""


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Which rows of a base live.

    Attributes:
        bits: uint8[(rows + 7) // 8], bit r from the lowest on is set where row r lives; None where
            all do.
        dead: how many do not.
    """

    bits: Bitmap | None = None
    dead: int = 0

    def mask(self, rows: int) -> Mask:
        """The same as bool[rows]."""
        if self.bits is None:
            return np.ones(rows, np.bool_)
        return np.unpackbits(self.bits, count=rows, bitorder="little").view(np.bool_)

    def has(self, rows: npt.NDArray[np.intp]) -> Mask:
        """Which of these rows live, bool[n]."""
        if self.bits is None:
            return np.ones(len(rows), np.bool_)
        set_: Mask = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).view(np.bool_)
        return set_

    def without(self, rows: npt.NDArray[np.intp], count: int) -> Live:
        """The same without these rows, which live, of a base that has `count`."""
        if not len(rows):
            return self
        bits = np.full((count + 7) // 8, 255, np.uint8) if self.bits is None else self.bits.copy()
        clear = ~(np.uint8(1) << (rows & 7).astype(np.uint8))
        np.bitwise_and.at(bits, rows >> 3, clear)
        return Live(bits, self.dead + len(rows))


ALL_LIVE = Live()


@dataclass(frozen=True, slots=True)
class Seals:
    """What a checkpoint keeps of the files of a base.

    Attributes:
        generation: in the files' names; 16 hex digits.
        rows: of the base.
        base, accelerator: the seals of their headers, in hex; the second is empty where there is
            no accelerator.
    """

    generation: str
    rows: int
    base: str
    accelerator: str = ""


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What a base is, for people.

    Attributes:
        recipe: its name; None where every row is compared.
        rows: of it, dead ones included.
        tuning: how it is searched; None where every row is compared.
        trained_for: how many vectors it had when its lists were chosen; 0 where it has none.
        generation: names its files; empty where it has none.
    """

    recipe: str | None
    rows: int
    tuning: Tuning | None
    trained_for: int
    generation: str


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """The rows of a subset that live: as bool[rows], as a bitmap (None for all), how many, and how
    many in each list (None where there are no lists, or few rows)."""

    among: Subset
    live: Live
    mask: Mask
    bits: Bitmap | None
    count: int
    counts: Counts | None


@dataclass(eq=False)
class Base:
    """Rows that do not change, and what finds the best of them.

    Attributes:
        ids: int64[n], -1 where a row was dead when this was made; else all different.
        codes: float16[n, dimension]; may lie in a mapped file.
        accelerator: over the same rows; None where every row is compared.
        tuning: how it is searched.
        seals: of the files that hold this; None where there are none.
        pages: the mapped file of `codes`, where there is one.
        check: called with rows (all if None; those below 0 do not count) before their codes are
            used; raises CheckpointError where they are damaged. None where the codes are in memory.
    """

    ids: Ids
    codes: Codes
    accelerator: Accelerator | None = None
    tuning: Tuning | None = None
    seals: Seals | None = None
    pages: mmap.mmap | None = None
    check: Callable[[npt.NDArray[np.intp] | None], None] | None = None
    _snapshot: Snapshot | None = field(default=None, init=False)
    _order: tuple[Ids, npt.NDArray[np.intp]] | None = field(default=None, init=False)
    _last: _Chosen | None = field(default=None, init=False)
    _read: int = field(default=0, init=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False)

    @cached_property
    def _is_range(self) -> bool:
        """Whether the ids rise by one from row to row, as they do where nothing was removed."""
        if not self.rows or self.ids[-1] - self.ids[0] != self.rows - 1:
            return False
        return bool((self.ids[1:] > self.ids[:-1]).all())

    @property
    def rows(self) -> int:
        return len(self.ids)

    def facts(self) -> BaseFacts:
        return BaseFacts(
            self.accelerator.recipe.name if self.accelerator else None,
            self.rows,
            self.tuning if self.accelerator else None,
            self.accelerator.trained_for if self.accelerator else 0,
            self.seals.generation if self.seals else "",
        )

    def snapshot(self) -> Snapshot:
        """All rows, dead ones too, to be compared one by one."""
        if self._snapshot is None:
            self._verify(None)
            segments = cut(self.ids, self.codes, SEGMENT_ROWS)
            self._snapshot = Snapshot(segments, self.codes.shape[1])
        return self._snapshot

    def find(self, ids: Ids, live: Live) -> npt.NDArray[np.intp]:
        """The living row of each id, or -1 where there is none."""
        if not self.rows:
            return np.full(len(ids), -1, np.intp)
        if self._order is None:
            rising = bool((self.ids[1:] > self.ids[:-1]).all())
            order = np.arange(0) if rising else np.argsort(self.ids, kind="stable")
            self._order = (self.ids if rising else self.ids[order]), order
        ascending, order = self._order
        place = np.minimum(np.searchsorted(ascending, ids), self.rows - 1)
        rows = order[place] if len(order) else place
        found = (ascending[place] == ids) & live.has(rows)
        return np.where(found, rows, -1)

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        """The vectors of these rows, float32[m, dimension].

        Raises:
            CheckpointError: they are damaged.
        """
        return self.read(rows).astype(np.float32)

    def read(self, rows: npt.NDArray[np.intp]) -> Codes:
        """A copy of the codes of these rows, float16[m, dimension].

        Raises:
            CheckpointError: they are damaged.
        """
        self._verify(rows)
        self.count_read(len(rows))
        codes: Codes = self.codes[rows]
        return codes

    def search(
        self, queries: Vectors, k: int, *, live: Live, among: Subset | None, exact: bool
    ) -> Neighbours:
        """The `k` best living rows of each query, or all of them.

        Raises:
            CheckpointError: a row that would be returned is damaged.
        """
        accelerator, tuning = self.accelerator, self.tuning
        living = self.rows - live.dead
        if accelerator is None or tuning is None or exact or k + MARGIN > MANY_WANTED * living:
            return self._compared(queries, k, self._mask(live, among))
        chosen = None
        if among is None:
            bits, allowed = live.bits, living
        else:
            chosen = self._chosen(live, among)
            bits, allowed = chosen.bits, chosen.count
            if allowed <= max(FEW_ALLOWED, ALLOWED_FOR_ONE * k):
                return self._compared(queries, k, chosen.mask)
        tuning = _widened(tuning, k, allowed / self.rows)
        if chosen is not None and chosen.counts is not None:
            assert accelerator.places is not None
            share = min(1.0, tuning.probes / accelerator.lists)
            probes, far = accelerator.places.probes(queries, chosen.counts, share)
            factor = tuning.factor * (FAR_FACTOR if far else 1)
            tuning = replace(tuning, probes=max(probes, tuning.probes), factor=factor)
        rows, scores = accelerator.search(queries, k, tuning=tuning, keep=bits, spare=MARGIN)
        self.count_read(len(queries) * k * tuning.factor)
        self._verify(rows)
        if len(queries) == 1 and _falls(scores[0].tolist()):
            return Neighbours(self.ids[rows[:, :k]], scores[:, :k])
        found = self._in_order(rows, scores, k)
        # Where too few were found, or the k-th score may be that of more vectors than were fetched.
        unsure = np.flatnonzero(scores[:, -1] >= scores[:, k - 1])
        if len(unsure):
            sure = self._compared(queries[unsure], k, self._mask(live, among))
            found.ids[unsure], found.scores[unsure] = sure.ids, sure.scores
        return found

    def _in_order(self, rows: Ids, scores: Vectors, k: int) -> Neighbours:
        """The best `k` of these; equal scores by id."""
        ids = self.ids[np.maximum(rows, 0)]
        best = np.lexsort((ids, -scores), axis=-1)[:, :k]
        return Neighbours(
            np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
        )

    def _compared(self, queries: Vectors, k: int, mask: Mask | None) -> Neighbours:
        found = self.snapshot().search(queries, k, keep=mask)
        if self.accelerator is not None:
            self.count_read(self.rows if mask is None else int(np.count_nonzero(mask)))
        return found

    def _chosen(self, live: Live, among: Subset) -> _Chosen:
        """The rows of a subset; kept for the next search, which is often one for the same."""
        last = self._last
        if last is None or last.among is not among or last.live is not live:
            mask = self._mask(live, among)
            assert mask is not None
            count = int(np.count_nonzero(mask))
            bits = None if count == self.rows else np.packbits(mask, bitorder="little")
            places = self.accelerator.places if self.accelerator and count > FEW_ALLOWED else None
            counts = places.counts(mask) if places and bits is not None else None
            last = self._last = _Chosen(among, live, mask, bits, count, counts)
        return last

    def _mask(self, live: Live, among: Subset | None) -> Mask | None:
        """Which rows may be returned; None where all may."""
        if among is None:
            return None if live.bits is None else live.mask(self.rows)
        if self._is_range:
            mask = among.holds_range(int(self.ids[0]), self.rows)
        else:
            # A row that was dead from the start has no id that a subset can hold.
            mask = among.holds(self.ids)
        return mask if live.bits is None else mask & live.mask(self.rows)

    def _verify(self, rows: npt.NDArray[np.intp] | None) -> None:
        if self.check is not None:
            self.check(rows)

    def count_read(self, rows: int) -> None:
        """Let the pages of the mapped file go from time to time."""
        if self.pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        # Two threads may lose a count, which does not matter.
        self._read += rows
        if self._read < MAPPED_ROWS:
            return
        with self._reading:
            if self._read >= MAPPED_ROWS:
                self._read = 0
                with suppress(OSError):
                    self.pages.madvise(mmap.MADV_DONTNEED)


def _falls(scores: list[float]) -> bool:
    """Whether each is below the one before; a dozen of them, for which numpy is slow."""
    return all(one > next for one, next in pairwise(scores))


def _widened(tuning: Tuning, k: int, share: float) -> Tuning:
    """What a search takes where more than what was tuned for is wanted, or fewer rows may be found.

    Lists hold about as many rows as they did when it was tuned, so to find the same recall among a
    tenth of the rows one looks into more of them; the square root is what measurement showed to be
    enough. The same holds for more neighbours.
    """
    factor = max(1.0, k / PROBED_FOR) ** 0.5 / max(share, 1e-6) ** 0.5
    if factor < 1.1:
        return tuning
    return replace(tuning, probes=round(tuning.probes * factor))
