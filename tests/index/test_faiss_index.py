"""FaissIndex beside the brute-force oracle, and what is its own: segments, merging, memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from searchlib.errors import VectorError
from searchlib.index import (
    FaissIndex,
    Neighbours,
    NumpyIndex,
    Subset,
    base,
    load_recipe,
    merge,
    tune,
)
from searchlib.index.base import DEAD_ID
from searchlib.index.segments import SEGMENT_ROWS, Segment
from tests.index.kinds import unit

F32 = npt.NDArray[np.float32]

EXACT = load_recipe("exact")
INVERTED = replace(load_recipe("inverted"), least=0)
DIMENSION = 24


@pytest.fixture(autouse=True)
def _tuned_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """To tune takes most of the time of a merge; it has tests of its own."""
    monkeypatch.setattr(merge, "tune", partial(tune, sample=80))


def clustered(rows: int, dimension: int, clusters: int = 50, seed: int = 0) -> F32:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((clusters, dimension))
    spread = 0.5 * generator.standard_normal((rows, dimension))
    numbers = centres[generator.integers(0, clusters, rows)] + spread
    return (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)


def photo_patches() -> F32:
    """Overlapping grey 16x20 patches of photographs, their mean taken off: 320 dimensions."""
    data = pytest.importorskip("skimage.data")
    patches = []
    for photograph in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        windows = np.lib.stride_tricks.sliding_window_view(photograph.mean(axis=2), (16, 20))
        patches.append(windows[::12, ::12].reshape(-1, 320))
    numbers = np.concatenate(patches)
    numbers = numbers - numbers.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    keep = lengths[:, 0] > 1
    return (numbers[keep] / lengths[keep]).astype(np.float32)


@pytest.fixture(scope="module", params=["clusters", "photos"])
def vectors(request: pytest.FixtureRequest) -> F32:
    return clustered(5_000, 320) if request.param == "clusters" else photo_patches()


def rounded(vectors: F32) -> F32:
    return vectors.astype(np.float16).astype(np.float32)


def recall(answer: Neighbours, truth: Neighbours) -> float:
    pairs = zip(answer.ids, truth.ids, strict=True)
    return float(np.mean([len(np.intersect1d(a, t)) / len(t) for a, t in pairs]))


def segments(index: FaissIndex) -> tuple[Segment, ...]:
    return index.state().fresh.segments


# -- without a base ------------------------------------------------------------------------------


def test_recall_at_10_is_that_of_exact_search(vectors: F32) -> None:
    index, oracle = FaissIndex(320), NumpyIndex(320)
    index.upsert(np.arange(len(vectors)), vectors)
    oracle.upsert(np.arange(len(vectors)), rounded(vectors))
    queries = vectors[:: len(vectors) // 200]
    answer = index.search(queries, 10)
    assert recall(answer, oracle.search(queries, 10)) >= 0.999
    # What the rounding itself can do: put a vector first that is worse by a few 1e-5.
    exact = queries @ vectors.T
    best = -np.sort(-exact, axis=1)[:, :10]
    assert np.abs(np.take_along_axis(exact, answer.ids, axis=1) - best).max() < 1e-4


@pytest.mark.parametrize("k", [1, 10, 1500])
def test_the_answer_is_that_of_brute_force_over_the_rounded_vectors(vectors: F32, k: int) -> None:
    index, oracle = FaissIndex(320, segment_rows=300), NumpyIndex(320)
    ids = np.random.default_rng(1).permutation(10 * len(vectors))[: len(vectors)]
    index.upsert(ids, vectors)
    oracle.upsert(ids, rounded(vectors))
    queries = vectors[:: len(vectors) // 20]
    answer, truth = index.search(queries, k), oracle.search(queries, k)
    np.testing.assert_allclose(answer.scores, truth.scores, atol=1e-6)
    everything = oracle.search(queries, len(oracle))
    for row in range(len(queries)):
        # Where the ids differ, the two vectors score the same but for the last bits.
        score = dict(zip(everything.ids[row].tolist(), everything.scores[row], strict=True))
        own = np.array([score[id] for id in answer.ids[row].tolist()])
        np.testing.assert_allclose(own, truth.scores[row], atol=1e-6)
        assert len(set(answer.ids[row].tolist())) == k
        same = np.flatnonzero(np.diff(answer.scores[row]) == 0)
        assert (answer.ids[row, same] < answer.ids[row, same + 1]).all()


def test_how_the_rows_are_cut_does_not_change_a_bit_of_the_answer() -> None:
    vectors = np.concatenate([clustered(1_000, 48), clustered(1_000, 48)[:300]])
    answers = []
    for segment_rows in (SEGMENT_ROWS, 700, 64, 5):
        index = FaissIndex(48, segment_rows=segment_rows)
        index.upsert(np.arange(len(vectors)), vectors)
        answers.append([index.search(vectors[:40], k) for k in (1, 25, 1200)])
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            assert (one.ids == same.ids).all()
            assert (one.scores == same.scores).all()


def test_vectors_are_rounded_to_the_nearest_float16() -> None:
    vectors = clustered(500, 320)
    index = FaissIndex(320)
    index.upsert(np.arange(500), vectors)
    assert (index.vectors(np.arange(500)) == rounded(vectors)).all()
    exact = np.einsum("ij,ij->i", vectors, vectors)
    assert np.abs(index.search(vectors, 1).scores[:, 0] - exact).max() < 1e-4


def test_a_state_that_was_taken_before_a_change_stays_as_it_was() -> None:
    vectors = clustered(100, 16)
    index = FaissIndex(16, segment_rows=30)
    index.upsert(np.arange(70), vectors[:70])
    taken = segments(index)
    ids = np.concatenate([segment.ids for segment in taken]).copy()
    codes = np.concatenate([segment.codes for segment in taken]).copy()
    index.upsert(np.arange(60, 100), vectors[60:])
    index.upsert(np.arange(50), vectors[50:])
    index.remove(np.arange(20, 80))
    assert (np.concatenate([segment.ids for segment in taken]) == ids).all()
    assert (np.concatenate([segment.codes for segment in taken]) == codes).all()


def test_a_change_copies_only_the_segments_that_it_touches() -> None:
    index = FaissIndex(16, segment_rows=10)
    index.upsert(np.arange(100), clustered(100, 16))
    before = segments(index)
    index.upsert([35], clustered(1, 16, seed=1))
    index.remove([77])
    kept = [old is new for old, new in zip(before, segments(index), strict=True)]
    assert kept == [place not in (3, 7) for place in range(10)]


def test_removals_leave_few_segments_and_room_is_used_again() -> None:
    index = FaissIndex(16, segment_rows=10)
    index.upsert(np.arange(1_000), clustered(1_000, 16))
    assert len(segments(index)) == 100
    index.remove(np.flatnonzero(np.arange(1_000) % 10))
    assert len(segments(index)) == 10
    for id in range(1_000, 1_100):
        index.upsert([id], clustered(1, 16, seed=id))
    assert len(segments(index)) <= 2 * 200 / 10 + 1
    assert max(len(segment) for segment in segments(index)) <= 10


def test_an_index_over_arrays_copies_what_it_changes() -> None:
    ids, codes = np.arange(40_000), clustered(40_000, 8).astype(np.float16)
    ids.setflags(write=False)
    codes.setflags(write=False)
    index = FaissIndex.over(ids, codes)
    assert all(np.shares_memory(segment.codes, codes) for segment in segments(index))
    query = codes[39_999:].astype(np.float32)
    assert index.search(query, 1).ids.tolist() == [[39_999]]
    index.upsert([0, 40_000], -query.repeat(2, axis=0))
    assert index.remove([39_999]) == 1
    assert index.search(-query, 2).ids.tolist() == [[0, 40_000]]
    assert [np.shares_memory(segment.codes, codes) for segment in segments(index)] == [
        False,
        True,
        False,
    ]


# -- with a base ---------------------------------------------------------------------------------


class Twin:
    """An index and an oracle that are changed together."""

    def __init__(self, *, segment_rows: int = SEGMENT_ROWS) -> None:
        self.index = FaissIndex(DIMENSION, segment_rows=segment_rows)
        self.oracle = NumpyIndex(DIMENSION)

    def upsert(self, ids: npt.ArrayLike, vectors: F32) -> None:
        self.index.upsert(ids, vectors)
        self.oracle.upsert(ids, vectors)

    def remove(self, ids: npt.ArrayLike) -> None:
        assert self.index.remove(ids) == self.oracle.remove(ids)

    def assert_same(self, *, least: float = 0.9) -> None:
        """The same vectors; the same answers where they are exact; a good recall where not."""
        index, oracle = self.index, self.oracle
        ids = oracle.ids()
        assert len(index) == len(oracle)
        assert index.ids().tolist() == ids.tolist()
        assert (index.vectors(ids) == oracle.vectors(ids)).all()
        others = np.setdiff1d(np.arange(0, 30_000, 7), ids)
        assert index.held(ids).all()
        assert not index.held(others).any()
        with pytest.raises(VectorError, match="is not in the index"):
            index.vectors(others[:1])
        # Questions like the vectors, for which it was tuned; a tenth of them may miss one.
        queries = (
            unit(12, DIMENSION, 77) if not len(ids) else oracle.vectors(ids[:: -(-len(ids) // 12)])
        )
        for among in (None, Subset.of(ids[::3]), Subset.of(ids[5:9]), Subset.of(others)):
            for k in (1, 10, 400):
                truth = oracle.search(queries, k, among=among)
                assert_close(index.search(queries, k, among=among, exact=True), truth)
                found = index.search(queries, k, among=among)
                assert found.ids.shape == truth.ids.shape
                assert np.isin(found.ids, ids if among is None else among.ids).all()
                stored = index.vectors(np.unique(found.ids))
                places = np.searchsorted(np.unique(found.ids), found.ids)
                scores = np.einsum("qkd,qd->qk", stored[places], queries)
                np.testing.assert_allclose(found.scores, scores, atol=1e-6)
                if truth.ids.size:
                    assert recall(found, truth) >= least, (among and len(among), k)


def assert_close(found: Neighbours, truth: Neighbours) -> None:
    """The same up to the last bits of scores, which decide the order of what is equally good."""
    assert found.ids.shape == truth.ids.shape
    np.testing.assert_allclose(found.scores, truth.scores, atol=1e-6)
    for row in range(len(found.ids)):
        for id in np.setdiff1d(found.ids[row], truth.ids[row]):
            (place,) = np.flatnonzero(found.ids[row] == id)
            assert abs(found.scores[row, place] - truth.scores[row, -1]) < 1e-6


@pytest.fixture(params=["memory", "files"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the files of bases are written beside; None where they stay in memory."""
    return tmp_path / "index.ckpt" if request.param == "files" else None


