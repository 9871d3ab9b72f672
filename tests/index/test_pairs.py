"""neighbours and self_join beside brute force over all pairs."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.errors import InputError, VectorError
from searchlib.index import FaissIndex, NumpyIndex, Subset, VectorIndex, bounds, join, load_recipe
from searchlib.index import pairs as pairs_module
from searchlib.index.bounds import Block, Bounds, Table
from searchlib.index.pairs import Pairs, neighbours, self_join

F32 = npt.NDArray[np.float32]
Make = Callable[[int], VectorIndex]
Index = TypeVar("Index", bound=VectorIndex)
Triples = list[tuple[int, int, float]]

# Inner products of these are exact in float16 and float32, and many of them are equal.
LATTICE = np.array(
    [
        [signs[axes.index(axis)] * 0.5 if axis in axes else 0 for axis in range(6)]
        for axes in itertools.combinations(range(6), 4)
        for signs in itertools.product((1, -1), repeat=4)
    ],
    np.float32,
)

MAKES: dict[str, Make] = {
    "numpy": NumpyIndex,
    "faiss": FaissIndex,
    "faiss in segments of 3": partial(FaissIndex, segment_rows=3),
}


@pytest.fixture(params=list(MAKES.values()), ids=list(MAKES))
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, bounds of a few numbers: all that large tables go through."""
    patch.setattr(join, "BLOCK", 7)
    patch.setattr(join, "PAIRS", 20)
    patch.setattr(pairs_module, "PAIRS", 20)
    patch.setattr(pairs_module, "BATCH", 4)
    patch.setattr(pairs_module, "FETCH", 2)
    patch.setattr(pairs_module, "WIDEN", 2)
    for module in (join, bounds):
        patch.setattr(module, "TILE", 5)
    patch.setattr(bounds, "SAMPLE", 6)
    patch.setattr(bounds, "WIDTHS", (4, 5))


