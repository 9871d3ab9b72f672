"""The models that can be named: found, downloaded, added, removed; the sums that must match."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchlib.encoder import ModelCard, TextCard, built_in_card, custom, load_any_card, registry
from searchlib.errors import (
    CardError,
    ChecksumError,
    InputError,
    ModelFileError,
    ModelNotInstalledError,
    ModelSourceError,
    OfflineError,
    OutputError,
    UnexpectedInputsError,
    WrongDimensionsError,
)

QUANTIZED = "clip-vit-base-patch32-image-quantized"
SHIPPED = [
    "tiny-vit-5m",
    "clip-vit-base-patch32-image",
    QUANTIZED,
    "clip-vit-base-patch32-text",
]

pytestmark = pytest.mark.usefixtures("models_folder")


def listed() -> dict[str, str]:
    return {each.card.name: each.state for each in registry.models()}


def test_the_models_of_the_contract_are_listed_before_they_are_downloaded() -> None:
    assert listed() == {"tiny-vit-5m": "built in"} | dict.fromkeys(SHIPPED[1:], "not downloaded")
    for name in SHIPPED[1:]:
        card = registry.find_any(name)
        assert card.dimension == 512
        assert card.licence == "MIT"
        assert card.url is not None
        assert card.url.startswith("https://huggingface.co/software-mansion/")


def test_clip_is_short_for_the_quantized_model_with_its_text_model() -> None:
    assert registry.find("clip").name == QUANTIZED
    assert registry.find_text("clip").name == "clip-vit-base-patch32-text"


def test_the_preprocessing_of_clip_is_that_of_the_phone() -> None:
    for name in ("clip-vit-base-patch32-image", QUANTIZED):
        spec = registry.find(name).preprocessing
        assert (spec.width, spec.height, spec.resize) == (224, 224, "squash")
        assert (spec.interpolation, spec.antialias, spec.channels) == ("bilinear", False, "RGB")
        assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["clip2", "", "../tiny-vit-5m", "/", "a" * 300, "tiny-vit-5m/x"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ModelSourceError, match="tiny-vit-5m, clip-vit-base-patch32-image"):
        registry.find(name)


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ModelSourceError, match="is a text model; known are tiny-vit"):
        registry.find("clip-vit-base-patch32-text")
    with pytest.raises(ModelSourceError, match="has no text side; known are clip"):
        registry.find_text("tiny-vit-5m")


def test_a_pulled_model_is_listed_has_an_identity_and_embeds(hub: Any) -> None:
    card = registry.find(QUANTIZED)
    with pytest.raises(ModelNotInstalledError, match=f"models pull {QUANTIZED}"):
        _ = card.identity
    shares: list[float] = []
    pulled = registry.pull(card, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert listed()[QUANTIZED] == "downloaded"
    found = registry.find(QUANTIZED)
    assert found == pulled
    assert isinstance(pulled, ModelCard)
    assert registry.card_for(pulled.identity) == pulled
    custom.try_out(found)
    assert [path.rpartition("/")[2] for path in hub.asked] == [Path(card.url or "").name]


def test_a_pulled_text_model_brings_its_tokenizer(hub: Any) -> None:
    pulled = registry.pull(registry.find_text("clip"))
    assert isinstance(pulled, TextCard)
    assert pulled.tokenizer.is_file()
    assert len(pulled.tokenizer_sha256 or "") == 64
    assert registry.find_text("clip") == pulled
    custom.try_out(pulled)
    assert len(hub.asked) == 2


def test_what_is_in_place_is_not_downloaded_again(hub: Any) -> None:
    registry.pull(registry.find(QUANTIZED))
    before = list(hub.asked)
    registry.pull(registry.find(QUANTIZED), offline=True)
    assert hub.asked == before


def test_nothing_is_downloaded_offline(hub: Any) -> None:
    with pytest.raises(OfflineError):
        registry.pull(registry.find(QUANTIZED), offline=True)
    assert hub.asked == []
    assert listed()[QUANTIZED] == "not downloaded"


def test_a_later_download_must_match_the_first(hub: Any) -> None:
    card = registry.pull(registry.find(QUANTIZED))
    assert registry.remove(QUANTIZED)
    assert listed()[QUANTIZED] == "not downloaded"
    assert not registry.remove(QUANTIZED)
    served = next(hub.folder.rglob("*int8.pte"))
    content = served.read_bytes()
    served.write_bytes(content[:-1] + b"X")
    with pytest.raises(ChecksumError, match=card.sha256):
        registry.pull(registry.find(QUANTIZED))
    served.write_bytes(content)
    assert registry.pull(registry.find(QUANTIZED)) == card


def test_a_card_of_a_download_that_was_damaged_is_made_anew(hub: Any, models_folder: Path) -> None:
    card = registry.pull(registry.find(QUANTIZED))
    (models_folder / QUANTIZED / "card.toml").write_text("name =", encoding="utf-8")
    assert listed()[QUANTIZED] == "not downloaded"
    assert registry.pull(registry.find(QUANTIZED)) == card
    assert len(hub.asked) == 1


def test_two_processes_that_pull_at_once_download_once(hub: Any) -> None:
    code = f"from searchlib.encoder import registry as r; r.pull(r.find({QUANTIZED!r}))"
    pullers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [puller.wait(60) for puller in pullers] == [0, 0, 0]
    assert len(hub.asked) == 1


def test_a_custom_model_is_copied_tried_and_found(
    make_card: Callable[..., Path], models_folder: Path
) -> None:
    path = make_card(name="own")
    added = custom.add(path)
    shutil.rmtree(path.parent)
    assert listed()["own"] == "custom"
    found = registry.find("own")
    assert found == added
    assert found.path.parent == models_folder / "own"
    assert registry.card_for(found.identity) == found
    custom.try_out(found)
    assert registry.remove("own")
    assert "own" not in listed()
    assert list(models_folder.iterdir()) == []


def test_a_custom_text_model_comes_with_its_tokenizer(make_text_card: Callable[..., Path]) -> None:
    path = make_text_card()
    custom.add(path.parent)
    shutil.rmtree(path.parent)
    custom.try_out(registry.find_text("words"))


def test_a_custom_model_may_be_downloaded(hub: Any, make_card: Callable[..., Path]) -> None:
    path = make_card(name="far")
    card = load_any_card(path)
    url = f"{hub.url}/far.pte"
    shutil.move(card.path, hub.folder / "far.pte")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('file = "', f'url = "{url}"\nfile = "'), encoding="utf-8")
    added = custom.add(path)
    assert added.sha256 == card.sha256
    custom.try_out(registry.find_any("far"))


@pytest.mark.parametrize("name", ["clip", "tiny-vit-5m", "a/b", "..", "-x", "é"])
def test_a_custom_model_cannot_take_such_a_name(
    make_card: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = make_card(name="plain")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('name = "plain"', f'name = "{name}"'), encoding="utf-8")
    with pytest.raises(CardError, match=r"name is|already"):
        custom.add(path)
    assert len(list(tmp_path.rglob("*.pte"))) == 1


def test_a_second_model_of_a_name_is_refused(make_card: Callable[..., Path]) -> None:
    path = make_card(name="own")
    custom.add(path)
    with pytest.raises(CardError, match="searchlib models rm own"):
        custom.add(path)


@pytest.mark.parametrize(
    ("file", "fields", "error"),
    [
        ("nan_picture.pte", {}, OutputError),
        ("pair.pte", {}, UnexpectedInputsError),
        ("words.pte", {}, UnexpectedInputsError),
        ("linear.pte", {}, UnexpectedInputsError),
        ("picture.pte", {"dimension": 320}, WrongDimensionsError),
        (
            "picture.pte",
            {"preprocessing": dataclasses.replace(built_in_card().preprocessing, width=256)},
            WrongDimensionsError,
        ),
        ("picture.pte", {"sha256": "0" * 64}, ModelFileError),
        ("picture.pte", {"bytes": 5}, ModelFileError),
    ],
)
def test_a_custom_model_that_does_not_work_is_refused_and_leaves_nothing(
    make_card: Callable[..., Path],
    models_folder: Path,
    file: str,
    fields: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        custom.add(make_card(file, **fields))
    assert list(models_folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["garbage", "truncated", "missing"])
def test_a_custom_model_whose_file_is_damaged_is_refused(
    make_card: Callable[..., Path], damage: str
) -> None:
    path = make_card()
    model = load_any_card(path).path
    content = model.read_bytes()
    model.write_bytes(b"x" * len(content) if damage == "garbage" else content[:-100])
    if damage == "missing":
        model.unlink()
    with pytest.raises(ModelFileError, match=r"picture\.pte"):
        custom.add(path)


def test_a_broken_card_among_the_custom_ones_does_not_hide_the_others(
    make_card: Callable[..., Path], models_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    custom.add(make_card(name="good"))
    custom.add(make_card(name="bad"))
    (models_folder / "bad" / "card.toml").write_text("name = 5", encoding="utf-8")
    assert "good" in listed()
    assert "searchlib models rm bad" in caplog.text
    assert registry.remove("bad")
    assert not (models_folder / "bad").exists()


def test_a_model_of_the_package_cannot_be_removed() -> None:
    with pytest.raises(InputError, match="part of the package"):
        registry.remove("tiny-vit-5m")


def test_custom_models_do_not_lie_in_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEARCHLIB_MODELS")
    assert registry.downloads_folder() != registry.custom_folder()
    assert "cache" in str(registry.downloads_folder()).lower()
    assert "cache" not in str(registry.custom_folder()).lower()


def test_the_built_in_model_is_found_by_its_identity() -> None:
    assert registry.card_for(built_in_card().identity) == built_in_card()
    assert registry.card_for("0" * 64) is None
