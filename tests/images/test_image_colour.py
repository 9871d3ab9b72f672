import io
import logging
import struct
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from searchlib.images import load

D50 = (0.9642, 1.0, 0.8249)

# The primaries of Display P3 as XYZ, adapted to D50: the columns of its matrix.
P3_TO_XYZ = np.array(
    [
        [0.51512, 0.29198, 0.15710],
        [0.24120, 0.69225, 0.06657],
        [-0.00105, 0.04189, 0.78407],
    ]
)


def profile(space):
    """An ICC profile of gamma 2.2: "P3", with the primaries of Display P3, or "GRAY"."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    if space == "GRAY":
        return assemble(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})
    tags = {}
    for name, column in zip((b"r", b"g", b"b"), P3_TO_XYZ.T, strict=True):
        tags[name + b"XYZ"] = xyz(column)
        tags[name + b"TRC"] = curve
    return assemble(b"mntr", b"RGB ", b"XYZ ", tags)


def xyz(values):
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def assemble(kind, space, connection, tags):
    """ICC.1:2001-04: a header of 128 bytes, a table of tags, the tags."""
    text = b"test profile\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0" + text,
        b"wtpt": xyz(D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s4s24x12s48x",
        start + len(body),
        b"test",
        0x02400000,
        kind,
        space,
        connection,
        b"acsp",
        b"APPL",
        xyz(D50)[8:],
    )
    return header + table + body


def cmyk_profile():
    """A profile of a press whose cyan prints red, to tell it from the rule of thumb.

    One table from CMYK to Lab (lut8Type) with the two ends of each ink: cyan alone is the red of
    Lab 54, 81, 70; any black makes black; all else is paper.
    """
    paper, red, black = (255, 128, 128), (138, 209, 198), (0, 128, 128)
    corners = [black if k else red if c else paper for c, _, _, k in product((0, 1), repeat=4)]
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    lut += b"".join(struct.pack(">i", v << 16) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lut += ramp * 4 + b"".join(bytes(corner) for corner in corners) + ramp * 3
    return assemble(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def display_p3_to_srgb(rgb):
    """The oracle: IEC 61966-2-1 and the matrix above, in floats."""
    srgb_to_xyz = np.array(
        [[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]
    )
    linear = (np.asarray(rgb) / 255) ** 2.2 @ (np.linalg.inv(srgb_to_xyz) @ P3_TO_XYZ).T
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


def rgb(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(image):
    pixels = rgb(image)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def png(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def tiff(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_what_is_transparent_shows_white_in_every_mode_with_alpha(mode, photo):
    alpha = Image.new("L", photo.size, 255)
    alpha.paste(0, (0, 0, 256, 512))
    alpha.paste(128, (256, 0, 300, 512))
    rgba = photo.convert("L").convert("RGB") if mode in ("LA", "La") else photo.copy()
    rgba.putalpha(alpha)
    if mode == "PA":
        source = photo.quantize(256).convert("PA")
        source.putalpha(alpha)
        rgba = source.convert("RGBA")
    elif mode == "La":
        source = rgba.convert("LA").convert("La")
    else:
        source = rgba.convert(mode)
    assert source.mode == mode
    pixels, opaque = rgb(load(source).pixels), rgb(rgba.convert("RGB"))
    assert (pixels[:, :256] == 255).all()
    assert np.array_equal(pixels[:, 300:], opaque[:, 300:])
    half = opaque[:, 256:300] * 128 / 255 + 127
    assert np.abs(pixels[:, 256:300] - half).max() <= 3


def test_a_transparent_palette_entry_shows_white(photo):
    palette = photo.quantize(16)
    buffer = io.BytesIO()
    palette.save(buffer, "GIF", transparency=3)
    indices = np.asarray(palette)
    pixels = rgb(load(buffer.getvalue()).pixels)
    assert (pixels[indices == 3] == 255).all()
    assert np.array_equal(pixels[indices != 3], rgb(palette.convert("RGB"))[indices != 3])


def test_alpha_for_each_palette_entry_is_honoured_without_a_warning(photo):
    palette = photo.quantize(4)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([255, 0, 255, 128]))
    indices, opaque = np.asarray(palette), rgb(palette.convert("RGB"))
    pixels = rgb(load(buffer.getvalue()).pixels)
    assert np.array_equal(pixels[indices == 0], opaque[indices == 0])
    assert (pixels[indices == 1] == 255).all()
    half = opaque[indices == 3] * 128 / 255 + 127
    assert np.abs(pixels[indices == 3] - half).max() <= 1


def test_a_colour_key_shows_white():
    array = np.full((4, 6, 3), (10, 20, 30), np.uint8)
    array[:, :3] = (200, 100, 50)
    pixels = rgb(load(png(array, transparency=(200, 100, 50))).pixels)
    assert (pixels[:, :3] == 255).all()
    assert (pixels[:, 3:] == (10, 20, 30)).all()
    levels = np.repeat(np.array([[0, 77, 200]], np.uint8), 4, axis=0)
    assert grey(load(png(levels, transparency=77)).pixels)[0].tolist() == [0, 255, 200]
    levels = np.repeat(np.array([[0, 30_000, 65_535]], np.uint16), 4, axis=0)
    assert grey(load(png(levels)).pixels)[0].tolist() == [0, 117, 255]
    keyed = Image.fromarray(levels)
    keyed.info["transparency"] = 30_000
    assert grey(load(keyed).pixels)[0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(order):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(levels / 257).astype(int)
    mode = "I;16B" if order == ">" else "I;16"
    source = Image.frombytes(mode, (256, 256), levels.astype(f"{order}u2").tobytes())
    assert np.array_equal(grey(load(source).pixels), expected)
    assert np.array_equal(grey(load(png(levels)).pixels), expected)
    assert np.array_equal(grey(load(tiff(source)).pixels), expected)
    pgm = b"P5 256 256 65535\n" + levels.astype(">u2").tobytes()
    assert np.array_equal(grey(load(pgm).pixels), expected)


def test_a_tiff_of_12_bits_is_as_bright_as_it_was_taken():
    levels = [0, 1024, 2048, 4095]
    packed = bytes.fromhex("".join(f"{level:03x}" for level in levels))
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = 8 + len(packed)
    data = b"II*\0" + struct.pack("<I", start) + packed + struct.pack("<H", len(tags)) + directory
    assert grey(load(data + bytes(4)).pixels).tolist() == [[0, 64, 128, 255]]


def test_32_bit_integers_are_taken_for_16_bits_unless_they_exceed_them():
    small = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert grey(load(small).pixels).tolist() == [[0, 1, 255]]
    large = Image.fromarray(np.array([[-1000, 0, 1000]], np.int32))
    assert grey(load(large).pixels).tolist() == [[0, 128, 255]]
    flat = Image.fromarray(np.array([[-7, -7]], np.int32))
    assert grey(load(flat).pixels).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 255.0], [0, 51, 255]),
        ([0.0, 32767.5, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e30, 2e30], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 0]),
        ([np.nan, -np.inf], [0, 0]),
    ],
)
def test_floats_are_brought_into_range(levels, expected):
    array = np.array([levels], np.float32)
    for source in (Image.fromarray(array), tiff(Image.fromarray(array))):
        assert grey(load(source).pixels).tolist() == [expected]


def test_one_bit_pictures_are_black_and_white(photo):
    bits = photo.convert("1")
    for data in (tiff(bits, compression="group4"), tiff(bits)):
        assert np.array_equal(grey(load(data).pixels), np.asarray(bits) * 255)
    assert set(np.unique(grey(load(bits, min_side=64).pixels))) > {0, 255}


def test_a_palette_is_resolved(photo, encode):
    palette = photo.quantize(256)
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        data = encode(palette, name)
        assert np.array_equal(rgb(load(data).pixels), rgb(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_other_colour_modes_are_converted(mode, photo):
    difference = rgb(load(photo.convert(mode)).pixels) - rgb(photo)
    assert np.abs(difference).mean() < 3


def test_lab_is_converted(photo):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(photo, to_lab)
    for source in (lab, tiff(lab)):
        assert np.abs(rgb(load(source).pixels) - rgb(photo)).mean() < 3
        reduced = rgb(load(source, min_side=128).pixels)
        assert np.abs(reduced - rgb(photo.reduce(4))).mean() < 3


def test_cmyk_without_a_profile_is_not_inverted(photo, encode):
    cmyk = photo.convert("CMYK")
    for data in (encode(cmyk, "JPEG", quality=95), encode(cmyk, "TIFF")):
        assert np.abs(rgb(load(data).pixels) - rgb(photo)).mean() < 4
        assert np.abs(rgb(load(data, min_side=128).pixels) - rgb(photo.reduce(4))).mean() < 4


def test_display_p3_is_brought_to_srgb_as_the_formula_says(encode):
    levels = np.arange(0, 256, 17)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(64, 64, 3).astype(np.uint8)
    data = encode(Image.fromarray(cube), "PNG", icc_profile=profile("P3"))
    pixels = rgb(load(data).pixels)
    difference = np.abs(pixels - display_p3_to_srgb(cube))
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) < 4
    assert np.abs(pixels - cube).max() > 50


def test_a_cmyk_profile_is_honoured(encode):
    inks = np.zeros((1, 3, 4), np.uint8)
    inks[0, 1, 0] = inks[0, 2, 3] = 255
    image = Image.frombytes("CMYK", (3, 1), inks.tobytes())
    naive = rgb(load(encode(image, "TIFF")).pixels)[0]
    assert np.abs(naive - [(255, 255, 255), (0, 255, 255), (0, 0, 0)]).max() <= 2
    managed = rgb(load(encode(image, "TIFF", icc_profile=cmyk_profile())).pixels)[0]
    assert np.abs(managed - [(255, 255, 255), (255, 0, 0), (0, 0, 0)]).max() <= 12


def test_a_grey_profile_is_honoured(encode):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    pixels = grey(load(encode(ramp, "PNG", icc_profile=profile("GRAY"))).pixels)[0]
    linear = (np.arange(256) / 255) ** 2.2
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - expected * 255).max() <= 2
    assert np.abs(pixels - np.arange(256)).max() > 2


def test_an_srgb_profile_changes_nothing(photo, encode):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert load(encode(photo, "PNG", icc_profile=srgb)).pixels.tobytes() == photo.tobytes()


def test_colours_are_managed_alike_at_every_scale(photo, encode):
    data = encode(photo, "PNG", icc_profile=profile("P3"))
    whole, reduced = load(data).pixels, load(data, min_side=128).pixels
    assert np.abs(rgb(whole.reduce(4)) - rgb(reduced)).mean() < 1


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "zeros"])
def test_a_broken_profile_is_ignored_and_logged(damage, photo, encode, caplog):
    whole = profile("P3")
    broken = {
        "empty": b"\0",
        "cut": whole[:200],
        "noise": b"not a profile" * 20,
        "zeros": whole[:128] + bytes(len(whole) - 128),
    }[damage]
    caplog.set_level(logging.DEBUG, "searchlib.images")
    loaded = load(encode(photo, "PNG", icc_profile=broken))
    assert loaded.pixels.tobytes() == photo.tobytes()
    assert "<bytes>: its colour profile cannot be used" in caplog.text


def test_a_profile_for_another_mode_is_ignored(photo, encode):
    grey_photo = photo.convert("L")
    data = encode(grey_photo, "PNG", icc_profile=profile("P3"))
    assert np.array_equal(grey(load(data).pixels), np.asarray(grey_photo))
    data = encode(photo, "PNG", icc_profile=profile("GRAY"))
    assert load(data).pixels.tobytes() == photo.tobytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_profile_with_flipped_bytes_never_makes_the_picture_fail(data, encode):
    damaged = bytearray(profile("P3"))
    for _ in range(data.draw(st.integers(1, 10))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    picture = encode(Image.new("RGB", (8, 8), "orange"), "PNG", icc_profile=bytes(damaged))
    assert load(picture).pixels.size == (8, 8)


@pytest.mark.parametrize("factor", [1, 2, 8])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "I;16", "F"])
def test_working_in_strips_gives_the_same_as_working_on_the_whole(
    mode, factor, wide_photo, monkeypatch
):
    from searchlib.images import colour

    source = (
        wide_photo.quantize(64)
        if mode == "P"
        else wide_photo.convert("F" if mode == "I;16" else mode)
    )
    if mode == "I;16":
        source = Image.fromarray((np.asarray(source) * 250).astype(np.uint16))
    if mode == "P":
        source.info["transparency"] = 5
    whole = colour.to_rgb(source, factor=factor, profile=None, label="")
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 600 * 37)
    strips = colour.to_rgb(source, factor=factor, profile=None, label="")
    assert strips.size == whole.size == (-(-600 // factor), -(-400 // factor))
    assert strips.tobytes() == whole.tobytes()