def rounded(vectors: npt.NDArray[Any]) -> F32:
    """Of unit length, and such that float16 holds them."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    codes: npt.NDArray[np.float16] = (vectors / lengths).astype(np.float16)
    return codes.astype(np.float32)


def clustered(rows: int, dimension: int, clusters: int, spread: float, seed: int = 0) -> F32:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((clusters, dimension))
    noise = spread * generator.standard_normal((rows, dimension))
    return rounded(centres[generator.integers(0, clusters, rows)] + noise)


def photo_patches() -> F32:
    """Overlapping grey 16x20 patches of photographs, their mean taken off: 320 dimensions."""
    data = pytest.importorskip("skimage.data")
    patches = []
    for photograph in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        windows = np.lib.stride_tricks.sliding_window_view(photograph.mean(axis=2), (16, 20))
        patches.append(windows[::14, ::14].reshape(-1, 320))
    numbers = np.concatenate(patches)
    numbers = numbers - numbers.mean(axis=1, keepdims=True)
    return rounded(numbers[np.linalg.norm(numbers, axis=1) > 1])


def filled(make: Callable[[int], Index], ids: npt.ArrayLike, vectors: F32) -> Index:
    """An index with these vectors, put there out of order and some of them over others."""
    index = make(vectors.shape[1])
    ids = np.asarray(ids, np.int64)
    order = np.random.default_rng(3).permutation(len(ids))
    index.upsert(ids[order], np.roll(vectors, 1, axis=0)[order])
    index.upsert(ids, vectors)
    return index


def triples(blocks: Iterator[Pairs]) -> Triples:
    return [
        pair
        for block in blocks
        for pair in zip(
            block.left.tolist(), block.right.tolist(), block.scores.tolist(), strict=True
        )
    ]


def all_above(ids: npt.ArrayLike, vectors: F32, threshold: float) -> Triples:
    order = np.argsort(np.asarray(ids))
    ids, wide = np.asarray(ids)[order], vectors[order].astype(np.float64)
    return [
        (int(ids[a]), int(ids[b]), float(wide[a] @ wide[b]))
        for a, b in itertools.combinations(range(len(ids)), 2)
        if wide[a] @ wide[b] >= threshold
    ]


def all_nearest(ids: npt.ArrayLike, vectors: F32, k: int) -> Triples:
    ids, wide = np.asarray(ids), vectors.astype(np.float64)
    found = []
    for a in np.argsort(ids):
        scores = [(-float(wide[a] @ wide[b]), int(ids[b])) for b in range(len(ids)) if b != a]
        found += [(int(ids[a]), id, -score) for score, id in sorted(scores)[:k]]
    return found


def lattice_rows() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Ids, and for each which vector of the lattice it has; few of them, so that some are equal."""
    return st.lists(
        st.tuples(st.integers(0, 2**62), st.integers(0, 40)),
        max_size=40,
        unique_by=lambda row: row[0],
    )


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(MAKES)),
    rows=lattice_rows(),
    # All of them are scores, so that pairs lie right at the threshold.
    threshold=st.integers(-4, 4).map(lambda quarter: quarter / 4),
    tiny=st.booleans(),
)
def test_a_self_join_is_what_a_comparison_of_all_pairs_finds(
    exact: bool, name: str, rows: list[tuple[int, int]], threshold: float, tiny: bool
) -> None:
    ids, vectors = [id for id, _ in rows], LATTICE[[place for _, place in rows]]
    with pytest.MonkeyPatch.context() as patch:
        if tiny:
            make_small(patch)
        index = filled(MAKES[name], ids, vectors)
        found = triples(self_join(index, threshold=threshold, exact=exact))
    assert found == sorted(all_above(ids, vectors, threshold))


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(MAKES)),
    rows=lattice_rows(),
    k=st.integers(1, 50),
    tiny=st.booleans(),
)
def test_the_nearest_others_are_those_of_brute_force(
    exact: bool, name: str, rows: list[tuple[int, int]], k: int, tiny: bool
) -> None:
    ids, vectors = [id for id, _ in rows], LATTICE[[place for _, place in rows]]
    with pytest.MonkeyPatch.context() as patch:
        if tiny:
            make_small(patch)
        index = filled(MAKES[name], ids, vectors)
        found = triples(self_join(index, k=k, exact=exact))
        given_ids = np.sort(np.array(ids, np.int64))
        answer = neighbours(index, given_ids, k)
    truth = all_nearest(ids, vectors, k)
    assert found == truth
    assert answer.ids.shape == (len(ids), min(k, max(0, len(ids) - 1)))
    assert answer.ids.ravel().tolist() == [right for _, right, _ in truth]
    assert answer.scores.ravel().tolist() == [score for *_, score in truth]


@pytest.fixture(scope="module", params=["clusters", "photos"])
def many(request: pytest.FixtureRequest) -> Iterator[tuple[F32, npt.NDArray[np.float64]]]:
    """Some thousand vectors that bounds are used for, and the scores of all pairs."""
    vectors = photo_patches() if request.param == "photos" else clustered(3_000, 128, 150, 0.3)
    vectors = vectors[:3_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "SAMPLE", 512)
        assert len(vectors) >= 4 * bounds.SAMPLE
        yield vectors, vectors.astype(np.float64) @ vectors.astype(np.float64).T


@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_bounds_lose_no_pair(many: tuple[F32, npt.NDArray[np.float64]], threshold: float) -> None:
    vectors, truth = many
    index = filled(FaissIndex, np.arange(len(vectors)), vectors)
    found = triples(self_join(index, threshold=threshold))
    left, right = np.array([pair[:2] for pair in found]).T
    assert (left < right).all()
    at = left * len(vectors) + right
    assert (np.diff(at) > 0).all()
    scores = np.array([score for *_, score in found])
    np.testing.assert_allclose(scores, truth[left, right], rtol=0, atol=1e-6)
    sure = np.flatnonzero(np.triu(truth, 1) >= threshold + 1e-6)
    assert len(sure) > 1_000
    assert not len(np.setdiff1d(sure, at))


def test_bounds_lose_no_near_neighbour(many: tuple[F32, npt.NDArray[np.float64]]) -> None:
    vectors, truth = many
    index = filled(FaissIndex, np.arange(len(vectors)), vectors)
    found = triples(self_join(index, k=5))
    left, right = np.array([pair[:2] for pair in found]).T.reshape(2, -1, 5)
    assert (left == np.arange(len(vectors))[:, None]).all()
    assert (left != right).all()
    others = truth - 3 * np.eye(len(truth))
    best = -np.sort(-others, axis=1)[:, :5]
    np.testing.assert_allclose(others[left, right], best, rtol=0, atol=1e-6)


