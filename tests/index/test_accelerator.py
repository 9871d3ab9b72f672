"""The accelerator against an exact search over the same codes."""

from __future__ import annotations

import dataclasses
import threading

import faiss
import numpy as np
import pytest

from searchlib.errors import CheckpointError, InputError
from searchlib.index.accelerator import SHARED_FROM, Accelerator, Stopped, Tuning
from searchlib.index.recipes import Recipe
from searchlib.index.scan import Snapshot
from searchlib.index.segments import Segment
from searchlib.index.training import decoded

DIMENSION = 64
ROWS = 2000
WIDE = Tuning(probes=64, factor=20)


def recipe(factory, lists=1.0, **changes):
    fields = {"training": 30, "iterations": 4, "least": 0, "probes": 16, "factor": 10}
    return Recipe("test", factory, "inner_product", "for tests", lists=lists, **fields | changes)


RECIPES = {
    "rabitq": recipe("IVF{lists},RaBitQfs"),
    "sq8": recipe("IVF{lists},SQ8"),
    "graph of centroids": recipe("IVF{lists}_HNSW16,RaBitQfs"),
    "rounded centroids": recipe("IVF{lists}(SQfp16),RaBitQfs"),
    "graph": recipe("HNSW16,SQ8", lists=0.0, training=1000),
    "flat": recipe("SQ8", lists=0.0, training=1000),
}
every_recipe = pytest.mark.parametrize("built", RECIPES.values(), ids=RECIPES)


