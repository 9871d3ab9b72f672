"""Importing: vectors are taken over without the encoder, compared with it, or refused whole."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import searchlib
from searchlib.catalog.vectors import encode_vector
from searchlib.encoder import ImageEncoder
from searchlib.errors import ModelFileError, ModelMismatchError, ModelSourceError, VectorFileError
from searchlib.exchange.checks import Repeats
from searchlib.exchange.rows import Block, Key

OTHER = "0" * 64


def rows_of(folder: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(folder / "catalog.db")) as database:
        return database.execute(query).fetchall()


def stored(folder: Path) -> dict[bytes, bytes]:
    query = "SELECT digest, vector FROM embedding JOIN image ON image.id = image_id"
    return dict(rows_of(folder, query))


def state(folder: Path) -> dict[str, list[tuple]]:
    """All that a catalog holds, without the moments."""
    return {
        "image": rows_of(folder, "SELECT id, digest, bytes, format, width, height FROM image"),
        "file": rows_of(folder, "SELECT id, image_id, path, size, mtime_ns, state FROM file"),
        "embedding": rows_of(folder, "SELECT * FROM embedding"),
        "change": rows_of(folder, "SELECT * FROM change"),
        "model": rows_of(folder, "SELECT identity, in_use FROM model"),
    }


def forget_vectors(folder: Path, count: int = 100) -> None:
    """Take vectors out of a library as a change of model would leave it."""
    with contextlib.closing(sqlite3.connect(folder / "catalog.db")) as database, database:
        some = database.execute("SELECT image_id FROM embedding LIMIT ?", (count,)).fetchall()
        for (image,) in some:
            database.execute("DELETE FROM embedding WHERE image_id = ?", (image,))
            database.execute("INSERT INTO change (model_id, image_id) VALUES (1, ?)", (image,))


def turned(vector: np.ndarray, cosine: float) -> np.ndarray:
    """A unit vector at this cosine to another."""
    other = np.random.default_rng(1).normal(size=len(vector))
    other -= other @ vector * vector
    other /= np.linalg.norm(other)
    return (cosine * vector + np.sqrt(1 - cosine**2) * other).astype(np.float32)


def test_a_phones_vectors_are_stored_without_running_the_encoder(
    phone_file, photos, photo_vectors, open_unable, library_folder, fill, tmp_path
):
    with open_unable() as library:
        report = library.import_vectors(phone_file, verify=0)
        assert (report.rows, report.stored, report.added) == (8, 8, 8)
        assert (report.kept, report.unmatched, report.drift) == (0, 0, None)
        # The encoder could not have embedded any of these.
        with pytest.raises(ModelFileError):
            library.encoder.embed(Image.new("RGB", (9, 9)))
        (best, *_) = library.search(photos / "cat.jpg", k=3)
        assert (best.path, round(best.score, 3)) == (str(photos / "cat.jpg"), 1.0)
    for name, vector in photo_vectors.items():
        digest = blake3((photos / name).read_bytes()).digest()
        assert stored(library_folder)[digest] == encode_vector(vector)
    # An add finds nothing to do, and the facts are those that it would have found.
    assert fill(photos).unchanged == 8
    with searchlib.open_library(tmp_path / "usual") as library:
        library.add(photos)
    columns = "digest, bytes, format, width, height, taken_at, camera_make, latitude"
    query = f"SELECT {columns} FROM image ORDER BY digest"
    assert rows_of(library_folder, query) == rows_of(tmp_path / "usual", query)
    places = "SELECT path, size, mtime_ns, inode, state FROM file ORDER BY path"
    assert rows_of(library_folder, places) == rows_of(tmp_path / "usual", places)
    changes = rows_of(library_folder, "SELECT image_id FROM change")
    assert sorted(changes) == sorted(rows_of(library_folder, "SELECT image_id FROM embedding"))


def test_verifying_embeds_a_few_and_finds_them_alike(phone_file, encoder, library_folder):
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        report = library.import_vectors(phone_file, verify=3)
    assert (report.stored, report.drift.count, report.drift.verified) == (8, 3, 3)
    assert report.drift.min > 0.9999
    assert report.drift.rows == ()


def test_verifying_needs_the_model_and_writes_nothing_without_it(
    phone_file, open_unable, library_folder
):
    with open_unable() as library:
        with pytest.raises(ModelFileError):
            library.import_vectors(phone_file)
        assert library.status().images == 0
    assert state(library_folder)["model"] == []


def test_vectors_of_another_model_are_refused_before_anything_is_written(
    photos, photo_vectors, write_jsonl, encoder, library_folder
):
    rows = [{"path": name, "vector": turned(v, 0.5).tolist()} for name, v in photo_vectors.items()]
    path = write_jsonl(photos / "phone.jsonl", rows)
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        words = (
            r"phone.jsonl: these vectors are not of this model: for 8 images .*0\.500 .*verify=0"
        )
        with pytest.raises(VectorFileError, match=words):
            library.import_vectors(path)
        assert not any(state(library_folder).values())
        assert library.import_vectors(path, verify=0).stored == 8


def test_new_vectors_unlike_those_that_are_known_are_refused(
    photos, photo_vectors, write_jsonl, fill, library_folder, encoder
):
    # Seven of the library's own and one that is not: what counts is the new one.
    (photos / "new").mkdir()
    (photos / "cat.jpg").rename(photos / "new" / "cat.jpg")
    fill(*(path for path in photos.iterdir() if path.is_file()))
    vectors = {**photo_vectors, "new/cat.jpg": turned(photo_vectors["cat.jpg"], 0.2)}
    del vectors["cat.jpg"]
    rows = [{"path": name, "vector": v.tolist()} for name, v in vectors.items()]
    path = write_jsonl(photos / "phone.jsonl", rows)
    before = state(library_folder)
    with (
        searchlib.open_library(library_folder, encoder=encoder) as library,
        pytest.raises(VectorFileError, match="for 1 images that this machine embedded now"),
    ):
        library.import_vectors(path)
    assert state(library_folder) == before


def test_a_vector_that_is_there_is_kept_and_compared(
    photos, photo_vectors, write_jsonl, fill, open_unable, library_folder
):
    fill(photos)
    before = state(library_folder)
    cosines = dict(zip(photo_vectors, [1, 1, 0.999, 0.98, 0.97, 1, 0.995, 0.6], strict=True))
    rows = [
        {"path": name, "vector": turned(v, cosines[name]).tolist()}
        for name, v in photo_vectors.items()
    ]
    with open_unable() as library:
        report = library.import_vectors(write_jsonl(photos / "phone.jsonl", rows))
    assert (report.stored, report.kept) == (0, 8)
    drift = report.drift
    assert (drift.count, drift.verified, drift.below) == (8, 0, 3)
    assert drift.mean == pytest.approx(np.mean(list(cosines.values())), abs=1e-3)
    assert drift.min == pytest.approx(0.6, abs=1e-3)
    assert drift.p5 == pytest.approx(np.percentile(list(cosines.values()), 5), abs=1e-3)
    names = list(photo_vectors)
    assert [(row.row, row.name) for row in drift.rows] == [
        (4, names[3]), (5, names[4]), (8, names[7]),
    ]  # fmt: skip
    assert drift.rows[0].cosine == pytest.approx(0.98, abs=1e-3)
    assert state(library_folder) == before


def test_importing_twice_changes_nothing(phone_file, open_unable, library_folder):
    with open_unable() as library:
        library.import_vectors(phone_file, verify=0)
        before = state(library_folder)
        report = library.import_vectors(phone_file)
    assert (report.stored, report.kept, report.drift.count) == (0, 8, 8)
    assert report.drift.min > 0.99999
    assert state(library_folder) == before


def test_images_are_found_by_their_digest_alone(
    photos, photo_vectors, write_jsonl, fill, open_unable, library_folder, tmp_path
):
    fill(photos)
    forget_vectors(library_folder, 5)
    rows = [
        {"digest": blake3((photos / name).read_bytes()).hexdigest(), "vector": v.tolist()}
        for name, v in photo_vectors.items()
    ]
    rows.append({"digest": "7" * 64, "vector": rows[0]["vector"]})
    path = write_jsonl(tmp_path / "phone.jsonl", rows)
    shutil.rmtree(photos)
    with open_unable() as library:
        report = library.import_vectors(path, verify=0)
        assert (report.stored, report.added, report.kept, report.unmatched) == (5, 0, 3, 1)
        assert library.status().vectors == 8
    (row,) = report.unmatched_rows
    assert (row.row, row.name) == (9, "7" * 64)
    assert "no image of this digest" in row.reason
    found = stored(library_folder)
    for row, vector in zip(rows, photo_vectors.values(), strict=False):
        assert found[bytes.fromhex(row["digest"])] == encode_vector(vector)


def test_known_files_that_were_not_touched_are_not_opened(
    phone_file, photos, fill, run, library_folder
):
    fill(photos)
    forget_vectors(library_folder)
    for name in photos.glob("*.[jp][pn]g"):
        name.chmod(0)
    command = ["vectors", "import", phone_file, "--verify", "0", "--json"]
    done = run(*command, "--library", library_folder, unprivileged=True)
    assert json.loads(done.stdout)["stored"] == 8


def test_rows_without_a_picture_are_told_and_do_not_stop_the_others(
    photos, photo_vectors, write_jsonl, open_unable
):
    vector = photo_vectors["cat.jpg"].tolist()
    (photos / "letter.jpg").write_text("Dear diary")
    changed = blake3(b"as it was before").hexdigest()
    rows = [
        {"path": "cat.jpg", "vector": vector},
        {"path": "gone.jpg", "vector": vector},
        {"path": "letter.jpg", "vector": vector},
        {"path": ".", "vector": vector},
        {"uri": "ph://B84E8479/L0/001", "vector": vector},
        {"path": "coffee.jpg", "digest": changed, "vector": vector},
        {"path": "a\0b", "vector": vector},
        {"paths": ["gone too.jpg", "rocket.jpg"], "vector": photo_vectors["rocket.jpg"].tolist()},
    ]
    with open_unable() as library:
        report = library.import_vectors(write_jsonl(photos / "p.jsonl", rows), verify=0)
        assert library.status().files == 2
    assert (report.rows, report.stored, report.unmatched) == (8, 2, 6)
    reasons = {row.row: row.reason for row in report.unmatched_rows}
    assert list(reasons) == [2, 3, 4, 5, 6, 7]
    assert reasons[2] == "no such file"
    assert "not an image" in reasons[3]
    assert "a folder" in reasons[4]
    assert "not a path on this machine" in reasons[5]
    assert "another digest" in reasons[6]


def test_names_that_are_no_text_are_found(photos, photo_vectors, write_jsonl, open_unable):
    raw = os.fsencode(photos) + b"/caf\xe9.jpg"
    os.rename(photos / "coffee.jpg", raw)  # noqa: PTH104
    rows = [{"path": "caf\udce9.jpg", "vector": photo_vectors["coffee.jpg"].tolist()}]
    with open_unable() as library:
        assert library.import_vectors(write_jsonl(photos / "p.jsonl", rows), verify=0).stored == 1
        (match,) = library.search(os.fsdecode(raw), k=1)
    assert os.fsencode(match.path) == raw


def test_relative_paths_are_below_the_root(phone_file, photos, open_unable, tmp_path, monkeypatch):
    elsewhere = shutil.move(phone_file, tmp_path / "phone.jsonl")
    with open_unable() as library:
        assert library.import_vectors(elsewhere, verify=0).unmatched == 8
        monkeypatch.chdir(photos.parent)
        assert library.import_vectors(elsewhere, root="photos", verify=0).stored == 8
        assert library.search(photos / "cat.jpg", k=1)[0].path == str(photos / "cat.jpg")


def test_copies_in_the_file_are_one_image_and_two_places(
    photos, photo_vectors, write_jsonl, open_unable, library_folder
):
    shutil.copy(photos / "cat.jpg", photos / "cat again.jpg")
    digest = blake3((photos / "cat.jpg").read_bytes()).hexdigest()
    vector = photo_vectors["cat.jpg"]
    rows = [
        {"path": "cat.jpg", "vector": vector.tolist()},
        {"path": "cat again.jpg", "vector": turned(vector, 0.9999).tolist()},
        {"path": "cat.jpg", "digest": digest, "vector": vector.tolist()},
    ]
    with open_unable() as library:
        report = library.import_vectors(write_jsonl(photos / "p.jsonl", rows), verify=0)
        assert (library.status().images, library.status().files) == (1, 2)
    assert (report.stored, report.added, report.kept) == (1, 1, 2)
    assert list(stored(library_folder).values()) == [encode_vector(vector)]


def test_a_file_that_moved_is_a_move(phone_file, photos, fill, open_unable):
    fill(photos)
    (photos / "cat.jpg").rename(photos / "katze.jpg")
    text = phone_file.read_text().replace("cat.jpg", "katze.jpg")
    phone_file.write_text(text)
    with open_unable() as library:
        assert library.import_vectors(phone_file).kept == 8
        assert (library.status().files, library.status().missing) == (8, 0)


@pytest.mark.parametrize("key", ["path", "digest"])
def test_rows_that_contradict_are_refused_and_equal_ones_are_not(
    key, photos, photo_vectors, write_jsonl, open_unable, library_folder
):
    name = {"path": "cat.jpg", "digest": blake3((photos / "cat.jpg").read_bytes()).hexdigest()}[key]
    vector = photo_vectors["cat.jpg"]

    def attempt(second: np.ndarray):
        filler = [{"path": f"{n}.jpg", "vector": vector.tolist()} for n in range(300)]
        rows = [{key: name, "vector": v.tolist()} for v in (vector, second)]
        path = write_jsonl(photos / "p.jsonl", [rows[0], *filler, rows[1]])
        with open_unable() as library:
            return library.import_vectors(path, verify=0)

    with pytest.raises(VectorFileError, match=r"row 302: row 1 names the same image.*0\.990"):
        attempt(turned(vector, 0.99))
    assert not any(state(library_folder).values())
    assert attempt(turned(vector, 0.99999)).rows == 302


@given(
    keys=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30),
    block=st.integers(1, 7),
)
def test_contradictions_are_found_as_by_looking_at_all_pairs(keys, block):
    """Vectors are the axes of a space, so that two of them agree only if they are the same."""
    axes = np.eye(4, dtype=np.float32)
    blocks = [
        Block(
            at + 1,
            [Key(None, (f"{name}.jpg",)) for name, _ in keys[at : at + block]],
            np.stack([axes[axis] for _, axis in keys[at : at + block]]),
        )
        for at in range(0, len(keys), block)
    ]

    class Read:
        parts = (Path("v.npy"),)

        def blocks(self, dimension):
            assert dimension == 4
            return iter(blocks)

    repeats = Repeats(Path("/root"))
    for each in blocks:
        repeats.see(each)
    expected = any(a == b and x != y for a, x in keys for b, y in keys)
    with pytest.raises(VectorFileError) if expected else contextlib.nullcontext():
        repeats.require_agreement(Read(), 4)


@pytest.mark.parametrize("bad_row", [1, 2, 300, 601])
def test_one_bad_row_and_nothing_is_imported(
    bad_row, photos, photo_vectors, write_jsonl, open_unable, library_folder
):
    rows = [
        {"path": "cat.jpg", "vector": photo_vectors["cat.jpg"].tolist()},
        *({"path": f"{n}.jpg", "vector": photo_vectors["cat.jpg"].tolist()} for n in range(600)),
    ]
    rows[bad_row - 1]["vector"] = (2 * photo_vectors["cat.jpg"]).tolist()
    path = write_jsonl(photos / "p.jsonl", rows)
    with open_unable() as library:
        with pytest.raises(VectorFileError, match=f"row {bad_row}: .*length 2"):
            library.import_vectors(path, verify=0)
        assert library.status().vectors == 0
    assert not any(state(library_folder).values())


def test_a_vector_that_is_nearly_of_length_1_is_made_so(
    photos, photo_vectors, write_jsonl, open_unable, library_folder
):
    vector = photo_vectors["cat.jpg"]
    row = {"path": "cat.jpg", "vector": (1.0009 * vector).tolist()}
    with open_unable() as library:
        library.import_vectors(write_jsonl(photos / "p.jsonl", [row]), verify=0)
    (found,) = stored(library_folder).values()
    assert np.linalg.norm(np.frombuffer(found, "<f2").astype(np.float64)) == pytest.approx(
        1, abs=1e-4
    )


# Whose vectors they are.


def test_nobody_says_which_model_it_is(photos, photo_vectors, write_jsonl, open_unable, encoder):
    rows = [{"path": "cat.jpg", "vector": photo_vectors["cat.jpg"].tolist()}]
    path = write_jsonl(photos / "p.jsonl", rows, None)
    with open_unable() as library:
        with pytest.raises(VectorFileError, match=r"p.jsonl: nothing says .*--model NAME"):
            library.import_vectors(path, verify=0)
        assert library.import_vectors(path, model=encoder.identity, verify=0).stored == 1
        assert library.import_vectors(path, model="tiny-vit-5m", verify=0).kept == 1


@pytest.mark.parametrize("filled", [False, True])
def test_another_model_is_refused_and_both_are_named(
    filled, phone_file, photos, fill, open_unable, encoder, library_folder
):
    if filled:
        fill(photos)
    text = phone_file.read_text().replace(encoder.identity, OTHER)
    phone_file.write_text(text)
    words = f"phone.jsonl: .*{OTHER[:12]}.*tiny-vit-5m.*{encoder.identity[:12]}"
    with open_unable() as library:
        with pytest.raises(ModelMismatchError, match=words):
            library.import_vectors(phone_file, verify=0)
        with pytest.raises(ModelMismatchError, match=r"its header says .* and you say tiny-vit-5m"):
            library.import_vectors(phone_file, model="tiny-vit-5m", verify=0)
    assert bool(state(library_folder)["model"]) == filled


def test_a_header_may_name_the_model_instead(photos, photo_vectors, write_jsonl, open_unable):
    rows = [{"path": "cat.jpg", "vector": photo_vectors["cat.jpg"].tolist()}]

    def attempt(name):
        path = write_jsonl(photos / "p.jsonl", rows, {"identity": None, "model": name})
        with open_unable() as library:
            return library.import_vectors(path, verify=0)

    assert attempt("tiny-vit-5m").stored == 1
    with pytest.raises(ModelMismatchError, match=r"of clip-vit-base-patch32-image.* tiny-vit-5m"):
        attempt("clip-vit-base-patch32-image")
    with pytest.raises(ModelSourceError):
        attempt("no-such-model")


def test_a_model_of_the_users_own_is_known_by_its_name(
    photos, photo_vectors, write_jsonl, unable_encoder, library_folder
):
    own = ImageEncoder(dataclasses.replace(unable_encoder.card, name="my-own"))
    rows = [{"path": "cat.jpg", "vector": photo_vectors["cat.jpg"].tolist()}]
    path = write_jsonl(photos / "p.jsonl", rows, None)
    with searchlib.open_library(library_folder, encoder=own) as library:
        assert library.import_vectors(path, model="my-own", verify=0).stored == 1


def test_a_header_of_another_dimension_is_refused(photos, photo_vectors, write_jsonl, open_unable):
    rows = [{"path": "cat.jpg", "vector": photo_vectors["cat.jpg"].tolist()}]
    path = write_jsonl(photos / "p.jsonl", rows, {"dimension": 512})
    words = "512 numbers and those of tiny-vit-5m have 320"
    with open_unable() as library, pytest.raises(VectorFileError, match=words):
        library.import_vectors(path, verify=0)


def test_a_library_of_another_model_is_refused(phone_file, open_unable, encoder, library_folder):
    spec = dataclasses.replace(encoder.card.preprocessing, resize="crop")
    other = ImageEncoder(dataclasses.replace(encoder.card, preprocessing=spec))
    with open_unable() as library:
        library.import_vectors(phone_file, verify=0)
    with (
        searchlib.open_library(library_folder, encoder=other) as library,
        pytest.raises(ModelMismatchError),
    ):
        library.import_vectors(phone_file, verify=0)


def test_progress_ends_at_all_rows_in_both_stages(phone_file, open_unable):
    told = []
    with open_unable() as library:
        library.import_vectors(phone_file, verify=0, on_progress=told.append)
    assert [(p.stage, p.done, p.total) for p in told] == [
        ("checking", 0, None),
        ("checking", 8, None),
        ("importing", 0, 8),
        ("importing", 8, 8),
    ]


# A process that is killed.


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """900 small pictures with vectors of nobody's making in an npy file, several batches."""
    folder = tmp_path_factory.mktemp("album")
    chance = np.random.default_rng(7)
    vectors = chance.normal(size=(900, 320))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "v.npy", vectors.astype(np.float32))
    lines = []
    for number in range(900):
        pixels = chance.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png", compress_level=1)
        lines.append(json.dumps({"path": f"{number:04}.png"}) + "\n")
    (folder / "v.jsonl").write_text("".join(lines))
    return folder