def test_bounds_are_short_and_above_every_score(
    many: tuple[F32, npt.NDArray[np.float64]],
) -> None:
    vectors, truth = many
    table = Table([Block(np.arange(len(vectors)), vectors.__getitem__)], vectors.shape[1])
    found = Bounds.of(table, 0.9)
    assert found.numbers is not None
    assert found.numbers.shape[1] < vectors.shape[1]
    some = found.numbers[::7].copy()
    some[:, found.one] = 0
    assert (some @ found.numbers.T - truth[::7]).min() > -found.slack


def test_vectors_without_structure_are_compared_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = clustered(3_000, 64, 3_000, 1)
    monkeypatch.setattr(bounds, "SAMPLE", 512)
    table = Table([Block(np.arange(len(vectors)), vectors.__getitem__)], 64)
    assert Bounds.of(table, 0.1).numbers is None


@pytest.mark.usefixtures("small")
def test_a_score_is_that_of_a_search_and_the_same_from_either_side() -> None:
    vectors = clustered(300, 320, 20, 0.3)
    ids = np.arange(300) * 7
    index, mirrored = filled(FaissIndex, ids, vectors), filled(FaissIndex, ids, vectors[::-1])
    found = triples(self_join(index, threshold=0.5))
    scores = {(a, b): score for a, b, score in found}
    # The same vectors in the opposite order: each pair the other way round, in another block.
    for a, b, score in triples(self_join(mirrored, threshold=0.5)):
        assert scores.pop((ids[-1] - b, ids[-1] - a)) == score
    assert not scores
    searched = index.search(vectors, 300)
    by_pair = {
        (a, b): score
        for a, row, line in zip(ids.tolist(), searched.ids, searched.scores, strict=True)
        for b, score in zip(row.tolist(), line.tolist(), strict=True)
    }
    assert max(abs(by_pair[a, b] - score) for a, b, score in found) < 1e-6


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("question", [{"threshold": 0.25}, {"k": 4}])
@pytest.mark.usefixtures("small")
def test_a_join_goes_on_after_any_block(make: Make, question: dict[str, Any], exact: bool) -> None:
    ids = np.random.default_rng(5).permutation(1_000)[:60]
    index = filled(make, ids, LATTICE[np.arange(60) % 45])
    whole = list(self_join(index, **question, exact=exact))
    everything = triples(iter(whole))
    assert len(whole) > 5
    for number, block in enumerate(whole, 1):
        rest = self_join(index, **question, exact=exact, start=block.position)
        assert triples(iter(whole[:number])) + triples(rest) == everything
    assert whole[-1].position == max(ids)


@pytest.mark.usefixtures("small")
def test_a_join_is_of_the_index_at_the_call(tmp_path: Path) -> None:
    vectors = LATTICE[:50]
    for exact, merged in itertools.product((True, False), (False, True)):
        index = filled(partial(FaissIndex, segment_rows=4), np.arange(50), vectors)
        if merged:
            index.merge(replace(load_recipe("inverted"), least=0), checkpoint=tmp_path / "index")
            index.remove([40, 41])
            index.upsert([40, 41], vectors[40:42])
        blocks = self_join(index, threshold=0.25, exact=exact)
        found = [next(blocks)]
        index.remove(np.arange(0, 50, 2))
        index.upsert(np.arange(1, 150, 2), np.tile(LATTICE[60], (75, 1)))
        found += blocks
        assert triples(iter(found)) == all_above(np.arange(50), vectors, 0.25)


@pytest.mark.usefixtures("small")
def test_vectors_that_vanish_from_another_index_are_left_out() -> None:
    index = filled(NumpyIndex, np.arange(50), LATTICE[:50])
    blocks = self_join(index, threshold=0.25, exact=False)
    first = next(blocks)
    index.remove(np.arange(20, 50))
    after = triples(blocks)
    truth = all_above(np.arange(20), LATTICE[:20], 0.25)
    assert after == [pair for pair in truth if pair[0] > first.position]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.usefixtures("small")