@pytest.fixture
def twin() -> Twin:
    """1,500 vectors in no order of their ids."""
    twin = Twin(segment_rows=400)
    ids = np.random.default_rng(4).permutation(9_000)[:1_500]
    twin.upsert(ids, unit(1_500, DIMENSION, clusters=30))
    return twin


def test_a_merge_moves_all_vectors_into_a_base(twin: Twin, checkpoint: Path | None) -> None:
    index = twin.index
    assert (index.base, index.fresh) == (None, 1_500)
    steps: list[tuple[str, int, int]] = []
    assert index.merge(
        INVERTED, checkpoint=checkpoint, on_progress=lambda *step: steps.append(step)
    )
    assert index.base is not None
    assert (index.base.recipe, index.base.rows, index.base.trained_for) == ("inverted", 1500, 1500)
    assert (index.fresh, index.dead) == (0, 0)
    assert index.base.tuning is not None
    assert index.base.tuning.target == 0.99
    assert bool(index.base.generation) == (checkpoint is not None)
    assert list(dict.fromkeys(name for name, *_ in steps)) == [
        "vectors", "training", "adding", "tuning"
    ]  # fmt: skip
    assert all(0 <= done <= total for _, done, total in steps)
    twin.assert_same()


def test_changes_after_a_merge_are_seen_at_once(twin: Twin, checkpoint: Path | None) -> None:
    index = twin.index
    index.merge(INVERTED, checkpoint=checkpoint)
    ids = index.ids()
    twin.upsert([10_000], unit(1, DIMENSION, 5))
    assert index.search(unit(1, DIMENSION, 5), 1).ids.tolist() == [[10_000]]
    twin.upsert(ids[:1], unit(1, DIMENSION, 6))
    assert index.search(unit(1, DIMENSION, 6), 1).ids.tolist() == [ids[:1].tolist()]
    assert (index.fresh, index.dead) == (2, 1)
    # A row that is dead already does not die again.
    twin.upsert(ids[:3], unit(3, DIMENSION, 7))
    assert (index.fresh, index.dead) == (4, 3)
    twin.remove(ids[:5])
    twin.remove(ids[:5])
    assert (index.fresh, index.dead) == (1, 5)
    twin.upsert(ids[2:4], unit(2, DIMENSION, 8))
    assert (index.fresh, index.dead) == (3, 5)
    twin.assert_same()


