"""kill -9 while the model changes: the library goes on with one model or the other, whole."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import skimage.data
from blake3 import blake3
from PIL import Image

import searchlib
from searchlib.encoder.card import card_as_toml
from searchlib.errors import ModelMismatchError
from searchlib.images import load

KILLS = int(os.environ.get("SEARCHLIB_MODEL_KILLS", "5"))
SEED = int(os.environ.get("SEARCHLIB_KILL_SEED", "1"))
PHOTOS = 40

# Small batches, so that a few pictures make as many commits as thousands do.
CHANGE = """
import sys
from pathlib import Path
import searchlib
from searchlib.encoder import load_card
from searchlib.ingest import reembed
reembed.BATCH_FILES = 4
with searchlib.open_library(sys.argv[1]) as library:
    change = library.use_model(load_card(Path(sys.argv[2])))
    print(change.embedded, change.kept, len(change.failed))
"""


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """Cut-outs of photographs, wider than high, so that the two models see them differently."""
    chance = random.Random(11)
    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field")
    sources = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    folder = tmp_path_factory.mktemp("album")
    for number in range(PHOTOS):
        source = sources[number % len(sources)]
        height = chance.randint(60, 120)
        left = chance.randint(0, source.width - 2 * height)
        top = chance.randint(0, source.height - height)
        cut = source.crop((left, top, left + 2 * height, top + height))
        cut.save(folder / f"{number:02}.png")
    return folder


def vectors_of(album: Path, encoder) -> dict[bytes, bytes]:
    """The vector of each picture, embedded alone, as it is to be stored."""
    vectors = {}
    for path in album.iterdir():
        pixels = load(path, min_side=encoder.min_side).pixels
        vectors[blake3(path.read_bytes()).digest()] = encoder.embed(pixels).astype("<f2").tobytes()
    return vectors


@pytest.fixture(scope="module")
def expected(album, encoder, cropping) -> dict[str, dict[bytes, bytes]]:
    """By model identity, what `vectors_of` gives; nothing is the same in both."""
    both = {each.identity: vectors_of(album, each) for each in (encoder, cropping)}
    vectors = [vector for some in both.values() for vector in some.values()]
    assert len(set(vectors)) == 2 * PHOTOS
    return both


@pytest.fixture(scope="module")
def original(album, encoder, tmp_path_factory) -> Path:
    """A library that knows the album by the built-in model."""
    folder = tmp_path_factory.mktemp("original") / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        assert library.add(album).added == PHOTOS
    return folder


@pytest.fixture(scope="module")
def card_file(cropping_card, tmp_path_factory) -> Path:
    """The card of the other model as a file, for a process of its own."""
    folder = tmp_path_factory.mktemp("model")
    (folder / cropping_card.path.name).symlink_to(cropping_card.path)
    (folder / "card.toml").write_text(card_as_toml(cropping_card))
    return folder / "card.toml"


@pytest.fixture
def change(environment, card_file):
    """Starts a process that changes a library to the other model."""

    def change(folder: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", CHANGE, folder, card_file],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return change


def ended(process: subprocess.Popen) -> tuple[int, bytes]:
    """Its exit code and what it said; errors unless it was killed are not expected."""
    output, error = process.communicate(timeout=120)
    if process.returncode >= 0:
        assert (process.returncode, error) == (0, b"")
    return process.returncode, output


def assert_sound(folder: Path, album: Path, expected, encoders) -> dict[str, int]:
    """All that must hold at any moment; gives how many vectors each model has."""
    with contextlib.closing(sqlite3.connect(folder / "catalog.db")) as database:

        def rows(query: str) -> list[tuple]:
            return database.execute(query).fetchall()

        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("PRAGMA foreign_key_check") == []
        models = dict(rows("SELECT id, identity FROM model"))
        ((used,),) = rows("SELECT identity FROM model WHERE in_use")
        images = dict(rows("SELECT id, digest FROM image"))
        present = {id for (id,) in rows("SELECT image_id FROM file WHERE state = 'present'")}
        embeddings = rows("SELECT image_id, model_id, vector FROM embedding")
        changes = rows("SELECT image_id, model_id FROM change")
    assert sorted(changes) == sorted((image, model) for image, model, _ in embeddings)
    for image, model, vector in embeddings:
        assert vector == expected[models[model]][images[image]]
    have = {identity: set() for identity in models.values()}
    for image, model, _ in embeddings:
        have[models[model]].add(image)
    assert have[used] == present
    # Two of them must not answer each other: the library says which one counts.
    for encoder in encoders:
        with searchlib.open_library(folder, encoder=encoder) as library:
            if encoder.identity != used:
                with pytest.raises(ModelMismatchError):
                    library.search(album / "00.png")
                continue
            assert library.status().vectors == len(present)
            for path in sorted(album.iterdir())[:: PHOTOS // 4]:
                assert library.search(path, k=1)[0].path == str(path)
    return {identity: len(images) for identity, images in have.items()}


def size_of_log(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return (folder / "catalog.db-wal").stat().st_mtime_ns
    return 0


def wait_writes(process: subprocess.Popen, folder: Path, count: int) -> None:
    """Until the library was seen to be written so many times, or the process has ended."""
    before, seen = size_of_log(folder), 0
    while seen < count and process.poll() is None:
        now = size_of_log(folder)
        seen += now != before
        before = now
        time.sleep(0.0003)


def test_a_killed_change_loses_nothing_and_the_next_one_does_the_rest(
    change, original, album, expected, encoder, cropping, tmp_path
):
    chance = random.Random(SEED)
    both = (encoder, cropping)
    number = kills = 0
    partial = False
    folder = shutil.copytree(original, tmp_path / "library-0")
    known = 0
    while kills < KILLS or not partial:
        process = change(folder)
        # The first write is that of the model's record; then come the batches and the switch.
        wait_writes(process, folder, chance.randint(1, 14))
        time.sleep(chance.choice((0, chance.uniform(0, 0.01))))
        process.send_signal(signal.SIGKILL)
        code, _ = ended(process)
        kills += code != 0
        now = assert_sound(folder, album, expected, both).get(cropping.identity, 0)
        assert now >= known
        partial |= 0 < now < PHOTOS
        known = now
        if now == PHOTOS or chance.random() < 0.2:
            process = change(folder)
            assert ended(process) == (0, b"%d %d 0\n" % (PHOTOS - known, known))
            assert_sound(folder, album, expected, both)
            go_back(folder, album, expected, both)
            number, known = number + 1, 0
            folder = shutil.copytree(original, tmp_path / f"library-{number}")


def go_back(folder: Path, album: Path, expected, both) -> None:
    """To the first model and to the second again, without embedding anything."""
    with searchlib.open_library(folder) as library:
        for encoder in both:
            change = library.use_model(encoder.card)
            assert (change.embedded, change.kept, change.failed) == (0, PHOTOS, [])
            assert library.search(album / "00.png", k=1)[0].path == str(album / "00.png")
    assert_sound(folder, album, expected, both)


def test_another_process_searches_and_adds_during_the_change(
    change, original, album, expected, encoder, cropping, original_photos, tmp_path
):
    folder = shutil.copytree(original, tmp_path / "library")
    extra = shutil.copytree(original_photos, tmp_path / "extra")
    paths = sorted(extra.iterdir())
    added = []
    process = change(folder)
    with searchlib.open_library(folder, encoder=encoder) as library:
        wait_writes(process, folder, 2)
        # Until the switch everything works with the old model, and after it nothing does.
        with contextlib.suppress(ModelMismatchError):
            for path in paths:
                assert library.add(path).added == 1
                added.append(path)
                assert library.search(path, k=1)[0].path == str(path)
            while True:
                assert library.search(album / "00.png", k=1)[0].path == str(album / "00.png")
        assert ended(process)[0] == 0
        with pytest.raises(ModelMismatchError):
            library.add(extra)
    with searchlib.open_library(folder, encoder=cropping) as library:
        status = library.status()
        assert status.vectors == status.images >= PHOTOS + len(added)
        for path in added:
            assert library.search(path, k=1)[0].path == str(path)
        report = library.add(extra)
        assert (report.added, report.unchanged) == (8 - len(added), len(added))
    by_model = {each.identity: vectors_of(extra, each) for each in (encoder, cropping)}
    known = {identity: {**expected[identity], **by_model[identity]} for identity in by_model}
    count = assert_sound(folder, album, known, (encoder, cropping))
    assert count[cropping.identity] == PHOTOS + 8


def test_two_processes_that_change_to_one_model_embed_nothing_twice(
    change, original, album, expected, encoder, cropping, tmp_path
):
    folder = shutil.copytree(original, tmp_path / "library")
    processes = [change(folder) for _ in range(2)]
    outcomes = []
    for process in processes:
        output, error = process.communicate(timeout=120)
        outcomes.append((process.returncode, output or error))
    embedded = 0
    for code, said in outcomes:
        if code == 0:
            embedded += int(said.split()[0])
        else:
            assert b"LibraryBusyError" in said
            assert b"is being changed already" in said
    assert embedded == PHOTOS
    assert assert_sound(folder, album, expected, (encoder, cropping))[cropping.identity] == PHOTOS
