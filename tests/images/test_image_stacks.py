from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.images import kind_of, leader, live_video, stack_key

EXTENSIONS = [".CR2", ".jpg", ".JPG", ".HEIC", ".mov", ".MP4", ".xmp", ".nef", ".png", ""]


def test_the_files_of_one_shot_share_a_key():
    keys = {stack_key(f"/photos/IMG_1{e}") for e in (".CR2", ".JPG", ".jpg", ".HEIC", ".MOV")}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "other",
    [
        "/photos/IMG_2.JPG",
        "/photos/img_1.JPG",
        "/photos/sub/IMG_1.JPG",
        "/photos/IMG_1.CR2.jpg",
        "/photos/IMG_1 (2).jpg",
        "IMG_1.JPG",
    ],
)
def test_other_files_have_another_key(other):
    assert stack_key(other) != stack_key("/photos/IMG_1.CR2")


def test_a_dot_in_a_folder_or_at_the_front_is_no_extension():
    assert stack_key("/2024.05/IMG_1") == "/2024.05/IMG_1"
    assert stack_key("/2024.05/IMG_1") != stack_key("/2024.06/IMG_1")
    assert stack_key("/photos/.jpg") != stack_key("/photos/.png")


@given(
    folder=st.sampled_from(["", "/", "a/", "/a.b/c/", "/\udcff/", "//a/../"]),
    stem=st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8),
    pair=st.tuples(st.sampled_from(EXTENSIONS[:-1]), st.sampled_from(EXTENSIONS[:-1])),
)
def test_a_key_is_the_folder_and_the_stem_whatever_they_are(folder, stem, pair):
    stem = "x" + stem  # a name of dots alone has no extension
    one, two = (folder + stem + extension for extension in pair)
    assert stack_key(one) == stack_key(two) == folder + stem


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CR2", "raw"),
        ("/x/a.dng", "raw"),
        ("a.JPG", "still"),
        ("a.heic", "still"),
        ("a.png", "still"),
        ("a.MOV", "video"),
        ("a.mp4", "video"),
        ("a.m4v", "video"),
        ("a.xmp", None),
        ("a", None),
        (".jpg", None),
    ],
)
def test_the_kind_is_told_by_the_extension(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize("film", ["IMG_1.MOV", "IMG_1.mov", "IMG_1.mp4", "IMG_1.M4V"])
@pytest.mark.parametrize("still", ["IMG_1.HEIC", "IMG_1.jpg", "IMG_1.JPEG"])
def test_the_film_of_a_live_photograph_is_found_beside_it(still, film):
    names = {still, film, "IMG_2.MOV"}
    assert live_video(f"/photos/{still}", names) == f"/photos/{film}"
    assert live_video(still, names) == film


def test_a_film_of_another_name_belongs_to_no_still():
    for names in ([], ["IMG_2.MOV"], ["img_1.MOV"], ["IMG_1.avi"], ["IMG_1.JPG.mov"]):
        assert live_video("/photos/IMG_1.JPG", names) is None


@pytest.mark.parametrize("name", ["IMG_1.CR2", "IMG_1.png", "IMG_1.MOV", "IMG_1"])
def test_only_stills_that_phones_take_have_a_film(name):
    assert live_video(name, {"IMG_1.MOV"}) is None


def test_a_developed_still_stands_for_its_raw_file():
    stack = ["a.CR2", "a.JPG", "a.MOV", "a.dng", "a.HEIC"]
    for order in permutations(stack):
        assert leader(order) == "a.HEIC"
    assert leader(["a.MOV", "a.dng", "a.CR2"]) == "a.CR2"
    assert leader(["a.MOV"]) == "a.MOV"
    with pytest.raises(ValueError, match="empty"):
        leader([])


@given(st.lists(st.sampled_from(EXTENSIONS), min_size=1), st.randoms())
def test_the_leader_does_not_depend_on_the_order_and_is_never_raw_beside_a_still(chosen, random):
    paths = ["/p/a" + extension for extension in chosen]
    shuffled = random.sample(paths, len(paths))
    assert leader(paths) == leader(shuffled)
    kinds = {kind_of(path) for path in paths}
    best = next(kind for kind in ("still", "raw", "video", None) if kind in kinds)
    assert kind_of(leader(paths)) == best