def test_a_killed_import_keeps_what_it_stored_and_the_next_one_finishes(
    album, launch, environment, tmp_path
):
    vectors = np.load(album / "v.npy")
    expected = {
        blake3((album / f"{number:04}.png").read_bytes()).digest(): encode_vector(vector)
        for number, vector in enumerate(vectors)
    }
    partial = 0
    for attempt in range(20):
        folder = tmp_path / f"library-{attempt}"
        model = ["--model", "tiny-vit-5m", "--verify", "0", "--library", str(folder)]
        command = [*launch, "vectors", "import", str(album / "v.npy"), *model]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # Somewhere between the first batch and the last.
        log = folder / "catalog.db-wal"
        enough = 40_000 * (1 + attempt % 8)
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size > enough + 200_000:
                    break
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_sound(folder, expected)
        partial += 0 < len(stored(folder)) < len(expected)
        if partial == 2:
            break
    assert partial
    before = stored(folder)
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    words = f"stored {900 - len(before):,} of 900 vectors".encode()
    assert done.stdout.startswith(words)
    assert assert_sound(folder, expected) == len(expected)
    assert stored(folder) == expected
    with searchlib.open_library(folder) as library:
        assert library.status().vectors == 900
        assert library.search(album / "0815.png", k=1)[0].path == str(album / "0815.png")


