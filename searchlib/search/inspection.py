"""Looking at an index: is it right, and how much of the nearest does it find."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord
from searchlib.errors import CheckpointError, InputError, VectorError
from searchlib.index import FaissIndex, Saved, Tuning, read_checkpoint, read_saved, tune
from searchlib.index.base_file import accelerator_path
from searchlib.search.choice import (
    EXACT,
    MILVUS,
    IndexChoice,
    Parts,
    is_build_due,
    read_choice,
    recipe_for,
)
from searchlib.search.live_index import LiveIndex

if TYPE_CHECKING:
    from searchlib.index.milvus_index import MilvusIndex
    from searchlib.search.served_index import ServedIndex

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

_LOOKS = 10
_REBUILDS = 3


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """What a comparison of the index with the catalog found.

    Attributes:
        checked: vectors of the catalog that were compared.
        missing: of these, that the index did not have.
        different: of these, that the index had with other numbers.
        extra: vectors of the index that the catalog does not have.
        damage: what was wrong with the files of the index; None where nothing was.
        healed: whether the index was built anew and saved; False where it was right, and where the
            library cannot be written.
    """

    checked: int
    missing: int
    different: int
    extra: int
    damage: str | None
    healed: bool

    @property
    def is_right(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.missing or self.different or self.extra) and self.damage is None


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


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What is known of an index without opening it.

    Attributes:
        choice: what was chosen for it.
        recipe: of the index that serves now.
        recall: the share of the ten nearest that it was measured to find; 1 where all are compared,
            None where nobody measured it.
        vectors: in its checkpoint; what came later is added when it is opened. 0 where a server
            keeps them, which is not asked.
        fresh: of these, that are compared one by one.
        dead: vectors in its files that do not count any more.
        is_due: whether it should be built, for `build_index` or a background to do.
        target: the recall that it was tuned to; None where all are compared.
        wanted: the recipe that it should have, by choice or by size.
        least: how many vectors that recipe begins at.
    """

    choice: IndexChoice
    recipe: str
    recall: float | None
    vectors: int
    fresh: int
    dead: int
    is_due: bool
    target: float | None = None
    wanted: str = EXACT
    least: int = 0


_NOT_SAVED = Saved(0, "", 0)


def index_status(catalog: Catalog, model: ModelRecord | None, folder: Path) -> IndexStatus:
    """What the checkpoint of an index says, without opening the index.

    Args:
        catalog: the truth.
        model: whose vectors; None in a library that has none yet.
        folder: where the checkpoint lies.

    Raises:
        LibraryError: the catalog cannot be read.
    """
    choice = _choice(catalog)
    if choice.recipe == MILVUS:
        return IndexStatus(
            choice, MILVUS, recall=None, vectors=0, fresh=0, dead=0, is_due=False, wanted=MILVUS
        )
    if model is None:
        return IndexStatus(choice, EXACT, recall=1.0, vectors=0, fresh=0, dead=0, is_due=False)
    path = LiveIndex(catalog, model, folder).path
    saved = read_saved(path, identity=model.identity, dimension=model.dimension) or _NOT_SAVED
    # What is not in the checkpoint yet is compared one by one when the index is opened.
    later = catalog.changes_since(model, saved.seq)
    parts = Parts(
        saved.vectors + later,
        saved.fresh + later,
        recipe=saved.recipe,
        rows=saved.rows if saved.generation else None,
        dead=saved.dead,
    )
    wanted = recipe_for(choice, vectors=parts.vectors, dimension=model.dimension, now=saved.recipe)
    return IndexStatus(
        choice,
        saved.recipe or EXACT,
        recall=saved.tuning.recall if saved.tuning else 1.0,
        vectors=saved.vectors,
        fresh=saved.fresh,
        dead=saved.dead,
        is_due=is_build_due(wanted, parts),
        target=saved.tuning.target if saved.tuning else None,
        wanted=wanted.name,
        least=wanted.least,
    )


def _choice(catalog: Catalog) -> IndexChoice:
    try:
        return read_choice(catalog)
    except InputError as error:
        logger.warning("%s; the index is chosen by size", error)
        return IndexChoice()


def verify(
    live: LiveIndex | ServedIndex,
    catalog: Catalog,
    model: ModelRecord,
    *,
    on_progress: Progress | None = None,
) -> IndexCheck:
    """Compare the index with the catalog and its files with their checksums; heal what is wrong.

    Args:
        live: the index.
        catalog: the truth.
        model: whose vectors.
        on_progress: called as it goes on.

    Raises:
        LibraryError: the catalog cannot be read.
    """
    damage = _damage(live.path, model) if isinstance(live, LiveIndex) else None
    if damage is not None:
        live.rebuild()
    checked, found = 0, _Wrong(0, 0, 0)
    for _ in range(_REBUILDS):
        try:
            checked, found = _compared(live, catalog, model, on_progress)
            break
        except CheckpointError as error:
            damage = damage or str(error)
            live.rebuild()
    wrong = any(astuple(found))
    if wrong:
        live.rebuild()
    # A server can be written to, whether or not the library can.
    can_heal = catalog.database.writable or not isinstance(live, LiveIndex)
    healed = (wrong or damage is not None) and can_heal
    return IndexCheck(checked, found.missing, found.different, found.extra, damage, healed=healed)