def test_a_second_merge_grows_the_base(twin: Twin, checkpoint: Path | None) -> None:
    index = twin.index
    index.merge(INVERTED, checkpoint=checkpoint)
    before = index.base
    ids = index.ids()
    twin.remove(ids[:40])
    twin.upsert(ids[20:60], unit(40, DIMENSION, 5, clusters=30))
    twin.upsert(np.arange(10_000, 10_500), unit(500, DIMENSION, 6, clusters=30))
    assert index.merge(INVERTED, checkpoint=checkpoint)
    assert index.base is not None
    assert before is not None
    # The rows keep their places, and those that died take room until it learns again.
    assert (index.base.rows, index.dead, index.fresh) == (2_040, 60, 0)
    assert index.base.trained_for == before.trained_for
    rows = index.state().base
    assert rows is not None
    assert (rows.ids == DEAD_ID).sum() == 60
    twin.assert_same()
    # And once more, over rows without an id.
    twin.upsert(np.arange(10_400, 10_600), unit(200, DIMENSION, 7, clusters=30))
    twin.remove(ids[100:150])
    twin.assert_same()
    assert index.merge(INVERTED, checkpoint=checkpoint)
    assert (index.base.rows, index.dead) == (2_240, 60 + 100 + 50)
    twin.assert_same()


