"""An index is looked at: what is wrong with it is found and healed, and its recall is measured."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.errors import InputError
from searchlib.index import FaissIndex, NumpyIndex, Recipe, load_recipe
from searchlib.search import (
    IndexChoice,
    IndexStatus,
    LiveIndex,
    choice,
    index_status,
    measure,
    verify,
    write_choice,
)

DIMENSION = 16
PREPARED, FRESH = 1500, 40
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)
Damage = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Of the library, which is empty but where the test is about one that is prepared."""
    if "prepared" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("original"), tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def catalog(folder: Path) -> Iterator[Catalog]:
    catalog = Catalog(folder, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="d" * 64, name="test", dimension=DIMENSION)


def unit(count: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def put(catalog: Catalog, model: ModelRecord, start: int, stop: int) -> None:
    files = [
        ReadFile(
            f"/{n:06}.jpg", Stat(1, n, n), n.to_bytes(32, "big"), None, NewContent(FACTS, vector)
        )
        for n, vector in zip(range(start, stop), unit(stop - start, start), strict=True)
    ]
    catalog.record(model, files, gone=lambda _: False)


def opened(catalog: Catalog, model: ModelRecord) -> LiveIndex:
    return LiveIndex(catalog, model, catalog.database.folder)


def status(catalog: Catalog, model: ModelRecord | None) -> IndexStatus:
    return index_status(catalog, model, catalog.database.folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with an approximate index, fresh vectors beside its base, and dead rows."""
    folder = tmp_path_factory.mktemp("original")
    catalog = Catalog(folder, create=True)
    model = catalog.use_model(identity="d" * 64, name="test", dimension=DIMENSION)
    write_choice(catalog, IndexChoice("inverted"))
    put(catalog, model, 0, PREPARED)
    live = opened(catalog, model)
    assert live.merge(always=True)
    catalog.places.mark_missing([f"/{n:06}.jpg" for n in range(20)])
    catalog.places.purge(missing_before=1e12)
    put(catalog, model, PREPARED, PREPARED + FRESH)
    live.rewrite(live.current())
    catalog.close()
    return folder


@pytest.fixture
def prepared(catalog: Catalog, model: ModelRecord) -> LiveIndex:
    """The open index of a copy of `original`, which is the library of this test."""
    live = opened(catalog, model)
    assert live.current().base is not None
    return live


def assert_in_step(live: LiveIndex, catalog: Catalog, model: ModelRecord) -> None:
    _, ids, vectors = catalog.all_vectors(model)
    oracle = NumpyIndex(DIMENSION)
    oracle.upsert(ids, vectors)
    index = live.current()
    np.testing.assert_array_equal(index.ids(), oracle.ids())
    np.testing.assert_array_equal(index.vectors(ids), oracle.vectors(ids))
    found = live.search(unit(5, 99), 10, exact=True)
    np.testing.assert_array_equal(found.ids, oracle.search(unit(5, 99), 10).ids)


# -- verify --------------------------------------------------------------------------------------


def test_an_index_that_is_right_stays_as_it_is(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex
) -> None:
    files = {path: path.read_bytes() for path in catalog.database.folder.glob("index-*")}
    assert len(files) == 3
    told: list[tuple[int, int]] = []
    for live in prepared, opened(catalog, model):
        check = verify(
            live, catalog, model, on_progress=lambda _, done, total: told.append((done, total))
        )
        assert check.is_right
        assert not check.healed
        assert check.checked == PREPARED - 20 + FRESH
    assert told[-1] == (check.checked, check.checked)
    assert {path: path.read_bytes() for path in catalog.database.folder.glob("index-*")} == files


def test_an_empty_index_is_right(catalog: Catalog, model: ModelRecord) -> None:
    check = verify(opened(catalog, model), catalog, model)
    assert (check.checked, check.is_right) == (0, True)


def flip(suffix: str, place: float) -> Damage:
    def flip(folder: Path) -> None:
        (path,) = folder.glob(f"index-*{suffix}")
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 16
        path.write_bytes(data)

    return flip


def cut(suffix: str) -> Damage:
    def cut(folder: Path) -> None:
        (path,) = folder.glob(f"index-*{suffix}")
        path.write_bytes(path.read_bytes()[:-100])

    return cut


def remove(suffix: str) -> Damage:
    def remove(folder: Path) -> None:
        (path,) = folder.glob(f"index-*{suffix}")
        path.unlink()

    return remove


DAMAGES = {
    "checkpoint's header": flip(".ckpt", 0.01),
    "checkpoint's ids": flip(".ckpt", 0.75),
    "checkpoint's last byte": flip(".ckpt", 1),
    "cut checkpoint": cut(".ckpt"),
    "header of the base": flip(".base", 0.001),
    "ids of the base": flip(".base", 0.1),
    "vectors of the base": flip(".base", 0.6),
    "checksums of the base": flip(".base", 1),
    "cut base": cut(".base"),
    "no base": remove(".base"),
    "header of FAISS's part": flip(".faiss", 0.001),
    "FAISS's part": flip(".faiss", 0.9),
    "cut FAISS's part": cut(".faiss"),
    "no FAISS's part": remove(".faiss"),
}


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_a_file_is_found_and_healed(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex, damage: str, is_open: bool
) -> None:
    folder = catalog.database.folder
    DAMAGES[damage](folder)
    live = prepared if is_open else opened(catalog, model)
    check = verify(live, catalog, model)
    assert check.damage is not None
    assert "index-" in check.damage
    assert (check.missing, check.different, check.extra) == (0, 0, 0)
    assert check.checked == PREPARED - 20 + FRESH
    assert check.healed
    for each in live, opened(catalog, model):
        assert_in_step(each, catalog, model)
    assert verify(live, catalog, model).is_right


def test_what_was_healed_is_built_again(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex
) -> None:
    DAMAGES["FAISS's part"](catalog.database.folder)
    assert verify(prepared, catalog, model).healed
    assert status(catalog, model).recipe == "exact"
    assert prepared.merge(always=True)
    assert status(catalog, model).recipe == "inverted"
    assert verify(opened(catalog, model), catalog, model).is_right


def spoilt(index: FaissIndex) -> None:
    """Two vectors are missing, one has other numbers, and three are too many."""
    ids = index.ids()
    assert index.remove([ids[3], ids[-1]]) == 2
    index.upsert([ids[700]], unit(1, 5))
    index.upsert([10**9, 10**9 + 1, 10**12], unit(3, 6))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("recipe", ["exact", "inverted"])
def test_wrong_vectors_are_found_and_healed(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex, recipe: str, saved: bool
) -> None:
    write_choice(catalog, IndexChoice(recipe))
    prepared.forget_choice()
    assert prepared.merge(always=True)
    spoilt(prepared.current())
    if saved:
        prepared.rewrite(prepared.current())
    check = verify(prepared, catalog, model)
    assert (check.missing, check.different, check.extra) == (2, 1, 3)
    assert (check.damage, check.healed, check.is_right) == (None, True, False)
    for each in prepared, opened(catalog, model):
        assert_in_step(each, catalog, model)
        assert verify(each, catalog, model).is_right


def test_wrong_vectors_of_a_checkpoint_are_found_by_another_process(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex
) -> None:
    index = prepared.current()
    index.upsert([int(index.ids()[5])], unit(1, 5))
    prepared.rewrite(index)
    check = verify(opened(catalog, model), catalog, model)
    assert (check.missing, check.different, check.extra) == (0, 1, 0)
    assert verify(opened(catalog, model), catalog, model).is_right


def test_what_is_committed_meanwhile_is_no_damage(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex
) -> None:
    writer = Catalog(catalog.database.folder, create=False)
    numbers = iter(range(10_000, 20_000, 10))

    def another_process(_step: str, _done: int, _total: int) -> None:
        start = next(numbers)
        put(writer, model, start, start + 10)
        path = f"/{start + 1:06}.jpg"
        writer.places.mark_missing([path, "/000030.jpg", "/000031.jpg"])
        writer.places.purge(missing_before=1e12)

    check = verify(prepared, catalog, model, on_progress=another_process)
    writer.close()
    assert check.is_right
    assert next(numbers) > 10_000
    assert_in_step(prepared, catalog, model)


@pytest.mark.usefixtures("prepared")
def test_a_library_that_cannot_be_written_is_looked_at_and_left_as_it_is(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = catalog.database.folder
    DAMAGES["vectors of the base"](folder)
    files = {path: path.read_bytes() for path in folder.glob("index-*")}
    monkeypatch.setattr(catalog.database, "writable", False)
    live = opened(catalog, model)
    check = verify(live, catalog, model)
    assert check.damage is not None
    assert not check.healed
    assert not check.is_right
    assert_in_step(live, catalog, model)
    assert {path: path.read_bytes() for path in folder.glob("index-*")} == files


# -- measure -------------------------------------------------------------------------------------


def test_where_all_are_compared_nothing_is_missed(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, 0, 30)
    tuned = measure(opened(catalog, model), target=0.5)
    assert (tuned.recipe, tuned.vectors, tuned.recall, tuned.tuning) == ("exact", 30, 1.0, None)


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_the_measured_recall_is_what_brute_force_counts(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex, target: float
) -> None:
    tuned = measure(prepared, target=target)
    assert tuned.recipe == "inverted"
    assert tuned.recall >= target
    assert tuned.tuning is not None
    assert tuned.tuning.target == target
    # Every prepared vector asks for its neighbours among the prepared ones, itself left out.
    live = opened(catalog, model)
    ids = live.current().ids()[: PREPARED - 20]
    vectors = live.current().vectors(ids)
    base = live.current().state().base
    assert base is not None
    assert base.accelerator is not None
    assert base.tuning == tuned.tuning
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    truth = ids[np.argsort(-scores, axis=1)[:, :10]]
    rows, _ = base.accelerator.search(
        vectors, 11, tuning=tuned.tuning, keep=live.current().state().live.bits
    )
    found = [set(base.ids[row].tolist()) for row in rows]
    recall = np.mean([len(found[n] & set(truth[n].tolist())) / 10 for n in range(len(ids))])
    assert recall == pytest.approx(tuned.recall, abs=0.03)


def test_a_tuning_is_kept_in_the_checkpoint(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex
) -> None:
    assert status(catalog, model).target == 0.99
    tuned = measure(prepared, target=0.75)
    assert (status(catalog, model).target, status(catalog, model).recall) == (0.75, tuned.recall)


@pytest.mark.usefixtures("prepared")
def test_a_base_that_turns_out_to_be_damaged_is_given_up(
    catalog: Catalog, model: ModelRecord
) -> None:
    DAMAGES["FAISS's part"](catalog.database.folder)
    tuned = measure(opened(catalog, model), target=0.9)
    assert (tuned.recipe, tuned.recall) == ("exact", 1.0)


@pytest.mark.parametrize("target", [0, -1, 1.5, float("nan")])
def test_a_recall_that_cannot_be_is_refused(
    catalog: Catalog, model: ModelRecord, target: float
) -> None:
    with pytest.raises(InputError, match="recall is"):
        measure(opened(catalog, model), target=target)


# -- status --------------------------------------------------------------------------------------


def test_the_header_tells_what_the_index_is(
    catalog: Catalog, model: ModelRecord, prepared: LiveIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = prepared.current()
    assert index.base is not None
    assert index.base.tuning is not None
    monkeypatch.setattr(LiveIndex, "current", None)  # nobody may open it
    found = status(catalog, model)
    assert (found.recipe, found.choice, found.wanted) == (
        "inverted",
        IndexChoice("inverted"),
        "inverted",
    )
    assert (found.recall, found.target) == (index.base.tuning.recall, 0.99)
    assert (found.vectors, found.fresh, found.dead) == (len(index), FRESH, 20)
    assert not found.is_due


def test_an_index_that_was_never_saved_has_nothing(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, 0, 10)
    found = status(catalog, model)
    assert (found.recipe, found.vectors, found.recall, found.is_due) == ("exact", 0, 1.0, False)
    assert status(catalog, None).recipe == "exact"


@pytest.mark.parametrize("recipe", [None, "exact", "inverted"])
def test_the_header_tells_when_a_build_is_due_as_the_open_index_does(
    catalog: Catalog, model: ModelRecord, recipe: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Recipe:
        recipe = load_recipe(name)
        return recipe if recipe.is_exact else dataclasses.replace(recipe, least=100)

    monkeypatch.setattr(choice, "load_recipe", load)
    write_choice(catalog, IndexChoice(recipe))
    live = opened(catalog, model)
    for size in range(0, 150, 10):
        put(catalog, model, size, size + 10)
        found = status(catalog, model)
        assert found.is_due == (recipe == "inverted" and size + 10 >= 100)
        assert found.is_due == live.is_merge_due(live.current())
    assert found.vectors == 10  # no checkpoint was written since
    assert live.merge() == (recipe == "inverted")
    assert not status(catalog, model).is_due
    write_choice(catalog, IndexChoice("exact"))
    assert status(catalog, model).is_due == (recipe == "inverted")


def test_a_choice_of_another_version_is_no_reason_to_fail(
    catalog: Catalog, model: ModelRecord, caplog: pytest.LogCaptureFixture
) -> None:
    catalog.put_setting("index", '{"recipe": "of-tomorrow"}')
    assert status(catalog, model).recipe == "exact"
    assert "of-tomorrow" in caplog.text
