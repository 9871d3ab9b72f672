"""Camera raw files, on Digital Negatives (DNG 1.4) that are written here from photographs."""

import io
import struct
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

import searchlib.images.raw
from searchlib.errors import DecodeError, ImageError, TooLargeError
from searchlib.images import RAW_EXTENSIONS, NamedBytes, is_image_name, load, open_file, reads_raw

with_rawpy = pytest.mark.skipif(not reads_raw(), reason="rawpy is not installed")

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
CODES = {BYTE: "B", SHORT: "H", LONG: "L", RATIONAL: "L", SRATIONAL: "l"}

# A sensor that sees the primaries of sRGB (IEC 61966-2-1): XYZ to linear sRGB in ten-thousandths.
XYZ_TO_SENSOR = [32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570]
BLACK, WHITE = 512, 16383


def mosaic(photo):
    """What a sensor with an RGGB filter would have measured, height x width, uint16."""
    level = np.asarray(photo, float) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    seen = light[:, :, 1].copy()
    seen[0::2, 0::2] = light[0::2, 0::2, 0]
    seen[1::2, 1::2] = light[1::2, 1::2, 2]
    return np.rint(BLACK + seen * (WHITE - BLACK)).astype("<u2")


def make_dng(photo, *, preview=None, orientation=1, sensor_last=False, bitmap=None):
    """A DNG of a photograph with even sides.

    Args:
        preview: a JPEG, which takes the first directory; the sensor's data is then in a SubIFD.
        bitmap: an RGB image to be the preview in its place.
        orientation: the EXIF orientation of both.
        sensor_last: the sensor's data ends the file, as cameras write it.
    """
    sensor = mosaic(photo).tobytes()
    width, height = photo.size
    body = bytearray(b"II*\0\0\0\0\0")

    def put(data):
        body.extend(bytes(len(body) % 2))
        body.extend(data)
        return len(body) - len(data)

    def packed(kind, values):
        if kind == ASCII:
            return values.encode() + b"\0", len(values) + 1
        data = struct.pack(f"<{len(values)}{CODES[kind]}", *values)
        return data, len(values) // (2 if kind in (RATIONAL, SRATIONAL) else 1)

    def directory(*fields):
        rows = []
        for tag, kind, values in sorted(fields):
            data, count = packed(kind, values)
            if len(data) > 4:
                data = struct.pack("<L", put(data))
            rows.append(struct.pack("<HHL", tag, kind, count) + data.ljust(4, b"\0"))
        return put(struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4))

    strip = 0xDEADBEEF if sensor_last else put(sensor)
    sensor_fields = [
        *[(254, LONG, [0]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [16])],
        *[(259, SHORT, [1]), (262, SHORT, [32803]), (273, LONG, [strip]), (277, SHORT, [1])],
        *[(278, LONG, [height]), (279, LONG, [len(sensor)]), (33421, SHORT, [2, 2])],
        *[(33422, BYTE, [0, 1, 1, 2]), (50714, SHORT, [BLACK]), (50717, LONG, [WHITE])],
    ]
    colours = [part for value in XYZ_TO_SENSOR for part in (value, 10000)]
    north = [48, 1, 30, 1, 0, 1]
    east = [2, 1, 15, 1, 0, 1]
    fields = [
        *[(271, ASCII, "Acme"), (272, ASCII, "Camera 1"), (274, SHORT, [orientation])],
        (34665, LONG, [directory((36867, ASCII, "2024:05:06 07:08:09"))]),
        (
            34853,
            LONG,
            [
                directory(
                    *[(1, ASCII, "N"), (2, RATIONAL, north), (3, ASCII, "E"), (4, RATIONAL, east)]
                )
            ],
        ),
        *[(50706, BYTE, [1, 4, 0, 0]), (50708, ASCII, "Acme Camera 1"), (50778, SHORT, [21])],
        *[(50721, SRATIONAL, colours), (50728, RATIONAL, [1] * 6)],
    ]
    if preview is None and bitmap is None:
        fields += sensor_fields
    else:
        width, height = bitmap.size if bitmap else photo.size
        data = bitmap.tobytes() if bitmap else preview
        fields += [
            *[(254, LONG, [1]), (256, LONG, [width]), (257, LONG, [height])],
            *[(258, SHORT, [8, 8, 8]), (259, SHORT, [1 if bitmap else 7])],
            *[(262, SHORT, [2 if bitmap else 6]), (273, LONG, [put(data)]), (277, SHORT, [3])],
            *[(278, LONG, [height]), (279, LONG, [len(data)])],
            (330, LONG, [directory(*sensor_fields)]),
        ]
    struct.pack_into("<L", body, 4, directory(*fields))
    if sensor_last:
        at = put(sensor)
        body[:] = body.replace(struct.pack("<L", 0xDEADBEEF), struct.pack("<L", at))
    return bytes(body)


