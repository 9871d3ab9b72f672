"""kill -9 at any moment: nothing that was committed is lost, and the next add goes on."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import skimage.data
from blake3 import blake3
from PIL import Image

import searchlib
from searchlib.images import load
from searchlib.index import read_checkpoint

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
KILLS = int(os.environ.get("SEARCHLIB_KILLS", "200" if FULL else "20"))
SEED = int(os.environ.get("SEARCHLIB_KILL_SEED", "1"))
PHOTOS = 80


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """Small cut-outs of photographs, two folders of them, more than a batch."""
    chance = random.Random(7)
    sources = [
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for name in ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field")
    ]
    root = tmp_path_factory.mktemp("album")
    for number in range(PHOTOS):
        source = sources[number % len(sources)]
        side = chance.randint(64, 256)
        left = chance.randint(0, source.width - side)
        top = chance.randint(0, source.height - side)
        folder = root / ("a" if number % 3 else "b")
        folder.mkdir(exist_ok=True)
        path = folder / f"{number:02}.{'png' if number % 4 == 0 else 'jpg'}"
        source.crop((left, top, left + side, top + side)).save(path)
    return root


@pytest.fixture(scope="module")
def expected(album, encoder) -> dict[bytes, bytes]:
    """The vector of each picture, embedded alone, as it is to be stored."""
    vectors = {}
    for path in album.rglob("*.*"):
        pixels = load(path, min_side=encoder.min_side).pixels
        vectors[blake3(path.read_bytes()).digest()] = encoder.embed(pixels).astype("<f2").tobytes()
    assert len(vectors) == PHOTOS
    return vectors


def rows(database: sqlite3.Connection, query: str) -> list[tuple]:
    return database.execute(query).fetchall()


def assert_sound(folder: Path, album: Path, expected: dict[bytes, bytes], encoder) -> int:
    """All that must hold after a crash; gives how many pictures are in the library."""
    if not (folder / "catalog.db").exists():
        return 0
    # First as the next command does it: the library opens, and agrees with itself.
    with searchlib.open_library(folder, encoder=encoder) as library:
        status = library.status()
        assert status.files == status.images == status.vectors
        assert status.missing == 0
        # What was in the decoder of a killed process is tried alone by the next one.
        assert {failure.kind for failure in library.failures()} <= {"crash"}
        for path in sorted(album.rglob("*.*"))[:: PHOTOS // 4]:
            best = library.search(path, k=1)
            assert bool(best) == (status.images > 0)
    with contextlib.closing(sqlite3.connect(folder / "catalog.db")) as database:
        assert rows(database, "PRAGMA integrity_check") == [("ok",)]
        assert rows(database, "PRAGMA foreign_key_check") == []
        files = rows(database, "SELECT path, state, size FROM file WHERE failure IS NULL")
        images = rows(database, "SELECT id, digest, bytes FROM image")
        embeddings = rows(database, "SELECT image_id, vector FROM embedding")
        changes = rows(database, "SELECT seq, image_id FROM change ORDER BY seq")
        places = rows(database, "SELECT path, digest FROM file JOIN image ON image.id = image_id")
        assert len(rows(database, "SELECT * FROM model")) <= 1
    # No picture is there twice, and none in parts.
    assert len({digest for _, digest, _ in images}) == len(images) == status.images
    assert len({path for path, _, _ in files}) == len(files) == len(images)
    assert {state for _, state, _ in files} <= {"present"}
    assert [image for _, image in changes] == sorted(image for image, _ in embeddings)
    assert {image for image, _ in embeddings} == {image for image, _, _ in images}
    for path, digest in places:
        assert blake3(Path(os.fsdecode(path)).read_bytes()).digest() == digest
    # Every vector is the one that its picture has alone.
    digests = {image: digest for image, digest, _ in images}
    for image, vector in embeddings:
        assert vector == expected[digests[image]]
    # A checkpoint in place is whole and not ahead of the catalog; others are not read.
    for checkpoint in folder.glob("*.ckpt"):
        index, seq = read_checkpoint(
            checkpoint,
            identity=encoder.identity,
            dimension=encoder.dimension,
        )
        assert seq <= (changes[-1][0] if changes else 0)
        assert set(index.ids().tolist()) <= set(digests)
    return len(images)


def state_of(folder: Path) -> tuple:
    """What another process can see of a library's files."""
    try:
        with os.scandir(folder) as listing:
            return tuple(
                sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
                       for entry in listing)
            )  # fmt: skip
    except FileNotFoundError:
        return ()


