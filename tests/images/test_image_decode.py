import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import searchlib.images
from searchlib.errors import DecodeError, TooLargeError
from searchlib.images import DEFAULT_MAX_PIXELS, load

EXACT = ("PNG", "BMP", "TIFF", "TGA", "PPM", "QOI", "PCX", "SGI", "DDS", "DIB", "ICO")
LOSSY = ("JPEG", "GIF", "WEBP", "JPEG2000", "AVIF", "HEIF")


def reason(data, error=DecodeError, **options):
    with pytest.raises(error) as caught:
        load(data, **options)
    assert caught.value.source == "<bytes>"
    assert str(caught.value) == f"<bytes>: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    return caught.value.reason


def png_header(width, height):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("name", EXACT)
def test_formats_without_loss_give_the_pixels_back(name, photo, encode):
    small = photo.resize((64, 64))
    loaded = load(encode(small, name))
    assert loaded.facts.format == name
    assert loaded.pixels.mode == "RGB"
    assert loaded.pixels.tobytes() == small.tobytes()


@pytest.mark.parametrize("name", LOSSY)
def test_formats_with_loss_give_nearly_the_pixels(name, wide_photo, encode):
    loaded = load(encode(wide_photo, name))
    assert loaded.facts.format == name
    assert loaded.pixels.mode == "RGB"
    assert loaded.pixels.size == wide_photo.size
    difference = np.asarray(loaded.pixels, int) - np.asarray(wide_photo, int)
    assert np.abs(difference).mean() < 8


def test_photographs_that_ship_with_scikit_image_load():
    import skimage

    folder = next(iter(skimage.__path__)) + "/data/"
    for name in ("rocket.jpg", "retina.jpg", "chelsea.png", "multipage.tif", "coins.png"):
        loaded = load(folder + name)
        assert loaded.pixels.size == (loaded.facts.width, loaded.facts.height)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_stands_for_them_all(name, photo, encode):
    first = photo.resize((40, 30)).quantize(16).convert("RGB")
    others = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green")]
    options = {"lossless": True} if name == "WEBP" else {}
    loaded = load(encode(first, name, save_all=True, append_images=others, **options))
    assert np.array_equal(np.asarray(loaded.pixels), np.asarray(first))
    assert loaded.facts.animated == (name != "TIFF")


def test_a_still_picture_is_not_animated(photo, encode):
    for name in ("GIF", "PNG", "WEBP", "JPEG", "TIFF"):
        assert load(encode(photo.resize((64, 64)), name)).facts.animated is False


def test_an_mpo_is_its_first_picture(photo, encode):
    data = encode(photo, "MPO", save_all=True, append_images=[Image.new("RGB", (512, 512))])
    loaded = load(data)
    assert loaded.facts.format == "JPEG"
    assert np.abs(np.asarray(loaded.pixels, int) - np.asarray(photo, int)).mean() < 8


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    least=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    name=st.sampled_from(["JPEG", "PNG"]),
)
def test_a_reduced_picture_is_never_below_min_side(width, height, least, name, encode):
    data = encode(Image.new("RGB", (width, height), (10, 200, 90)), name)
    loaded = load(data, min_side=least)
    assert (loaded.facts.width, loaded.facts.height) == (width, height)
    room = min(width // least[0], height // least[1])
    factor = max(f for f in (1, 2, 4, 8) if f <= max(room, 1))
    assert loaded.pixels.size == (-(-width // factor), -(-height // factor))
    if width >= least[0] and height >= least[1]:
        assert loaded.pixels.size[0] >= least[0]
        assert loaded.pixels.size[1] >= least[1]
    assert np.abs(np.asarray(loaded.pixels, int) - (10, 200, 90)).max() <= 4


def test_a_jpeg_and_its_png_are_reduced_alike(photo, encode):
    loaded = [
        np.asarray(load(data, min_side=100).pixels, int)
        for data in (encode(photo, "JPEG", quality=95, subsampling=0), encode(photo, "PNG"))
    ]
    assert loaded[0].shape == (128, 128, 3)
    assert np.abs(loaded[0] - loaded[1]).mean() < 2


def test_one_number_is_both_sides(photo, encode):
    data = encode(photo, "JPEG")
    assert (
        load(data, min_side=128).pixels.tobytes()
        == load(data, min_side=(128, 128)).pixels.tobytes()
    )


def test_a_reduced_jpeg_never_takes_the_memory_of_the_whole(tmp_path, wide_photo):
    wide_photo.resize((6000, 4000)).save(tmp_path / "24mp.jpg")
    wide_photo.save(tmp_path / "small.jpg")
    program = """
import resource, sys
from searchlib.images import load
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (
        1 << 20 if sys.platform == "darwin" else 1 << 10)
load(sys.argv[1], min_side=448)
before = peak()
assert load(sys.argv[2], min_side=448).pixels.size == (750, 500)
print(peak() - before)
"""
    names = [str(tmp_path / name) for name in ("small.jpg", "24mp.jpg")]
    output = subprocess.run(
        [sys.executable, "-c", program, *names], check=True, capture_output=True, text=True
    )
    assert int(output.stdout) < 24  # megabytes; the whole takes 24 million pixels of 4 bytes


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_every_scale(keep, progressive, wide_photo, encode):
    data = encode(wide_photo, "JPEG", progressive=progressive)
    data = data[: int(len(data) * keep)]
    for least in (None, 100):
        assert reason(data, min_side=least).startswith("the file is truncated (")


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TGA", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_truncated_file_of_another_format_is_refused(name, wide_photo, encode):
    data = encode(wide_photo, name)
    for keep in (0.5, 0.9):
        assert reason(data[: int(len(data) * keep)])


def test_a_photograph_of_a_phone_that_was_cut_short_is_refused(shared_data):
    data = (shared_data / "bad/pillow_heif/heif_other/arrow.heic").read_bytes()
    assert load(data, min_side=448).facts.camera_model == "iPhone 8 Plus"
    whole = len(data)
    for missing in (1, 1000, whole // 2):
        words = f"the file is truncated ({missing} bytes missing)"
        assert reason(data[: whole - missing]) == words


def test_the_lenient_setting_of_the_host_is_left_alone(photo):
    from PIL import ImageFile

    load(photo)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_an_empty_source_is_refused():
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    "text",
    [b"hello, world\n" * 50, b"P6 is a model of a car", b"BMW too, of many cars", b"\n\n", b"x"],
)
def test_a_text_is_not_an_image(text):
    assert reason(text) == "not an image: no decoder knows its first bytes"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html><title>404</title>", "a web page"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0", "a video"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "a macOS resource file"),
    ],
)
def test_what_lies_among_photographs_is_called_by_its_name(head, words):
    assert reason(head).startswith(words)


