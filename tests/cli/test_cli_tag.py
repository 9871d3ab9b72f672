"""`searchlib tag` and `searchlib images`: words of one's own, and lists by what is known."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from searchlib.cli import main

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def command(filled_library: Path) -> Command:
    """Runs a command on the library with the eight photographs, in this process."""

    def command(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        words = [*(os.fspath(word) for word in arguments), "--library", str(filled_library)]
        done = CliRunner().invoke(main, words)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return subprocess.CompletedProcess(
            words, done.exit_code, done.stdout_bytes, done.stderr_bytes
        )

    return command


def test_what_is_put_on_images_is_printed_and_found_again(
    command: Command, original_photos: Path
) -> None:
    cat, coins = original_photos / "cat.jpg", original_photos / "coins.png"
    done = command("tag", cat, coins, "--add", "pets", "--add", "a home", "--set", "rating=5")
    assert done.stdout.decode() == (
        f"{cat}: a home, pets, rating=5\n{coins}: a home, pets, rating=5\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = command("tag", coins, "--remove", "pets", "--unset", "rating")
    assert done.stdout.decode() == f"{coins}: a home\n"
    assert command("tag", cat).stdout.decode() == f"{cat}: a home, pets, rating=5\n"
    listed = command("tag", "--list").stdout.decode().split()
    assert listed == ["2", "a", "home", "1", "pets"]
    assert json.loads(command("tag", "--list", "--json").stdout) == {"a home": 2, "pets": 1}
    found = command("images", "--where", "tag:pets and key.rating:5", "--paths")
    assert found.stdout.decode() == f"{cat}\n"
    found = command("search", coins, "--where", "tag:pets", "--paths")
    assert found.stdout.decode() == f"{cat}\n"


def test_images_are_named_by_their_ids_too(command: Command, original_photos: Path) -> None:
    listed = json.loads(command("images", "--where", "name:cat.jpg", "--json").stdout)
    (cat,) = listed
    done = command("tag", f"id:{cat['id']}", "--add", "pets", "--set", "who=Chelsea", "--json")
    assert json.loads(done.stdout) == [
        {
            "id": cat["id"],
            "paths": [str(original_photos / "cat.jpg")],
            "tags": ["pets"],
            "properties": {"who": "Chelsea"},
        }
    ]


def test_nothing_is_changed_where_one_image_is_unknown(
    command: Command, original_photos: Path, tmp_path: Path
) -> None:
    foreign = shutil.copy(original_photos / "cat.jpg", tmp_path / "foreign.jpg")
    for unknown in (str(foreign), "id:99", "id:9999999999999999999999", "id:"):
        done = command("tag", original_photos / "coins.png", unknown, "--add", "pets")
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"{unknown}: no image of the library" in done.stderr.decode()
    done = command("tag", "--list")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no image has a tag" in done.stderr


def test_an_image_without_tags_says_so(command: Command, original_photos: Path) -> None:
    cat = original_photos / "cat.jpg"
    assert command("tag", cat).stdout.decode() == f"{cat}: no tags\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--add", "pets"],
        ["--list", "id:1"],
        ["--list", "--add", "pets"],
        ["id:1", "--set", "rating"],
        ["id:1", "--set", "=5"],
        ["id:1", "--set", "rating=5", "--unset", "rating"],
        ["id:1", "--add", ""],
        ["id:1", "--add", "a\nb"],
    ],
)
def test_tags_that_mean_nothing_are_refused(command: Command, arguments: list[str]) -> None:
    done = command("tag", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr


def test_images_are_listed_with_those_added_last_first(
    command: Command, original_photos: Path
) -> None:
    lines = command("images").stdout.decode().splitlines()
    assert len(lines) == 8
    ids = [int(line.split()[0]) for line in lines]
    assert ids == sorted(ids, reverse=True)
    (cat,) = [line for line in lines if line.endswith(f"  {original_photos}/cat.jpg")]
    assert "400 x 266" in cat
    oldest = command("images", "--oldest-first", "-n", "3").stdout.decode().splitlines()
    assert oldest == lines[::-1][:3]


def test_every_form_has_the_same_images(command: Command) -> None:
    whole = json.loads(command("images", "--json").stdout)
    lines = [json.loads(line) for line in command("images", "--jsonl").stdout.splitlines()]
    table = csv.DictReader(io.StringIO(command("images", "--csv").stdout.decode(), newline=""))
    assert lines == whole
    assert [row["digest"] for row in table] == [image["digest"] for image in whole]
    paths = command("images", "--paths").stdout
    assert paths.decode().splitlines() == [image["paths"][0] for image in whole]
    assert command("images", "-0").stdout == paths.replace(b"\n", b"\0")


def test_no_page_is_left_out_or_comes_twice(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchlib.cli import images

    whole = {form: command("images", form).stdout for form in ("--json", "--jsonl", "--csv")}
    monkeypatch.setattr(images, "_PAGE", 3)
    for form, output in whole.items():
        assert command("images", form).stdout == output
    assert command("images", "-n", "7", "--jsonl").stdout.count(b"\n") == 7


def test_no_image_is_1_and_wrong_conditions_are_2(command: Command) -> None:
    done = command("images", "--where", "tag:none")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"no image meets the conditions\n"
    done = command("images", "--where", "tag:none", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (1, [], b"")
    done = command("images", "--where", "widht:3")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.splitlines()[1] == b"^^^^^"
    assert command("images", "--json", "--csv").returncode == 2
    assert command("images", "-n", "0").returncode == 2


def test_folders_in_conditions_are_seen_from_the_working_folder(
    command: Command, original_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(original_photos.parent)
    where = f"folder:./{original_photos.name} and name:cat.*"
    cat = f"{original_photos}/cat.jpg\n"
    assert command("images", "--where", where, "--paths").stdout.decode() == cat
    assert command("search", "id:1", "--where", where, "--paths").stdout.decode() == cat
    assert command("images", "--where", "folder:./elsewhere").returncode == 1
