"""Model cards: read whole, refused with the field's name, and the source of the identity."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from searchlib.encoder import (
    ModelCard,
    TextCard,
    built_in_card,
    load_any_card,
    load_card,
    load_text_card,
    verify_model_file,
)
from searchlib.encoder.card import card_as_toml
from searchlib.encoder.contract import bare_card
from searchlib.errors import CardError, ModelFileError, ModelNotInstalledError

BUILT_IN_IDENTITY = "ee35d1fd27cf417ff6fa10ff7c7a30e540836b6acbd2ff8b8f7f304f3424d083"


@pytest.fixture
def card_text() -> str:
    return (built_in_card().path.parent / "card.toml").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_built_in_card_belongs_to_the_model_file_beside_it() -> None:
    card = built_in_card()
    verify_model_file(card)
    assert card.dimension == 320
    assert (card.preprocessing.width, card.preprocessing.height) == (224, 224)


def test_identity_depends_on_the_model_file_and_on_the_preprocessing_only() -> None:
    card = built_in_card()
    crop = dataclasses.replace(card.preprocessing, resize="crop")
    assert len(card.identity) == 64
    assert dataclasses.replace(card, preprocessing=crop).identity != card.identity
    assert dataclasses.replace(card, sha256="0" * 64).identity != card.identity
    assert dataclasses.replace(card, name="other", summary="other").identity == card.identity


def test_the_identity_of_the_built_in_model_is_that_of_existing_libraries() -> None:
    assert built_in_card().identity == BUILT_IN_IDENTITY


@pytest.mark.parametrize(
    "change",
    [{"antialias": False}, {"channels": "BGR"}, {"padding": (0.5, 0.5, 0.5)}, {"resize": "pad"}],
)
def test_every_field_of_the_preprocessing_is_part_of_the_identity(change: dict[str, Any]) -> None:
    card = built_in_card()
    other = dataclasses.replace(card.preprocessing, **change)
    assert dataclasses.replace(card, preprocessing=other).identity != card.identity


TEXT_CARD = TextCard(
    name="words",
    summary='a "text" model \\ with \x7f',
    path=Path("words.pte"),
    sha256=None,
    bytes=None,
    dimension=512,
    licence="MIT",
    source="here",
    url="https://example.org/words.pte",
    tokenizer=Path("tokenizer.json"),
    tokenizer_sha256="ab" * 32,
    max_tokens=77,
)


@pytest.mark.parametrize("card", [built_in_card(), TEXT_CARD], ids=["image", "text"])
def test_a_written_card_reads_the_same(tmp_path: Path, card: ModelCard | TextCard) -> None:
    read = load_any_card(write(tmp_path, card_as_toml(card)))
    assert read.path == tmp_path / card.path.name
    if isinstance(read, TextCard):
        read = dataclasses.replace(read, tokenizer=TEXT_CARD.tokenizer)
    assert dataclasses.replace(read, path=card.path) == card


def test_a_card_of_the_other_kind_is_refused(tmp_path: Path, card_text: str) -> None:
    with pytest.raises(CardError, match="is an image model"):
        load_text_card(write(tmp_path, card_text))
    with pytest.raises(CardError, match="is a text model"):
        load_card(write(tmp_path, card_as_toml(TEXT_CARD)))


def test_a_model_that_is_not_downloaded_has_no_identity_and_says_how_to_get_one() -> None:
    assert not TEXT_CARD.installed
    with pytest.raises(ModelNotInstalledError, match="searchlib models pull words"):
        _ = TEXT_CARD.identity
    with pytest.raises(ModelNotInstalledError, match="searchlib models pull words"):
        verify_model_file(TEXT_CARD)


def test_a_file_without_a_card_is_prepared_as_on_the_phone() -> None:
    built_in = built_in_card()
    card = bare_card(built_in.path)
    assert (card.sha256, card.bytes) == (built_in.sha256, built_in.bytes)
    assert (card.dimension, card.preprocessing.width) == (320, 224)
    spec = card.preprocessing
    assert (spec.resize, spec.interpolation, spec.antialias) == ("squash", "bilinear", False)


@pytest.mark.parametrize(
    ("line", "replacement", "named"),
    [
        ("dimension = 320", "", "dimension is missing"),
        ("dimension = 320", "dimension = 0", "dimension is 0"),
        ("dimension = 320", "dimension = true", "dimension is True"),
        ('licence = "MIT"', 'licence = ""', "licence is ''"),
        ("width = 224", 'width = "224"', "preprocessing.width is '224'"),
        ('resize = "squash"', 'resize = "stretch"', "preprocessing.resize is 'stretch'"),
        ("std = [1.0, 1.0, 1.0]", "std = [1.0, 0.0, 1.0]", "preprocessing.std is"),
        ("mean = [0.0, 0.0, 0.0]", "mean = [0.0]", "preprocessing.mean is [0.0]"),
        ("[preprocessing]", "[other]", "preprocessing is missing"),
        ('sha256 = "', 'sha256 = "X', "sha256 is"),
        ('file = "', 'file = "../', "file is '../"),
        ('name = "', 'url = "x"\nname = "', "url is 'x'"),
        ('name = "', 'kind = "sound"\nname = "', "kind is 'sound'"),
        ("width = 224", "width = 224\nantialias = false", "or the interpolation bilinear"),
        ("width = 224", "width = 224\nantialias = 1", "antialias is 1"),
        ("width = 224", 'width = 224\nchannels = "RGBA"', "channels is 'RGBA'"),
        ("width = 224", "width = 224\npadding = [0, 0, 2]", "padding is [0, 0, 2]"),
    ],
)
def test_wrong_field_is_named(
    tmp_path: Path, card_text: str, line: str, replacement: str, named: str
) -> None:
    assert line in card_text
    path = write(tmp_path, card_text.replace(line, replacement))
    with pytest.raises(CardError) as error:
        load_card(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


def test_card_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="not valid TOML"):
        load_card(write(tmp_path, "name ="))


def test_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"nowhere\.toml"):
        load_card(tmp_path / "nowhere.toml")


def test_model_file_of_another_length_is_refused(tmp_path: Path) -> None:
    card = built_in_card()
    short = tmp_path / "model.pte"
    short.write_bytes(card.path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="bytes and its card says"):
        verify_model_file(dataclasses.replace(card, path=short))


def test_model_file_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    card = built_in_card()
    data = bytearray(card.path.read_bytes())
    data[len(data) // 2] ^= 1
    flipped = tmp_path / "model.pte"
    flipped.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        verify_model_file(dataclasses.replace(card, path=flipped))


def test_missing_model_file_is_named(tmp_path: Path) -> None:
    gone = dataclasses.replace(built_in_card(), path=tmp_path / "model.pte")
    with pytest.raises(ModelFileError, match=r"model\.pte: the model file cannot be read"):
        verify_model_file(gone)
