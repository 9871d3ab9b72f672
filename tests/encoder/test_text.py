"""Texts to vectors: tokens, truncation, and what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchlib.encoder import load_text_card
from searchlib.encoder.text import TextEncoder
from searchlib.errors import (
    InputError,
    ModelFileError,
    UnexpectedInputsError,
    WrongDimensionsError,
)


def expected(*tokens: int) -> Any:
    """What the model of the tests makes of these tokens: see tests/encoder/data/make_models.py."""
    table = np.sin(np.arange(32.0 * 512, dtype=np.float32) ** np.float32(1.5)).reshape(32, 512)
    mean = table[list(tokens)].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture
def words(make_text_card: Callable[..., Path]) -> TextEncoder:
    return TextEncoder(load_text_card(make_text_card()))


def test_the_tokens_have_a_mark_at_the_start_and_at_the_end(words: TextEncoder) -> None:
    vector = words.embed("a dog on the beach")
    assert vector.shape == (512,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected(0, 3, 4, 6, 7, 8, 1), atol=5e-3)


def test_a_long_text_is_cut_to_what_the_model_takes_and_keeps_its_end(words: TextEncoder) -> None:
    tokens = [0, *[4] * 14, 1]
    np.testing.assert_allclose(words.embed("dog " * 100), expected(*tokens), atol=5e-3)
    np.testing.assert_array_equal(words.embed("dog " * 100), words.embed("dog " * 14))
    assert not np.array_equal(words.embed("dog " * 14), words.embed("dog " * 13))


def test_the_card_may_ask_for_less_than_the_model_takes(
    make_text_card: Callable[..., Path],
) -> None:
    words = TextEncoder(load_text_card(make_text_card(max_tokens=5)))
    np.testing.assert_array_equal(words.embed("dog dog dog cat"), words.embed("dog dog dog"))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(words: TextEncoder, text: str) -> None:
    with pytest.raises(InputError, match="the text is empty"):
        words.embed(text)


def test_what_is_no_text_is_refused(words: TextEncoder) -> None:
    with pytest.raises(InputError, match="not bytes"):
        words.embed(b"dog")  # type: ignore[arg-type]


def test_half_of_a_surrogate_pair_does_no_harm(words: TextEncoder) -> None:
    assert np.isfinite(words.embed("dog \ud800")).all()


def test_a_tokenizer_that_was_changed_is_refused(words: TextEncoder) -> None:
    text = words.card.tokenizer.read_text(encoding="utf-8")
    words.card.tokenizer.write_text(text.replace("dog", "god"), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: the model file is damaged"):
        words.embed("dog")


def test_a_file_that_is_no_tokenizer_is_refused(words: TextEncoder) -> None:
    words.card.tokenizer.write_text("{}", encoding="utf-8")
    import hashlib

    digest = hashlib.sha256(b"{}").hexdigest()
    encoder = TextEncoder(dataclasses.replace(words.card, tokenizer_sha256=digest))
    with pytest.raises(ModelFileError, match=r"not a tokenizer\.json"):
        encoder.load()


@pytest.mark.parametrize(
    ("file", "fields", "error"),
    [
        ("picture.pte", {}, UnexpectedInputsError),
        ("pair.pte", {}, UnexpectedInputsError),
        ("words.pte", {"dimension": 300}, WrongDimensionsError),
        ("lookup.pte", {}, WrongDimensionsError),
    ],
)
def test_a_model_that_is_no_text_model_is_refused(
    make_text_card: Callable[..., Path], file: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=file):
        TextEncoder(load_text_card(make_text_card(file, **fields))).load()
