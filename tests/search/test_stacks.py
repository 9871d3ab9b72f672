"""One shot, one match: the raw file beside its JPEG, the film beside a live photograph."""

import shutil

import searchlib
from searchlib.catalog import Facts, ImageRecord
from searchlib.search import Match
from searchlib.search.stacks import collapse


def match(path: str, score: float, *videos: str) -> Match:
    facts = Facts(bytes=1, format="JPEG", width=1, height=1)
    return Match(path, score, ImageRecord(1, "0" * 64, facts, (path,), videos))


def test_a_raw_file_and_its_jpeg_are_one_match_with_the_better_score():
    shots = collapse([match("/a/1.CR2", 0.9), match("/a/2.jpg", 0.8), match("/a/1.JPG", 0.7)])
    assert [(shot.path, shot.score, shot.stack) for shot in shots] == [
        ("/a/1.JPG", 0.9, ("/a/1.CR2",)),
        ("/a/2.jpg", 0.8, ()),
    ]


def test_the_order_in_which_they_come_does_not_matter():
    shots = collapse([match("/a/1.JPG", 0.9), match("/a/1.CR2", 0.7)])
    assert [(shot.path, shot.score, shot.stack) for shot in shots] == [
        ("/a/1.JPG", 0.9, ("/a/1.CR2",))
    ]


def test_two_developed_pictures_of_one_name_are_two_matches():
    shots = collapse([match("/a/1.jpg", 0.9), match("/a/1.png", 0.8), match("/b/1.CR2", 0.7)])
    assert [shot.path for shot in shots] == ["/a/1.jpg", "/a/1.png", "/b/1.CR2"]


def test_the_film_of_a_live_photo_is_found_with_it_and_follows_its_changes(photos, tmp_path):
    film = photos / "cat.MOV"
    film.write_bytes(b"a film")
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos)
        assert library.search(photos / "cat.jpg", k=1)[0].stack == (str(film),)
        film.unlink()
        assert library.add(photos).unchanged == 8
        assert library.search(photos / "cat.jpg", k=1)[0].stack == ()
        shutil.copy(photos / "cat.jpg", photos / "coffee.mov")
        assert library.add(photos).unchanged == 8
        assert library.search(photos / "coffee.jpg", k=1)[0].stack == (str(photos / "coffee.mov"),)