def test_it_stops_when_it_is_told_to_and_can_go_on(make: Make, exact: bool) -> None:
    index = filled(make, np.arange(60), LATTICE[:60])
    truth = triples(self_join(index, threshold=0.25, exact=exact))
    found: list[Pairs] = []
    blocks = self_join(index, threshold=0.25, exact=exact, stop=lambda: len(found) >= 3)
    found += itertools.islice(blocks, 3)
    assert list(blocks) == []
    rest = self_join(index, threshold=0.25, exact=exact, start=found[-1].position)
    assert triples(iter(found)) + triples(rest) == truth


@pytest.mark.usefixtures("small")
def test_a_join_that_is_dropped_leaves_no_thread_behind() -> None:
    index = filled(FaissIndex, np.arange(200), LATTICE[np.arange(200) % 60])
    blocks = self_join(index, threshold=-1)
    next(blocks)
    assert any(thread.name.startswith("searchlib-join") for thread in threading.enumerate())
    del blocks
    assert not any(thread.name.startswith("searchlib-join") for thread in threading.enumerate())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("question", [{"threshold": 0.25}, {"k": 4}])
@pytest.mark.usefixtures("small")
def test_progress_rises_to_the_whole(question: dict[str, Any], exact: bool) -> None:
    index = filled(FaissIndex, np.arange(60), LATTICE[:60])
    told: list[tuple[int, int]] = []
    tell = lambda done, total: told.append((done, total))  # noqa: E731
    blocks = list(self_join(index, **question, exact=exact, on_progress=tell))
    assert len(told) == len(blocks)
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(told))
    assert told[0][0] > 0
    assert {total for _, total in told} == {told[-1][0]}


def test_the_number_of_vectors_decides_whether_all_are_compared() -> None:
    class Counting(NumpyIndex):
        searches = 0

        def search(self, *arguments: Any, **options: Any) -> Any:
            self.searches += 1
            return super().search(*arguments, **options)

    index = Counting(6)
    index.upsert(np.arange(20), LATTICE[:20])
    compared = triples(self_join(index, threshold=0.5, exact_up_to=20))
    assert index.searches == 0
    assert triples(self_join(index, threshold=0.5, exact_up_to=19)) == compared
    assert index.searches > 0


def test_one_vector_and_none_have_no_pairs(make: Make) -> None:
    index = make(6)
    for exact in (True, False):
        assert triples(self_join(index, threshold=0, exact=exact)) == []
        assert triples(self_join(index, k=3, exact=exact)) == []
    index.upsert([5], LATTICE[:1])
    for exact in (True, False):
        assert triples(self_join(index, threshold=0, exact=exact)) == []
        assert triples(self_join(index, k=3, exact=exact)) == []
    assert neighbours(index, [5], 3).ids.shape == (1, 0)
    assert neighbours(index, [], 3).ids.shape[0] == 0


