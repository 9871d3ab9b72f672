"""How segments are searched, above all where only some of the rows may be returned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.index import NumpyIndex, Subset, scan
from searchlib.index.scan import Mask, Snapshot
from searchlib.index.segments import Segment, cut
from tests.index.kinds import lattice, unit

DIMENSION = 8
ROWS = 3_000

WAYS = {
    "gathered": {"GATHERED": 10**9, "GATHERED_SHARE": 1.0},
    "selector": {"GATHERED": 0, "GATHERED_SHARE": 0.0, "DROPPED_SHARE": 2.0},
    "dropped": {"GATHERED": 0, "GATHERED_SHARE": 0.0, "DROPPED_SHARE": 0.0},
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One of the ways to search some of the rows, which is then taken however many there are."""
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(scan, name, value)
    taken: list[str] = []
    for name, means in {"_gathered": "gathered", "_selectors": "selector"}.items():
        original = getattr(Snapshot, name)

        def noted(self: Snapshot, *arguments: object, _do=original, _means=means) -> object:
            taken.append(_means)
            return _do(self, *arguments)

        monkeypatch.setattr(Snapshot, name, noted)
    yield request.param
    assert set(taken) <= {request.param}
    assert bool(taken) == (request.param != "dropped")


def snapshot_of(vectors: npt.NDArray[np.float32], rows: int, seed: int = 0) -> Snapshot:
    """Rows in no order of their ids, which have gaps, in segments of so many."""
    ids = 3 * np.random.default_rng(seed).permutation(len(vectors))
    return Snapshot(cut(ids, vectors.astype(np.float16), rows), vectors.shape[1])


def oracle_of(snapshot: Snapshot) -> NumpyIndex:
    oracle = NumpyIndex(snapshot.dimension)
    for segment in snapshot.segments:
        oracle.upsert(segment.ids, segment.codes)
    return oracle


def check(snapshot: Snapshot, oracle: NumpyIndex, keep: Mask, k: int, *, bits: bool) -> None:
    """The answer is that of brute force among the rows that are kept."""
    queries = lattice(6, seed=5) if bits else unit(6, snapshot.dimension, 5)
    among = Subset.of(snapshot.ids()[keep])
    truth = oracle.search(queries, k, among=among)
    found = snapshot.search(queries, k, keep=keep)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)
    assert found.ids.shape == truth.ids.shape == (6, min(k, int(keep.sum())))
    if bits:
        # Scores that are often equal, and to the last bit: which of them are found is stated.
        np.testing.assert_array_equal(found.scores, truth.scores)
        np.testing.assert_array_equal(found.ids, truth.ids)
    else:
        np.testing.assert_allclose(found.scores, truth.scores, atol=1e-6)
        assert np.isin(found.ids, among.ids).all()
        assert all(len(set(row)) == len(row) for row in found.ids.tolist())


@pytest.mark.parametrize("rows", [10_000, 700, 64])
@pytest.mark.parametrize("allowed", [1, 2, 30, 300, 2_000, ROWS - 1])
def test_each_way_to_search_some_rows_is_exact(way: str, rows: int, allowed: int) -> None:
    chance = np.random.default_rng(allowed)
    keep = np.zeros(ROWS, np.bool_)
    keep[chance.choice(ROWS, allowed, replace=False)] = True
    for bits in (True, False):
        vectors = lattice(ROWS) if bits else unit(ROWS, DIMENSION)
        snapshot = snapshot_of(vectors, rows)
        oracle = oracle_of(snapshot)
        for k in (1, 10, 1_500):
            check(snapshot, oracle, keep, k, bits=bits)
    assert way


@pytest.mark.parametrize("region", ["the first rows", "the last rows", "one segment", "the worst"])
def test_each_way_finds_rows_that_lie_together(way: str, region: str) -> None:
    """Where none of the many that are nearest may be returned, one has to look far."""
    vectors = unit(ROWS, DIMENSION)
    queries = unit(6, DIMENSION, 5)
    keep = np.zeros(ROWS, np.bool_)
    if region == "the worst":
        # Far from all of the questions: thousands lie in front of them.
        vectors[:] = queries[0] + 0.1 * vectors
        vectors[::50] = -queries[0] + 0.1 * unit(ROWS // 50, DIMENSION, 2)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        keep[::50] = True
    else:
        start = {"the first rows": 0, "the last rows": ROWS - 40, "one segment": 1_400}[region]
        keep[start : start + (700 if region == "one segment" else 40)] = True
    snapshot = snapshot_of(vectors, 700)
    oracle = oracle_of(snapshot)
    for k in (1, 5, 39):
        check(snapshot, oracle, keep, k, bits=False)
    assert way


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 120),
    cut_at=st.integers(1, 130),
    k=st.integers(1, 140),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
    name=st.sampled_from(list(WAYS)),
)
def test_any_rows_can_be_left_out(
    rows: int, cut_at: int, k: int, seed: int, share: float, name: str
) -> None:
    snapshot = snapshot_of(lattice(rows, seed), cut_at, seed)
    keep = np.random.default_rng(seed).random(rows) < share
    with pytest.MonkeyPatch.context() as patch:
        for setting, value in WAYS[name].items():
            patch.setattr(scan, setting, value)
        check(snapshot, oracle_of(snapshot), keep, k, bits=True)


def test_to_keep_all_rows_is_to_search_all() -> None:
    snapshot = snapshot_of(unit(ROWS, DIMENSION), 700)
    queries = unit(6, DIMENSION, 5)
    found = snapshot.search(queries, 20, keep=np.ones(ROWS, np.bool_))
    assert (found.ids == snapshot.search(queries, 20).ids).all()


def test_the_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(unit(ROWS, 48), 700)
    keep = np.random.default_rng(1).random(ROWS) < 0.4
    queries = unit(6, 48, 5)
    answers = []
    for settings_ in WAYS.values():
        for name, value in settings_.items():
            monkeypatch.setattr(scan, name, value)
        answers.append(snapshot.search(queries, 25, keep=keep))
    for other in answers[1:]:
        assert (other.ids == answers[0].ids).all()
        assert (other.scores == answers[0].scores).all()


def test_the_way_is_chosen_by_how_many_rows_may_be_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[str] = []
    for name in ("_gathered", "_selectors"):
        original = getattr(Snapshot, name)

        def noted(self: Snapshot, *arguments: object, _do=original, _name=name) -> object:
            taken.append(_name)
            return _do(self, *arguments)

        monkeypatch.setattr(Snapshot, name, noted)
    rows = 40_000
    segments = [Segment(np.arange(rows), np.resize(unit(500, DIMENSION), (rows, DIMENSION)))]
    segments[0].codes = segments[0].codes.astype(np.float16)
    snapshot = Snapshot(segments, DIMENSION)
    few = int(max(scan.GATHERED, scan.GATHERED_SHARE * rows))
    half = int(scan.DROPPED_SHARE * rows)
    for allowed in (few, few + 1, half - 1, half, rows):
        keep = np.zeros(rows, np.bool_)
        keep[:allowed] = True
        taken.append(str(allowed))
        assert snapshot.search(unit(1, DIMENSION), 10, keep=keep).ids.max() < allowed
    assert taken == [
        str(few), "_gathered",
        str(few + 1), "_selectors",
        str(half - 1), "_selectors",
        str(half), str(rows),
    ]  # fmt: skip
