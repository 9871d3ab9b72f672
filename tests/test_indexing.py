"""The index of a library, as a program chooses, builds, verifies and tunes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.errors import InputError, LibraryReadOnlyError
from searchlib.search import IndexChoice


@pytest.fixture
def large(large_library: Path, encoder: ImageEncoder) -> Iterator[Library]:
    """A library that is large enough for an approximate index; nothing is built by itself."""
    with searchlib.open_library(large_library, encoder=encoder, background=False) as library:
        yield library


@pytest.fixture
def question(original_photos: Path) -> Image.Image:
    return Image.open(original_photos / "cat.jpg")


def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come so far within a minute")


def test_nothing_is_chosen_at_first(large: Library) -> None:
    assert large.index_choice() == IndexChoice()
    status = large.index_status()
    assert (status.recipe, status.wanted, status.is_due) == ("exact", "exact", False)
    assert not large.build_index()


def test_a_chosen_index_is_built_verified_and_tuned(large: Library, question: Image.Image) -> None:
    exact = large.search(question, k=20)
    assert large.use_index("inverted", recall=0.95) == IndexChoice("inverted", 0.95)
    assert large.status().build_due
    assert large.search(question, k=20) == exact
    steps: dict[str, tuple[int, int]] = {}
    assert large.build_index(on_progress=lambda step, *done: steps.update({step: done}))
    assert {"vectors", "training", "adding", "tuning"} <= steps.keys()
    assert all(done == total for done, total in steps.values())
    status = large.status()
    assert (status.recipe, status.recipe_chosen, status.build_due) == (
        "inverted",
        "inverted",
        False,
    )
    assert status.recall is not None
    assert status.recall >= 0.95
    assert status.recall_target == 0.95
    assert (status.indexed, status.fresh, status.dead) == (status.vectors, 0, 0)
    files = list(large.folder.glob("index-*"))
    assert {path.suffix for path in files} == {".ckpt", ".base", ".faiss"}
    assert status.index_bytes == sum(path.stat().st_size for path in files)
    found = large.search(question, k=20)
    assert len({match.path for match in found} & {match.path for match in exact}) >= 15
    assert found[0] == exact[0]

    check = large.verify_index()
    assert (check.checked, check.is_right, check.healed) == (status.vectors, True, False)
    tuned = large.tune_index(1.0)
    assert (tuned.recipe, tuned.target, tuned.vectors) == ("inverted", 1.0, status.vectors)
    assert tuned.recall > status.recall
    assert large.index_choice() == IndexChoice("inverted", 1.0)
    assert large.tune_index().target == 1.0
    assert not large.build_index()
    # Back again; the files of the base go with it.
    large.use_index(None)
    assert large.index_choice() == IndexChoice(None, 1.0)
    assert large.build_index()
    assert [path.suffix for path in large.folder.glob("index-*")] == [".ckpt"]
    assert large.search(question, k=20) == exact


def test_a_library_that_is_open_builds_in_the_background(
    large_library: Path, encoder: ImageEncoder, question: Image.Image
) -> None:
    with searchlib.open_library(large_library, encoder=encoder) as library:
        library.use_index("inverted")
        before = library.search(question)
        until(lambda: library.status().recipe == "inverted")
        after = library.search(question)
        assert after[0] == before[0]
        assert library.verify_index().is_right
        status = library.index_status()
        assert (status.is_due, status.vectors) == (False, library.status().vectors)
    with searchlib.open_library(large_library, encoder=encoder, background=False) as library:
        assert library.search(question) == after


def test_another_process_may_build_what_one_has_open(
    large: Library, encoder: ImageEncoder, question: Image.Image
) -> None:
    exact = large.search(question)
    with searchlib.open_library(large.folder, encoder=encoder, background=False) as other:
        other.use_index("inverted")
        assert other.build_index()
        assert large.search(question) == exact
        assert large.verify_index().is_right
        assert not large.build_index()
        assert large.status().recipe == "inverted"
        assert large.index_status().recipe == "inverted"


@pytest.mark.parametrize("step", ["vectors", "training", "adding", "tuning"])
def test_a_build_that_is_cancelled_leaves_the_index_as_it_is(
    large: Library, question: Image.Image, step: str
) -> None:
    before = large.search(question)
    large.use_index("inverted")
    files = {path.name: path.read_bytes() for path in large.folder.glob("index-*")}
    cancel = threading.Event()

    def on_progress(now: str, _done: int, _total: int) -> None:
        if now == step:
            cancel.set()

    assert not large.build_index(cancel=cancel, on_progress=on_progress)
    assert cancel.is_set()
    assert {path.name: path.read_bytes() for path in large.folder.glob("index-*")} == files
    assert large.search(question) == before
    assert large.index_status().is_due


def test_an_index_that_begins_at_more_vectors_waits_for_them(
    filled_library: Path, encoder: ImageEncoder, original_photos: Path
) -> None:
    cat = original_photos / "cat.jpg"
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        library.use_index("inverted")
        status = library.index_status()
        assert (status.recipe, status.wanted, status.is_due) == ("exact", "inverted", False)
        assert not library.build_index()
        assert library.search(cat)[0].path == str(cat)
        # Who insists gets it, and it answers all the same.
        assert library.build_index(always=True)
        assert library.status().recipe == "inverted"
        found = library.search(cat, k=8)
        assert (len(found), found[0].path) == (8, str(cat))
        assert library.verify_index().is_right


def test_damage_that_a_build_comes_upon_is_healed_by_it(large: Library) -> None:
    large.use_index("inverted")
    assert large.build_index()
    (base,) = large.folder.glob("*.base")
    data = bytearray(base.read_bytes())
    data[len(data) // 2] ^= 1
    base.write_bytes(data)
    with searchlib.open_library(large.folder, background=False) as library:
        assert library.build_index(always=True)
        assert library.status().recipe == "inverted"
        assert library.verify_index().is_right


def test_an_empty_library_has_an_index_that_is_right(tmp_path: Path, encoder: ImageEncoder) -> None:
    with searchlib.open_library(tmp_path / "library", encoder=encoder) as library:
        assert library.index_status().recipe == "exact"
        assert library.use_index("inverted").recipe == "inverted"
        assert not library.build_index(always=True)
        check = library.verify_index()
        assert (check.checked, check.is_right, check.healed) == (0, True, False)
        with pytest.raises(InputError, match="the library is empty"):
            library.tune_index()


def test_what_cannot_be_chosen_leaves_what_was(large: Library) -> None:
    large.use_index("exact", recall=0.9)
    for wrong in ({"recipe": "nonsense"}, {"recipe": "milvus"}, {"recipe": "exact", "recall": 2.0}):
        with pytest.raises(InputError):
            large.use_index(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="recall is 0"):
        large.tune_index(0)
    assert large.index_choice() == IndexChoice("exact", 0.9)


def test_a_choice_of_another_version_can_be_replaced(large: Library) -> None:
    large._catalog.put_setting("index", '{"recipe": "of-tomorrow"}')
    with pytest.raises(InputError, match="of-tomorrow"):
        large.index_choice()
    assert large.status().recipe == "exact"
    assert large.use_index("exact") == IndexChoice("exact")


def test_a_library_that_cannot_be_written_keeps_its_index(
    large: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large._catalog.database, "writable", False)
    for change in large.build_index, large.tune_index:
        with pytest.raises(LibraryReadOnlyError):
            change()
    assert large.verify_index().is_right


def test_vectors_are_searched_with_the_index_that_was_built(large: Library) -> None:
    large.use_index("inverted")
    large.build_index()
    now = large._current.get()
    assert now is not None
    ids = now.index.current().ids()
    vectors = now.index.current().vectors(ids[::100])
    found = now.index.search(vectors, 10)
    np.testing.assert_array_equal(found.ids[:, 0], ids[::100])


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    # Under a new name, as other files come: what is mapped already stays as it is.
    other = file.with_name("flipped")
    other.write_bytes(data)
    other.replace(file)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_neighbours_of_many_and_all_near_pairs_are_those_of_brute_force(
    large: Library, large_library: Path, encoder: ImageEncoder, damaged: bool
) -> None:
    large.use_index("inverted")
    assert large.build_index()
    model = large._catalog.model()
    assert model is not None
    _, ids, codes = large._catalog.all_vectors(model)
    vectors = codes.astype(np.float32)
    scores = vectors[:50] @ vectors.T
    np.fill_diagonal(scores, -2)
    if damaged:
        (base,) = large.folder.glob("index-*.base")
        flip(base, base.stat().st_size // 2)
    with searchlib.open_library(large_library, encoder=encoder, background=False) as again:
        found = again.neighbours(ids[:50], 5)
        best = -np.sort(-scores, axis=1)[:, :5]
        assert found.ids.shape == (50, 5)
        assert not (found.ids == ids[:50, None]).any()
        assert np.isclose(found.scores, best, atol=1e-4).mean() >= 0.9
        exactly = again.neighbours(ids[:50], 5, exact=True)
        np.testing.assert_allclose(exactly.scores, best, atol=1e-4)

        threshold = float(np.partition(scores.ravel(), -40)[-40])
        found_pairs = {
            (left, right)
            for pairs in again.self_join(threshold=threshold)
            for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
        }
        rows, columns = np.nonzero(scores >= threshold + 1e-5)
        expected = {
            (min(one, other), max(one, other))
            for one, other in zip(ids[rows].tolist(), ids[columns].tolist(), strict=True)
        }
        assert expected <= found_pairs
        assert all(left < right for left, right in found_pairs)
        if damaged:
            assert again.index_status().recipe == "exact"  # it was built anew from the catalog


def test_an_empty_library_has_no_neighbours_to_ask_for(
    tmp_path: Path, encoder: ImageEncoder
) -> None:
    with searchlib.open_library(tmp_path / "new", encoder=encoder) as library:
        with pytest.raises(InputError, match="empty"):
            library.neighbours([1], 3)
        with pytest.raises(InputError, match="empty"):
            library.self_join(threshold=0.9)
