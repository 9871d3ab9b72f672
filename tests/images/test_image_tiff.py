import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from searchlib.images.tiff import is_dng, missing_bytes

LONG = 4
DNG_VERSION = (50706, 1, 4, bytes([1, 4, 0, 0]))


def directory(order, *fields, following=0):
    rows = b""
    for tag, kind, count, value in fields:
        data = value if isinstance(value, bytes) else struct.pack(f"{order}L", value)
        rows += struct.pack(f"{order}HHL", tag, kind, count) + data
    return struct.pack(f"{order}H", len(fields)) + rows + struct.pack(f"{order}L", following)


def tiff(order, *directories):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return head + b"".join(directories)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_dng_is_told_by_its_first_directory(order, photo, encode):
    plain = directory(order, (256, LONG, 1, 5))
    assert is_dng(io.BytesIO(tiff(order, directory(order, (256, LONG, 1, 5), DNG_VERSION))))
    assert not is_dng(io.BytesIO(tiff(order, plain)))
    later = directory(order, (256, LONG, 1, 5), following=8 + len(plain))
    assert not is_dng(io.BytesIO(tiff(order, later, directory(order, DNG_VERSION))))
    assert not is_dng(io.BytesIO(encode(photo.resize((8, 8)), "TIFF")))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("offsets", "lengths"), [(273, 279), (324, 325)])
def test_what_the_blocks_of_a_dng_announce_beyond_the_end_is_missing(order, offsets, lengths):
    fields = [(offsets, LONG, 1, 1000), (lengths, LONG, 1, 600)]
    whole = tiff(order, directory(order, *fields, DNG_VERSION)).ljust(1600, b"\0")
    assert missing_bytes(io.BytesIO(whole)) == 0
    assert missing_bytes(io.BytesIO(whole[:-1])) == 1
    assert missing_bytes(io.BytesIO(whole[:-500])) == 500


def test_of_other_raw_files_the_first_half_of_a_block_counts():
    fields = [(273, LONG, 1, 1000), (279, LONG, 1, 600)]
    whole = tiff("<", directory("<", *fields)).ljust(1600, b"\0")
    assert missing_bytes(io.BytesIO(whole[:-300])) == 0
    assert missing_bytes(io.BytesIO(whole[:-301])) == 1


def test_a_place_that_is_named_elsewhere_is_not_missing():
    fields = [(273, LONG, 1, 0xFFFFFFFF), (279, LONG, 1, 600)]
    assert missing_bytes(io.BytesIO(tiff("<", directory("<", *fields)))) == 0


def test_blocks_of_subdirectories_and_of_later_directories_count():
    inner = directory("<", (273, LONG, 1, 3000), (279, LONG, 1, 10))
    first = directory("<", (330, LONG, 1, 26 + len(inner)), following=26)
    assert len(first) == 18
    assert missing_bytes(io.BytesIO(tiff("<", first, directory("<"), bytes(50)))) == 0
    data = tiff("<", first, inner)
    assert missing_bytes(io.BytesIO(data)) == 3005 - len(data)
    data = tiff("<", directory("<", (330, LONG, 1, 26)), inner)
    assert missing_bytes(io.BytesIO(data)) == 3005 - len(data)


def test_a_whole_tiff_misses_nothing(photo, encode):
    data = encode(photo, "TIFF")
    assert missing_bytes(io.BytesIO(data)) == 0
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == photo.size


def test_directories_in_a_ring_come_to_an_end():
    ring = directory("<", (330, LONG, 1, 8), following=8)
    assert missing_bytes(io.BytesIO(tiff("<", ring))) == 0


@given(
    order=st.sampled_from(["<", ">"]),
    tail=st.binary(max_size=200),
    fields=st.lists(
        st.tuples(
            st.sampled_from([273, 279, 324, 325, 330, 50706, 256]),
            st.integers(0, 14),
            st.integers(0, 2**32 - 1) | st.integers(0, 9),
            st.integers(0, 2**32 - 1) | st.integers(0, 200),
        ),
        max_size=9,
    ),
    following=st.integers(0, 200),
)
def test_any_directories_end_the_search(order, tail, fields, following):
    data = tiff(order, directory(order, *fields, following=following)) + tail
    for content in (data, tail, data[: len(tail)]):
        assert missing_bytes(io.BytesIO(content)) >= 0
        is_dng(io.BytesIO(content))