def test_a_base_that_lost_many_learns_anew_and_drops_the_dead(
    twin: Twin, checkpoint: Path | None
) -> None:
    index = twin.index
    index.merge(INVERTED, checkpoint=checkpoint)
    twin.remove(index.ids()[::3])
    assert index.dead == 500
    twin.assert_same()
    assert index.merge(INVERTED, checkpoint=checkpoint)
    assert index.base is not None
    assert (index.base.rows, index.dead, index.base.trained_for) == (1_000, 0, 1_000)
    twin.assert_same()


def test_a_base_that_grew_to_several_times_its_size_learns_anew(
    checkpoint: Path | None,
) -> None:
    twin = Twin()
    twin.upsert(np.arange(300), unit(300, DIMENSION, clusters=30))
    twin.index.merge(INVERTED, checkpoint=checkpoint)
    learnt = []
    for start in range(300, 1_800, 300):
        twin.upsert(np.arange(start, start + 300), unit(300, DIMENSION, start, clusters=30))
        twin.index.merge(INVERTED, checkpoint=checkpoint)
        assert twin.index.base is not None
        learnt.append(twin.index.base.trained_for)
    assert learnt == [300, 300, 300, 1_500, 1_500]
    twin.assert_same()


def test_another_recipe_learns_anew(twin: Twin, checkpoint: Path | None) -> None:
    twin.index.merge(INVERTED, checkpoint=checkpoint)
    twin.upsert([1], unit(1, DIMENSION, 3))
    fewer = replace(INVERTED, name="fewer", lists=0.5)
    assert twin.index.merge(fewer, checkpoint=checkpoint)
    assert twin.index.base is not None
    assert twin.index.base.recipe == "fewer"
    twin.assert_same()


