"""A large collection of broken, rare and hostile files: each is either used or spoken of."""

import json
import os
from pathlib import Path

import searchlib
from searchlib.images import is_image_name
from searchlib.ingest import read
from tests.reliability.watching import FULL
from tests.truth import assert_equals_disk


def test_every_file_is_in_the_library_or_on_the_list_of_skipped_ones(
    watch, run, shared_data, quick, monkeypatch
):
    corpus = shared_data / "bad"
    running = watch(quick, corpus, "--once")
    assert running.wait_end() == 3
    assert "Traceback" not in running.said()
    most = None if FULL else 100
    truth = assert_equals_disk(
        quick.library, [corpus], quick.encoder, failing=None, most_vectors=most
    )
    assert truth.failed.keys() <= set(running.outcomes("skipped"))

    # An add goes by what is known by now.
    done = run("add", corpus, "--library", quick.library, env=quick.env)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    said = os.fsdecode(done.stderr).splitlines()
    assert all(line.startswith(("skipped ", "embedding: ")) for line in said)
    assert said[-1].endswith("`searchlib status --skipped` lists them")

    tried = {
        str(path)
        for path in corpus.rglob("*")
        if path.is_file() and is_image_name(path) and path.name[0] != "."
    }
    present = truth.present.keys()
    listed = run("status", "--skipped", "--json", "--library", quick.library, env=quick.env)
    reasons = {file["path"]: file["reason"] for file in json.loads(listed.stdout)}
    assert present | reasons.keys() == tried
    assert not present & reasons.keys()
    assert len(present) > 500
    assert all(reason.strip() and "\n" not in reason for reason in reasons.values())

    # A second run reads none of them.
    def refuse(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(read, "open_file", refuse)
    with searchlib.open_library(quick.library, encoder=quick.encoder) as library:
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
