"""A large collection of broken, rare and hostile files: each is either used or spoken of."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import searchlib
from searchlib.images import is_image_name
from searchlib.ingest import read


def test_every_file_is_in_the_library_or_on_the_list_of_skipped_ones(
    run, shared_data, library_folder, encoder, monkeypatch
):
    corpus = shared_data / "bad"
    done = run("add", corpus, "--library", library_folder)
    assert done.returncode in (0, 3)
    assert b"Traceback" not in done.stderr
    said = os.fsdecode(done.stderr).splitlines()
    assert all(line.startswith(("skipped ", "embedding: ")) for line in said)
    assert said[-1].endswith("`searchlib status --skipped` lists them")

    tried = {
        str(path)
        for path in corpus.rglob("*")
        if path.is_file() and is_image_name(path) and path.name[0] != "."
    }
    with closing(sqlite3.connect(library_folder / "catalog.db")) as database:
        states = dict(database.execute("SELECT path, state FROM file"))
        present = {os.fsdecode(path) for path, state in states.items() if state == "present"}
    listed = run("status", "--skipped", "--json", "--library", library_folder)
    reasons = {file["path"]: file["reason"] for file in json.loads(listed.stdout)}
    assert present | reasons.keys() == tried
    assert not present & reasons.keys()
    assert len(present) > 500
    assert all(reason.strip() and "\n" not in reason for reason in reasons.values())

    # A second run reads none of them.
    def refuse(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(read, "open_file", refuse)
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        report = library.add(corpus)
    assert (report.added, report.changed, report.copies, report.moved) == (0, 0, 0, 0)
    assert report.unchanged == len(present)
    assert {skipped.path: skipped.reason for skipped in report.skipped} == reasons


def test_the_pictures_of_all_orientations_find_each_other(shared_data, library_folder, encoder):
    """Every variant shows the same upright picture."""
    folder = shared_data / "bad" / "exif_orientation"
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(folder)
        for name in ("Landscape", "Portrait"):
            variants = {str(path) for path in folder.glob(f"{name}_*.jpg")}
            matches = library.search(Path(min(variants)), k=len(variants))
            assert {match.path for match in matches} == variants