def test_another_target_is_tuned_for(twin: Twin, checkpoint: Path | None) -> None:
    twin.index.merge(INVERTED, checkpoint=checkpoint)
    for target in (0.5, 0.999):
        twin.upsert([1], unit(1, DIMENSION, 3))
        twin.index.merge(INVERTED, checkpoint=checkpoint, target=target)
        assert twin.index.base is not None
        tuning = twin.index.base.tuning
        assert tuning is not None
        assert tuning.target == target
        assert tuning.recall is not None
        assert tuning.recall >= target


def test_an_exact_recipe_takes_all_vectors_back(twin: Twin, checkpoint: Path | None) -> None:
    index = twin.index
    index.merge(INVERTED, checkpoint=checkpoint)
    for damage in (False, True):
        if damage:
            twin.remove(index.ids()[::5])
        twin.upsert(np.arange(20_000, 20_100), unit(100, DIMENSION, 3, clusters=30))
        assert index.merge(EXACT, checkpoint=checkpoint)
        assert (index.base, index.dead, index.fresh) == (None, 0, len(index))
        twin.assert_same(least=0.999)
        twin.remove(index.ids()[:10])
        twin.upsert(np.arange(20_090, 20_200), unit(110, DIMENSION, 4, clusters=30))
        twin.assert_same(least=0.999)
        assert index.merge(INVERTED, checkpoint=checkpoint)
        twin.assert_same()


@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_few_vectors_can_be_merged(rows: int, checkpoint: Path | None) -> None:
    twin = Twin()
    twin.upsert(np.arange(rows), unit(rows, DIMENSION))
    assert twin.index.merge(INVERTED, checkpoint=checkpoint)
    twin.assert_same(least=0.999)
    twin.remove(np.arange(rows))
    twin.assert_same()
    twin.upsert(np.arange(5, 8), unit(3, DIMENSION, 1))
    twin.assert_same(least=0.999)
    assert twin.index.merge(INVERTED, checkpoint=checkpoint)
    twin.assert_same(least=0.999)


