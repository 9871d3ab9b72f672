"""Preprocessing: layout, scale, and what a resize mode keeps of the picture."""

import dataclasses
from typing import get_args

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
)
def test_any_size_gives_the_models_shape_and_keeps_a_plain_colour(
    width: int, height: int, resize: Resize, interpolation: Interpolation
) -> None:
    spec = dataclasses.replace(SQUASH, resize=resize, interpolation=interpolation)
    found = prepare(Image.new("RGB", (width, height), (200, 100, 50)), spec)
    assert found.shape == (3, 224, 224)
    for plane, value in zip(found, (200, 100, 50), strict=True):
        np.testing.assert_allclose(plane, value / 255, atol=1.01 / 255)


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2)])
def test_extreme_proportions_are_cropped_without_leaving_the_picture(size: tuple[int, int]) -> None:
    assert np.isfinite(prepare(Image.new("RGB", size, (1, 2, 3)), CROP)).all()
