"""Merging: a new base of all vectors of an index, made while the old parts serve.

A base that is there already is *grown* where that is good enough: its rows keep their places, dead
ones stay dead, and the fresh vectors are put into the lists that were learnt before. It *learns*
anew, on living rows alone, where the index has become several times as large as when its lists were
chosen, or where many rows are dead, or the recipe is another.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from searchlib.index.accelerator import Accelerator, Stop, Tuning
from searchlib.index.base import DEAD_ID, Base, Live, Seals
from searchlib.index.base_file import (
    accelerator_path,
    base_path,
    read_base,
    write_accelerator,
    write_base,
)
from searchlib.index.protocol import Ids
from searchlib.index.recipes import Recipe
from searchlib.index.segments import SEGMENT_ROWS, Codes, Segment, cut, room
from searchlib.index.state import Merged, State
from searchlib.index.training import Stopped
from searchlib.index.tuning import tune

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""

DEAD_AT_MOST = 0.125
"""From which share of dead rows on a base learns anew."""

GROWN_AT_MOST = 4.0
"""How many times as many vectors as it had when its lists were chosen a base may have."""

TUNED_EVERY = 1.5
"""By what factor a base grows until it is tuned again."""

_BLOCK = 16_384


def untold(_step: str, _done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


def can_grow(state: State, recipe: Recipe) -> bool:
    """Whether the fresh vectors of a state can be put into what its base has learnt."""
    base = state.base
    if base is None or base.accelerator is None or base.tuning is None:
        return False
    rows = base.rows + state.fresh.count
    return (
        base.accelerator.recipe.fingerprint == recipe.fingerprint
        and rows <= GROWN_AT_MOST * base.accelerator.trained_for
        and state.live.dead <= DEAD_AT_MOST * rows
    )


def merged(
    state: State,
    recipe: Recipe,
    *,
    checkpoint: Path | None,
    target: float,
    stop: Stop,
    on_progress: Progress,
) -> Merged | None:
    """What a state becomes when its vectors are merged; None where `stop` said so.

    Args:
        state: where it begins.
        recipe: of the base.
        checkpoint: the files of the base are written beside this one; in memory alone if None.
        target: the recall@10 that the base is tuned to.
        stop: asked now and then.
        on_progress: called as it goes on.

    Raises:
        CheckpointError: the base that there is is damaged.
        OSError: the files cannot be written; none of them is left.
    """
    if recipe.is_exact:
        return Merged(_taken_back(state), None, Live())
    grow = can_grow(state, recipe)
    ids, live = _ids(state, grow)
    generation = secrets.token_hex(8)
    try:
        rows = _rows(state, grow, stop, on_progress)
        if checkpoint is None:
            base = _in_memory(ids, rows, state.fresh.dimension)
        else:
            base = _in_file(checkpoint, generation, ids, rows, state.fresh.dimension)
        accelerator = _accelerator(state, base, recipe, grow, stop, on_progress)
        base.accelerator = accelerator
        base.tuning = _tuning(state, base, live, grow, target, stop, on_progress)
        if checkpoint is not None:
            assert base.seals is not None
            seal = write_accelerator(
                accelerator_path(checkpoint, generation), generation, accelerator
            )
            base.seals = Seals(generation, base.rows, base.seals.base, seal.hex())
    except BaseException as error:
        if checkpoint is not None:
            for path in base_path(checkpoint, generation), accelerator_path(checkpoint, generation):
                with contextlib.suppress(OSError):
                    path.unlink()
        if isinstance(error, Stopped):
            return None
        raise
    return Merged((), base, live)


def _ids(state: State, grow: bool) -> tuple[Ids, Live]:
    """The ids of the new base, row by row, and which rows of it live."""
    fresh = state.fresh.ids()
    if state.base is None:
        return fresh.copy(), Live()
    mask = state.live.mask(state.base.rows)
    if not grow:
        return np.concatenate([state.base.ids[mask], fresh]), Live()
    ids = np.concatenate([np.where(mask, state.base.ids, DEAD_ID), fresh])
    if not state.live.dead:
        return ids, Live()
    return ids, Live(np.packbits(ids != DEAD_ID, bitorder="little"), state.live.dead)


def _rows(state: State, grow: bool, stop: Stop, on_progress: Progress) -> Iterator[Codes]:
    """The codes of the new base in the order of `_ids`, in blocks."""
    done, total = 0, state.fresh.count
    if state.base is not None:
        base, mask = state.base, state.live.mask(state.base.rows)
        total += base.rows
        for start in range(0, base.rows, _BLOCK):
            if stop():
                raise Stopped
            rows = np.arange(start, min(start + _BLOCK, base.rows))
            codes = base.read(rows)
            yield codes if grow else codes[mask[rows]]
            done += len(rows)
            on_progress("vectors", done, total)
    for segment in state.fresh.segments:
        if stop():
            raise Stopped
        yield segment.codes
        done += len(segment)
        on_progress("vectors", done, total)


def _in_memory(ids: Ids, rows: Iterable[Codes], dimension: int) -> Base:
    codes = room(len(ids), dimension)
    start = 0
    for block in rows:
        codes[start : start + len(block)] = block
        start += len(block)
    return Base(ids, codes)


def _in_file(
    checkpoint: Path, generation: str, ids: Ids, rows: Iterable[Codes], dimension: int
) -> Base:
    path = base_path(checkpoint, generation)
    seal = write_base(path, generation, ids, rows, dimension)
    return read_base(path, Seals(generation, len(ids), seal.hex()), dimension)


def _accelerator(
    state: State, base: Base, recipe: Recipe, grow: bool, stop: Stop, on_progress: Progress
) -> Accelerator:
    def training(done: int, total: int) -> None:
        on_progress("training", done, total)

    def adding(done: int, total: int) -> None:
        base.count_read(_BLOCK)
        on_progress("adding", done, total)

    if grow:
        assert state.base is not None
        assert state.base.accelerator is not None
        learnt, known = state.base.accelerator, state.base.rows
    else:
        known = 0
        learnt = Accelerator.trained(recipe, base.codes, stop=stop, on_progress=training)
    more = learnt.extended(base.codes[known:], stop=stop, on_progress=adding)
    return more.attached(base.codes)


def _tuning(
    state: State,
    base: Base,
    live: Live,
    grow: bool,
    target: float,
    stop: Stop,
    on_progress: Progress,
) -> Tuning:
    assert base.accelerator is not None
    if grow and state.base is not None and state.base.tuning is not None:
        before = state.base.tuning
        learnt = base.accelerator.trained_for
        if before.target == target and _step(state.base.rows, learnt) == _step(base.rows, learnt):
            return before

    def tuning(done: int, total: int) -> None:
        base.count_read(_BLOCK)
        on_progress("tuning", done, total)

    return tune(base.accelerator, target=target, keep=live.bits, stop=stop, on_progress=tuning)


def _step(rows: int, learnt: int) -> int:
    return math.floor(math.log(max(rows, 1) / max(learnt, 1), TUNED_EVERY))


def _taken_back(state: State) -> tuple[Segment, ...]:
    """All vectors of a state as fresh ones."""
    if state.base is None:
        return state.fresh.segments
    base, mask = state.base, state.live.mask(state.base.rows)
    if base.check is not None:
        base.check(None)
    if not state.live.dead:
        prepared = cut(base.ids, base.codes, SEGMENT_ROWS)
    else:
        prepared = [
            Segment(base.ids[rows], base.codes[rows])
            for rows in _split(np.flatnonzero(mask), SEGMENT_ROWS)
        ]
    return (*prepared, *state.fresh.segments)


def _split(rows: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
