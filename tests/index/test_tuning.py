"""Tuning: what it promises of a setting holds, and the setting is no dearer than it has to be."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.index.accelerator import Accelerator, Stopped, Tuning
from searchlib.index.recipes import Recipe
from searchlib.index.training import decoded
from searchlib.index.tuning import FACTORS, tune

DIMENSION = 64
ROWS = 2000


def recipe(factory, lists=1.0, training=30):
    return Recipe(
        "test",
        factory,
        "inner_product",
        "for tests",
        lists=lists,
        training=training,
        iterations=4,
        probes=16,
        factor=10,
    )


RECIPES = {
    "rabitq": recipe("IVF{lists},RaBitQfs", lists=2.0),
    "sq8": recipe("IVF{lists},SQ8", lists=2.0),
    "graph": recipe("HNSW16,SQ8", lists=0.0, training=1000),
    "flat": recipe("SQ8", lists=0.0, training=1000),
}


def clusters(rows, seed=0):
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, DIMENSION))
    vectors = centres[chance.integers(0, 50, rows)]
    vectors = vectors + 0.8 * chance.standard_normal((rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def whole(built, codes):
    return Accelerator.trained(built, codes).extended(codes).attached(codes)


def measured(accelerator, tuning, asking, keep=None, k=10):
    """The recall of rows that ask for their neighbours, in plain numpy; ties count as found."""
    codes = accelerator.codes
    vectors = decoded(codes)
    kept = np.ones(len(codes), np.bool_) if keep is None else keep
    shares = []
    for row in asking:
        scores = vectors @ vectors[row]
        scores[~kept] = -np.inf
        scores[row] = -np.inf
        least = np.sort(scores)[-k]
        found, _ = accelerator.ranked(
            vectors[row : row + 1],
            k + 1,
            candidates=k * tuning.factor + 1,
            probes=tuning.probes,
            keep=None if keep is None else np.packbits(keep, bitorder="little"),
        )
        others = [other for other in found[0] if other not in (-1, row)]
        shares.append(min(k, sum(scores[other] >= least - 1e-6 for other in others)) / k)
    return float(np.mean(shares))


@pytest.fixture(scope="module")
def codes():
    return clusters(ROWS)


@pytest.fixture(scope="module")
def accelerators(codes):
    return {name: whole(built, codes) for name, built in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recall_is_the_one_that_numpy_measures(accelerators, name):
    tuning = tune(accelerators[name], target=0.9, sample=800)
    asking = np.random.default_rng(3).choice(ROWS, 300, replace=False)
    assert tuning.target == 0.9
    assert tuning.recall >= 0.9
    assert measured(accelerators[name], tuning, asking) == pytest.approx(tuning.recall, abs=0.02)


def test_where_every_row_asks_the_recall_is_exact():
    accelerator = whole(RECIPES["rabitq"], clusters(300))
    tuning = tune(accelerator, target=0.9)
    assert tuning.recall == pytest.approx(measured(accelerator, tuning, range(300)), abs=1e-12)


@pytest.mark.parametrize("name", ["rabitq", "sq8", "graph"])
@pytest.mark.parametrize("target", [0.9, 0.99])
def test_a_sample_promises_what_all_rows_keep(accelerators, name, target):
    tuning = tune(accelerators[name], target=target, sample=200)
    every = measured(accelerators[name], tuning, range(0, ROWS, 4))
    assert tuning.recall >= target
    assert every >= target - 0.005


def test_a_higher_target_takes_no_less(accelerators):
    tunings = [tune(accelerators["rabitq"], target=target) for target in (0.7, 0.9, 0.99, 1.0)]
    costs = [tuning.probes * 10 + tuning.factor * 10 for tuning in tunings]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    recalls = [tuning.recall for tuning in tunings]
    assert recalls == sorted(recalls)


@pytest.mark.parametrize("name", ["rabitq", "sq8"])
def test_neither_number_could_be_lower(accelerators, name):
    accelerator = accelerators[name]
    tuning = tune(accelerator, target=0.95, sample=800)
    place = FACTORS.index(tuning.factor)
    if place:
        lower = Tuning(tuning.probes, FACTORS[place - 1])
        assert measured(accelerator, lower, range(0, ROWS, 5)) < 0.96
    if tuning.probes > 8:
        lower = Tuning(tuning.probes // 2, tuning.factor)
        assert measured(accelerator, lower, range(0, ROWS, 5)) < 0.96


def test_a_target_out_of_reach_gives_the_best_and_its_recall():
    # Four bits for each half of a vector tell little of where it lies among others of its list.
    chance = np.random.default_rng(1).standard_normal((4000, DIMENSION))
    codes = (chance / np.linalg.norm(chance, axis=1, keepdims=True)).astype(np.float16)
    accelerator = whole(recipe("IVF{lists},PQ2x4fs", lists=0.1), codes)
    tuning = tune(accelerator, target=1.0)
    assert tuning.recall < 1.0
    assert tuning.target == 1.0
    assert tuning.recall >= tune(accelerator, target=0.5).recall


def test_the_same_rows_give_the_same_tuning(codes, accelerators):
    again = whole(RECIPES["rabitq"], codes)
    assert tune(again, target=0.95) == tune(accelerators["rabitq"], target=0.95)


def test_dead_rows_neither_ask_nor_answer(codes):
    # The dead rows are copies of the living: who took them for neighbours would find nothing else.
    twice = np.repeat(codes[:1000], 3, axis=0)
    keep = np.arange(3000) % 3 == 1
    accelerator = whole(RECIPES["rabitq"], twice)
    tuning = tune(accelerator, target=0.95, keep=np.packbits(keep, bitorder="little"), sample=1000)
    assert tuning.recall >= 0.95
    asking = np.flatnonzero(keep)[::5]
    assert measured(accelerator, tuning, asking, keep) == pytest.approx(tuning.recall, abs=0.02)


def test_copies_of_a_row_count_as_found_whichever_is_given():
    codes = np.repeat(clusters(20), 100, axis=0)
    assert tune(whole(RECIPES["sq8"], codes), target=0.99).recall == 1.0


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("count", [0, 1])
def test_without_neighbours_the_recipe_decides(name, count):
    accelerator = whole(RECIPES[name], clusters(count))
    assert tune(accelerator) == Tuning(16, 10)
    alone = whole(RECIPES[name], clusters(5))
    keep = np.packbits(np.arange(5) < count, bitorder="little")
    assert tune(alone, keep=keep) == Tuning(16, 10)


@pytest.mark.parametrize("count", [2, 5, 11])
def test_few_rows_are_measured_with_the_neighbours_they_have(count):
    tuning = tune(whole(RECIPES["rabitq"], clusters(count)))
    assert tuning.recall == 1.0


def test_it_stops_when_it_is_asked_to(accelerators):
    calls = []
    tune(accelerators["rabitq"], stop=lambda: bool(calls.append(1)))
    for count in (0, 1, len(calls) // 2, len(calls) - 1):
        left = iter(range(count))
        with pytest.raises(Stopped):
            tune(accelerators["rabitq"], stop=lambda left=left: next(left, None) is None)


@pytest.mark.parametrize("target", [0.5, 1.0])
def test_progress_rises_to_its_end(accelerators, target):
    told = []
    tune(accelerators["rabitq"], target=target, on_progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert all(0 < done <= total == told[0][1] for done, total in told)
    assert told[-1][0] == told[-1][1]