def clusters(rows, seed=0, dimension=DIMENSION):
    """Vectors as an encoder gives them: many small groups in few directions; unit, as codes."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((200, dimension))
    vectors = centres[chance.integers(0, 200, rows)]
    vectors = vectors + 0.6 * chance.standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def whole(built, codes):
    return Accelerator.trained(built, codes).extended(codes).attached(codes)


def exact(codes, queries, k, keep=None):
    """The oracle: the exact search of this package, with its own rows as ids."""
    mask = np.ones(len(codes), np.bool_) if keep is None else keep
    snapshot = Snapshot([Segment(np.arange(len(codes)), codes)], codes.shape[1])
    found = snapshot.search(queries, k, keep=mask)
    return found.ids, found.scores


def bitmap(mask):
    return np.packbits(mask, bitorder="little")


def recall(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)])


@pytest.fixture(scope="module")
def codes():
    return clusters(ROWS)


@pytest.fixture(scope="module")
def queries():
    return clusters(100, seed=1).astype(np.float32)


@pytest.fixture(scope="module")
def accelerators(codes):
    return {name: whole(built, codes) for name, built in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_finds_is_what_an_exact_search_finds(accelerators, codes, queries, name):
    rows, _ = accelerators[name].search(queries, 10, tuning=WIDE)
    assert recall(rows, exact(codes, queries, 10)[0]) >= 0.98


@pytest.mark.parametrize("name", RECIPES)
def test_more_probes_and_candidates_find_more(accelerators, codes, queries, name):
    true = exact(codes, queries, 10)[0]
    few, _ = accelerators[name].search(queries, 10, tuning=Tuning(1, 1))
    many, _ = accelerators[name].search(queries, 10, tuning=Tuning(1000, 300))
    assert recall(few, true) < recall(many, true) >= 0.999


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("count", [1, 3, SHARED_FROM, 100])
def test_scores_have_the_bits_of_the_exact_search(accelerators, codes, queries, name, count):
    rows, scores = accelerators[name].search(queries[:count], 10, tuning=WIDE)
    true_rows, true_scores = exact(codes, queries[:count], ROWS)
    by_row = np.empty_like(true_scores)
    np.put_along_axis(by_row, true_rows, true_scores, axis=1)
    assert (np.take_along_axis(by_row, rows, axis=1) == scores).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("name", RECIPES)
def test_many_queries_find_what_each_finds_alone(accelerators, queries, name):
    together = accelerators[name].search(queries, 10, tuning=WIDE)
    alone = [accelerators[name].search(queries[i : i + 1], 10, tuning=WIDE) for i in range(100)]
    assert (together[0] == np.concatenate([rows for rows, _ in alone])).all()
    assert (together[1] == np.concatenate([scores for _, scores in alone])).all()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9])
def test_only_rows_that_are_kept_are_returned(accelerators, codes, queries, name, share):
    mask = np.random.default_rng(5).random(ROWS) < share
    rows, scores = accelerators[name].search(
        queries, 10, tuning=Tuning(1000, 30), keep=bitmap(mask)
    )
    assert mask[rows[rows >= 0]].all()
    assert (np.isneginf(scores) == (rows < 0)).all()
    for found in rows:
        assert len(set(found[found >= 0])) == (found >= 0).sum()
    if share >= 0.2:
        assert recall(rows, exact(codes, queries, 10, mask)[0]) >= 0.98


def test_another_bitmap_of_the_same_length_is_heeded(accelerators, queries):
    accelerator = accelerators["rabitq"]
    for seed in range(8):
        mask = np.random.default_rng(seed).random(ROWS) < 0.5
        for _ in range(2):
            rows, _ = accelerator.search(queries[:1], 10, tuning=WIDE, keep=bitmap(mask))
            assert mask[rows].all()
    everywhere, _ = accelerator.search(queries[:1], 10, tuning=WIDE)
    assert everywhere.min() >= 0


@every_recipe
def test_more_than_there_are_is_filled_up(built, queries):
    accelerator = whole(built, clusters(7, seed=3))
    rows, scores = accelerator.search(queries[:2], 12, tuning=Tuning(100, 10))
    assert np.sort(rows[:, :7], axis=1).tolist() == [list(range(7))] * 2
    assert (rows[:, 7:] == -1).all()
    assert np.isneginf(scores[:, 7:]).all()


@every_recipe
@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_tables_work(built, queries, count):
    few = clusters(count, seed=3)
    accelerator = whole(built, few)
    rows, scores = accelerator.search(queries[:2], 3, tuning=WIDE)
    assert accelerator.rows == count
    assert (rows[:, count:] == -1).all()
    assert np.isneginf(scores[:, count:]).all()
    true = exact(few, queries[:2], 3)[0] if count else np.empty((2, 0))
    assert (rows[:, :count] == true).all()


@every_recipe
def test_an_accelerator_of_nothing_can_grow(built, codes, queries):
    trained = Accelerator.trained(built, codes[:0])
    accelerator = trained.extended(codes).attached(codes)
    rows, _ = accelerator.search(queries, 10, tuning=Tuning(1000, 300))
    assert recall(rows, exact(codes, queries, 10)[0]) >= 0.99


@every_recipe
def test_equal_vectors_are_found_as_different_rows(built, queries):
    codes = np.repeat(clusters(20, seed=4), 50, axis=0)
    accelerator = whole(built, codes)
    rows, scores = accelerator.search(queries[:20], 40, tuning=Tuning(1000, 25))
    for found in rows:
        assert found.min() >= 0
        assert len(set(found)) == 40
    # In a graph the copies of a vector lead to each other first and to the rest of it last.
    least = 0.5 if built is RECIPES["graph"] else 0.9
    assert (scores == exact(codes, queries[:20], 40)[1]).mean() >= least


@every_recipe
def test_one_vector_many_times_trains(built):
    codes = np.repeat(clusters(1), 500, axis=0)
    rows, scores = whole(built, codes).search(decoded(codes[:1]), 5, tuning=WIDE)
    assert len(set(rows[0])) == 5
    assert np.allclose(scores, 1, atol=2e-3)


@every_recipe
def test_the_same_codes_give_the_same_bytes(built, codes):
    one, two = (Accelerator.trained(built, codes).extended(codes).to_bytes() for _ in range(2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("name", RECIPES)
def test_bytes_give_the_same_accelerator(accelerators, codes, queries, name):
    before = accelerators[name]
    after = Accelerator.from_bytes(
        before.recipe,
        memoryview(before.to_bytes().tobytes()),
        dimension=DIMENSION,
        rows=ROWS,
        trained_for=before.trained_for,
    ).attached(codes)
    assert (after.rows, after.trained_for) == (ROWS, ROWS)
    for one, two in zip(
        before.search(queries, 10, tuning=WIDE), after.search(queries, 10, tuning=WIDE), strict=True
    ):
        assert (one == two).all()
    more = clusters(100, seed=9)
    assert after.extended(more).rows == ROWS + 100


@pytest.mark.parametrize(
    ("other", "change"),
    [
        ("sq8", {}),
        ("graph", {}),
        ("flat", {}),
        ("graph of centroids", {}),
        ("rabitq", {"dimension": DIMENSION * 2}),
        ("rabitq", {"rows": ROWS + 1}),
        ("rabitq", {"trained_for": ROWS * 4}),
    ],
)
def test_bytes_of_another_index_are_refused(accelerators, other, change):
    data = accelerators["rabitq"].to_bytes()
    wanted = {"dimension": DIMENSION, "rows": ROWS, "trained_for": ROWS} | change
    with pytest.raises(CheckpointError, match="instead of"):
        Accelerator.from_bytes(RECIPES[other], data, **wanted)


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(4096)])
def test_bytes_that_are_no_index_are_refused(data):
    with pytest.raises(CheckpointError, match="cannot read"):
        Accelerator.from_bytes(
            RECIPES["rabitq"], data, dimension=DIMENSION, rows=ROWS, trained_for=ROWS
        )


@pytest.mark.parametrize("factory", ["nonsense", "IVF{lists},PQ7x4fs"])
def test_a_factory_that_faiss_refuses_names_the_recipe(codes, factory):
    with pytest.raises(InputError, match="recipe test: FAISS refuses factory"):
        Accelerator.trained(recipe(factory), codes)


def test_a_factory_of_another_kind_is_refused(codes):
    with pytest.raises(InputError, match="neither inverted lists nor"):
        Accelerator.trained(recipe("PCA16,SQ8"), codes)


def test_codes_of_another_length_are_refused(accelerators, codes):
    with pytest.raises(ValueError, match="codes"):
        accelerators["rabitq"].attached(codes[:-1])


@pytest.mark.parametrize("name", RECIPES)
def test_growing_leaves_the_one_before_as_it_was(accelerators, codes, queries, name):
    before = accelerators[name]
    more = clusters(1000, seed=7)
    rows, scores = before.search(queries, 10, tuning=WIDE)
    wrong, done = [], threading.Event()

    def ask():
        while not done.is_set():
            again = before.search(queries[:10], 10, tuning=WIDE)
            if (again[0] != rows[:10]).any() or (again[1] != scores[:10]).any():
                wrong.append(again)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        after = before.extended(more).attached(np.concatenate([codes, more]))
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert (before.rows, after.rows) == (ROWS, ROWS + 1000)
    found, _ = after.search(queries, 10, tuning=Tuning(1000, 100))
    assert recall(found, exact(np.concatenate([codes, more]), queries, 10)[0]) >= 0.99
    again = before.search(queries, 10, tuning=WIDE)
    assert (again[0] == rows).all()
    assert (again[1] == scores).all()


@every_recipe
def test_rows_that_come_in_parts_are_where_they_belong(built, codes, queries):
    accelerator = Accelerator.trained(built, codes)
    for start, stop in [(0, 10), (10, 10), (10, 1500), (1500, ROWS)]:
        accelerator = accelerator.extended(codes[start:stop])
    rows, _ = accelerator.attached(codes).search(queries, 10, tuning=Tuning(1000, 300))
    assert recall(rows, exact(codes, queries, 10)[0]) >= 0.999


@every_recipe
def test_a_build_stops_when_it_is_asked_to(built, codes):
    def stop_after(count):
        calls = iter(range(count))
        return lambda: next(calls, None) is None

    def build(stop):
        return Accelerator.trained(built, codes, stop=stop).extended(codes, stop=stop)

    calls = []
    build(lambda: bool(calls.append(1)))
    assert len(calls) >= 2
    for count in range(len(calls)):
        with pytest.raises(Stopped):
            build(stop_after(count))
    assert build(stop_after(len(calls))).rows == ROWS


@every_recipe
def test_progress_rises_to_its_end(built, codes):
    steps = {"train": [], "add": []}
    trained = Accelerator.trained(
        built, codes, on_progress=lambda done, total: steps["train"].append((done, total))
    )
    trained.extended(codes, on_progress=lambda done, total: steps["add"].append((done, total)))
    assert steps["add"][-1] == (ROWS, ROWS)
    for told in steps.values():
        assert told == sorted(set(told))
        assert all(0 < done <= total == told[0][1] for done, total in told)


@pytest.mark.parametrize("name", RECIPES)
def test_the_openmp_setting_of_the_caller_stays(accelerators, codes, queries, name):
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        accelerators[name].search(queries[:1], 10, tuning=WIDE)
        accelerators[name].search(queries, 10, tuning=WIDE)
        assert faiss.omp_get_max_threads() == 3
        Accelerator.trained(RECIPES[name], codes[:200]).extended(codes[:200])
        with pytest.raises(Stopped):
            accelerators[name].extended(codes, stop=lambda: True)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_lists_hold_what_lies_near_their_centroids(accelerators, codes):
    ivf = faiss.extract_index_ivf(accelerators["graph of centroids"]._index)
    centroids = faiss.downcast_index(ivf.quantizer).reconstruct_n(0, ivf.nlist)
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    nearest = (decoded(codes) @ centroids.T).argmax(axis=1)
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        members = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size) if size else []
        assert set(members) == set(np.flatnonzero(nearest == number))


def test_training_leaves_no_list_empty_where_there_are_rows_enough(codes):
    # Half of all rows are one vector, which wins many of the first centroids.
    same = np.concatenate([np.repeat(codes[:1], ROWS, axis=0), codes])
    accelerator = whole(recipe("IVF{lists},SQ8"), same)
    ivf = faiss.extract_index_ivf(accelerator._index)
    sizes = np.array([ivf.invlists.list_size(number) for number in range(ivf.nlist)])
    assert (sizes == 0).mean() <= 0.1


def test_a_tuning_begins_as_its_recipe_says():
    assert Tuning.of(RECIPES["rabitq"]) == Tuning(16, 10)
    assert dataclasses.replace(Tuning.of(RECIPES["sq8"]), probes=3).probes == 3


@pytest.mark.parametrize("dimension", [8, 24, 100, 320])
def test_every_dimension_works(dimension):
    codes = clusters(600, dimension=dimension)
    accelerator = whole(RECIPES["rabitq"], codes)
    rows, scores = accelerator.search(decoded(codes[:30]), 5, tuning=Tuning(1000, 100))
    true_rows, true_scores = exact(codes, decoded(codes[:30]), 5)
    assert recall(rows, true_rows) >= 0.99
    assert (scores[:, 0] == true_scores[:, 0]).all()
