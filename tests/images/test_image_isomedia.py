import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.images.isomedia import missing_bytes, picture_format


def box(kind, content=b"", *, announced=None, wide=False):
    size = announced if announced is not None else len(content) + (16 if wide else 8)
    if wide:
        return struct.pack(">I4sQ", 1, kind, size) + content
    return struct.pack(">I4s", size, kind) + content


@pytest.mark.parametrize(
    ("major", "compatible", "expected"),
    [
        (b"heic", b"mif1heic", "HEIF"),
        (b"hevc", b"", "HEIF"),
        (b"avif", b"mif1miaf", "AVIF"),
        (b"avis", b"", "AVIF"),
        (b"mif1", b"mif1heic", "HEIF"),
        (b"mif1", b"mif1avif", "AVIF"),
        (b"msf1", b"", "HEIF"),
        (b"crx ", b"crx isom", "RAW"),
        (b"isom", b"mp41avif", None),
        (b"qt  ", b"", None),
    ],
)
def test_the_brands_tell_the_format(major, compatible, expected):
    assert picture_format(box(b"ftyp", major + bytes(4) + compatible)) == expected


def test_brands_are_looked_for_in_their_box_only():
    assert picture_format(box(b"ftyp", b"mif1" + bytes(4) + b"heic") + b"avif" * 9) == "HEIF"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("missing", [0, 1, 500])
def test_what_the_last_box_announces_beyond_the_end_is_missing(missing, wide):
    data = box(b"ftyp", b"heic") + box(b"meta", bytes(40)) + box(b"mdat", bytes(600), wide=wide)
    assert missing_bytes(io.BytesIO(data[: len(data) - missing])) == missing


def test_a_box_up_to_the_end_of_the_file_is_whole():
    data = box(b"ftyp", b"heic") + box(b"mdat", bytes(60), announced=0)
    assert missing_bytes(io.BytesIO(data)) == 0


def test_what_a_camera_appends_is_not_believed():
    data = box(b"ftyp", b"heic") + box(b"mdat", bytes(60))
    for tail in (b"SEFT", b"\xff" * 100, struct.pack(">I4s", 2**31, b"sefd"), bytes(20)):
        assert missing_bytes(io.BytesIO(data + tail)) == 0


@given(st.binary(max_size=200))
def test_any_bytes_end_the_search(data):
    assert missing_bytes(io.BytesIO(data)) >= 0
    picture_format(data)
