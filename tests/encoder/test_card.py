"""Model cards: read whole, refused with the field's name, and the source of the identity."""

import dataclasses
from pathlib import Path

import pytest

from searchlib.encoder import built_in_card, load_card, verify_model_file
from searchlib.errors import CardError, ModelFileError


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