def difference(pixels, photo):
    expected = photo.resize(pixels.size, Image.Resampling.BOX)
    return np.abs(np.asarray(pixels, int) - np.asarray(expected, int)).mean()


def refused(data, error=DecodeError, **options):
    with pytest.raises(error) as caught:
        load(NamedBytes("a.dng", data), **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.fixture(scope="module")
def swapped(wide_photo):
    """The photograph with red and blue exchanged, to tell a preview from the sensor's data."""
    red, green, blue = wide_photo.split()
    return Image.merge("RGB", (blue, green, red))


@pytest.fixture(scope="module")
def developed(wide_photo):
    return make_dng(wide_photo, sensor_last=True)


@pytest.fixture(scope="module")
def previewed(wide_photo, swapped, encode):
    return make_dng(wide_photo, preview=encode(swapped, "JPEG"), sensor_last=True)


@pytest.fixture
def no_rawpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    reads_raw.cache_clear()
    yield
    monkeypatch.undo()
    reads_raw.cache_clear()


@with_rawpy
@pytest.mark.parametrize("sensor_last", [False, True])
def test_a_raw_file_without_preview_is_developed(wide_photo, sensor_last):
    loaded = load(make_dng(wide_photo, sensor_last=sensor_last))
    assert loaded.pixels.mode == "RGB"
    assert loaded.pixels.size == (300, 200)
    assert difference(loaded.pixels, wide_photo) < 8


@with_rawpy
def test_a_large_preview_comes_first(previewed, wide_photo, swapped):
    for least, size in ((None, (600, 400)), (150, (300, 200)), ((60, 100), (150, 100))):
        loaded = load(previewed, min_side=least)
        assert loaded.pixels.size == size
        assert difference(loaded.pixels, swapped) < 6 < difference(loaded.pixels, wide_photo)


@with_rawpy
def test_a_preview_comes_first_where_it_is_large_enough_for_the_caller(wide_photo, swapped, encode):
    data = make_dng(wide_photo, preview=encode(swapped.resize((240, 160)), "JPEG"))
    for least, size in ((160, (240, 160)), (161, (300, 200)), (None, (300, 200))):
        loaded = load(data, min_side=least)
        assert loaded.pixels.size == size
        assert difference(loaded.pixels, swapped if size == (240, 160) else wide_photo) < 8
        assert (loaded.facts.width, loaded.facts.height) == (600, 400)


@with_rawpy
def test_a_preview_of_half_the_sensor_is_as_good_as_developing(wide_photo, swapped, encode):
    data = make_dng(wide_photo, preview=encode(swapped.resize((300, 200)), "JPEG"))
    for least in (None, 200, 400, 1000):
        assert difference(load(data, min_side=least).pixels, swapped) < 6


@with_rawpy
def test_a_preview_may_be_a_bitmap(wide_photo, swapped):
    for orientation, turn in ((1, None), (8, Image.Transpose.ROTATE_90)):
        data = make_dng(wide_photo, bitmap=swapped.resize((300, 200)), orientation=orientation)
        loaded = load(data)
        expected = swapped if turn is None else swapped.transpose(turn)
        assert loaded.pixels.size == expected.resize(loaded.pixels.size).size
        assert difference(loaded.pixels, expected) < 3


@with_rawpy
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
    ],
)
@pytest.mark.parametrize("least", [None, 100, (90, 140)])
def test_raw_files_come_out_upright(orientation, turn, least, wide_photo, encode):
    upright = wide_photo.transpose(turn)
    for preview in (None, encode(wide_photo, "JPEG")):
        data = make_dng(wide_photo, preview=preview, orientation=orientation)
        loaded = load(data, min_side=least)
        assert (loaded.facts.width, loaded.facts.height) == upright.size
        assert difference(loaded.pixels, upright) < 8
        assert not loaded.pixels.info


def camera_jpeg(data):
    """A JPEG whose EXIF comes first, as cameras write it; Pillow puts a JFIF segment before."""
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