def test_pages_of_a_mapped_base_can_be_let_go_at_any_time(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAPPED_ROWS", 20)
    twin.index.merge(INVERTED, checkpoint=tmp_path / "index.ckpt")
    twin.assert_same()
    for path in tmp_path.iterdir():
        path.unlink()
    twin.assert_same()


# -- while a merge goes on -----------------------------------------------------------------------


def during(step: str, do: Callable[[], object]) -> Callable[[str, int, int], None]:
    """An `on_progress` that does something at the first sign of a step."""
    done: list[str] = []

    def on_progress(name: str, _done: int, _total: int) -> None:
        if name == step and not done:
            done.append(name)
            do()

    return on_progress


@pytest.mark.parametrize("step", ["vectors", "training", "adding", "tuning"])
@pytest.mark.parametrize("second", [False, True])
def test_changes_during_a_merge_are_kept(
    twin: Twin, checkpoint: Path | None, step: str, second: bool
) -> None:
    index = twin.index
    if second:
        index.merge(INVERTED, checkpoint=checkpoint)
        twin.upsert(np.arange(11_000, 11_300), unit(300, DIMENSION, 2, clusters=30))
        if step == "training":
            twin.remove(index.ids()[::3])
        elif step == "tuning":
            twin.upsert(np.arange(12_000, 13_000), unit(1_000, DIMENSION, 3, clusters=30))
    ids = index.ids()

    def change() -> None:
        twin.remove(ids[:50])
        twin.upsert(ids[25:75], unit(50, DIMENSION, 8, clusters=30))
        twin.upsert(np.arange(21_000, 21_050), unit(50, DIMENSION, 9, clusters=30))
        twin.remove(np.arange(21_000, 21_010))
        twin.remove(ids[70:72])
        twin.upsert(ids[70:71], unit(1, DIMENSION, 10))
        twin.assert_same()

    assert index.merge(INVERTED, checkpoint=checkpoint, on_progress=during(step, change))
    assert index.base is not None
    assert index.fresh == 50 - 1 + 40
    twin.assert_same()
    assert index.merge(INVERTED, checkpoint=checkpoint)
    assert index.fresh == 0
    twin.assert_same()


def test_changes_while_vectors_are_taken_back_leave_what_was_seen_before(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = twin.index
    index.merge(INVERTED)
    # The last fresh segment has room, which is written by who adds during the merge.
    twin.upsert(np.arange(20_000, 20_100), unit(100, DIMENSION, 3))
    taken_back = merge._taken_back
    seen = []

    def change(state: object) -> object:
        segments = taken_back(state)  # type: ignore[arg-type]
        twin.upsert(np.arange(20_100, 20_200), unit(100, DIMENSION, 4))
        fresh = index.state().fresh
        codes = np.concatenate([segment.codes for segment in fresh.segments]).copy()
        seen.append((fresh, fresh.ids().copy(), codes))
        twin.remove(np.arange(20_100, 20_110))
        return segments

    monkeypatch.setattr(merge, "_taken_back", change)
    assert index.merge(EXACT)
    twin.upsert(np.arange(20_200, 20_300), unit(100, DIMENSION, 5))
    ((fresh, ids, codes),) = seen
    assert (np.concatenate([segment.ids for segment in fresh.segments]) == ids).all()
    assert (np.concatenate([segment.codes for segment in fresh.segments]) == codes).all()
    twin.assert_same(least=0.999)


def test_a_merge_that_is_stopped_leaves_everything_as_it_was(
    twin: Twin, checkpoint: Path | None
) -> None:
    index = twin.index
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    assert index.merge(INVERTED, checkpoint=checkpoint, stop=never)
    twin.remove(index.ids()[::3])
    twin.upsert(np.arange(10_000, 10_100), unit(100, DIMENSION, 2, clusters=30))
    files = set(checkpoint.parent.iterdir()) if checkpoint else set()
    before = index.state()
    assert asked > 20
    for times in range(0, asked, max(1, asked // 12)):
        left = times

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        assert not index.merge(replace(INVERTED, lists=1.5), checkpoint=checkpoint, stop=stop)
        assert index.state() is before
        assert (set(checkpoint.parent.iterdir()) if checkpoint else set()) == files
    twin.assert_same()
    assert index.merge(INVERTED, checkpoint=checkpoint)
    twin.assert_same()


def test_one_merge_at_a_time(twin: Twin, checkpoint: Path | None) -> None:
    others: list[bool] = []
    again = during(
        "adding", lambda: others.append(twin.index.merge(INVERTED, checkpoint=checkpoint))
    )
    assert twin.index.merge(INVERTED, checkpoint=checkpoint, on_progress=again)
    assert others == [False]
    if checkpoint:
        assert len(list(checkpoint.parent.iterdir())) == 2


def test_a_merge_that_fails_can_be_tried_again(twin: Twin, tmp_path: Path) -> None:
    before = twin.index.state()
    with pytest.raises(FileNotFoundError):
        twin.index.merge(INVERTED, checkpoint=tmp_path / "none" / "index.ckpt")

    def broken() -> None:
        raise RuntimeError("stop here")

    for step in ("vectors", "training", "adding", "tuning"):
        with pytest.raises(RuntimeError, match="stop here"):
            twin.index.merge(
                INVERTED, checkpoint=tmp_path / "index.ckpt", on_progress=during(step, broken)
            )
        assert not list(tmp_path.iterdir())
    assert twin.index.state() is before
    twin.upsert([3], unit(1, DIMENSION, 3))
    assert twin.index.merge(INVERTED, checkpoint=tmp_path / "index.ckpt")
    twin.assert_same()


def test_searches_and_changes_go_on_while_others_merge(checkpoint: Path | None) -> None:
    """Each change puts one vector under hundreds of ids, so that a torn state would show."""
    index = FaissIndex(DIMENSION, segment_rows=500)
    block = np.arange(1_000, 1_300)
    index.upsert(np.arange(1_000), unit(1_000, DIMENSION, clusters=30))
    index.upsert(block, np.tile(unit(1, DIMENSION, 5), (300, 1)))
    stop = threading.Event()
    errors: list[BaseException] = []
    looks = [0, 0]

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                errors.append(error)

        return run

    def look() -> None:
        among = Subset.of(block)
        for query in unit(3, DIMENSION, 1):
            found = index.search(query[None], 300, among=among, exact=looks[0] % 2 == 0)
            assert found.ids[0].tolist() == block.tolist()
            assert len(set(found.scores[0].tolist())) == 1
        looks[0] += 1

    def compare() -> None:
        assert len(np.unique(index.vectors(block), axis=0)) == 1
        ids = index.search(unit(4, DIMENSION, 6), 10).ids
        assert ids.max() < 3_000
        assert all(len(set(row)) == 10 for row in ids.tolist())
        looks[1] += 1

    def change() -> None:
        seed = int(np.random.default_rng().integers(10**6))
        index.upsert(block, np.tile(unit(1, DIMENSION, seed), (300, 1)))
        index.remove(np.arange(2_000, 2_100))
        index.upsert(np.arange(2_000, 2_050), unit(50, DIMENSION, seed))

    threads = [threading.Thread(target=guarded(work)) for work in (look, look, compare, change)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            recipe = EXACT if number % 4 == 3 else INVERTED
            while not index.merge(recipe, checkpoint=checkpoint):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors[0]
    assert min(looks) > 0


# -- a process of its own ------------------------------------------------------------------------


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_faiss_is_not_imported_before_the_first_search() -> None:
    done = run(
        "import sys, numpy as np, searchlib.index as room\n"
        "index = room.FaissIndex(2)\n"
        "index.upsert([1], np.eye(2)[:1])\n"
        "assert 'faiss' not in sys.modules\n"
        "index.search(np.eye(2)[:1], 1)\n"
        "assert 'faiss' in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="fork is not safe elsewhere")
def test_a_forked_process_searches_too() -> None:
    done = run(
        "import os, signal, warnings, numpy as np, searchlib.index as room\n"
        "warnings.simplefilter('ignore')\n"
        "index = room.FaissIndex(2, segment_rows=1)\n"
        "index.upsert([1, 2], np.eye(2))\n"
        "index.search(np.eye(2), 1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(20)\n"
        "    os._exit(int(index.search(np.eye(2), 1).ids.tolist() != [[1], [2]]))\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_changes_do_not_leave_memory_behind() -> None:
    done = run(
        "import os, numpy as np, searchlib.index as room\n"
        "def resident():\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE')\n"
        "def vectors(rows):\n"
        "    numbers = np.random.default_rng(0).standard_normal((rows, 320), np.float32)\n"
        "    return numbers / np.linalg.norm(numbers, axis=1, keepdims=True)\n"
        "index = room.FaissIndex(320)\n"
        "index.upsert([0], vectors(1))\n"
        "index.search(vectors(1), 1)\n"
        "vectors(1_000)\n"
        "start = resident()\n"
        "for first in range(0, 40_000, 1_000):\n"
        "    index.upsert(np.arange(first, first + 1_000), vectors(1_000))\n"
        "for _ in range(5):\n"
        "    index.upsert(np.arange(0, 40_000, 50), vectors(800))\n"
        "    index.remove(np.arange(0, 40_000, 50))\n"
        "    index.upsert(np.arange(0, 40_000, 50), vectors(800))\n"
        "assert len(index) == 40_000\n"
        "print((resident() - start) / (40_000 * (2 * 320 + 8)))\n"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5