def test_an_interrupted_import_keeps_what_it_stored(album, open_unable):
    def interrupt(progress):
        if progress.stage == "importing" and progress.done > 256:
            raise KeyboardInterrupt

    with open_unable() as library:
        options = {"model": "tiny-vit-5m", "verify": 0}
        with pytest.raises(KeyboardInterrupt):
            library.import_vectors(album / "v.npy", on_progress=interrupt, **options)
        assert library.status().vectors == 512
        report = library.import_vectors(album / "v.npy", **options)
    assert (report.stored, report.kept) == (900 - 512, 512)


def test_two_imports_at_once_make_one_library(album, launch, environment, library_folder):
    options = ["--model", "tiny-vit-5m", "--verify", "0", "--library", library_folder, "--json"]
    command = [*launch, "vectors", "import", album / "v.npy", *options]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        output, error = process.communicate()
        assert (process.returncode, error) == (0, b"")
        assert json.loads(output)["unmatched"] == 0
    vectors = np.load(album / "v.npy")
    expected = {
        blake3((album / f"{number:04}.png").read_bytes()).digest(): encode_vector(vector)
        for number, vector in enumerate(vectors)
    }
    assert assert_sound(library_folder, expected) == 900


def test_a_library_that_cannot_be_written_is_said(filled_library, run, phone_file):
    forget_vectors(filled_library, 1)
    for path in [filled_library, *filled_library.iterdir()]:
        path.chmod(0o555)
    command = ["vectors", "import", phone_file, "--verify", "0", "--library", filled_library]
    done = run(*command, unprivileged=True)
    assert done.returncode == 2
    assert b"this folder cannot be written" in done.stderr


def assert_sound(folder: Path, expected: dict[bytes, bytes]) -> int:
    if not (folder / "catalog.db").exists():
        return 0
    with searchlib.open_library(folder) as library:
        status = library.status()
    assert rows_of(folder, "PRAGMA integrity_check") == [("ok",)]
    found = stored(folder)
    assert all(expected[digest] == vector for digest, vector in found.items())
    assert len(found) == status.images == status.files == status.vectors
    changes = rows_of(folder, "SELECT image_id FROM change ORDER BY seq")
    assert changes == rows_of(folder, "SELECT image_id FROM embedding ORDER BY image_id")
    return len(found)
