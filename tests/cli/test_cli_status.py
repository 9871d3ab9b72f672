"""`searchlib status`, and what all commands say of themselves."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from click.testing import CliRunner

import searchlib
from searchlib.cli import main


def test_it_tells_what_is_in_the_library(run, filled_library, encoder):
    done = run("status", "--library", filled_library)
    text = re.sub(r"\d+\.\d kB", "N kB", os.fsdecode(done.stdout))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    assert text == (
        f"library      {filled_library}\n"
        "images       8\n"
        "files        8 (0 missing, 0 skipped)\n"
        "folders      1\n"
        f"model        tiny-vit-5m, 320 dimensions, {encoder.identity[:12]}\n"
        "index        exact, 8 vectors\n"
        "on disk      catalog N kB, index N kB\n"
        "last change  DATE\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_json_holds_the_same(run, filled_library, encoder):
    status = json.loads(run("status", "--json", "--library", filled_library).stdout)
    moment = datetime.fromisoformat(status.pop("last_change"))
    assert timedelta(0) < datetime.now(UTC) - moment < timedelta(hours=1)
    assert status.pop("catalog_bytes") == (filled_library / "catalog.db").stat().st_size
    (checkpoint,) = filled_library.glob("*.ckpt")
    assert status.pop("index_bytes") == checkpoint.stat().st_size
    assert status == {
        "folder": str(filled_library),
        "model": "tiny-vit-5m",
        "identity": encoder.identity,
        "dimension": 320,
        "images": 8,
        "files": 8,
        "missing": 0,
        "offline": 0,
        "skipped": 0,
        "failed": 0,
        "queued": 0,
        "folders": 1,
        "recipe": "exact",
        "recipe_chosen": None,
        "recall": 1.0,
        "recall_target": 0.99,
        "vectors": 8,
        "indexed": 8,
        "fresh": 8,
        "dead": 0,
        "build_due": False,
        "watcher": None,
    }


def test_the_models_are_listed_where_there_is_more_than_one(
    run, filled_library, encoder, cropping_card
):
    with searchlib.open_library(filled_library) as library:
        library.use_model(cropping_card)
    done = run("status", "--library", filled_library)
    assert os.fsdecode(done.stdout).splitlines()[-2:] == [
        f"vectors      8 of cropping, {cropping_card.identity[:12]}, in use",
        f"vectors      8 of tiny-vit-5m, {encoder.identity[:12]}",
    ]
    assert (done.returncode, done.stderr) == (0, b"")
    status = json.loads(run("status", "--json", "--library", filled_library).stdout)
    assert status["identity"] == cropping_card.identity
    assert status["models"] == [
        {"name": "cropping", "identity": cropping_card.identity, "vectors": 8, "in_use": True},
        {"name": "tiny-vit-5m", "identity": encoder.identity, "vectors": 8, "in_use": False},
    ]


def test_skipped_files_are_listed_with_the_reason(run, fill, photos, library_folder):
    (photos / "letter.jpg").write_text("Dear diary")
    (photos / "empty\n.png").write_bytes(b"")
    fill(photos)
    done = run("status", "--skipped", "--library", library_folder)
    assert os.fsdecode(done.stdout).splitlines() == [
        f"{photos}/empty\\n.png: the file is empty",
        f"{photos}/letter.jpg: not an image: no decoder knows its first bytes",
    ]
    done = run("status", "--skipped", "--json", "--library", library_folder)
    assert json.loads(done.stdout) == [
        {"path": f"{photos}/empty\n.png", "reason": "the file is empty"},
        {
            "path": f"{photos}/letter.jpg",
            "reason": "not an image: no decoder knows its first bytes",
        },
    ]
    status = json.loads(run("status", "--json", "--library", library_folder).stdout)
    assert (status["files"], status["skipped"]) == (8, 2)


def test_every_command_has_help_and_is_listed(run):
    overview = os.fsdecode(run("--help").stdout)
    commands = overview.partition("Commands:\n")[2].split("\n")
    names = [line.split()[0] for line in commands if line]
    assert names == [
        "add",
        "export",
        "failures",
        "folders",
        "images",
        "index",
        "models",
        "purge",
        "search",
        "serve",
        "status",
        "tag",
        "vectors",
        "watch",
    ]
    for name in names:
        done = CliRunner().invoke(main, [name, "--help"])
        assert done.exit_code == 0
        assert done.output.startswith("Usage: ")


def test_the_version_is_that_of_the_package(run):
    done = run("--version")
    assert done.stdout.decode() == f"searchlib, version {version('searchlib')}\n"


def test_an_unknown_command_is_refused_in_words(run):
    done = run("serch")
    assert done.returncode == 2
    assert b"No such command 'serch'" in done.stderr
