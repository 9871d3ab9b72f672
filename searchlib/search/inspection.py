"""Looking at an index: is it right, and how much of the nearest does it find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord
from searchlib.errors import CheckpointError, InputError
from searchlib.index import FaissIndex, Tuning, tune
from searchlib.search.live_index import LiveIndex

Progress = Callable[[str, int, int], None]

_LOOKS = 10


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """What a comparison of the index with the catalog found.

    Attributes:
        checked: vectors of the catalog that were compared.
        missing: of these, that the index did not have.
        different: of these, that the index had with other numbers.
        extra: vectors of the index that the catalog does not have.
        damage: what was wrong with the files of the index; None where nothing was.
        healed: whether the index was built anew; False where it was right.
    """

    checked: int
    missing: int
    different: int
    extra: int
    damage: str | None
    healed: bool


@dataclass(frozen=True, slots=True)
class IndexTuning:
    """How much an index finds of the nearest, measured with the library's own vectors.

    Attributes:
        recipe: of the index.
        vectors: in it.
        recall: the share of the ten nearest that it finds; 1 where all are compared.
        target: what was asked for.
        tuning: how it is searched; None where all are compared.
    """

    recipe: str
    vectors: int
    recall: float
    target: float
    tuning: Tuning | None


def verify(
    live: LiveIndex,
    catalog: Catalog,
    model: ModelRecord,
    *,
    on_progress: Progress | None = None,
) -> IndexCheck:
    """Compare every vector of the index with the catalog, and build it anew where it is wrong.

    Args:
        live: the index.
        catalog: the truth.
        model: whose vectors.
        on_progress: called as it goes on.

    Raises:
        LibraryError: the catalog cannot be read.
    """
    try:
        checked, suspects = _suspects(live.current(), catalog, model, on_progress)
        found = _Wrong(0, 0, 0)
        # What was committed meanwhile looks like damage at first.
        for _ in range(_LOOKS):
            seq = catalog.last_seq(model)
            found = _wrong(live.current(), catalog, model, suspects)
            if not any(astuple(found)) or catalog.last_seq(model) == seq:
                break
    except CheckpointError as error:
        live.rebuild()
        return IndexCheck(0, 0, 0, 0, str(error), healed=True)
    wrong = any(astuple(found))
    if wrong:
        live.rebuild()
    return IndexCheck(checked, found.missing, found.different, found.extra, None, healed=wrong)


@dataclass(frozen=True, slots=True)
class _Wrong:
    missing: int
    different: int
    extra: int


def _suspects(
    index: FaissIndex, catalog: Catalog, model: ModelRecord, on_progress: Progress | None
) -> tuple[int, NDArray[np.int64]]:
    """How many vectors were compared, and the ids where index and catalog are not the same."""
    suspects, checked = [], 0
    with catalog.vector_blocks(model) as (_, ids, blocks):
        for codes in blocks:
            some = ids[checked : checked + len(codes)]
            held = index.held(some)
            same = np.zeros(len(some), np.bool_)
            same[held] = (index.vectors(some[held]) == codes[held]).all(axis=1)
            suspects.append(some[~same])
            checked += len(codes)
            if on_progress:
                on_progress("comparing", checked, len(ids))
        suspects.append(np.setdiff1d(index.ids(), ids, assume_unique=True))
    return checked, np.concatenate(suspects)


def _wrong(
    index: FaissIndex, catalog: Catalog, model: ModelRecord, suspects: NDArray[np.int64]
) -> _Wrong:
    """What is wrong with these ids now."""
    ids, codes = catalog.vectors(model, suspects.tolist())
    held = index.held(ids)
    different = (index.vectors(ids[held]) != codes[held]).any(axis=1)
    extra = index.held(np.setdiff1d(suspects, ids))
    return _Wrong(int((~held).sum()), int(different.sum()), int(extra.sum()))


def measure(live: LiveIndex, *, target: float, on_progress: Progress | None = None) -> IndexTuning:
    """Tune the index to a recall and write that down in its checkpoint.

    Args:
        live: the index.
        target: the recall@10, above 0 and up to 1.
        on_progress: called as it goes on.

    Raises:
        InputError: a target out of range.
    """
    if not 0 < target <= 1:
        raise InputError(f"recall is {target}; give a number above 0 and up to 1")
    index = live.current()
    state = index.state()
    base = state.base
    if base is None or base.accelerator is None:
        return IndexTuning("exact", len(index), 1.0, target, None)

    def told(done: int, total: int) -> None:
        if on_progress:
            on_progress("tuning", done, total)

    try:
        tuning = tune(base.accelerator, target=target, keep=state.live.bits, on_progress=told)
    except CheckpointError as error:
        live.discard(index, error)
        return measure(live, target=target, on_progress=on_progress)
    assert tuning is not None  # nobody stops it
    assert tuning.recall is not None
    index.tune(tuning)
    live.rewrite(index)
    return IndexTuning(base.accelerator.recipe.name, len(index), tuning.recall, target, tuning)
