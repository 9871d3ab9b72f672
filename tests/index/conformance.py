"""What every index must do, whatever is inside it: the suite, for any test file to run.

A class, so that other files can have it with a `kind` of their own; `tests.index.kinds` says how.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product

import numpy as np
import pytest

from searchlib.errors import VectorError
from searchlib.index import NumpyIndex, Subset, VectorIndex
from tests.index.histories import EXAMPLES, run_histories
from tests.index.kinds import (
    COARSE,
    LATTICE,
    ROUNDING,
    Kind,
    Model,
    check,
    check_content,
    expected,
    fill,
    lattice,
    model_of,
    recall,
    unit,
)

Make = Callable[[int], VectorIndex]
Filled = Callable[[Model], VectorIndex]

ROWS = 2_000
"""Of the larger cases, in which an approximate index does not look at everything."""

BAD_VECTORS = {
    "dimension": np.eye(9, dtype=np.float32),
    "no rows of another dimension": np.empty((0, 9), np.float32),
    "shape": np.eye(8, dtype=np.float32)[0],
    "shape of a block": np.ones((1, 8, 8), np.float32),
    "nan": np.where(np.eye(8) == 1, np.nan, 0).astype(np.float32),
    "one nan in the last vector": np.vstack([LATTICE[:7], np.full((1, 8), np.nan)]),
    "infinity": np.where(np.eye(8) == 1, np.inf, 0).astype(np.float32),
    "infinity of float16": np.where(np.eye(8) == 1, -np.inf, 0).astype(np.float16),
    "huge": np.eye(8) * 1e300,
    "zero": np.zeros((8, 8), np.float32),
    "one zero vector at the end": np.vstack([LATTICE[:7], np.zeros((1, 8))]),
    "not unit": np.eye(8, dtype=np.float32) * 1.02,
    "integers": np.eye(8, dtype=np.int64),
    "complex": np.eye(8, dtype=np.complex64),
    "words": [["a"] * 8] * 8,
    "ragged": [[1.0], [1.0, 0.0]],
    "nothing": None,
}

BAD_IDS = {
    "twice": [1, 2, 1],
    "twice in a row": [1, 2, 2],
    "negative": [1, -1, 2],
    "smallest": [1, 2, -(2**63)],
    "floats": [1.0, 2.0, 3.0],
    "too large": np.array([1, 2, 2**63], np.uint64),
    "far too large": [1, 2, 2**70],
    "truths": [True, False, True],
    "shape": [[1, 2, 3]],
    "one number": 3,
    "words": ["a", "b", "c"],
    "ragged": [[1], [2, 3], []],
    "nothing": None,
}

LAYOUTS = {
    "float64": unit(6, 10).astype(np.float64),
    "float16": unit(6, 10).astype(np.float16),
    "big-endian": unit(6, 10).astype(">f4"),
    "by columns": np.asfortranarray(unit(6, 10)),
    "float64 by columns": np.asfortranarray(unit(6, 10).astype(np.float64)),
    "every second row": np.repeat(unit(6, 10), 2, axis=0)[::2],
    "strided": np.repeat(unit(6, 10), 3, axis=1)[:, ::3],
    "backwards": np.ascontiguousarray(unit(6, 10)[::-1, ::-1])[::-1, ::-1],
    "lists": unit(6, 10).tolist(),
}

ID_LAYOUTS = {
    "list": [4, 0, 2],
    "tuple": (4, 0, 2),
    "int32": np.array([4, 0, 2], np.int32),
    "uint64": np.array([4, 0, 2], np.uint64),
    "uint8": np.array([4, 0, 2], np.uint8),
    "big-endian": np.array([4, 0, 2], ">i8"),
    "strided": np.array([4, 9, 0, 9, 2, 9])[::2],
    "backwards": np.array([2, 0, 4])[::-1],
}

SUBSETS = {
    "nothing": [],
    "one": [1_234],
    "one that is not there": [ROWS + 5],
    "some, none of them there": [ROWS, 2**62, 2**63 - 1],
    "all": range(ROWS),
    "all and others": range(2 * ROWS),
    "the first": range(100),
    "the last": range(ROWS - 100, ROWS),
    "all but one": [id for id in range(ROWS) if id != 777],
    "every second": range(0, ROWS, 2),
    "some here, some not": range(ROWS - 20, ROWS + 20),
    **{
        f"{share:.1%}": np.random.default_rng(3).permutation(ROWS)[: round(share * ROWS)]
        for share in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9)
    },
}


class Conformance:
    """The suite. It takes a fixture `kind`, which the file that runs it provides."""

    @pytest.fixture(autouse=True)
    def around(self, kind: Kind) -> Iterator[None]:
        with kind.around():
            yield

    @pytest.fixture
    def make(self, kind: Kind) -> Iterator[Make]:
        """Gives an empty index, which is closed at the end."""
        with ExitStack() as stack:

            def make(dimension: int) -> VectorIndex:
                index = kind.make(dimension)
                stack.callback(kind.close, index)
                return index

            yield make

    @pytest.fixture
    def filled(self, kind: Kind, make: Make) -> Filled:
        """Gives an index that holds a model, in rows of every sort that there are."""

        def filled(model: Model) -> VectorIndex:
            index = make(len(next(iter(model.values()))))
            fill(kind, index, model)
            return index

        return filled

    # Empty, and nearly so.

    def test_an_empty_index_finds_nothing(self, kind: Kind, make: Make) -> None:
        index = make(8)
        kind.settle(index)
        for among in (None, Subset.of([]), Subset.of([1, 2])):
            for exact in (False, True):
                check(kind, index, {}, LATTICE[:3], 5, among=among, exact=exact)
        check_content(index, {})
        assert index.ids().dtype == np.int64
        assert index.vectors([]).shape == (0, 8)
        assert index.remove([1, 2]) == 0
        assert 1 not in index
        assert index.dimension == 8

    def test_an_index_that_was_emptied_finds_nothing(self, kind: Kind, filled: Filled) -> None:
        model = model_of(np.arange(10), LATTICE[:10])
        index = filled(model)
        assert index.remove(np.arange(10)) == 10
        for _ in range(2):
            check(kind, index, {}, LATTICE[:1], 3)
            check(kind, index, {}, LATTICE[:1], 3, among=Subset.of([4]))
            kind.settle(index)
        index.upsert([4], LATTICE[:1])
        check(kind, index, {4: LATTICE[0]}, LATTICE[:1], 3)

    def test_a_single_vector_is_found(self, kind: Kind, make: Make) -> None:
        index = make(8)
        index.upsert([7], LATTICE[:1])
        for _ in range(2):
            check(kind, index, {7: LATTICE[0]}, LATTICE[:2], 3)
            kind.settle(index)

    def test_no_queries_give_no_rows(self, kind: Kind, filled: Filled) -> None:
        model = model_of([1, 2], LATTICE[:2])
        none = np.empty((0, 8), np.float32)
        check(kind, filled(model), model, none, 5)
        check(kind, filled(model), model, none, 5, among=Subset.of([1, 9]))

    def test_calls_with_nothing_change_nothing(self, kind: Kind, make: Make) -> None:
        index = make(8)
        for model in ({}, {3: LATTICE[0]}):
            index.upsert(list(model), np.array(list(model.values())).reshape(-1, 8))
            index.upsert([], np.empty((0, 8), np.float32))
            index.upsert(np.empty(0, np.int64), np.empty((0, 8), np.float64))
            assert index.remove([]) == 0
            check_content(index, model)
            kind.settle(index)

    # What is put in comes out.

    def test_a_second_upsert_replaces(self, kind: Kind, filled: Filled) -> None:
        model = model_of(np.arange(20), LATTICE[:20])
        index = filled(model)
        index.upsert([3, 99, 7], LATTICE[[500, 501, 502]])
        model |= {3: LATTICE[500], 99: LATTICE[501], 7: LATTICE[502]}
        for _ in range(2):
            check_content(index, model)
            check(kind, index, model, LATTICE[[500, 501, 502, 3, 7]], 1)
            kind.settle(index)

    def test_the_last_of_many_replacements_counts(self, kind: Kind, make: Make) -> None:
        index = make(8)
        for turn in range(12):
            model = model_of(np.arange(6), LATTICE[turn : turn + 6])
            index.upsert(np.arange(6), LATTICE[turn : turn + 6])
            if turn % 5 == 2:
                kind.settle(index)
            check_content(index, model)
            check(kind, index, model, LATTICE[turn : turn + 2], 10)

    def test_remove_says_how_many_there_were(self, kind: Kind, filled: Filled) -> None:
        model = model_of(np.arange(20), LATTICE[:20])
        index = filled(model)
        assert index.remove([0, 5, 19, 20, 21]) == 3
        assert index.remove([0, 5, 19]) == 0
        kind.settle(index)
        assert index.remove([0, 5, 19]) == 0
        for id in (0, 5, 19):
            del model[id]
            assert id not in index
        assert 6 in index
        check_content(index, model)
        check(kind, index, model, LATTICE[:20], 40)
        with pytest.raises(VectorError, match="id 19 is not in the index"):
            index.vectors([1, 19])

    def test_what_was_removed_can_come_back_as_something_else(
        self, kind: Kind, filled: Filled
    ) -> None:
        model = model_of(np.arange(30), LATTICE[:30])
        index = filled(model)
        index.remove(np.arange(10, 20))
        index.upsert(np.arange(12, 18), LATTICE[100:106])
        model = {id: vector for id, vector in model.items() if not 10 <= id < 20}
        model |= model_of(np.arange(12, 18), LATTICE[100:106])
        for _ in range(2):
            check_content(index, model)
            check(kind, index, model, LATTICE[[10, 12, 100, 103]], 30)
            kind.settle(index)

    def test_what_is_not_an_id_is_not_contained(self, filled: Filled) -> None:
        index = filled({1: LATTICE[0]})
        assert np.int64(1) in index
        assert all(other not in index for other in (2, -1, 2**63, 2**70, "1", 1.5, None))

    def test_ids_are_an_ascending_copy(self, filled: Filled) -> None:
        index = filled(model_of([9, 2, 5], LATTICE[:3]))
        ids = index.ids()
        assert ids.dtype == np.int64
        assert ids.tolist() == [2, 5, 9]
        ids[:] = 0
        assert index.ids().tolist() == [2, 5, 9]

    def test_vectors_come_back_in_the_order_of_the_question(self, filled: Filled) -> None:
        vectors = unit(30, 24)
        order = np.random.default_rng(1).permutation(30)
        back = filled(model_of(order, vectors[order])).vectors(np.arange(30)[::-1])
        assert back.dtype == np.float32
        assert (back == vectors[::-1]).all()

    def test_arrays_of_the_caller_are_not_kept(self, make: Make) -> None:
        index = make(8)
        ids, vectors = np.arange(5), LATTICE[:5].copy()
        index.upsert(ids, vectors)
        ids[:], vectors[:] = 77, 0
        index.vectors([0])[:] = 0
        check_content(index, model_of(range(5), LATTICE[:5]))

    def test_vectors_are_kept_to_the_stated_precision(self, kind: Kind, make: Make) -> None:
        index = make(40)
        numbers = np.random.default_rng(4).standard_normal((30, 40))
        vectors = (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)
        index.upsert(np.arange(30), vectors)
        kept = vectors.astype(kind.keeps).astype(np.float32)
        for _ in range(2):
            assert (index.vectors(np.arange(30)) == kept).all()
            # A score is that of the stored vector; the query is taken as it is.
            check(kind, index, model_of(range(30), kept), vectors[:7], 30)
            kind.settle(index)

    def test_the_largest_ids_are_kept_apart(self, kind: Kind, filled: Filled) -> None:
        ids = [2**63 - 1, 2**63 - 2, 2**53, 2**53 + 1, 2**32, 2**31, 0]
        model = model_of(ids, LATTICE[:7])
        index = filled(model)
        for _ in range(2):
            check_content(index, model)
            check(kind, index, model, LATTICE[:7], 1, exact=True)
            check(kind, index, model, LATTICE[:7], 9, among=Subset.of([2**63 - 1, 2**53 + 1]))
            assert 2**63 - 1 in index
            kind.settle(index)
        assert index.remove([2**63 - 1, 2**53]) == 2
        assert 2**53 + 1 in index

    # Searching.

    def test_a_vector_finds_itself_first(self, kind: Kind, filled: Filled) -> None:
        vectors = unit(200, 32)
        ids = np.arange(200) * 7
        index = filled(model_of(ids, vectors))
        first = index.search(vectors, 3, exact=True)
        assert (first.ids[:, 0] == ids).all()
        assert kind.approximate or (index.search(vectors, 1).ids[:, 0] == ids).all()

    @pytest.mark.parametrize("k", [1, 39, 40, 41, 1000, 2**31])
    def test_k_may_be_anything_from_one(self, kind: Kind, filled: Filled, k: int) -> None:
        model = model_of(range(40), lattice(40))
        index = filled(model)
        for exact in (False, True):
            check(kind, index, model, LATTICE[:5], k, exact=exact)
            check(kind, index, model, LATTICE[:5], k, among=Subset.of(range(7)), exact=exact)

    @pytest.mark.parametrize("k", [1, 7, 20, 21, 59, 60])
    def test_equal_scores_stand_in_ascending_order_also_at_k(
        self, kind: Kind, filled: Filled, k: int
    ) -> None:
        ids = np.random.default_rng(2).permutation(60)
        model = model_of(ids, LATTICE[np.array([0, 17, 300])[ids % 3]])
        index = filled(model)
        for among in (None, Subset.of(range(0, 60, 4)), Subset.of(range(5, 40))):
            check(kind, index, model, LATTICE[[0, 17, 300, 900]], k, among=among)
            check(kind, index, model, LATTICE[[0, 17, 300, 900]], k, among=among, exact=True)

    @pytest.mark.parametrize("rows", [30, 2_500])
    def test_of_many_equal_vectors_those_with_the_smallest_ids_are_found(
        self, kind: Kind, filled: Filled, rows: int
    ) -> None:
        ids = np.random.default_rng(3).permutation(rows)
        index = filled(model_of(ids, np.tile(LATTICE[5], (rows, 1))))
        some = Subset.of(range(1, rows, 3))
        for exact in (False, True) if not kind.approximate else (True,):
            answer = index.search(LATTICE[[5, 5]], 5, exact=exact)
            assert answer.ids.tolist() == [[0, 1, 2, 3, 4]] * 2
            answer = index.search(LATTICE[[5, 9]], 5, among=some, exact=exact)
            assert answer.ids.tolist() == [[1, 4, 7, 10, 13]] * 2

    def test_a_tie_is_settled_also_where_a_single_vector_was_not_looked_at(
        self, kind: Kind, make: Make
    ) -> None:
        index = make(8)
        for rows in range(1, 50):
            index.upsert([1_000 - rows], LATTICE[5:6])
            if rows == 25:
                kind.settle(index)
            smallest = list(range(1_000 - rows, 1_000))[:5]
            answer = index.search(LATTICE[5:6], 5, exact=kind.approximate)
            assert answer.ids[0].tolist() == smallest

    def test_queries_in_one_call_are_answered_as_if_alone(self, kind: Kind, filled: Filled) -> None:
        index = filled(model_of(range(300), lattice(300)))
        for among in (None, Subset.of(range(0, 300, 7))):
            together = index.search(LATTICE[:150:2], 9, among=among)
            for row in range(0, 75, 1 if kind.rounds >= 25 else 5):
                alone = index.search(LATTICE[2 * row : 2 * row + 1], 9, among=among)
                assert (alone.ids[0] == together.ids[row]).all()
                assert (alone.scores[0] == together.scores[row]).all()

    def test_every_dimension_is_served(self, kind: Kind, make: Make) -> None:
        for dimension in kind.dimensions:
            index = make(dimension)
            model = model_of(range(12), unit(12, dimension))
            fill(kind, index, model)
            for _ in range(2):
                check(kind, index, model, unit(12, dimension), 12)
                check(kind, index, model, unit(12, dimension), 5, among=Subset.of(range(8)))
                kind.settle(index)

    # Searching among some.

    def test_only_those_asked_for_are_found(self, kind: Kind, filled: Filled) -> None:
        model = model_of(range(ROWS), lattice(ROWS, seed=1))
        index, queries = filled(model), LATTICE[[3, COARSE, COARSE + 1]]
        for ids in SUBSETS.values():
            among = Subset.of(ids)
            for k in (1, 3, 10, 150):
                check(kind, index, model, queries, k, among=among)
            check(kind, index, model, queries, 10, among=among, exact=True)

    def test_order_and_repetition_of_a_subset_do_not_matter(self, filled: Filled) -> None:
        index = filled(model_of(range(200), lattice(200)))
        plain = index.search(LATTICE[:5], 20, among=Subset.of(range(40, 90)))
        mixed = np.random.default_rng(5).permutation(np.arange(40, 90).repeat(3))
        again = index.search(LATTICE[:5], 20, among=Subset.of(mixed))
        assert (again.ids == plain.ids).all()
        assert (again.scores == plain.scores).all()

    def test_what_left_is_not_found_although_the_subset_names_it(
        self, kind: Kind, filled: Filled
    ) -> None:
        model = model_of(range(60), lattice(60))
        index, among = filled(model), Subset.of(range(10, 30))
        index.remove(range(15, 25))
        for id in range(15, 25):
            del model[id]
        index.upsert([12, 13], LATTICE[[1, 2]])
        model |= {12: LATTICE[1], 13: LATTICE[2]}
        for _ in range(2):
            check(kind, index, model, LATTICE[[0, 1, 2]], 15, among=among)
            kind.settle(index)

    def test_recall_is_good_in_a_larger_index_also_among_some(
        self, kind: Kind, filled: Filled
    ) -> None:
        rows = ROWS if kind.rounds > 1 else ROWS // 2
        vectors, oracle = unit(rows + 40, 48, seed=6, clusters=40), NumpyIndex(48)
        oracle.upsert(np.arange(rows), vectors[:rows])
        index = filled(model_of(range(rows), vectors[:rows]))
        kind.settle(index)
        # Some that come after it settled: replacements and new ones.
        ids, new = np.arange(rows - 50, rows + 50), unit(100, 48, seed=7, clusters=40)
        index.upsert(ids, new)
        oracle.upsert(ids, new)
        queries = np.concatenate([vectors[rows:], new[:10], vectors[:10]])
        if kind.rounds == 1:
            queries = queries[::4]
        chosen = np.random.default_rng(8).permutation(oracle.ids())
        for share, k in product((0.001, 0.01, 0.1, 0.5, 0.9, None), (1, 10, 50)):
            among = share and Subset.of(chosen[: round(share * len(chosen))])
            truth = oracle.search(queries, k, among=among)
            answer = index.search(queries, k, among=among)
            assert answer.ids.shape == truth.ids.shape
            assert recall(answer, truth) >= (0.9 if kind.approximate else 1)
            exact = index.search(queries, k, among=among, exact=True)
            assert recall(exact, truth) == 1
            for found, scores, query in zip(answer.ids, answer.scores, queries, strict=True):
                stored = oracle.vectors(found) @ query
                np.testing.assert_allclose(scores, stored, rtol=0, atol=ROUNDING)
                assert among is None or among.holds(found).all()
                assert (np.lexsort((found, -scores)) == np.arange(len(found))).all()

    # What is refused.

    @pytest.mark.parametrize("bad", BAD_VECTORS)
    def test_vectors_that_are_not_unit_vectors_are_refused_and_change_nothing(
        self, filled: Filled, bad: str
    ) -> None:
        model = model_of([0, 1], LATTICE[:2])
        index = filled(model)
        given = BAD_VECTORS[bad]
        with pytest.raises(VectorError):
            index.upsert(np.arange(0 if given is None else len(given)), given)
        with pytest.raises(VectorError):
            index.search(given, 1)
        with pytest.raises(VectorError):
            index.search(given, 1, among=Subset.of([]), exact=True)
        check_content(index, model)

    @pytest.mark.parametrize("bad", BAD_IDS)
    def test_ids_that_are_not_ids_are_refused_and_change_nothing(
        self, filled: Filled, bad: str
    ) -> None:
        model = model_of([0, 1], LATTICE[:2])
        index = filled(model)
        with pytest.raises(VectorError):
            index.upsert(BAD_IDS[bad], LATTICE[2:5])
        with pytest.raises(VectorError):
            index.remove(BAD_IDS[bad])
        with pytest.raises(VectorError):
            index.vectors(BAD_IDS[bad])
        check_content(index, model)

    def test_one_id_for_each_vector_is_asked_for(self, make: Make) -> None:
        index = make(8)
        with pytest.raises(VectorError, match="2 ids for 3 vectors"):
            index.upsert([1, 2], LATTICE[:3])
        with pytest.raises(VectorError):
            index.upsert([1], np.empty((0, 8), np.float32))
        with pytest.raises(VectorError):
            index.upsert([], LATTICE[:1])
        check_content(index, {})

    @pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
    def test_k_that_is_not_a_count_is_refused(self, filled: Filled, k: int) -> None:
        index = filled({1: LATTICE[0]})
        with pytest.raises(VectorError):
            index.search(LATTICE[:1], k)
        with pytest.raises(VectorError):
            index.search(LATTICE[:1], k, among=Subset.of([]))

    @pytest.mark.parametrize("dimension", [0, -3, 2.5])
    def test_an_index_without_dimensions_is_refused(self, make: Make, dimension: int) -> None:
        with pytest.raises(VectorError):
            make(dimension)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_floats_in_any_memory_layout_are_taken(self, make: Make, layout: str) -> None:
        index = make(10)
        index.upsert(np.arange(12)[::2], LAYOUTS[layout])
        check_content(index, model_of(range(0, 12, 2), unit(6, 10)))
        found = index.search(LAYOUTS[layout], 1)
        assert found.ids[:, 0].tolist() == [0, 2, 4, 6, 8, 10]

    @pytest.mark.parametrize("layout", ID_LAYOUTS)
    def test_integers_in_any_memory_layout_are_taken(self, make: Make, layout: str) -> None:
        index = make(8)
        ids = ID_LAYOUTS[layout]
        index.upsert(ids, LATTICE[:3])
        check_content(index, model_of([4, 0, 2], LATTICE[:3]))
        assert (index.vectors(ids) == LATTICE[:3]).all()
        assert index.search(LATTICE[:3], 9, among=Subset.of(ids)).ids.shape == (3, 3)
        assert index.remove(ids) == 3

    # From several threads.

    def test_a_search_sees_all_of_a_change_or_none_of_it(self, kind: Kind, make: Make) -> None:
        rows, more, vectors = np.arange(20), np.arange(20, 40), lattice(60)
        always = model_of(range(40, 300), lattice(260, seed=1))
        one = model_of(rows, vectors[:20]) | always
        two = model_of(rows, vectors[20:40]) | always
        states = [one, two, two | model_of(more, vectors[40:])]
        queries = LATTICE[[0, COARSE]]
        questions = list(product((3, 500), (None, Subset.of(range(0, 300, 2)))))
        answers = [
            [[expected(state, query, *each) for query in queries] for state in states]
            for each in questions
        ]
        index = make(8)
        index.upsert(list(one), list(one.values()))
        kind.settle(index)

        def look(exact: bool) -> None:
            for (k, among), right in zip(questions, answers, strict=True):
                answer = index.search(queries, k, among=among, exact=exact)
                pairs = zip(answer.ids.tolist(), answer.scores.tolist(), strict=True)
                assert list(pairs) in right

        def ask() -> None:
            assert index.ids().tolist() in [sorted(state) for state in states]
            assert len(index) in (280, 300)
            kept = index.vectors(rows)
            assert any((kept == vectors[start : start + 20]).all() for start in (0, 20))

        with repeatedly(lambda: look(False), lambda: look(True), ask) as done:
            turn = 0
            while turn < kind.rounds or not done(2 * kind.rounds):
                index.upsert(rows, vectors[20:40])
                index.upsert(more, vectors[40:])
                if turn % 4 == 3:
                    kind.settle(index)
                assert index.remove(more) == 20
                index.upsert(rows, vectors[:20])
                turn += 1

    def test_changes_from_several_threads_are_all_kept(self, make: Make) -> None:
        index = make(8)

        def add(first: int) -> None:
            for id in range(first, 200, 4):
                index.upsert([id], LATTICE[id : id + 1])

        threads = [threading.Thread(target=add, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_content(index, model_of(range(200), LATTICE[:200]))

    def test_changes_while_it_settles_are_kept(self, kind: Kind, make: Make) -> None:
        index = make(8)
        model = model_of(range(300), lattice(300))
        index.upsert(np.arange(300), lattice(300))
        generator = np.random.default_rng(9)
        with repeatedly(
            lambda: kind.settle(index),
            lambda: index.search(LATTICE[:1], 10, among=Subset.of(range(0, 400, 3))),
        ) as done:
            turn = 0
            while turn < kind.rounds or not done(3):
                ids, vectors = generator.permutation(400)[:20], lattice(20, seed=turn)
                index.upsert(ids, vectors)
                model |= model_of(ids, vectors)
                gone = generator.permutation(400)[:15]
                assert index.remove(gone) == len(model.keys() & set(gone.tolist()))
                for id in gone.tolist():
                    model.pop(id, None)
                check(kind, index, model, LATTICE[[turn % len(LATTICE)]], 10)
                turn += 1
        for _ in range(2):
            check_content(index, model)
            check(kind, index, model, LATTICE[:20], 400)
            kind.settle(index)

    # Any sequence of calls.

    def test_any_sequence_of_calls_is_answered_as_by_a_dictionary(self, kind: Kind) -> None:
        run_histories(kind, examples=max(3, EXAMPLES * kind.rounds // 25))

    def test_it_may_be_closed_and_opened_after_each_call(self, kind: Kind) -> None:
        if kind.reopen is None:
            return
        examples = max(min(3, kind.rounds), EXAMPLES * kind.rounds // 75)
        run_histories(kind, examples=examples, always_reopened=True)


@contextmanager
def repeatedly(*calls: Callable[[], object]) -> Iterator[Callable[[int], bool]]:
    """Each of the calls again and again in a thread of its own; raises what the first one raised.

    Gives a function that says whether each call was made so many times, or one has failed.
    """
    stop = threading.Event()
    raised: list[BaseException] = []
    counts = [0] * len(calls)

    def work(place: int) -> None:
        try:
            while not stop.is_set():
                calls[place]()
                counts[place] += 1
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    try:
        yield lambda least: bool(raised) or min(counts) >= least
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    if raised:
        raise raised[0]