@with_rawpy
def test_the_orientation_of_the_preview_itself_counts(wide_photo, encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    preview = camera_jpeg(encode(wide_photo, "JPEG", exif=exif))
    data = make_dng(wide_photo, preview=preview, orientation=6)
    assert difference(load(data).pixels, wide_photo.transpose(Image.Transpose.ROTATE_90)) < 6


@with_rawpy
def test_a_preview_that_is_upright_already_is_not_turned_again(wide_photo, encode):
    upright = wide_photo.transpose(Image.Transpose.ROTATE_270)
    data = make_dng(wide_photo, preview=encode(upright, "JPEG"), orientation=6)
    assert difference(load(data).pixels, upright) < 6


@with_rawpy
def test_the_orientation_of_the_sensor_counts_where_a_preview_has_an_exif_without(
    wide_photo, encode
):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Other"
    preview = camera_jpeg(encode(wide_photo, "JPEG", exif=exif))
    data = make_dng(wide_photo, preview=preview, orientation=6)
    assert difference(load(data).pixels, wide_photo.transpose(Image.Transpose.ROTATE_270)) < 6


@with_rawpy
def test_a_raw_file_tells_all(developed, previewed):
    for data in (developed, previewed):
        facts = load(data, min_side=64).facts
        assert facts.format == "RAW"
        assert (facts.width, facts.height) == (600, 400)
        assert facts.taken_at == datetime(2024, 5, 6, 7, 8, 9)
        assert (facts.camera_make, facts.camera_model) == ("Acme", "Camera 1")
        assert (facts.latitude, facts.longitude) == (48.5, 2.25)
        assert not facts.animated


def test_the_tags_of_olympus_and_panasonic_are_read_as_those_of_a_tiff():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    assert data[:4] == b"MM\0*"
    for content in (data, b"MMOR" + data[4:]):
        assert searchlib.images.raw._exif(content, "a")[ExifTags.Base.Make] == "Acme"


def test_the_tags_of_a_cr3_are_read_from_their_boxes():
    def block(tag, value):
        exif = Image.Exif()
        exif[tag] = value
        return exif.tobytes().removeprefix(b"Exif\0\0")

    def box(kind, content):
        return struct.pack(">L4s", 8 + len(content), kind) + content

    blocks = {
        b"CMT1": block(ExifTags.Base.Make, "Canon"),
        b"CMT2": block(ExifTags.Base.DateTimeOriginal, "2024:05:06 07:08:09"),
        b"CMT4": block(ExifTags.GPS.GPSLatitudeRef, "N"),
    }
    boxes = b"".join(box(kind, content) for kind, content in blocks.items())
    content = box(b"ftyp", b"crx \0\0\0\1crx isom") + box(b"moov", box(b"uuid", bytes(16) + boxes))
    exif = searchlib.images.raw._exif(content, "a")
    assert exif[ExifTags.Base.Make] == "Canon"
    photo = exif.get_ifd(ExifTags.IFD.Exif)
    assert photo[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    for length in range(len(content)):
        searchlib.images.raw._exif(content[:length], "a")


@with_rawpy
@pytest.mark.parametrize("name", ["a.dng", "A.DNG", "a.NEF", "b c.arw", "http://x/a.dng?..."])
def test_a_tiff_with_the_extension_of_a_raw_file_is_one(name, developed, tmp_path):
    # Without its mark a DNG is a TIFF like those that most cameras write.
    unmarked = developed.replace(struct.pack("<HHL4B", 50706, BYTE, 4, 1, 4, 0, 0), bytes(12))
    with pytest.raises(ImageError):
        load(unmarked)
    assert load(NamedBytes(name, developed)).facts.format == "RAW"
    if "/" not in name:
        (tmp_path / name).write_bytes(developed)
        with open_file(tmp_path / name) as opened:
            assert opened.load().facts.format == "RAW"


@with_rawpy
def test_a_raw_file_beyond_what_is_held_in_memory_is_read(developed, tmp_path, monkeypatch):
    monkeypatch.setattr("searchlib.images.files.HOLD_BYTES", 1000)
    (tmp_path / "a.dng").write_bytes(developed)
    with open_file(tmp_path / "a.dng") as opened:
        loaded = opened.load()
    assert loaded.pixels.tobytes() == load(developed).pixels.tobytes()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "HEIF"])
def test_another_picture_with_the_extension_of_a_raw_file_is_what_it_is(name, photo, encode):
    data = encode(photo.resize((64, 64)), name)
    assert load(NamedBytes("a.raw", data)).facts.format == name


