"""The indexes that the conformance suite is run for, and how an answer is judged.

A new index joins by a line in `KINDS`, or with a `Kind` of its own in its own test file:

    @pytest.fixture
    def kind() -> Kind:
        return Kind("mine", MyIndex)

    class TestMine(Conformance):
        pass
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import searchlib.index.base
import searchlib.index.merge
from searchlib.index import (
    FaissIndex,
    Neighbours,
    NumpyIndex,
    Subset,
    Tuning,
    VectorIndex,
    load_recipe,
    read_checkpoint,
    remove_unused,
    write_checkpoint,
)
from searchlib.index.segments import SEGMENT_ROWS

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"

F32 = npt.NDArray[np.float32]
Model = dict[int, F32]
"""What an index must hold: the vector of each id."""

ROUNDING = 3e-6
"""How far apart two float32 inner products of the same vectors may be."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """An index under test, and what may be expected of it.

    Attributes:
        name: in the names of the tests.
        make: gives an empty index for vectors of so many numbers.
        keeps: the precision of the vectors that it stores.
        approximate: it may miss neighbours; then its recall is judged and not each answer. All else
            is expected of it too: how many there are, their scores, their order, the subset.
        settle: does what happens to the index in the background: merging, compaction. It may be
            called at any moment and beside any other call.
        reopen: saves the index, closes it and gives what is opened again; None where it keeps
            nothing.
        close: ends an index that is not needed any more.
        around: what holds while a test runs.
        dimensions: in which it is tried.
        rounds: how often something is repeated that fails only now and then; less where a call
            takes milliseconds.
    """

    name: str
    make: Callable[[int], VectorIndex]
    keeps: type[np.floating[Any]] = np.float32
    approximate: bool = False
    settle: Callable[[Any], object] = lambda _: None
    reopen: Callable[[Any], VectorIndex] | None = None
    close: Callable[[Any], object] = lambda _: None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    dimensions: tuple[int, ...] = (1, 2, 3, 7, 15, 17, 320, 513)
    rounds: int = 25

    def __str__(self) -> str:
        return self.name


class OnDisk:
    """A `FaissIndex` whose vectors settle in a base, with its files in a folder of its own."""

    def __init__(self, recipe: str | None) -> None:
        """
        Args:
            recipe: of the base; None for an index that gets none.
        """
        # It says from how many vectors on a base is worth while; here it always is.
        self._recipe = recipe and replace(load_recipe(recipe), least=0)
        self._folders: dict[FaissIndex, tempfile.TemporaryDirectory[str]] = {}

    def settle(self, index: FaissIndex) -> None:
        if self._recipe:
            index.merge(self._recipe, checkpoint=self._path(index))

    def reopen(self, index: FaissIndex) -> FaissIndex:
        path, identity = self._path(index), "ab" * 32
        write_checkpoint(path, index, identity=identity, seq=17)
        remove_unused(path, keep=index.base.generation if index.base else "")
        again, seq = read_checkpoint(path, identity=identity, dimension=index.dimension)
        assert seq == 17
        assert again.base == index.base
        assert (again.fresh, again.dead) == (index.fresh, index.dead)
        self._folders[again] = self._folders.pop(index)
        return again

    def close(self, index: FaissIndex) -> None:
        folder = self._folders.pop(index, None)
        if folder:
            folder.cleanup()

    def _path(self, index: FaissIndex) -> Path:
        if index not in self._folders:
            self._folders[index] = tempfile.TemporaryDirectory()
        return Path(self._folders[index].name, "index")


def there_and_back(index: FaissIndex) -> None:
    """Merges the vectors into a base in memory, or takes them out of it again."""
    index.merge(load_recipe("exact" if index.base else "inverted"))


def faiss(
    name: str, *, recipe: str | None = None, segment_rows: int = SEGMENT_ROWS, **traits: Any
) -> Kind:
    disk = OnDisk(recipe)
    settled = {"settle": disk.settle, "reopen": disk.reopen, "close": disk.close}
    make = partial(FaissIndex, segment_rows=segment_rows)
    return Kind(name, make, keeps=np.float16, **(settled | traits))


@contextmanager
def look_at_everything() -> Iterator[None]:
    """Searches a base by its accelerator, however small it is, and ranks all of its rows again."""
    everything = Tuning(probes=1_000_000, factor=1_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searchlib.index.base, "FEW_ALLOWED", 0)
        patch.setattr(searchlib.index.base, "MANY_WANTED", 1)
        patch.setattr(searchlib.index.merge, "tune", lambda *_, **__: everything)
        yield


KINDS = [
    Kind("numpy", NumpyIndex),
    faiss("faiss exact"),
    faiss("faiss in segments of 3", segment_rows=3),
    faiss("faiss in segments of 1", segment_rows=1, rounds=10),
    faiss("faiss inverted", recipe="inverted", approximate=True, rounds=8),
    faiss("faiss inverted, all looked at", recipe="inverted", around=look_at_everything),
    faiss(
        "faiss inverted and back",
        segment_rows=64,
        settle=there_and_back,
        reopen=None,
        around=look_at_everything,
        rounds=15,
    ),
]


def _fine(count: int) -> F32:
    """Different unit vectors of eight whole sixteenths."""
    numbers = np.random.default_rng(0).integers(-9, 10, (60 * count, 8))
    left = 256 - (numbers[:, :-1] ** 2).sum(axis=1)
    roots = np.sqrt(np.maximum(left, 0)).astype(np.int64)
    whole = (left >= 0) & (roots**2 == left)
    numbers[:, -1] = np.where(numbers[:, -1] < 0, -roots, roots)
    vectors: F32 = np.unique(numbers[whole], axis=0) / np.float32(16)
    return np.random.default_rng(1).permutation(vectors)[:count].astype(np.float32)


COARSE = 1_120
LATTICE = np.concatenate(
    [
        np.array(
            [
                [signs[places.index(axis)] * 0.5 if axis in places else 0 for axis in range(8)]
                for places in combinations(range(8), 4)
                for signs in product((1, -1), repeat=4)
            ],
            np.float32,
        ),
        _fine(1_000),
    ]
)
"""Unit vectors whose inner products are exact in float16 and float32, so that they can be compared
to the last bit. In the first `COARSE` four coordinates of eight are a half: there are few different
scores, and many equal ones. The others are of sixteenths, and seldom have equal scores."""


def unit(rows: int, dimension: int, seed: int = 0, *, clusters: int = 0) -> F32:
    """Unit vectors that float16 holds exactly, so that an index of any precision keeps them.

    They lie in all directions, or around the centres of so many clusters.
    """
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((rows, dimension))
    if clusters:
        centres = generator.standard_normal((clusters, dimension))
        numbers = centres[generator.integers(0, clusters, rows)] + 0.5 * numbers
    rounded = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float16)
    return rounded.astype(np.float32)


def lattice(rows: int, seed: int = 0) -> F32:
    """Vectors of `LATTICE`: half of them coarse, and some of these often."""
    generator = np.random.default_rng(seed)
    coarse = generator.geometric(0.01, rows) % COARSE
    fine = generator.integers(COARSE, len(LATTICE), rows)
    return LATTICE[np.where(generator.random(rows) < 0.5, coarse, fine)]


def model_of(ids: npt.ArrayLike, vectors: F32) -> Model:
    return dict(zip(np.asarray(ids).tolist(), vectors, strict=True))


def fill(kind: Kind, index: VectorIndex, model: Model) -> None:
    """Puts the model into an empty index by way of all that can happen to its rows.

    Some are settled, some of those are replaced or removed afterwards, and some are new.
    """
    ids = np.array(list(model), np.int64)
    vectors = np.stack(list(model.values()))
    others = np.setdiff1d(np.arange(len(ids) + 5), ids)[:5]
    old = 2 * len(ids) // 3
    first = vectors[:old].copy()
    first[::3] = np.roll(vectors, 1, axis=0)[:old:3]
    index.upsert(
        np.concatenate([ids[:old], others]),
        np.concatenate([first, np.tile(vectors[0], (len(others), 1))]),
    )
    kind.settle(index)
    index.upsert(ids[:old:3], vectors[:old:3])
    index.upsert(ids[old:], vectors[old:])
    assert index.remove(others) == len(others)


def expected(
    model: Model, query: F32, k: int, among: Subset | None = None
) -> tuple[list[int], list[float]]:
    """The ids and scores of the `k` best, by going through all of them."""
    allowed = model.keys() if among is None else model.keys() & set(among.ids.tolist())
    best = sorted((-float(model[id] @ query), id) for id in allowed)[:k]
    return [id for _, id in best], [-score for score, _ in best]


def check(
    kind: Kind,
    index: VectorIndex,
    model: Model,
    queries: F32,
    k: int,
    *,
    among: Subset | None = None,
    exact: bool = False,
) -> float:
    """Searches and judges the answer; gives its recall, which is 1 where nothing may be missed.

    Vectors of `LATTICE` are compared to the last bit, others up to `ROUNDING`.
    """
    answer = index.search(queries, k, among=among, exact=exact)
    assert (answer.ids.dtype, answer.scores.dtype) == (np.int64, np.float32)
    allowed = list(model) if among is None else [id for id in among.ids.tolist() if id in model]
    shape = (len(queries), min(k, len(allowed)))
    assert answer.ids.shape == answer.scores.shape == shape
    assert np.isin(answer.ids, allowed).all()
    bits = bool((queries * 16 % 1 == 0).all())
    hits = 0
    for ids, scores, query in zip(answer.ids.tolist(), answer.scores, queries, strict=True):
        assert len(set(ids)) == len(ids)
        order = np.lexsort((ids, -scores))
        assert (order == np.arange(len(ids))).all(), "not in the order of scores and ids"
        if ids:
            stored = np.stack([model[id] for id in ids]) @ query
            np.testing.assert_allclose(scores, stored, rtol=0, atol=0 if bits else ROUNDING)
        true_ids, true_scores = expected(model, query, k, among)
        if exact or not kind.approximate:
            np.testing.assert_allclose(scores, true_scores, rtol=0, atol=0 if bits else ROUNDING)
            assert not bits or ids == true_ids
        hits += sum(score >= true_scores[-1] - ROUNDING for score in scores)
    return hits / answer.ids.size if answer.ids.size else 1.0


def check_content(index: VectorIndex, model: Model) -> None:
    """The index holds these vectors, bit by bit, and no others."""
    ids = sorted(model)
    assert len(index) == len(ids)
    assert index.ids().tolist() == ids
    if ids:
        assert (index.vectors(ids) == np.stack([model[id] for id in ids])).all()


def recall(answer: Neighbours, truth: Neighbours) -> float:
    """Which part of the true neighbours was found; one as good as the last of them counts too."""
    if not truth.ids.size:
        return 1.0
    return float(np.mean(answer.scores >= truth.scores[:, -1:] - ROUNDING))
