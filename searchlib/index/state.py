"""One state of a `FaissIndex`, and the change from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchlib.index.base import ALL_LIVE, Base, Live
from searchlib.index.protocol import Ids
from searchlib.index.scan import Snapshot
from searchlib.index.segments import Segment, removed, upserted


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One state of an index. What it holds is never changed.

    Attributes:
        fresh: vectors that are compared one by one.
        base: the prepared ones; None where there are none.
        live: which rows of the base count.
    """

    fresh: Snapshot
    base: Base | None = None
    live: Live = ALL_LIVE

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return self.fresh.count + (self.base.rows - self.live.dead if self.base else 0)

    def base_rows(self, ids: Ids) -> npt.NDArray[np.intp]:
        """The living rows of the base that these ids have, int64[m]; m is as many as are there."""
        if self.base is None:
            return np.empty(0, np.intp)
        rows = self.base.find(ids, self.live)
        return rows[rows >= 0]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What a state is to become, as of the moment when its making began.

    Attributes:
        segments: the fresh vectors of it.
        base: its base.
        live: which rows of the base count.
    """

    segments: tuple[Segment, ...]
    base: Base | None
    live: Live


def caught_up(merged: Merged, now: State, touched: Ids, segment_rows: int) -> State:
    """The state that has what was merged, and of ids changed since then what they are now.

    Args:
        merged: what was made meanwhile.
        now: the state that it is to follow.
        touched: ids that were put or removed since the making began, each once.
        segment_rows: of a full segment.
    """
    segments, live = merged.segments, merged.live
    if len(touched):
        if merged.base is not None:
            rows = merged.base.find(touched, live)
            live = live.without(rows[rows >= 0], merged.base.rows)
        # Their spare rows may have been written for the state that this one follows.
        segments = tuple(Segment(each.ids, each.codes) if each.spare else each for each in segments)
        segments = removed(segments, touched, segment_rows)
        for part in _those_of(now.fresh.segments, touched):
            segments = upserted(segments, part.ids, part.codes, segment_rows)
    dimension = now.fresh.dimension
    return State(Snapshot(segments, dimension), merged.base, live)


def _those_of(segments: Sequence[Segment], ids: Ids) -> list[Segment]:
    """The rows of these ids, a copy."""
    parts = []
    for segment in segments:
        rows = segment.find(ids)
        rows = rows[rows >= 0]
        if len(rows):
            parts.append(Segment(segment.ids[rows], segment.codes[rows]))
    return parts