def test_a_tiff_by_its_name_is_one_even_with_the_mark_of_a_dng(photo, encode):
    data = encode(photo.resize((64, 64)), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    assert load(NamedBytes("a.tif", data)).facts.format == "TIFF"
    assert load(NamedBytes("A.TIFF", data)).facts.format == "TIFF"


@pytest.mark.parametrize("at", [0, 7, 100, 2**32 - 1])
def test_a_tiff_whose_directory_is_nowhere_is_no_dng(at):
    assert not searchlib.images.raw.tiff.is_dng(io.BytesIO(b"II*\0" + struct.pack("<L", at)))


@with_rawpy
def test_what_is_too_large_is_refused_by_its_header(developed, previewed, monkeypatch):
    monkeypatch.setattr(searchlib.images.raw.RawFile, "develop", None)
    for data in (developed, previewed):
        words = "600 x 400 is 240000 pixels, the limit is 239999"
        assert refused(data, TooLargeError, max_pixels=239_999) == words


@with_rawpy
@pytest.mark.parametrize("lost", [1, 1000, 300_000, 480_000])
def test_a_truncated_raw_file_is_refused_even_with_its_preview(lost, developed, previewed, capfd):
    for data in (developed, previewed):
        assert refused(data[:-lost]) == f"the file is truncated ({lost} bytes missing)"
    assert capfd.readouterr() == ("", "")


@with_rawpy
def test_a_loss_that_the_directories_do_not_tell_is_found_by_libraw(developed, monkeypatch, capfd):
    monkeypatch.setattr(searchlib.images.raw.tiff, "missing_bytes", lambda _: 0)
    for lost in (1000, 300_000):
        assert refused(developed[:-lost]).startswith("it is a truncated or damaged camera raw")
    assert capfd.readouterr() == ("", "")


@with_rawpy
def test_a_damaged_preview_is_passed_over(wide_photo, swapped, encode, caplog, capfd):
    whole = encode(swapped, "JPEG")
    broken = whole[: len(whole) // 2]
    # LibRaw has libjpeg read the header, which speaks of bytes that do not belong there.
    noisy = whole[:2] + bytes(30) + whole[2:]
    for preview in (broken, noisy[:1000]):
        loaded = load(make_dng(wide_photo, preview=preview))
        assert loaded.pixels.size == (300, 200)
        assert difference(loaded.pixels, wide_photo) < 8
    assert all(record.levelname == "DEBUG" for record in caplog.records)
    assert capfd.readouterr() == ("", "")


@with_rawpy
@pytest.mark.parametrize("name", ["a.cr2", "a.raw", "a.x3f", "a.dng"])
def test_what_libraw_does_not_know_is_refused_in_words(name, photo, encode):
    for data in (b"no picture at all" * 9, encode(photo.resize((64, 64)), "TIFF"), b"\n\5\1\x08"):
        with pytest.raises(DecodeError) as caught:
            load(NamedBytes(name, data))
        assert caught.value.lasting
        assert "camera raw file" in caught.value.reason


@with_rawpy
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_raw_files_are_loaded_or_refused(data, small_raw_files):
    content = bytearray(data.draw(st.sampled_from(small_raw_files)))
    tags = len(content) - 700
    for _ in range(data.draw(st.integers(0, 6))):
        first = tags if data.draw(st.booleans()) else 0
        content[data.draw(st.integers(first, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    least = data.draw(st.sampled_from([None, 8]))
    try:
        outcome = load(NamedBytes("a.dng", bytes(content)), min_side=least, max_pixels=10_000_000)
    except ImageError as error:
        outcome = error
    if isinstance(outcome, ImageError):
        assert outcome.reason
        assert "\n" not in str(outcome)
    else:
        assert outcome.pixels.mode == "RGB"


@pytest.fixture(scope="module")
def small_raw_files(wide_photo, encode):
    small = wide_photo.resize((48, 32))
    return [make_dng(small), make_dng(small, preview=encode(small, "JPEG"))]


@with_rawpy
def test_damaged_raw_files_say_nothing_on_stderr(small_raw_files, capfd):
    for content in small_raw_files:
        for length in range(0, len(content), 97):
            with pytest.raises(ImageError):
                load(NamedBytes("a.dng", content[:length]))
    assert capfd.readouterr() == ("", "")


@with_rawpy
def test_folder_walks_try_raw_files():
    assert all(is_image_name("a" + extension) for extension in RAW_EXTENSIONS)
    assert is_image_name("/photos/IMG_1.CR2")
    assert not is_image_name("._IMG_1.CR2")


@pytest.mark.usefixtures("no_rawpy")
def test_without_rawpy_a_raw_file_is_refused_with_what_to_install(developed, tmp_path):
    assert not any(is_image_name("a" + extension) for extension in RAW_EXTENSIONS)
    (tmp_path / "a.nef").write_bytes(developed)
    for source in (developed, tmp_path / "a.nef", b"FUJIFILMCCD-RAW 0201"):
        with pytest.raises(DecodeError) as caught:
            load(source)
        assert caught.value.reason == "a camera raw file; install searchlib[raw] to use it"
        assert not caught.value.lasting


def test_rawpy_is_imported_only_for_raw_files(tmp_path, photo):
    photo.resize((64, 64)).save(tmp_path / "a.tif")
    program = (
        "import sys; from searchlib.images import is_image_name, load; is_image_name('a.cr2');"
        "load(sys.argv[1]); print('rawpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.tif"], capture_output=True, check=True
    )
    assert done.stdout.split() == [b"False"]
