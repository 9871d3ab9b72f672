"""Preprocessing: layout, scale, and what a resize mode keeps of the picture."""

import dataclasses
from collections.abc import Iterator
from typing import get_args

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from searchlib.encoder import Preprocessing
from searchlib.encoder.card import Interpolation, Resize
from searchlib.encoder.preprocess import prepare

SQUASH = Preprocessing(
    width=224,
    height=224,
    resize="squash",
    interpolation="bicubic",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
CROP = dataclasses.replace(SQUASH, resize="crop")


def test_squash_is_pillows_resize_of_the_whole_picture() -> None:
    image = Image.fromarray(skimage.data.coffee())
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    found = prepare(image, SQUASH)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.transpose(1, 2, 0) * 255, expected, atol=1e-4)


def test_crop_keeps_the_middle_in_proportion() -> None:
    image = Image.fromarray(skimage.data.coffee())
    assert image.size == (600, 400)
    middle = image.crop((100, 0, 500, 400))
    found, expected = prepare(image, CROP), prepare(middle, SQUASH)
    # At the cut edges the filter of the first also sees what lies beyond them.
    np.testing.assert_array_equal(found[:, :, 4:-4], expected[:, :, 4:-4])


def test_mean_and_deviation_are_applied_per_channel() -> None:
    image = Image.new("RGB", (10, 10), (255, 0, 51))
    spec = dataclasses.replace(SQUASH, mean=(0.5, 0.25, 0.2), std=(0.5, 0.25, 2.0))
    np.testing.assert_allclose(prepare(image, spec)[:, 0, 0], (1.0, -1.0, 0.0), atol=1e-6)


@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    resize=st.sampled_from(get_args(Resize)),
    interpolation=st.sampled_from(get_args(Interpolation)),
    antialias=st.booleans(),
)
def test_any_size_gives_the_models_shape_and_keeps_a_plain_colour(
    width: int, height: int, resize: Resize, interpolation: Interpolation, antialias: bool
) -> None:
    colour = (200 / 255, 100 / 255, 50 / 255)
    spec = dataclasses.replace(
        SQUASH,
        resize=resize,
        interpolation=interpolation,
        padding=colour,
        antialias=antialias or interpolation != "bilinear",
    )
    found = prepare(Image.new("RGB", (width, height), (200, 100, 50)), spec)
    assert found.shape == (3, 224, 224)
    for plane, value in zip(found, (200, 100, 50), strict=True):
        np.testing.assert_allclose(plane, value / 255, atol=1.01 / 255)


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2)])
def test_extreme_proportions_are_cropped_without_leaving_the_picture(size: tuple[int, int]) -> None:
    assert np.isfinite(prepare(Image.new("RGB", size, (1, 2, 3)), CROP)).all()


def photographs() -> Iterator[Image.Image]:
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "coins"):
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        yield image
        yield image.resize((image.width // 3, image.height // 2))
        yield image.transpose(Image.Transpose.ROTATE_90)


def test_bilinear_without_antialiasing_is_opencvs_default_resize() -> None:
    spec = dataclasses.replace(SQUASH, interpolation="bilinear", antialias=False)
    for image in photographs():
        expected = cv2.resize(np.asarray(image), (224, 224)).transpose(2, 0, 1) / 255
        assert np.abs(prepare(image, spec) - expected).max() < 1.001 / 255


def test_bilinear_with_antialiasing_is_another_picture() -> None:
    spec = dataclasses.replace(SQUASH, interpolation="bilinear")
    image = Image.fromarray(skimage.data.hubble_deep_field())
    expected = cv2.resize(np.asarray(image), (224, 224)).transpose(2, 0, 1) / 255
    assert np.abs(prepare(image, spec) - expected).max() > 20 / 255


def test_crop_and_bicubic_is_what_openai_clip_sees() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessorPil()
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    spec = dataclasses.replace(CROP, mean=mean, std=std)
    for image in photographs():
        (expected,) = processor(images=image, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(prepare(image, spec), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(300, 224), (225, 300), (1000, 9), (9, 1000), (224, 224)])
def test_crop_is_the_middle_of_the_resized_picture(size: tuple[int, int]) -> None:
    image = Image.fromarray(skimage.data.coffee()).resize(size)
    scale = 224 / min(size)
    whole = image.resize(tuple(int(side * scale + 1e-6) for side in size), Image.Resampling.BICUBIC)
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), np.float32) / 255
    # Where the middle was cut out first, each edge may lie a part of a source pixel elsewhere.
    allowed = 1e-6 if max(size) / min(size) < 8 else 0.1
    assert np.abs(prepare(image, CROP).transpose(1, 2, 0) - expected).mean() < allowed


def test_padding_keeps_the_whole_picture_in_proportion() -> None:
    image = Image.fromarray(skimage.data.coffee()).resize((448, 224))
    spec = dataclasses.replace(SQUASH, resize="pad", padding=(1.0, 0.0, 0.2))
    found = prepare(image, spec)
    inner = np.asarray(image.resize((224, 112), Image.Resampling.BICUBIC), np.float32) / 255
    np.testing.assert_allclose(found[:, 56:168].transpose(1, 2, 0), inner, atol=1e-6)
    for rows in (found[:, :56], found[:, 168:]):
        np.testing.assert_allclose(rows[:, 0, 0], (1.0, 0.0, 0.2), atol=1e-6)
        assert (rows == rows[:, :1, :1]).all()


def test_the_channels_come_in_the_order_of_the_model() -> None:
    image = Image.fromarray(skimage.data.coffee())
    plain = dataclasses.replace(SQUASH, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    swapped = prepare(image, dataclasses.replace(plain, channels="BGR"))
    assert swapped.flags.c_contiguous
    np.testing.assert_array_equal(swapped[::-1], prepare(image, plain))
