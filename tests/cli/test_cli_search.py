"""`searchlib search`, as a person and as a program see it."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

import searchlib


def lines(output: bytes) -> list[str]:
    return os.fsdecode(output).splitlines()


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def edits(image: Image.Image) -> dict[str, Image.Image]:
    width, height = image.size
    return {
        "smaller": image.resize((width // 3, height // 3)),
        "cropped": image.crop((width // 10, height // 10, width, height)),
        "brighter": ImageEnhance.Brightness(image).enhance(1.3),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }


def test_a_picture_of_the_library_is_its_own_best_match(run, original_photos, filled_library):
    for name in ("cat.jpg", "coins.png"):
        done = run("search", original_photos / name, "--library", filled_library)
        first, second, *rest = lines(done.stdout)
        assert first == f"1.000  {original_photos / name}"
        assert not second.startswith("1.000")
        assert len(rest) == 6
        scores = [float(line[:6]) for line in (first, second, *rest)]
        assert scores == sorted(scores, reverse=True)
        assert (done.returncode, done.stderr) == (0, b"")


def test_an_edited_copy_finds_its_original_first(original_photos, filled_library, encoder):
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        for path in sorted(original_photos.iterdir()):
            for name, edit in edits(opened(path)).items():
                buffer = io.BytesIO()
                edit.save(buffer, "JPEG", quality=60)
                best, next_best = library.search(buffer.getvalue(), k=2)
                assert best.path == str(path), name
                assert best.score > next_best.score + 0.1, name


def test_an_edited_copy_is_found_from_the_command_line(
    run, original_photos, filled_library, tmp_path
):
    query = tmp_path / "smaller.jpg"
    edits(opened(original_photos / "rocket.jpg"))["smaller"].save(query, quality=50)
    done = run("search", query, "-k", "1", "--library", filled_library)
    (line,) = lines(done.stdout)
    assert line.endswith(f"  {original_photos}/rocket.jpg")
    assert 0.5 < float(line[:5]) < 1


def test_the_other_places_of_the_same_bytes_are_listed_below_it(run, fill, photos, library_folder):
    (photos / "backup").mkdir()
    shutil.copy(photos / "cat.jpg", photos / "backup")
    fill(photos)
    done = run("search", photos / "cat.jpg", "-k1", "--library", library_folder)
    assert lines(done.stdout) == [
        f"1.000  {photos}/backup/cat.jpg",
        f"       same bytes: {photos}/cat.jpg",
    ]


def test_paths_and_nul_print_nothing_else(run, original_photos, filled_library):
    query = original_photos / "cat.jpg"
    paths = run("search", query, "-k3", "--paths", "--library", filled_library).stdout
    nul = run("search", query, "-k3", "-0", "--library", filled_library).stdout
    assert paths.count(b"\n") == 3
    assert paths.replace(b"\n", b"\0") == nul
    assert paths.splitlines()[0] == os.fsencode(query)


def test_the_json_says_what_is_known_of_each_match(run, original_photos, filled_library):
    query = original_photos / "coins.png"
    done = run("search", query, "-k2", "--json", "--library", filled_library)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["exact"]) == ("tiny-vit-5m", True)
    first, second = answer["matches"]
    assert (first["path"], first["score"]) == (str(query), 1.0)
    assert (first["rank"], second["rank"]) == (1, 2)
    (term,) = first["terms"]
    assert (term["term"], term["kind"], term["share"]) == (str(query), "image", first["score"])
    assert second["score"] < 1
    image = first["image"]
    with Image.open(query) as picture:
        width, height = picture.size
    assert image["paths"] == [str(query)]
    assert len(image["digest"]) == 64
    facts = image["facts"]
    assert (facts["format"], facts["width"], facts["height"]) == ("PNG", width, height)
    assert facts["bytes"] == query.stat().st_size


def test_an_empty_library_says_what_to_do(run, fill, tmp_path, original_photos, library_folder):
    (tmp_path / "nothing").mkdir()
    fill(tmp_path / "nothing")
    done = run("search", original_photos / "cat.jpg", "--library", library_folder)
    assert lines(done.stderr) == [
        "the library has no images in place; add some with `searchlib add FOLDER`"
    ]
    assert (done.returncode, done.stdout) == (1, b"")
    as_json = run("search", original_photos / "cat.jpg", "--json", "--library", library_folder)
    assert (as_json.returncode, as_json.stderr) == (1, b"")
    answer = json.loads(as_json.stdout)
    assert (answer["matches"], answer["cursor"]) == ([], None)


def test_a_folder_without_a_library_is_named_and_not_made_one(run, original_photos, library_folder):
    for command in (["search", original_photos / "cat.jpg"], ["status"]):
        done = run(*command, "--library", library_folder)
        assert lines(done.stderr) == [
            f"searchlib: {library_folder}: there is no library here; "
            "make one with `searchlib add FOLDER`"
        ]
        assert (done.returncode, done.stdout) == (2, b"")
        assert not library_folder.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.jpg", "no such file"),
        ("./folder", "is a folder"),
        ("letter.jpg", "not an image: no decoder knows its first bytes"),
        ("empty.jpg", "the file is empty"),
        # Port 9 is the discard service, which nothing runs any more.
        ("http://127.0.0.1:9/cat.jpg", "the server refused the connection"),
        ("ftp://127.0.0.1/cat.jpg", "ftp:// is not supported"),
    ],
)
def test_a_query_that_is_no_picture_is_named_with_the_reason(
    run, filled_library, tmp_path, name, words
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "letter.jpg").write_text("Dear diary")
    (tmp_path / "empty.jpg").write_bytes(b"")
    done = run("search", name, "--library", filled_library, cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert line.startswith(f"searchlib: {name}: {words}")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    "arguments", [["-k", "0"], ["-k", "many"], ["--json", "--paths"], ["--paths", "-0"]]
)
def test_arguments_that_mean_nothing_are_refused(run, filled_library, original_photos, arguments):
    done = run("search", original_photos / "cat.jpg", *arguments, "--library", filled_library)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
