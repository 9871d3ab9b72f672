"""No bytes whatsoever make `load` raise anything but an ImageError, or say a word on stderr."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from searchlib.errors import ImageError
from searchlib.images import load
from searchlib.images.formats import _CLASSES, _MAGIC

HEADS = [magic for magic, _ in _MAGIC] + [
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    b"BM" + bytes(12) + b"\x28\0\0\0\x04\0\0\0\x04\0\0\0\1\0",
    b"P5 9 9 255\n",
    b"P1 3 3\n",
    b"Pf\n2 2\n-1.0\n",
    b"\x0a\x05\x01\x08",
    b"\0\0\x02" + bytes(9) + b"\x04\0\x04\0\x18\0",
]


def attempt(data, **options):
    """Load it, or be told why not: the picture or the error."""
    try:
        outcome = load(data, **options)
    except ImageError as error:
        outcome = error
    if isinstance(outcome, ImageError):
        assert outcome.reason
        assert "\n" not in str(outcome)
        str(outcome).encode("utf-8")
    else:
        assert outcome.pixels.mode == "RGB"
    return outcome


@pytest.fixture(scope="module")
def samples(photo, encode):
    """One small file of every format that Pillow can write."""
    small = photo.resize((48, 40))
    files = {name: encode(small, name) for name in _CLASSES if name != "PSD"}
    files["progressive"] = encode(small, "JPEG", progressive=True)
    files["palette"] = encode(small.quantize(16), "PNG", transparency=3)
    files["lzw"] = encode(small, "TIFF", compression="tiff_lzw")
    files["jpeg in tiff"] = encode(small, "TIFF", compression="jpeg")
    files["exif"] = encode(small, "JPEG", exif=Image.Exif())
    return files


def test_every_format_on_the_list_has_a_sample(samples):
    assert set(_CLASSES) - set(samples) == {"PSD"}
    for name in set(_CLASSES) - {"PSD"}:
        assert load(samples[name]).facts.format == name


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from([b"", *HEADS]), tail=st.binary(max_size=300))
def test_random_bytes_are_loaded_or_refused(head, tail):
    attempt(head + tail, max_pixels=10_000_000)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_are_loaded_or_refused(data, samples):
    content = bytearray(samples[data.draw(st.sampled_from(sorted(samples)))])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        # The header is where a flip tells most.
        at = at % 64 if data.draw(st.booleans()) else at
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content)))
        content[at:at] = data.draw(st.binary(max_size=20))
    least = data.draw(st.sampled_from([None, 16]))
    attempt(bytes(content), min_side=least, max_pixels=10_000_000)


def test_every_truncation_of_a_small_jpeg_is_loaded_or_refused(samples):
    for name in ("JPEG", "progressive"):
        whole = samples[name]
        outcomes = [attempt(whole[:length]) for length in range(len(whole) - 20)]
        assert all(isinstance(outcome, ImageError) for outcome in outcomes)


def test_every_file_of_the_corpus_is_loaded_or_refused(shared_data, capfd):
    files = [path for path in sorted((shared_data / "bad").rglob("*")) if path.is_file()]
    # The limit keeps a GIF of 112 bytes from taking the most of the time for its 328 megapixels.
    outcomes = [attempt(path, min_side=448, max_pixels=200_000_000) for path in files]
    refused = sum(isinstance(outcome, ImageError) for outcome in outcomes)
    assert 300 < refused < len(files) // 3
    assert capfd.readouterr() == ("", "")


def test_a_photograph_is_never_refused(shared_data):
    for folder in ("copydet/pdq/bridge-mods", "copydet/small/images4"):
        for path in (shared_data / folder).iterdir():
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                with Image.open(io.BytesIO(path.read_bytes())) as opened:
                    size = sorted(opened.size)
                facts = load(path, min_side=224).facts
                assert sorted((facts.width, facts.height)) == size
