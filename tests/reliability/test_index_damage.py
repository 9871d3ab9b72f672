"""Damage to any file of an index: it is found, nothing wrong is ever told, and it is healed."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from searchlib.index import read_saved
from searchlib.index.sealed import PAGE
from searchlib.search import IndexChoice, LiveIndex, measure, verify, write_choice
from tests.reliability.index_writers import (
    DIMENSION,
    IDENTITY,
    Vectors,
    assert_answers,
    assert_right,
    small,
    vector,
)

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
FLIPS = int(os.environ.get("SEARCHLIB_FLIPS", "1000" if FULL else "60"))
SEED = int(os.environ.get("SEARCHLIB_KILL_SEED", "1"))


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose index has a base with dead rows, fresh vectors, and changes in the log."""
    folder = tmp_path_factory.mktemp("original") / "library"
    vectors = Vectors(folder, create=True)
    vectors.add(range(600))
    write_choice(vectors.catalog, IndexChoice("inverted"))
    with small():
        index = vectors.index()
        assert index.merge()
        vectors.remove(range(0, 60, 3))
        vectors.replace(30, 1)
        vectors.add(range(600, 640))
        index.rewrite(index.current())
        vectors.add(range(640, 650))
        now = index.current()
        assert now.base is not None
        # 600 rows, of which some are dead; fresh are those that were replaced and added.
        assert (now.base.rows, 40 <= now.dead <= 50, 75 <= now.fresh <= 80) == (600, True, True)
    vectors.close()
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """The same, of the test's own."""
    return Path(shutil.copytree(original, tmp_path / "library"))


@pytest.fixture
def vectors(folder: Path) -> Iterator[Vectors]:
    vectors = Vectors(folder)
    yield vectors
    vectors.close()


def files(folder: Path) -> dict[str, Path]:
    """The files of the index by their ends."""
    found = {path.suffix[1:]: path for path in folder.glob("index-*")}
    assert set(found) == {"ckpt", "base", "faiss"}
    return found


