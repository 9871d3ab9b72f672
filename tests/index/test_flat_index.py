"""FlatIndex beside the brute-force oracle, and what is its own: segments, threads, memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from searchlib.index import FlatIndex, Neighbours, NumpyIndex
from searchlib.index.segments import SEGMENT_ROWS

F32 = npt.NDArray[np.float32]


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


def test_recall_at_10_is_that_of_exact_search(vectors: F32) -> None:
    index, oracle = FlatIndex(320), NumpyIndex(320)
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
    index, oracle = FlatIndex(320, segment_rows=300), NumpyIndex(320)
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
        index = FlatIndex(48, segment_rows=segment_rows)
        index.upsert(np.arange(len(vectors)), vectors)
        answers.append([index.search(vectors[:40], k) for k in (1, 25, 1200)])
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            assert (one.ids == same.ids).all()
            assert (one.scores == same.scores).all()


def test_vectors_are_rounded_to_the_nearest_float16() -> None:
    vectors = clustered(500, 320)
    index = FlatIndex(320)
    index.upsert(np.arange(500), vectors)
    assert (index.vectors(np.arange(500)) == rounded(vectors)).all()
    exact = np.einsum("ij,ij->i", vectors, vectors)
    assert np.abs(index.search(vectors, 1).scores[:, 0] - exact).max() < 1e-4


def test_segments_that_were_taken_before_a_change_stay_as_they_were() -> None:
    vectors = clustered(100, 16)
    index = FlatIndex(16, segment_rows=30)
    index.upsert(np.arange(70), vectors[:70])
    taken = index.segments()
    ids = np.concatenate([segment.ids for segment in taken]).copy()
    codes = np.concatenate([segment.codes for segment in taken]).copy()
    index.upsert(np.arange(60, 100), vectors[60:])
    index.upsert(np.arange(50), vectors[50:])
    index.remove(np.arange(20, 80))
    assert (np.concatenate([segment.ids for segment in taken]) == ids).all()
    assert (np.concatenate([segment.codes for segment in taken]) == codes).all()


def test_a_change_copies_only_the_segments_that_it_touches() -> None:
    index = FlatIndex(16, segment_rows=10)
    index.upsert(np.arange(100), clustered(100, 16))
    before = index.segments()
    index.upsert([35], clustered(1, 16, seed=1))
    index.remove([77])
    kept = [old is new for old, new in zip(before, index.segments(), strict=True)]
    assert kept == [place not in (3, 7) for place in range(10)]


def test_removals_leave_few_segments_and_room_is_used_again() -> None:
    index = FlatIndex(16, segment_rows=10)
    index.upsert(np.arange(1_000), clustered(1_000, 16))
    assert len(index.segments()) == 100
    index.remove(np.flatnonzero(np.arange(1_000) % 10))
    assert len(index.segments()) == 10
    for id in range(1_000, 1_100):
        index.upsert([id], clustered(1, 16, seed=id))
    assert len(index.segments()) <= 2 * 200 / 10 + 1
    assert max(len(segment) for segment in index.segments()) <= 10


def test_an_index_over_arrays_copies_what_it_changes() -> None:
    ids, codes = np.arange(40_000), clustered(40_000, 8).astype(np.float16)
    ids.setflags(write=False)
    codes.setflags(write=False)
    index = FlatIndex.over(ids, codes)
    assert all(np.shares_memory(segment.codes, codes) for segment in index.segments())
    query = codes[39_999:].astype(np.float32)
    assert index.search(query, 1).ids.tolist() == [[39_999]]
    index.upsert([0, 40_000], -query.repeat(2, axis=0))
    assert index.remove([39_999]) == 1
    assert index.search(-query, 2).ids.tolist() == [[0, 40_000]]
    assert [np.shares_memory(segment.codes, codes) for segment in index.segments()] == [
        False,
        True,
        False,
    ]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_faiss_is_not_imported_before_the_first_search() -> None:
    done = run(
        "import sys, numpy as np, searchlib.index as room\n"
        "index = room.FlatIndex(2)\n"
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
        "index = room.FlatIndex(2, segment_rows=1)\n"
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
        "index = room.FlatIndex(320)\n"
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
