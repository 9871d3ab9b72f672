"""What every index must do. A new one joins by a line in `INDEXES`."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from searchlib.errors import VectorError
from searchlib.index import (
    FlatIndex,
    NumpyIndex,
    VectorIndex,
    load_recipe,
    read_checkpoint,
    write_checkpoint,
)

INDEXES: dict[str, Callable[[int], VectorIndex]] = {
    "numpy": NumpyIndex,
    "flat": FlatIndex,
    "flat in segments of 3": partial(FlatIndex, segment_rows=3),
    "flat in segments of 1": partial(FlatIndex, segment_rows=1),
}

Make = Callable[[int], VectorIndex]
F32 = npt.NDArray[np.float32]

# Four coordinates of eight are a half: unit vectors whose inner products are exact in float16 and
# float32, so that scores are often equal and can be compared to the last bit.
LATTICE = np.array(
    [
        [signs[places.index(axis)] * 0.5 if axis in places else 0 for axis in range(8)]
        for places in combinations(range(8), 4)
        for signs in product((1, -1), repeat=4)
    ],
    np.float32,
)


@pytest.fixture(params=INDEXES)
def make(request: pytest.FixtureRequest) -> Make:
    return INDEXES[request.param]


def unit(rows: int, dimension: int, seed: int = 0) -> F32:
    """Unit vectors that float16 holds exactly, so that an index of any precision keeps them."""
    numbers = np.random.default_rng(seed).standard_normal((rows, dimension))
    rounded = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float16)
    return rounded.astype(np.float32)


def expected(vectors: dict[int, F32], query: F32, k: int) -> list[tuple[int, float]]:
    scored = [(id, float(vector @ query)) for id, vector in vectors.items()]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def found(index: VectorIndex, query: F32, k: int) -> list[tuple[int, float]]:
    answer = index.search(query[None], k)
    return list(zip(answer.ids[0].tolist(), answer.scores[0].tolist(), strict=True))


def test_an_empty_index_finds_nothing(make: Make) -> None:
    index = make(8)
    answer = index.search(LATTICE[:3], 5)
    assert answer.ids.shape == answer.scores.shape == (3, 0)
    assert (answer.ids.dtype, answer.scores.dtype) == (np.int64, np.float32)
    assert len(index) == 0
    assert index.ids().shape == (0,)
    assert index.remove([1, 2]) == 0


def test_an_index_that_was_emptied_finds_nothing(make: Make) -> None:
    index = make(8)
    index.upsert(np.arange(10), LATTICE[:10])
    assert index.remove(np.arange(10)) == 10
    assert index.search(LATTICE[:1], 3).ids.shape == (1, 0)
    index.upsert([4], LATTICE[:1])
    assert found(index, LATTICE[0], 3) == [(4, 1.0)]


def test_no_queries_give_no_rows(make: Make) -> None:
    index = make(8)
    index.upsert([1, 2], LATTICE[:2])
    assert index.search(np.empty((0, 8), np.float32), 5).ids.shape == (0, 2)


def test_an_upsert_of_nothing_changes_nothing(make: Make) -> None:
    index = make(8)
    index.upsert([], np.empty((0, 8), np.float32))
    assert len(index) == 0


def test_k_beyond_the_index_gives_all_once(make: Make) -> None:
    index = make(16)
    vectors = unit(40, 16)
    index.upsert(np.arange(40), vectors)
    answer = index.search(vectors[:5], 1000)
    assert answer.ids.shape == (5, 40)
    assert (np.sort(answer.ids, axis=1) == np.arange(40)).all()
    assert (np.diff(answer.scores, axis=1) <= 0).all()


def test_scores_are_cosines_and_a_vector_finds_itself_first(make: Make) -> None:
    index = make(32)
    vectors = unit(200, 32)
    index.upsert(np.arange(200) * 7, vectors)
    answer = index.search(vectors, 3)
    assert (answer.ids[:, 0] == np.arange(200) * 7).all()
    np.testing.assert_allclose(
        answer.scores, np.sort(vectors @ vectors.T, axis=1)[:, :-4:-1], atol=1e-6
    )


def test_a_second_upsert_replaces(make: Make) -> None:
    index = make(8)
    index.upsert(np.arange(20), LATTICE[:20])
    index.upsert([3, 99, 7], LATTICE[[500, 501, 502]])
    assert len(index) == 21
    assert (index.vectors([7, 3, 99]) == LATTICE[[502, 500, 501]]).all()
    assert found(index, LATTICE[500], 1) == [(3, 1.0)]
    assert found(index, LATTICE[3], 1) != [(3, 1.0)]


def test_remove_says_how_many_there_were(make: Make) -> None:
    index = make(8)
    index.upsert(np.arange(20), LATTICE[:20])
    assert index.remove([0, 5, 19, 20, 21]) == 3
    assert index.remove([0, 5, 19]) == 0
    assert index.remove([]) == 0
    assert len(index) == 17
    assert 5 not in index
    assert 6 in index
    with pytest.raises(VectorError, match="id 19 is not in the index"):
        index.vectors([1, 19])


def test_what_is_not_an_id_is_not_contained(make: Make) -> None:
    index = make(8)
    index.upsert([1], LATTICE[:1])
    assert np.int64(1) in index
    assert all(other not in index for other in (2, -1, 2**70, "1", 1.5, None))


def test_ids_are_an_ascending_copy(make: Make) -> None:
    index = make(8)
    index.upsert([9, 2, 5], LATTICE[:3])
    ids = index.ids()
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, 5, 9]
    ids[:] = 0
    assert index.ids().tolist() == [2, 5, 9]


def test_vectors_come_back_in_the_order_of_the_question(make: Make) -> None:
    index = make(24)
    vectors = unit(30, 24)
    order = np.random.default_rng(1).permutation(30)
    index.upsert(order, vectors[order])
    back = index.vectors(np.arange(30)[::-1])
    assert back.dtype == np.float32
    assert (back == vectors[::-1]).all()


def test_the_largest_id_is_kept(make: Make) -> None:
    index = make(8)
    index.upsert([2**63 - 1, 0], LATTICE[:2])
    assert found(index, LATTICE[0], 1) == [(2**63 - 1, 1.0)]
    assert 2**63 - 1 in index


@pytest.mark.parametrize("k", [1, 7, 20, 21, 59, 60])
def test_equal_scores_stand_in_ascending_order_also_at_k(make: Make, k: int) -> None:
    index = make(8)
    ids = np.random.default_rng(2).permutation(60)
    vectors = {int(id): LATTICE[[0, 17, 300][id % 3]] for id in ids}
    index.upsert(ids, np.stack([vectors[int(id)] for id in ids]))
    for query in LATTICE[[0, 17, 300, 900]]:
        assert found(index, query, k) == expected(vectors, query, k)


@pytest.mark.parametrize("rows", [30, 2_500])
def test_of_many_equal_vectors_those_with_the_smallest_ids_are_found(make: Make, rows: int) -> None:
    index = make(8)
    ids = np.random.default_rng(3).permutation(rows)
    index.upsert(ids, np.tile(LATTICE[5], (rows, 1)))
    assert index.search(LATTICE[[5, 5]], 5).ids.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_tie_is_settled_also_where_a_single_vector_was_not_looked_at(make: Make) -> None:
    index = make(8)
    for rows in range(1, 50):
        index.upsert([1_000 - rows], LATTICE[5:6])
        smallest = list(range(1_000 - rows, 1_000))[:5]
        assert index.search(LATTICE[5:6], 5).ids[0].tolist() == smallest


def test_queries_in_one_call_are_answered_as_if_alone(make: Make) -> None:
    index = make(8)
    index.upsert(np.arange(300), LATTICE[::4][:300].repeat(2, axis=0)[:300])
    together = index.search(LATTICE[:50], 9)
    for row in range(50):
        alone = index.search(LATTICE[row : row + 1], 9)
        assert (alone.ids[0] == together.ids[row]).all()
        assert (alone.scores[0] == together.scores[row]).all()


BAD_VECTORS = {
    "dimension": np.eye(9, dtype=np.float32),
    "shape": np.eye(8, dtype=np.float32)[0],
    "shape of a block": np.ones((1, 8, 8), np.float32),
    "nan": np.where(np.eye(8) == 1, np.nan, 0).astype(np.float32),
    "infinity": np.where(np.eye(8) == 1, np.inf, 0).astype(np.float32),
    "huge": np.eye(8) * 1e300,
    "zero": np.zeros((8, 8), np.float32),
    "not unit": np.eye(8, dtype=np.float32) * 1.02,
    "integers": np.eye(8, dtype=np.int64),
    "words": [["a"] * 8] * 8,
    "ragged": [[1.0], [1.0, 0.0]],
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_vectors_that_are_not_unit_vectors_are_refused_and_change_nothing(
    make: Make, bad: str
) -> None:
    index = make(8)
    index.upsert([0, 1], LATTICE[:2])
    with pytest.raises(VectorError):
        index.upsert(np.arange(8), BAD_VECTORS[bad])
    with pytest.raises(VectorError):
        index.search(BAD_VECTORS[bad], 1)
    assert (index.vectors([0, 1]) == LATTICE[:2]).all()
    assert len(index) == 2


BAD_IDS = {
    "twice": [1, 2, 1],
    "negative": [1, -1, 2],
    "floats": [1.0, 2.0, 3.0],
    "too large": np.array([1, 2, 2**63], np.uint64),
    "far too large": [1, 2, 2**70],
    "truths": [True, False, True],
    "shape": [[1, 2, 3]],
    "words": ["a", "b", "c"],
    "ragged": [[1], [2, 3], []],
}


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_that_are_not_ids_are_refused_and_change_nothing(make: Make, bad: str) -> None:
    index = make(8)
    index.upsert([0, 1], LATTICE[:2])
    with pytest.raises(VectorError):
        index.upsert(BAD_IDS[bad], LATTICE[2:5])
    with pytest.raises(VectorError):
        index.remove(BAD_IDS[bad])
    with pytest.raises(VectorError):
        index.vectors(BAD_IDS[bad])
    assert (index.vectors([0, 1]) == LATTICE[:2]).all()
    assert len(index) == 2


def test_one_id_for_each_vector_is_asked_for(make: Make) -> None:
    index = make(8)
    with pytest.raises(VectorError, match="2 ids for 3 vectors"):
        index.upsert([1, 2], LATTICE[:3])
    assert len(index) == 0


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_that_is_not_a_count_is_refused(make: Make, k: int) -> None:
    index = make(8)
    index.upsert([1], LATTICE[:1])
    with pytest.raises(VectorError):
        index.search(LATTICE[:1], k)


@pytest.mark.parametrize("dimension", [0, -3, 2.5])
def test_an_index_without_dimensions_is_refused(make: Make, dimension: int) -> None:
    with pytest.raises(VectorError):
        make(dimension)


@pytest.mark.parametrize(
    "given",
    [
        unit(6, 10).astype(np.float64),
        unit(6, 10).astype(np.float16),
        unit(6, 10).astype(">f4"),
        np.asfortranarray(unit(6, 10)),
        np.repeat(unit(6, 10), 2, axis=0)[::2],
        np.repeat(unit(6, 10), 3, axis=1)[:, ::3],
    ],
    ids=["float64", "float16", "big-endian", "by columns", "every second row", "strided"],
)
def test_floats_in_any_memory_layout_are_taken(make: Make, given: npt.NDArray[np.float64]) -> None:
    index = make(10)
    index.upsert(np.arange(12)[::2], given)
    assert (index.vectors(np.arange(12)[::2]) == unit(6, 10)).all()
    assert index.search(given, 1).ids[:, 0].tolist() == [0, 2, 4, 6, 8, 10]


def test_arrays_of_the_caller_are_not_kept(make: Make) -> None:
    index = make(8)
    ids, vectors = np.arange(5), LATTICE[:5].copy()
    index.upsert(ids, vectors)
    ids[:], vectors[:] = 77, 0
    index.vectors([0])[:] = 0
    assert (index.vectors(np.arange(5)) == LATTICE[:5]).all()


def test_vectors_of_another_dimension_than_usual_are_found(make: Make) -> None:
    for dimension in (1, 2, 3, 7, 15, 17, 320, 513):
        index = make(dimension)
        vectors = unit(12, dimension)
        index.upsert(np.arange(12), vectors)
        np.testing.assert_allclose(
            index.search(vectors, 12).scores,
            -np.sort(-(vectors @ vectors.T), axis=1),
            atol=2e-6,
        )


def test_a_search_sees_all_of_a_change_or_none_of_it(make: Make) -> None:
    rows = 20
    before, after = np.tile(LATTICE[1], (rows, 1)), np.tile(LATTICE[200], (rows, 1))
    index = make(8)
    index.upsert(np.arange(rows), before)
    stop = threading.Event()
    seen: list[tuple[int, ...]] = []
    wrong: list[str] = []

    def look() -> None:
        while not stop.is_set():
            answer = index.search(LATTICE[1:2], 2 * rows)
            state = np.unique(answer.scores[0], return_counts=True)
            if answer.ids[0].tolist() not in (list(range(rows)), list(range(2 * rows)), []):
                wrong.append(f"ids {answer.ids[0]}")
            if len(state[0]) > 1:
                wrong.append(f"scores {state}")
            seen.append(answer.ids.shape)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        index.upsert(np.arange(rows), after)
        index.upsert(np.arange(rows, 2 * rows), after)
        index.remove(np.arange(rows, 2 * rows))
        index.remove(np.arange(rows))
        index.upsert(np.arange(rows), before)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert seen


def test_changes_from_several_threads_are_all_kept(make: Make) -> None:
    index = make(8)
    threads = [
        threading.Thread(
            target=lambda first: [
                index.upsert([id], LATTICE[id : id + 1]) for id in range(first, 200, 4)
            ],
            args=(first,),
        )
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.ids().tolist() == list(range(200))
    assert (index.vectors(np.arange(200)) == LATTICE[:200]).all()


class IndexMachine(RuleBasedStateMachine):
    """Any sequence of calls, beside a dictionary of which the right answer is read off."""

    make: Make

    def __init__(self) -> None:
        super().__init__()
        self.index = self.make(8)
        self.model: dict[int, F32] = {}

    ids = st.lists(st.integers(0, 30), unique=True, max_size=12)
    vector = st.integers(0, len(LATTICE) - 1)

    @rule(ids=ids, data=st.data())
    def upsert(self, ids: list[int], data: st.DataObject) -> None:
        rows = data.draw(st.lists(self.vector, min_size=len(ids), max_size=len(ids)))
        self.index.upsert(ids, LATTICE[rows])
        self.model |= {id: LATTICE[row] for id, row in zip(ids, rows, strict=True)}

    @rule(ids=ids, row=vector)
    def upsert_equal_vectors(self, ids: list[int], row: int) -> None:
        self.index.upsert(ids, np.tile(LATTICE[row], (len(ids), 1)))
        self.model |= dict.fromkeys(ids, LATTICE[row])

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids) == len(self.model.keys() & set(ids))
        for id in ids:
            self.model.pop(id, None)

    @rule(rows=st.lists(vector, min_size=1, max_size=3), k=st.integers(1, 40))
    def search(self, rows: list[int], k: int) -> None:
        answer = self.index.search(LATTICE[rows], k)
        for place, row in enumerate(rows):
            pairs = zip(answer.ids[place].tolist(), answer.scores[place].tolist(), strict=True)
            assert list(pairs) == expected(self.model, LATTICE[row], k)

    @precondition(lambda self: isinstance(self.index, FlatIndex))
    @rule()
    def reopen(self) -> None:
        how = {"identity": "ab" * 32, "recipe": load_recipe("exact")}
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder, "index"), self.index, seq=len(self.model), **how)
            self.index, seq = read_checkpoint(Path(folder, "index"), dimension=8, **how)
        assert seq == len(self.model)

    @invariant()
    def holds_what_was_put_in(self) -> None:
        ids = sorted(self.model)
        assert len(self.index) == len(ids)
        assert self.index.ids().tolist() == ids
        if ids:
            assert (self.index.vectors(ids) == np.stack([self.model[id] for id in ids])).all()


@pytest.mark.parametrize("name", INDEXES)
def test_any_sequence_of_calls_is_answered_as_by_a_dictionary(name: str) -> None:
    machine = type("Machine", (IndexMachine,), {"make": staticmethod(INDEXES[name])})
    machine.TestCase.settings = settings(
        max_examples=30,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    machine.TestCase("runTest").runTest()
