import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.images import IMAGE_EXTENSIONS, RAW_EXTENSIONS, is_image_name, printable


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.JPG", "a.JpEg", "IMG 1.heic", "/photos/x/a.png", "a.b.webp", ".hidden.tif"],
)
def test_a_picture_is_told_by_its_extension_in_any_case(name):
    assert is_image_name(name)
    assert is_image_name(Path(name))


@pytest.mark.parametrize(
    "name", ["a", "jpg", ".jpg", "a.jpg.part", "a.svg", "a.pdf", "a.eps", "a.mov", "a."]
)
def test_other_files_are_not_pictures(name):
    assert not is_image_name(name)


def test_macos_companion_files_are_not_pictures():
    assert not is_image_name("/volume/._IMG_0001.JPG")


def test_extensions_are_lower_case_with_a_dot():
    extensions = IMAGE_EXTENSIONS | RAW_EXTENSIONS
    assert all(e == e.lower() and e.startswith(".") for e in extensions)
    assert not IMAGE_EXTENSIONS & RAW_EXTENSIONS


def test_bytes_that_are_not_utf8_are_shown_as_escapes():
    name = os.fsdecode(b"caf\xe9.jpg")
    assert printable(name) == r"caf\xe9.jpg"


def test_line_ends_and_direction_marks_are_shown_as_escapes():
    assert printable("a\nb\r\t\x1b[31m.jpg") == r"a\nb\r\t\x1b[31m.jpg"
    assert printable("photo_\u202egnp.exe") == r"photo_\u202egnp.exe"
    assert printable("a\u2028b") == r"a\u2028b"


def test_letters_of_any_script_are_left_alone():
    for name in ("日本語.jpg", "Ñandú été.png", "👩\u200d🚀.heic", "Screenshot 3.14\u202fPM.png"):
        assert printable(name) == name


@given(st.binary(max_size=40))
def test_any_name_on_disk_becomes_one_line_of_valid_text(raw):
    shown = printable(os.fsdecode(raw))
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