def test_memory_is_bounded_however_many_pairs_there_are() -> None:
    # 4,000 vectors of which any two are a pair: 8 million, which would take 160 MB.
    code = """
import resource, sys
import numpy as np
from searchlib.index import FaissIndex, bounds, join
from searchlib.index.pairs import self_join
join.BLOCK = join.TILE = bounds.TILE = 256
join.PAIRS = 1 << 14
generator = np.random.default_rng(0)
numbers = 1 + 0.05 * generator.standard_normal((4_000, 32))
vectors = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
index = FaissIndex(32)
index.upsert(np.arange(4_000), vectors)
assert not sum(map(len, self_join(index, threshold=1)))
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
count = largest = 0
for block in self_join(index, threshold=0.5):
    count += len(block)
    largest = max(largest, len(block))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(count, largest, after - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, largest, grown = map(int, done.stdout.split())
    assert count == 4_000 * 3_999 // 2
    assert largest <= 1 << 14
    assert grown < 50e6


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"threshold": 0.5, "k": 3},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": 1.01},
        {"threshold": -1.01},
        {"threshold": True},
        {"threshold": "0.5"},
        {"threshold": np.array([0.5, 0.6])},
        {"threshold": 0.5, "start": 1.5},
        {"threshold": 0.5, "start": True},
    ],
)
def test_a_join_that_makes_no_sense_is_refused_at_the_call(question: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        self_join(FaissIndex(6), **question)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_a_k_that_makes_no_sense_is_refused(k: Any) -> None:
    with pytest.raises(VectorError):
        self_join(FaissIndex(6), k=k)
    with pytest.raises(VectorError):
        neighbours(FaissIndex(6), [], k)


@pytest.mark.parametrize("among", [None, Subset.of(range(0, 90, 3)), Subset.of([])])
@pytest.mark.usefixtures("small")
def test_neighbours_of_vectors_are_those_of_a_search(make: Make, among: Subset | None) -> None:
    index = filled(make, np.arange(60), LATTICE[:60])
    told: list[tuple[int, int]] = []
    answer = neighbours(
        index, LATTICE[60:71], 5, among=among, on_progress=lambda *told_: told.append(told_)
    )
    truth = index.search(LATTICE[60:71], 5, among=among)
    np.testing.assert_array_equal(answer.ids, truth.ids)
    np.testing.assert_array_equal(answer.scores, truth.scores)
    assert told == [(4, 11), (8, 11), (11, 11)]


@pytest.mark.usefixtures("small")
def test_neighbours_of_ids_keep_to_the_subset_and_leave_themselves_out(make: Make) -> None:
    index = filled(make, np.arange(60), LATTICE[np.arange(60) % 20])
    among = Subset.of([3, 23, 43, 44, 99])
    answer = neighbours(index, [3, 4, 43], 10, among=among)
    # 4 is not in the subset, so all of it are its neighbours; the others have one less.
    assert answer.ids.tolist()[0] == [23, 43, 44, -1]
    assert answer.ids.tolist()[2] == [3, 23, 44, -1]
    assert sorted(answer.ids.tolist()[1]) == [3, 23, 43, 44]
    assert answer.scores[0, -1] == -np.inf
    assert answer.scores[0, :2].tolist() == [1, 1]
    assert neighbours(index, [43, 3], 2, among=among).ids.tolist() == [[3, 23], [23, 43]]


def test_neighbours_of_ids_that_are_not_there_are_refused(make: Make) -> None:
    index = filled(make, np.arange(10), LATTICE[:10])
    for ids in ([3, 10], [3, 3], [-1]):
        with pytest.raises(VectorError):
            neighbours(index, ids, 2)
    for vectors in (np.zeros((1, 6)), np.ones((2, 5)), np.full((1, 6), np.nan), [[1, 0, 0, 0]]):
        with pytest.raises(VectorError):
            neighbours(index, vectors, 2)


def test_a_thousand_equal_vectors_are_not_their_own_neighbours() -> None:
    index = FaissIndex(6)
    index.upsert(np.arange(1_000), np.tile(LATTICE[0], (1_000, 1)))
    answer = neighbours(index, [0, 500, 999], 3)
    assert answer.ids.tolist() == [[1, 2, 3], [0, 1, 2], [0, 1, 2]]
    blocks = list(self_join(index, k=2))
    assert triples(iter(blocks))[-4:] == [
        (998, 0, 1.0),
        (998, 1, 1.0),
        (999, 0, 1.0),
        (999, 1, 1.0),
    ]
    assert len(triples(self_join(index, threshold=1))) == 1_000 * 999 // 2


def test_a_join_by_searches_of_a_base_finds_nearly_all(tmp_path: Path) -> None:
    vectors = clustered(6_000, 64, 300, 0.25)
    index = filled(FaissIndex, np.arange(6_000), vectors)
    truth = {pair[:2] for pair in triples(self_join(index, threshold=0.9))}
    index.merge(replace(load_recipe("inverted"), least=0), checkpoint=tmp_path / "index")
    assert index.base is not None
    index.upsert(np.arange(5_500, 6_000), vectors[5_500:])
    assert {pair[:2] for pair in triples(self_join(index, threshold=0.9))} == truth
    found = {pair[:2] for pair in triples(self_join(index, threshold=0.9, exact=False))}
    assert found <= truth
    assert len(found) >= 0.95 * len(truth) > 1_000
