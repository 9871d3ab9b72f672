import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from searchlib.images import load

# How a camera that is held each way stores the upright picture (CIPA DC-008, 4.6.5: where the
# stored row 0 and column 0 lie in what one sees).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
EXACT = {
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "HEIF": {"quality": -1, "chroma": 444, "matrix_coefficients": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.fixture(scope="module")
def upright(wide_photo):
    return np.asarray(wide_photo.resize((96, 64)))


def stored(upright, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))), exif


def close(image, expected, tolerance):
    assert image.size == (expected.shape[1], expected.shape[0])
    difference = np.abs(np.asarray(image).astype(int) - expected.astype(int))
    assert difference.mean() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_every_orientation_comes_out_upright_in_every_format(name, orientation, upright, encode):
    image, exif = stored(upright, orientation)
    # Given bytes, pillow-heif writes the rotation that counts in HEIF, where EXIF's does not.
    written = exif.tobytes() if name == "HEIF" else exif
    loaded = load(encode(image, name, exif=written, **EXACT[name]))
    assert loaded.facts.format == name
    assert (loaded.facts.width, loaded.facts.height) == (96, 64)
    close(loaded.pixels, upright, 1.5 if name in ("AVIF", "HEIF") else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_jpeg_comes_out_upright_at_every_scale(
    orientation, wide_photo, encode
):
    large = np.asarray(wide_photo)
    image, exif = stored(large, orientation)
    data = encode(image, "JPEG", exif=exif, quality=95, subsampling=0)
    close(load(data).pixels, large, 2)
    half = load(data, min_side=(300, 200))
    assert (half.facts.width, half.facts.height) == (600, 400)
    close(half.pixels, np.asarray(wide_photo.reduce(2)), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_result_is_not_turned_again_by_those_who_honour_exif(orientation, upright, encode):
    image, exif = stored(upright, orientation)
    for name in ("PNG", "TIFF"):
        once = load(encode(image, name, exif=exif)).pixels
        assert not once.info
        assert load(once).pixels.tobytes() == once.tobytes()


def test_a_pillow_image_that_was_not_turned_yet_is_turned(upright, encode):
    image, exif = stored(upright, 6)
    with Image.open(io.BytesIO(encode(image, "PNG", exif=exif))) as opened:
        close(load(opened).pixels, upright, 0)
        assert opened.size == (64, 96)


def test_the_orientation_in_xmp_counts_where_exif_has_none(upright, encode):
    image, _ = stored(upright, 8)
    xmp = b'<rdf:Description tiff:Orientation="8"/>'
    close(load(encode(image, "WEBP", lossless=True, xmp=xmp)).pixels, upright, 0)


@pytest.mark.parametrize("value", [0, 9, 4660])
def test_an_orientation_that_does_not_exist_is_upright(value, upright, encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    close(load(encode(Image.fromarray(upright), "PNG", exif=exif)).pixels, upright, 0)


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_the_eight_files_of_one_picture_all_show_it_upright(shape, shared_data):
    folder = shared_data / "bad" / "exif_orientation"
    for least in (None, 50):
        first = load(folder / f"{shape}_1.jpg", min_side=least)
        for number in range(2, 9):
            other = load(folder / f"{shape}_{number}.jpg", min_side=least)
            assert other.facts.width == first.facts.width
            assert other.facts.height == first.facts.height
            small = [np.asarray(x.pixels.resize((48, 48)), int) for x in (first, other)]
            assert np.abs(small[0] - small[1]).mean() < 4