def _damage(path: Path, model: ModelRecord) -> str | None:
    """What is wrong with the files of an index, of which every byte is read; None if nothing is."""
    identity, dimension = model.identity, model.dimension
    for _ in range(_LOOKS):
        before = read_saved(path, identity=identity, dimension=dimension)
        try:
            if not path.exists():
                return None
            index, _ = read_checkpoint(path, identity=identity, dimension=dimension)
            base = index.state().base
            if base is None:
                return None
            if base.check is not None:
                base.check(None)
            if base.seals is not None and base.seals.accelerator and base.accelerator is None:
                return (
                    f"{accelerator_path(path, base.seals.generation)}: this file of the index "
                    "cannot be used; build the index again"
                )
            return None
        except CheckpointError as error:
            # Another process may have merged meanwhile, and the files before are gone.
            if before == read_saved(path, identity=identity, dimension=dimension):
                return str(error)
    return None


def _compared(
    live: LiveIndex | ServedIndex,
    catalog: Catalog,
    model: ModelRecord,
    on_progress: Progress | None,
) -> tuple[int, _Wrong]:
    """How many vectors were compared, and what is wrong with the index."""
    checked, suspects = _suspects(live.current(), catalog, model, on_progress)
    found = _Wrong(0, 0, 0)
    # What was committed meanwhile looks like damage at first.
    for _ in range(_LOOKS):
        seq = catalog.last_seq(model)
        found = _wrong(live.current(), catalog, model, suspects)
        if not any(astuple(found)) or catalog.last_seq(model) == seq:
            break
    return checked, found


@dataclass(frozen=True, slots=True)
class _Wrong:
    missing: int
    different: int
    extra: int


def _suspects(
    index: FaissIndex | MilvusIndex,
    catalog: Catalog,
    model: ModelRecord,
    on_progress: Progress | None,
) -> tuple[int, NDArray[np.int64]]:
    """How many vectors were compared, and the ids where index and catalog are not the same."""
    suspects, checked = [], 0
    with catalog.vector_blocks(model) as (_, ids, blocks):
        for codes in blocks:
            some = ids[checked : checked + len(codes)]
            held, same = _same(index, some, codes)
            suspects.append(some[~(held & same)])
            checked += len(codes)
            if on_progress:
                on_progress("comparing", checked, len(ids))
        suspects.append(np.setdiff1d(index.ids(), ids, assume_unique=True))
    return checked, np.concatenate(suspects)


def _wrong(
    index: FaissIndex | MilvusIndex,
    catalog: Catalog,
    model: ModelRecord,
    suspects: NDArray[np.int64],
) -> _Wrong:
    """What is wrong with these ids now."""
    ids, codes = catalog.vectors(model, suspects.tolist())
    held, same = _same(index, ids, codes)
    extra = index.held(np.setdiff1d(suspects, ids))
    return _Wrong(int((~held).sum()), int((held & ~same).sum()), int(extra.sum()))


def _same(
    index: FaissIndex | MilvusIndex, ids: NDArray[np.int64], codes: NDArray[np.float16]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of these ids the index has, and which of them with these very vectors; bool[n] each."""
    same = np.zeros(len(ids), np.bool_)
    for _ in range(_LOOKS):
        held = index.held(ids)
        try:
            same[held] = (index.vectors(ids[held]) == codes[held]).all(axis=1)
        except VectorError:
            # One of them was removed since it was held.
            continue
        return held, same
    return index.held(ids), same


def measure(
    live: LiveIndex | ServedIndex, *, target: float, on_progress: Progress | None = None
) -> IndexTuning:
    """Tune the index to a recall and write that down in its checkpoint.

    Args:
        live: the index.
        target: the recall@10, above 0 and up to 1.
        on_progress: called as it goes on.

    Raises:
        InputError: a target out of range, or a server keeps the index.
    """
    if not 0 < target <= 1:
        raise InputError(f"recall is {target}; give a number above 0 and up to 1")
    if not isinstance(live, LiveIndex):
        raise InputError("the index of this library is kept by Milvus; it is tuned there")
    index = live.current()
    state = index.state()
    base = state.base
    if base is None or base.accelerator is None:
        return IndexTuning(EXACT, len(index), 1.0, target, None)

    def told(done: int, total: int) -> None:
        if on_progress:
            on_progress("tuning", done, total)

    try:
        if base.check is not None:
            base.check(None)
        tuning = tune(base.accelerator, target=target, keep=state.live.bits, on_progress=told)
    except CheckpointError as error:
        live.discard(index, error)
        return measure(live, target=target, on_progress=on_progress)
    assert tuning is not None  # nobody stops it
    assert tuning.recall is not None
    index.tune(tuning)
    live.rewrite(index)
    return IndexTuning(base.accelerator.recipe.name, len(index), tuning.recall, target, tuning)