class Add:
    """A running `searchlib add`."""

    def __init__(self, launch, environment, album: Path, folder: Path) -> None:
        self.folder = folder
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*launch, "add", album, "--library", folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_seconds(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0, seconds - (time.monotonic() - self.started)))

    def wait_changes(self, count: int) -> int:
        """Until its files were seen to change so many times; gives how often they did."""
        before, seen = state_of(self.folder), 0
        while seen < count and self.process.poll() is None:
            now = state_of(self.folder)
            seen += now != before
            before = now
            time.sleep(0.0003)
        return seen

    def end(self, with_signal: signal.Signals | None = None) -> int:
        """Its exit code; it said nothing unless it was killed."""
        if with_signal is not None:
            self.process.send_signal(with_signal)
        with self.process:
            error = self.process.stderr.read()
        if self.process.returncode == 128 + signal.SIGTERM:
            assert error == b"searchlib: interrupted; what was added is kept\n"
        elif self.process.returncode >= 0:
            assert error == b""
        return self.process.returncode


def test_a_killed_add_loses_nothing(launch, environment, album, expected, encoder, tmp_path):
    chance = random.Random(SEED)
    # One run that nobody kills says how long it takes and how often its files change.
    run = Add(launch, environment, album, tmp_path / "measured")
    changes = run.wait_changes(10**9)
    assert run.end() == 0
    took = time.monotonic() - run.started
    assert assert_sound(tmp_path / "measured", album, expected, encoder) == PHOTOS

    number = kills = 0
    partial = False
    folder = tmp_path / "library-0"
    known = 0
    # On, where no moment has hit a library that was half done: that proves nothing yet.
    while kills < KILLS or (KILLS >= 20 and not partial and kills < 4 * KILLS):
        run = Add(launch, environment, album, folder)
        # Half of the moments are spread over the whole run, and half over what it writes.
        if chance.random() < 0.5:
            run.wait_seconds(chance.uniform(0, took))
        else:
            run.wait_changes(chance.randint(1, changes))
            time.sleep(chance.choice((0, chance.uniform(0, 0.005))))
        code = run.end(signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0)
        kills += code != 0
        now = assert_sound(folder, album, expected, encoder)
        assert now >= known
        partial |= 0 < now < PHOTOS
        known = now
        if now == PHOTOS or chance.random() < 0.1:
            finish(folder, album, expected, encoder, known)
            number, known = number + 1, 0
            folder = tmp_path / f"library-{number}"
    finish(folder, album, expected, encoder, known)
    assert partial or KILLS < 20


def finish(folder: Path, album: Path, expected, encoder, known: int) -> None:
    """The next add, which must leave exactly the files on the disk."""
    with searchlib.open_library(folder, encoder=encoder) as library:
        report = library.add(album)
        assert (report.added, report.unchanged) == (PHOTOS - known, known)
        assert (report.copies, report.moved, report.missing, report.skipped) == (0, 0, 0, [])
        for path in sorted(album.rglob("*.*"))[::9]:
            assert library.search(path, k=1)[0].path == str(path)
    assert assert_sound(folder, album, expected, encoder) == PHOTOS
    # What a killed writer of a checkpoint left is swept away.
    assert not list(folder.glob(".*"))


def test_a_terminated_add_loses_nothing(launch, environment, album, expected, encoder, tmp_path):
    folder = tmp_path / "library"
    for _ in range(3):
        run = Add(launch, environment, album, folder)
        run.wait_changes(6)
        # Before the library is open there is nothing to keep, and the signal ends it as it is.
        assert run.end(signal.SIGTERM) in (128 + signal.SIGTERM, -signal.SIGTERM, 0)
        known = assert_sound(folder, album, expected, encoder)
    finish(folder, album, expected, encoder, known)


def test_two_adds_at_once_make_one_library(launch, environment, album, expected, encoder, tmp_path):
    for number in range(2):
        folder = tmp_path / f"library-{number}"
        runs = [Add(launch, environment, album, folder) for _ in range(3 - number)]
        assert [run.end() for run in runs] == [0] * len(runs)
        assert assert_sound(folder, album, expected, encoder) == PHOTOS


def test_a_search_while_another_process_adds_sees_whole_pictures(
    launch, environment, album, expected, encoder, tmp_path
):
    folder = tmp_path / "library"
    query = min(album.rglob("*.*"))
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(query)
        run = Add(launch, environment, album, folder)
        seen = {1}
        while run.process.poll() is None:
            matches = library.search(query, k=PHOTOS)
            assert matches[0].path == str(query)
            assert len({match.path for match in matches}) == len(matches) >= max(seen)
            seen.add(len(matches))
        assert run.end() == 0
        assert len(library.search(query, k=PHOTOS)) == PHOTOS
    assert assert_sound(folder, album, expected, encoder) == PHOTOS
