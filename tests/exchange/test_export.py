"""Exporting: what goes out comes in again, to the last bit that is stored."""

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3

import searchlib
from searchlib.catalog.foreign import BLOCK_ROWS
from searchlib.encoder import ImageEncoder
from searchlib.errors import VectorFileError

SUFFIXES = [".npy", ".jsonl", ".parquet"]


def require(suffix: str) -> str:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    return suffix


def stored(folder) -> dict[bytes, bytes]:
    query = "SELECT digest, vector FROM embedding JOIN image ON image.id = image_id"
    with contextlib.closing(sqlite3.connect(folder / "catalog.db")) as database:
        return dict(database.execute(query).fetchall())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_library_that_imports_the_export_has_the_same_bytes(
    suffix, filled_library, original_photos, unable_encoder, tmp_path
):
    path = tmp_path / f"out{require(suffix)}"
    with searchlib.open_library(filled_library, encoder=unable_encoder) as library:
        report = library.export_vectors(path)
    assert (report.count, report.left_out, report.dimension) == (8, 0, 320)
    assert report.bytes == sum(file.stat().st_size for file in report.files)
    assert sorted(report.files) == sorted(tmp_path.glob("out*"))
    with searchlib.open_library(tmp_path / "other", encoder=unable_encoder) as library:
        taken = library.import_vectors(path, verify=0)
        assert (taken.stored, taken.added) == (8, 8)
        assert library.search(original_photos / "cat.jpg", k=1)[0].score > 0.999
    assert stored(tmp_path / "other") == stored(filled_library)


def test_the_array_is_unit_vectors_and_its_lines_name_digests_and_paths(
    filled_library, original_photos, encoder, tmp_path
):
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        library.export_vectors(tmp_path / "out.npy")
    vectors = np.load(tmp_path / "out.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (8, 320))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    head, *rows = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert head.pop("vectors_blake3") == blake3(vectors.tobytes()).hexdigest()
    assert head == {
        "searchlib": "vectors",
        "version": 1,
        "model": "tiny-vit-5m",
        "identity": encoder.identity,
        "dimension": 320,
        "count": 8,
    }
    found = {row["paths"][0]: row["digest"] for row in rows}
    assert found == {
        str(path): blake3(path.read_bytes()).hexdigest() for path in original_photos.iterdir()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_without_a_file_in_place_are_left_out_or_have_no_path(
    suffix, photos, fill, encoder, library_folder, tmp_path
):
    path = tmp_path / f"out{require(suffix)}"
    fill(photos)
    shutil.copy(photos / "coffee.jpg", photos / "coffee again.jpg")
    (photos / "cat.jpg").unlink()
    fill(photos)
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        report = library.export_vectors(path)
        assert (report.count, report.left_out) == (7, 1)
        report = library.export_vectors(path, include_missing=True)
        assert (report.count, report.left_out) == (8, 0)
        assert library.import_vectors(path).kept == 8
    with searchlib.open_library(tmp_path / "other", encoder=encoder) as library:
        taken = library.import_vectors(path)
        assert (taken.stored, taken.unmatched) == (7, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_no_text_survive(suffix, photos, unable_encoder, encoder, tmp_path):
    raw = os.fsencode(photos) + b"/caf\xe9 \xf0\x9f\x98\x80.jpg"
    os.rename(photos / "coffee.jpg", raw)  # noqa: PTH104
    path = tmp_path / f"out{require(suffix)}"
    with searchlib.open_library(tmp_path / "library", encoder=encoder) as library:
        library.add(photos)
        library.export_vectors(path)
    with searchlib.open_library(tmp_path / "other", encoder=unable_encoder) as library:
        assert library.import_vectors(path, verify=0).stored == 8
        assert os.fsencode(library.search(os.fsdecode(raw), k=1)[0].path) == raw


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_library_without_vectors_gives_a_whole_file_without_rows(
    suffix, encoder, library_folder, tmp_path
):
    path = tmp_path / f"out{require(suffix)}"
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        assert library.export_vectors(path).count == 0
        report = library.import_vectors(path)
    assert (report.rows, report.stored, report.drift) == (0, 0, None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_than_a_block_is_written_whole(suffix, unable_encoder, library_folder, tmp_path):
    """Rows of the database by the thousand, as no encoder could make them in a test."""
    path = tmp_path / f"out{require(suffix)}"
    count = BLOCK_ROWS + 3
    vectors = np.random.default_rng(3).normal(size=(count, 320))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with searchlib.open_library(library_folder, encoder=unable_encoder) as library:
        library.add(tmp_path)  # an empty folder: only the model is put to use
        with contextlib.closing(sqlite3.connect(library_folder / "catalog.db")) as database:
            for id, vector in enumerate(vectors.astype("<f2"), 1):
                database.execute(
                    "INSERT INTO image (id, digest, bytes, width, height, added_at) "
                    "VALUES (?, ?, 1, 1, 1, 0)",
                    (id, id.to_bytes(32, "big")),
                )
                database.execute("INSERT INTO embedding VALUES (?, 1, ?)", (id, vector.tobytes()))
            database.commit()
        told = []
        report = library.export_vectors(path, include_missing=True, on_progress=told.append)
        assert report.count == count
        assert [progress.done for progress in told] == [0, BLOCK_ROWS, count]
        assert library.export_vectors(path).left_out == count
        library.export_vectors(path, include_missing=True)
        taken = library.import_vectors(path)
        assert (taken.kept, taken.drift.count) == (count, count)
        assert taken.drift.min > 0.99999


def test_the_encoder_is_not_run_for_an_export(filled_library, unable_encoder, tmp_path):
    with searchlib.open_library(filled_library, encoder=unable_encoder) as library:
        assert library.export_vectors(tmp_path / "out.npy").count == 8


def test_a_model_that_is_not_installed_here_can_be_exported(encoder, library_folder, tmp_path):
    card = dataclasses.replace(encoder.card, sha256="1" * 64, path=tmp_path / "none.pte")
    other = ImageEncoder(card)
    with searchlib.open_library(library_folder, encoder=other) as library:
        library.add(tmp_path / "nothing")
    with searchlib.open_library(library_folder) as library:
        assert library.export_vectors(tmp_path / "out.npy").identity == other.identity


def test_an_export_replaces_the_one_before_and_leaves_nothing_else(
    filled_library, encoder, tmp_path
):
    folder = tmp_path / "out"
    folder.mkdir()
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        for _ in range(2):
            library.export_vectors(folder / "v.npy")
        with pytest.raises(VectorFileError, match=r"use \.npy, \.parquet or \.jsonl"):
            library.export_vectors(folder / "v.csv")
    assert sorted(path.name for path in folder.iterdir()) == ["v.jsonl", "v.npy"]


def test_no_format_but_parquet_loads_pyarrow(filled_library, tmp_path):
    code = (
        "import sys, searchlib\n"
        f"with searchlib.open_library({str(filled_library)!r}) as library:\n"
        f"    library.export_vectors({str(tmp_path / 'out.npy')!r})\n"
        f"    library.import_vectors({str(tmp_path / 'out.npy')!r})\n"
        "assert 'pyarrow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