def test_a_huge_header_is_refused_with_the_figures():
    words = reason(png_header(50_000, 50_000), TooLargeError)
    assert words == "50000 x 50000 is 2500 megapixels, the limit is 500"
    assert DEFAULT_MAX_PIXELS == 500_000_000


def test_the_limit_is_the_callers(photo, encode):
    data = encode(photo, "PNG")
    assert load(data, max_pixels=512 * 512).pixels.size == (512, 512)
    words = reason(data, TooLargeError, max_pixels=512 * 512 - 1)
    assert words == "512 x 512 is 262144 pixels, the limit is 262143"
    with pytest.raises(TooLargeError):
        load(photo, max_pixels=1000)


def test_pillows_own_limit_is_neither_met_nor_moved():
    before = Image.MAX_IMAGE_PIXELS
    # 200 megapixels: Pillow's limit is about 179, and its warning comes at half of that.
    assert reason(png_header(20_000, 10_000)).startswith("the file is truncated")
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_in_a_chunk_beside_the_picture_is_refused(kind, photo, encode):
    data = encode(photo.resize((8, 8)), "PNG")
    bomb = b"name\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunk = struct.pack(">I", len(bomb)) + kind + bomb
    chunk += struct.pack(">I", zlib.crc32(kind + bomb))
    assert "too large" in reason(data[:33] + chunk + data[33:])


def test_a_larger_picture_inside_an_icon_is_refused(encode):
    data = bytearray(encode(Image.new("RGB", (64, 64)), "ICO", sizes=[(64, 64)]))
    inner = data.index(b"\x89PNG")
    data[inner : inner + len(png_header(1, 1))] = png_header(30_000, 30_000)
    assert "too large to decode" in reason(bytes(data), TooLargeError)


def test_an_error_of_the_disk_is_not_blamed_on_the_picture(photo, encode):
    import errno
    import io

    from searchlib.errors import SourceError
    from searchlib.images.decode import decode

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 1000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    file = Failing(encode(photo, "JPEG", quality=100))
    with pytest.raises(SourceError, match="cannot be read: Input/output error") as caught:
        decode(file, label="a.jpg", digest=None, min_side=None, max_pixels=10**9)
    assert caught.value.lasting is False


@pytest.mark.skipif(sys.platform != "linux", reason="the limit holds on Linux only")
def test_a_lack_of_memory_may_pass(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(20_000, 20_000))
    program = """
import resource, sys
from searchlib.errors import DecodeError
from searchlib.images import load
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    load(sys.argv[1])
except DecodeError as error:
    print(error.reason, error.lasting)
"""
    output = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "there is not enough memory to decode it False"


def test_importing_the_package_loads_neither_numpy_nor_a_decoder():
    program = """
import sys, types
package = types.ModuleType("searchlib")  # without what the package itself imports
package.__path__ = [sys.argv[1]]
sys.modules["searchlib"] = package
import searchlib.images
heavy = {"numpy", "pillow_heif", "PIL.ImageCms", "PIL.JpegImagePlugin", "PIL.TiffImagePlugin"}
print(sorted(heavy & set(sys.modules)))
"""
    folder = str(Path(searchlib.images.__file__).parents[1])
    output = subprocess.run(
        [sys.executable, "-c", program, folder], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "[]"


def test_heif_is_read_without_registering_it_for_the_host(tmp_path, photo, encode):
    path = tmp_path / "a.heic"
    path.write_bytes(encode(photo.resize((64, 64)), "HEIF"))
    program = """
import sys
from PIL import Image
from searchlib.images import load
assert load(sys.argv[1]).facts.format == "HEIF"
Image.init()
print("HEIF" in Image.OPEN)
"""
    output = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "False"