def sections(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Where the parts of the files lie: file, start and end."""
    file = files(folder)
    sizes = {name: path.stat().st_size for name, path in file.items()}
    saved = (sizes["ckpt"] - PAGE - 75) // (8 + 2 * DIMENSION)
    ids_end = PAGE + 8 * 600
    codes = -(-ids_end // PAGE) * PAGE
    table = codes + 600 * 2 * DIMENSION
    assert sizes["base"] == table + 3 * 16
    assert sizes["ckpt"] == PAGE + saved * (8 + 2 * DIMENSION) + 75
    return {
        "checkpoint fields": (file["ckpt"], 0, 400),
        "checkpoint header": (file["ckpt"], 400, PAGE),
        "checkpoint ids": (file["ckpt"], PAGE, PAGE + 8 * saved),
        "checkpoint codes": (file["ckpt"], PAGE + 8 * saved, sizes["ckpt"] - 75),
        "checkpoint live": (file["ckpt"], sizes["ckpt"] - 75, sizes["ckpt"]),
        "base fields": (file["base"], 0, 200),
        "base header": (file["base"], 200, PAGE),
        "base ids": (file["base"], PAGE, ids_end),
        "base zeros": (file["base"], ids_end, codes),
        "base codes": (file["base"], codes, table),
        "base blocks": (file["base"], table, sizes["base"]),
        "faiss fields": (file["faiss"], 0, 250),
        "faiss header": (file["faiss"], 250, PAGE),
        "faiss body": (file["faiss"], PAGE, sizes["faiss"]),
    }


def look(vectors: Vectors, seed: int) -> LiveIndex:
    """Open the index and ask it what it may know; whatever it says must be right."""
    index = vectors.index()
    oracle = vectors.content()
    if seed % 2:
        # Approximate answers first, while what is damaged may not have been looked at yet.
        for number in range(6):
            query = vector(10**7 * seed + number)
            found = index.search(query[None], 5)
            assert np.isin(found.ids, oracle.ids()).all()
            scores = oracle.vectors(found.ids[0]) @ query
            np.testing.assert_allclose(found.scores[0], scores, atol=1e-6)
    assert_answers(index, oracle)
    return index


def heal(vectors: Vectors, index: LiveIndex) -> None:
    """After `verify` all is right, in this process and in the next one that opens it."""
    oracle = vectors.content()
    verify(index, vectors.catalog, vectors.model)
    assert_right(index, oracle)
    index.merge()
    again = vectors.index()
    assert_right(again, oracle)
    check = verify(again, vectors.catalog, vectors.model)
    assert not check.healed
    assert (check.checked, check.missing, check.different, check.extra) == (len(oracle), 0, 0, 0)


def test_every_flipped_bit_is_survived(
    original: Path, vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    """All answers are right, also right after the damage, and whoever looks is told of it."""
    chance = random.Random(SEED)
    caplog.set_level(logging.WARNING)
    content = {path.name: path.read_bytes() for path in original.glob("index-*")}
    where = sections(vectors.folder)
    for number in range(FLIPS):
        name = list(where)[number % len(where)]
        path, start, stop = where[name]
        place = chance.randrange(start, stop)
        torn = bytearray(content[path.name])
        torn[place] ^= 1 << chance.randrange(8)
        path.write_bytes(torn)
        caplog.clear()
        index = look(vectors, number)
        told = "\n".join(record.getMessage() for record in caplog.records)
        # Which vectors of a base are looked at depends on the question; `verify` looks at all.
        if name == "base zeros":
            assert not told
        else:
            assert str(path) in told, name
        if number % 10 == 0:
            heal(vectors, index)
        for file in vectors.folder.glob("*index-*"):
            file.unlink()
        for file_name, data in content.items():
            (vectors.folder / file_name).write_bytes(data)


@pytest.mark.parametrize("way", ["look", "verify", "save", "merge", "tune"])
@pytest.mark.parametrize("section", ["checkpoint live", "base ids", "base codes", "faiss body"])
def test_whoever_comes_first_to_the_damage_heals_it(
    vectors: Vectors, section: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, start, _ = sections(vectors.folder)[section]
    content = bytearray(path.read_bytes())
    if section == "base codes":
        content[start : start + 600 * 2 * DIMENSION : 64] = bytes(300)
    else:
        content[start + 5] ^= 1
    path.write_bytes(content)
    index = vectors.index()
    oracle = vectors.content()
    if way == "look":
        assert_answers(index, oracle)
    elif way == "verify":
        check = verify(index, vectors.catalog, vectors.model)
        assert check.healed
        assert check.damage is not None
        assert str(path) in check.damage
    elif way == "save":
        vectors.add(range(1_000, 1_200))
        oracle = vectors.content()
        index.save()
    elif way == "merge":
        index.merge(always=True)
    else:
        assert measure(index, target=0.95).recall >= 0.95
        assert str(path) in caplog.text
    assert_answers(index, oracle)
    assert_right(index, oracle)
    heal(vectors, index)
    assert str(path) in caplog.text or way == "verify"


def test_damaged_vectors_are_found_where_the_index_is_compared_with_the_log(
    vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    """After a merge the last change lies in the base, and is looked at when the index is opened."""
    index = vectors.index()
    assert index.merge(always=True)
    path = files(vectors.folder)["base"]
    content = bytearray(path.read_bytes())
    content[-8_000:-1_000:50] = bytes(140)
    path.write_bytes(content)
    oracle = vectors.content()
    for way in ("current", "save", "search"):
        index = vectors.index()
        if way == "current":
            assert len(index.current()) == len(oracle)
        elif way == "save":
            index.refresh()
        assert_answers(index, oracle)
        assert_right(index, oracle)
        assert str(path) in caplog.text
        if path.exists():
            path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["ckpt", "base", "faiss"])
def test_a_file_cut_at_any_section_is_not_believed(
    original: Path, vectors: Vectors, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = files(vectors.folder)[suffix]
    content = {file.name: file.read_bytes() for file in original.glob("index-*")}
    whole = content[path.name]
    edges = {start for file, start, _ in sections(vectors.folder).values() if file == path}
    lengths = {edge + by for edge in edges | {len(whole)} for by in (-1, 0, 1)}
    lengths = {length for length in lengths if length >= 0 and length != len(whole)}
    lengths |= {0, len(whole) + PAGE}
    for number, length in enumerate(sorted(lengths)):
        path.write_bytes(whole[:length].ljust(length, b"\0"))
        caplog.clear()
        index = look(vectors, 1)
        assert str(path) in caplog.text, length
        if number == 0:
            heal(vectors, index)
        for file in vectors.folder.glob("*index-*"):
            file.unlink()
        for name, data in content.items():
            (vectors.folder / name).write_bytes(data)


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_bytes(b"x")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("suffix", ["ckpt", "base", "faiss"])
@pytest.mark.parametrize(
    "damage", [_remove, _empty, _zeros, _directory, _pipe, _dead_link], ids=lambda do: do.__name__
)
def test_what_is_not_the_file_that_it_should_be_is_replaced(
    vectors: Vectors,
    suffix: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = files(vectors.folder)[suffix]
    damage(path)
    caplog.set_level(logging.WARNING)
    index = look(vectors, 1)
    # Where there is no checkpoint there may never have been one.
    gone = suffix == "ckpt" and damage in (_remove, _dead_link)
    assert gone or str(path) in caplog.text
    assert_right(index, vectors.content())
    if damage is _directory and suffix == "ckpt":
        # It stands in the way, which is said, and the library works without a checkpoint.
        assert "cannot be written" in caplog.text
        assert_right(vectors.index(), vectors.content())
        return
    heal(vectors, index)


def test_the_files_of_another_library_are_not_taken_for_its_own(
    vectors: Vectors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Vectors(tmp_path / "other", create=True)
    other.add(range(5_000, 5_700))
    write_choice(other.catalog, IndexChoice("inverted"))
    assert other.index().merge()
    mine, theirs = files(vectors.folder), files(other.folder)
    content = {path: path.read_bytes() for path in mine.values()}
    for swapped in (["base"], ["faiss"], ["base", "faiss"], ["ckpt"], ["ckpt", "base", "faiss"]):
        for suffix in swapped:
            shutil.copy(theirs[suffix], mine[suffix])
        if swapped == ["ckpt", "base", "faiss"]:
            # Whole, and of the same model: only the catalog can tell.
            for suffix in swapped[1:]:
                shutil.copy(theirs[suffix], vectors.folder)
        caplog.clear()
        index = look(vectors, 1)
        assert caplog.records, swapped
        assert_right(index, vectors.content())
        heal(vectors, index)
        for file in vectors.folder.glob("*index-*"):
            file.unlink()
        for path, data in content.items():
            path.write_bytes(data)
    other.close()


def test_the_base_of_an_older_generation_is_not_taken_for_the_newer_one(
    vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    old = {suffix: path.read_bytes() for suffix, path in files(vectors.folder).items()}
    index = vectors.index()
    vectors.add(range(2_000, 2_100))
    assert index.merge(always=True)
    new = files(vectors.folder)
    content = {path: path.read_bytes() for path in new.values()}
    for swapped in (["base"], ["faiss"], ["base", "faiss"], ["ckpt"]):
        for suffix in swapped:
            new[suffix].write_bytes(old[suffix])
        caplog.clear()
        # Read as it was, and not through what this process has open.
        found = look(vectors, 1)
        assert caplog.records, swapped
        heal(vectors, found)
        for file in vectors.folder.glob("*index-*"):
            file.unlink()
        for path, data in content.items():
            path.write_bytes(data)


def format_1(ids: np.ndarray, codes: np.ndarray, seq: int) -> bytes:
    """A checkpoint as the first version wrote it."""
    body = ids.tobytes() + codes.astype(np.float16).tobytes()
    fields = struct.pack(
        "<8sII32s32s64s4xIQQQQ32s", b"SLINDEX\0", 1, PAGE, bytes.fromhex(IDENTITY), bytes(32),
        b"exact", DIMENSION, len(ids), seq, PAGE, len(body), blake3(body).digest(),
    ).ljust(PAGE - 32, b"\0")  # fmt: skip
    return fields + blake3(fields).digest() + body


def test_a_checkpoint_of_the_first_format_is_built_anew(
    vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    for file in vectors.folder.glob("index-*"):
        file.unlink()
    index = vectors.index()
    oracle = vectors.content()
    index.path.write_bytes(format_1(oracle.ids(), oracle.vectors(oracle.ids()), 5))
    assert_right(index, oracle)
    (record,) = caplog.records
    assert "format 1 and this version reads 2" in record.getMessage()
    heal(vectors, index)


@pytest.mark.parametrize("suffix", ["ckpt", "base", "faiss"])
def test_a_file_that_may_not_be_read_is_no_obstacle(
    vectors: Vectors, suffix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = files(vectors.folder)[suffix]
    # Root may read whatever the mode says, so the refusal is made where the file is opened.
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if self == path and "r" in mode:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    index = look(vectors, 1)
    assert re.search(f"{re.escape(str(path))}.*Permission denied", caplog.text)
    assert_right(index, vectors.content())


@pytest.mark.parametrize("section", ["checkpoint ids", "base ids", "base codes", "faiss body"])
def test_damage_in_a_library_that_cannot_be_written_is_survived(
    vectors: Vectors,
    section: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, start, stop = sections(vectors.folder)[section]
    content = bytearray(path.read_bytes())
    content[(start + stop) // 2] ^= 1
    path.write_bytes(content)
    before = {file.name: file.read_bytes() for file in vectors.folder.iterdir()}
    monkeypatch.setattr(vectors.catalog.database, "writable", False)
    index = look(vectors, 1)
    assert str(path) in caplog.text
    assert_right(index, vectors.content())
    verify(index, vectors.catalog, vectors.model)
    assert_right(index, vectors.content())
    after = {file.name: file.read_bytes() for file in vectors.folder.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in after if name.startswith("index-"))


def test_what_is_damaged_after_it_was_read_is_found_by_who_opens_it_next(vectors: Vectors) -> None:
    """Another process writes garbage over the file of a base that this one has open."""
    index = vectors.index()
    oracle = vectors.content()
    assert_right(index, oracle)
    path, start, stop = sections(vectors.folder)["base codes"]
    content = bytearray(path.read_bytes())
    content[start:stop] = random.Random(1).randbytes(stop - start)
    with path.open("r+b") as file:
        file.write(content)
    check = verify(index, vectors.catalog, vectors.model)
    assert check.healed
    assert check.damage is not None
    assert_right(index, oracle)
    again = vectors.index()
    assert_right(again, oracle)
    saved = read_saved(index.path, identity=IDENTITY, dimension=DIMENSION)
    assert saved is not None
    assert saved.generation == ""
