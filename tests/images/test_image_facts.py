import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from searchlib.images import load

HANOI = (21 + 1 / 60 + 42.5 / 3600, 105 + 51 / 60 + 15 / 3600)
HANOI_GPS = {1: "N", 2: (21.0, 1.0, 42.5), 3: "E", 4: (105.0, 51.0, 15.0)}


def jpeg(encode, photo=None, gps=None, **main):
    exif = Image.Exif()
    for name, value in main.items():
        exif[ExifTags.Base[name]] = value
    exif.get_ifd(ExifTags.IFD.Exif).update(photo or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    return encode(Image.new("RGB", (8, 8)), "JPEG", exif=exif)


def taken(encode, text, **more):
    tags = {"SubsecTimeOriginal": None, "OffsetTimeOriginal": None, **more}
    photo = {ExifTags.Base[name]: value for name, value in tags.items() if value is not None}
    return load(jpeg(encode, {ExifTags.Base.DateTimeOriginal: text, **photo})).facts.taken_at


def place(encode, gps):
    facts = load(jpeg(encode, gps=gps)).facts
    return facts.latitude, facts.longitude


def test_a_picture_without_exif_has_no_facts_but_its_size(photo, encode):
    facts = load(encode(photo, "JPEG")).facts
    assert (facts.format, facts.width, facts.height) == ("JPEG", 512, 512)
    assert facts.taken_at is facts.camera_make is facts.camera_model is None
    assert facts.latitude is facts.longitude is None


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_exif_is_read_from_every_format_that_carries_it(name, photo, encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "FUJIFILM"
    exif[ExifTags.Base.Model] = "X100V"
    date = ExifTags.Base.DateTimeOriginal
    exif.get_ifd(ExifTags.IFD.Exif)[date] = "2021:08:14 18:30:05"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(HANOI_GPS)
    for least in (None, 100):
        facts = load(encode(photo, name, exif=exif.tobytes()), min_side=least).facts
        assert facts.format == name
        assert (facts.camera_make, facts.camera_model) == ("FUJIFILM", "X100V")
        assert facts.taken_at == datetime(2021, 8, 14, 18, 30, 5)
        assert (facts.latitude, facts.longitude) == pytest.approx(HANOI)
        assert (facts.width, facts.height) == (512, 512)


def test_the_time_is_the_cameras_own_unless_a_zone_is_given(encode):
    assert taken(encode, "2020:02:29 23:59:58") == datetime(2020, 2, 29, 23, 59, 58)
    zoned = taken(encode, "2020:02:29 23:59:58", OffsetTimeOriginal="-05:30")
    assert zoned.utcoffset() == -timedelta(hours=5, minutes=30)
    assert zoned.replace(tzinfo=None) == datetime(2020, 2, 29, 23, 59, 58)
    zulu = taken(encode, "2020:02:29 23:59:58", OffsetTimeOriginal="Z")
    assert zulu.tzinfo == UTC
    for nonsense in ("+99:00", "   :  ", "CET", "+05:77", ""):
        assert taken(encode, "2020:02:29 23:59:58", OffsetTimeOriginal=nonsense).tzinfo is None


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [("5", 500_000), ("07", 70_000), ("123", 123_000), ("1234567", 123_456), ("", 0), ("x", 0)],
)
def test_the_fraction_of_a_second_is_a_decimal_fraction(written, microseconds, encode):
    moment = taken(encode, "2020:02:29 10:11:12", SubsecTimeOriginal=written)
    assert moment == datetime(2020, 2, 29, 10, 11, 12, microseconds)


@pytest.mark.parametrize(
    "written", ["2020-02-29 10:11:12", "2020/02/29 10:11:12", "2020:02:29T10:11:12+01:00"]
)
def test_dates_as_careless_writers_write_them_are_read(written, encode):
    assert taken(encode, written) == datetime(2020, 2, 29, 10, 11, 12)


@pytest.mark.parametrize(
    "written",
    [
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "2021:02:29 10:00:00",
        "2020:13:01 10:00:00",
        "2020:01:01 24:00:00",
        "2020:01:01",
        "yesterday",
        "",
    ],
)
def test_a_date_that_is_none_is_none(written, encode):
    assert taken(encode, written) is None


def test_the_reason_for_a_missing_date_is_logged_for_those_who_look(encode, caplog):
    caplog.set_level(logging.DEBUG, "searchlib.images")
    taken(encode, "2021:02:29 10:00:00")
    assert "<bytes>: its EXIF date '2021:02:29 10:00:00' is impossible" in caplog.text


def test_camera_names_are_cleaned(encode):
    facts = load(jpeg(encode, Make="NIKON CORPORATION\0\0\0 ", Model="  E995\0junk")).facts
    assert facts.camera_make == "NIKON CORPORATION"
    assert facts.camera_model == "E995"
    facts = load(jpeg(encode, Make="a\nb\x1b", Model="x" * 5000)).facts
    assert facts.camera_make == "a b"
    assert facts.camera_model is None
    facts = load(jpeg(encode, Make="\0\0", Model=" ")).facts
    assert facts.camera_make is facts.camera_model is None


@pytest.mark.parametrize(("north", "south"), [("N", "S"), ("n", "s\0")])
def test_the_hemisphere_gives_the_sign(north, south, encode):
    assert place(encode, HANOI_GPS | {1: north}) == pytest.approx(HANOI)
    assert place(encode, HANOI_GPS | {1: south, 3: "W"}) == pytest.approx((-HANOI[0], -HANOI[1]))


def test_seconds_may_be_left_out(encode):
    for latitude in ((21.0, 30.0), (21.0, 30.0, IFDRational(0, 0))):
        assert place(encode, HANOI_GPS | {2: latitude})[0] == pytest.approx(21.5)


@pytest.mark.parametrize(
    "change",
    [
        {1: None},
        {3: None},
        {2: None},
        {1: "X"},
        {1: ""},
        {2: (IFDRational(21, 0), 1.0, 2.0)},
        {2: (21.0, IFDRational(0, 0), 2.0)},
        {2: (91.0, 0.0, 0.0)},
        {4: (180.0, 0.0, 1.0)},
        {2: (21.0,)},
        {2: 21.0},
    ],
)
def test_half_a_place_or_an_impossible_one_is_none(change, encode):
    gps = {tag: value for tag, value in (HANOI_GPS | change).items() if value is not None}
    assert place(encode, gps) == (None, None)


@settings(max_examples=30, deadline=None)
@given(
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
)
def test_any_place_survives_being_written_and_read(latitude, longitude, encode):
    def sexagesimal(degrees):
        thousandths = round(abs(degrees) * 3_600_000)
        return (
            IFDRational(thousandths // 3_600_000),
            IFDRational(thousandths // 60_000 % 60),
            IFDRational(thousandths % 60_000, 1000),
        )

    gps = {
        1: "S" if latitude < 0 else "N",
        2: sexagesimal(latitude),
        3: "W" if longitude < 0 else "E",
        4: sexagesimal(longitude),
    }
    assert place(encode, gps) == pytest.approx((latitude, longitude), abs=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"nonsense",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40,
        b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\0",
    ],
)
def test_a_broken_exif_never_makes_the_picture_fail(block, photo, encode):
    for name in ("JPEG", "WEBP"):
        loaded = load(encode(photo, name, exif=b"Exif\0\0" + block))
        assert loaded.pixels.size == (512, 512)
        assert loaded.facts.taken_at is None


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_exif_with_flipped_bytes_never_makes_the_picture_fail(data, encode):
    photo = {ExifTags.Base.DateTimeOriginal: "2020:02:29 10:11:12"}
    whole = bytearray(jpeg(encode, photo, HANOI_GPS, Make="Canon", Orientation=6))
    start = whole.index(b"Exif\0\0") + 6
    length = int.from_bytes(whole[start - 8 : start - 6], "big") - 8
    for _ in range(data.draw(st.integers(1, 8))):
        whole[start + data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    assert load(bytes(whole)).pixels.size == (8, 8)


def test_a_phone_photograph_tells_all(shared_data):
    facts = load(shared_data / "bad/pillow_heif/heif_other/arrow.heic", min_side=448).facts
    assert facts.format == "HEIF"
    assert (facts.width, facts.height) == (3024, 4032)
    assert facts.taken_at == datetime(2018, 7, 31, 14, 52, 7, 557000)
    assert (facts.camera_make, facts.camera_model) == ("Apple", "iPhone 8 Plus")
