import base64
import os
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from searchlib.errors import InputError, SourceError
from searchlib.images import NamedBytes, digest, load


def same(image, expected):
    assert image.mode == "RGB"
    assert image.size == expected.size
    assert image.tobytes() == expected.tobytes()


@pytest.fixture
def saved(tmp_path, wide_photo):
    path = tmp_path / "a photo #1, 100%.png"
    wide_photo.save(path)
    return path


def test_every_kind_of_source_gives_the_same_pixels(saved, wide_photo):
    sources = [saved, str(saved), saved.as_uri(), saved.read_bytes(), wide_photo]
    with os.scandir(saved.parent) as entries:
        sources += [np.asarray(wide_photo), *entries]
    for source in sources:
        loaded = load(source)
        same(loaded.pixels, wide_photo)
        assert (loaded.facts.width, loaded.facts.height) == wide_photo.size


def test_encoded_sources_have_a_digest_and_a_format_and_raw_ones_have_none(saved, wide_photo):
    expected = blake3(saved.read_bytes()).digest()
    for source in (saved, saved.as_uri(), saved.read_bytes()):
        assert load(source).digest == expected
        assert load(source).facts.format == "PNG"
    for source in (wide_photo, np.asarray(wide_photo)):
        assert load(source).digest is None
        assert load(source).facts.format is None


def test_the_digest_alone_is_that_of_the_decoded_source(saved, wide_photo):
    for source in (saved, str(saved), saved.as_uri(), saved.read_bytes()):
        assert digest(source) == load(source).digest
    assert digest(wide_photo) is digest(np.asarray(wide_photo)) is None
    with pytest.raises(SourceError, match="no such file"):
        digest(saved.with_name("gone.png"))


def test_arrays_may_be_grey_or_have_alpha(photo):
    grey = photo.convert("L")
    same(load(np.asarray(grey)).pixels, grey.convert("RGB"))
    rgba = np.dstack([np.asarray(photo), np.full((512, 512), 255, np.uint8)])
    same(load(rgba).pixels, photo)
    rgba[:, :, 3] = 0
    same(load(rgba).pixels, Image.new("RGB", photo.size, "white"))


def test_arrays_may_be_views(photo):
    array = np.asarray(photo)
    same(load(array[::-1]).pixels, photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    same(load(np.asfortranarray(array)).pixels, photo)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_of_another_kind_is_refused_with_what_is_accepted(array):
    with pytest.raises(SourceError, match="pass uint8 of height x width x 3") as caught:
        load(array)
    assert str(array.shape) in str(caught.value)


@pytest.mark.parametrize("source", [None, 5, ["a.jpg"], object()])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(SourceError, match="is not a picture; pass a path"):
        load(source)


def test_every_kind_of_text_gives_the_same_pixels(saved, wide_photo):
    encoded = base64.b64encode(saved.read_bytes()).decode()
    for source in (
        encoded,
        f"data:image/png;base64,{encoded}",
        NamedBytes("a", saved.read_bytes()),
    ):
        same(load(source).pixels, wide_photo)
        assert digest(source) == digest(saved)


def test_a_path_object_is_never_base64_or_a_data_uri(saved):
    encoded = base64.b64encode(saved.read_bytes()[:60]).decode()
    for name in (encoded, f"data:,{encoded}"):
        with pytest.raises(SourceError, match="no such file"):
            load(Path(name))


def test_file_uris_of_every_form_are_read(saved, wide_photo):
    path = saved.as_uri().removeprefix("file://")
    for uri in (f"file:{path}", f"file://localhost{path}", f"FILE://{path}"):
        same(load(uri).pixels, wide_photo)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file://server/share/a.jpg", "another machine"),
        ("file:///a.jpg?x=1", "bare [?] or #"),
        ("file:///a.jpg#x", "bare [?] or #"),
        ("file://[/a.jpg", "is not a URI"),
        ("file:///nowhere/at/all.jpg", "no such file"),
        ("file:", "no such file"),
    ],
)
def test_a_uri_of_no_local_file_is_refused(uri, reason):
    with pytest.raises(SourceError, match=reason):
        load(uri)


def test_a_path_object_is_never_a_uri(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    photo.save("file:a.png", "PNG")
    same(load(Path("file:a.png")).pixels, photo)


def test_the_callers_image_is_neither_changed_nor_handed_out(photo):
    source = photo.copy()
    source.info["note"] = "mine"
    loaded = load(source)
    loaded.pixels.paste((0, 0, 0), (0, 0, 512, 512))
    assert source.tobytes() == photo.tobytes()
    assert source.info == {"note": "mine"}


def test_the_callers_array_is_not_changed_through_the_result(photo):
    array = np.asarray(photo).copy()
    load(array).pixels.paste((0, 0, 0), (0, 0, 512, 512))
    assert np.array_equal(array, np.asarray(photo))


def test_a_lazily_opened_image_is_decoded(saved, wide_photo):
    with Image.open(saved) as opened:
        loaded = load(opened)
    same(loaded.pixels, wide_photo)
    assert loaded.facts.format == "PNG"


@pytest.mark.parametrize("least", [0, -1, (0, 5), (5,), (1, 2, 3)])
def test_a_min_side_that_makes_no_sense_is_an_input_error(photo, least):
    with pytest.raises(InputError, match="min_side"):
        load(photo, min_side=least)


def test_a_max_pixels_below_one_is_an_input_error(photo):
    with pytest.raises(InputError, match="max_pixels"):
        load(photo, max_pixels=0)
