"""The public face: what the README shows, and what it promises of an object."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib import ImageEncoder, errors
from searchlib.encoder import ModelCard, built_in_card, custom
from searchlib.encoder.card import card_as_toml


def test_the_same_picture_is_found_from_every_kind_of_source(tmp_path: Path, photos: Path) -> None:
    path = photos / "coffee.jpg"
    image = Image.open(path)
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos)
        for source in (path, str(path), path.as_uri(), path.read_bytes(), image, np.asarray(image)):
            best, *_ = library.search(source, k=3)
            assert best.path == str(path)
            assert best.score > 0.995


def test_a_match_tells_what_is_known_of_the_image(tmp_path: Path, photos: Path) -> None:
    path = photos / "coffee.jpg"
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos)
        (match,) = library.search(path, k=1)
    with Image.open(path) as image:
        width, height = image.size
    facts = match.image.facts
    assert (facts.format, facts.width, facts.height) == ("JPEG", width, height)
    assert facts.bytes == path.stat().st_size
    assert match.score == pytest.approx(1, abs=1e-3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        match.score = 0.0  # type: ignore[misc]


def test_scores_fall_and_there_are_no_more_than_asked_for(tmp_path: Path, photos: Path) -> None:
    with searchlib.open_library(tmp_path / "library") as library:
        count = library.add(photos).added
        for k in (1, 3, count, count + 50):
            matches = library.search(photos / "cat.jpg", k=k)
            scores = [match.score for match in matches]
            assert len(matches) == min(k, count)
            assert scores == sorted(scores, reverse=True)
            assert all(-1 <= score <= 1 for score in scores)


def test_an_empty_library_finds_nothing(tmp_path: Path, photos: Path) -> None:
    with searchlib.open_library(tmp_path / "library") as library:
        assert library.search(photos / "cat.jpg") == []
        status = library.status()
    assert (status.images, status.vectors, status.last_change) == (0, 0, None)


def test_fewer_than_one_cannot_be_asked_for(tmp_path: Path, photos: Path) -> None:
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos / "cat.jpg")
        with pytest.raises(errors.InputError, match="ask for at least 1"):
            library.search(photos / "cat.jpg", k=0)


def test_a_library_is_not_made_by_asking_it(tmp_path: Path) -> None:
    with pytest.raises(errors.LibraryNotFoundError):
        searchlib.open_library(tmp_path / "library", create=False)
    assert not (tmp_path / "library").exists()


def test_the_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHLIB_LIBRARY", str(tmp_path / "named"))
    with searchlib.open_library() as library:
        assert library.folder == tmp_path / "named"


def test_vectors_of_another_model_are_refused(tmp_path: Path, photos: Path) -> None:
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos / "cat.jpg")
    card = built_in_card()
    crop = dataclasses.replace(card.preprocessing, resize="crop")
    other = searchlib.ImageEncoder(dataclasses.replace(card, name="other", preprocessing=crop))
    with searchlib.open_library(tmp_path / "library", encoder=other) as library:
        with pytest.raises(
            errors.ModelMismatchError, match=r"tiny-vit-5m .*`searchlib models use other`"
        ):
            library.search(photos / "cat.jpg")
        with pytest.raises(errors.ModelMismatchError):
            library.add(photos)


@pytest.fixture
def known_models(
    cropping_card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelCard:
    """The card of the other model, which `searchlib models add` has made known here."""
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / cropping_card.path.name).symlink_to(cropping_card.path)
    (folder / "card.toml").write_text(card_as_toml(cropping_card))
    monkeypatch.setenv("SEARCHLIB_MODELS", str(tmp_path / "known"))
    known = custom.add(folder / "card.toml")
    assert isinstance(known, ModelCard)
    return known


def test_a_library_is_opened_with_the_model_of_its_vectors(
    filled_library: Path, original_photos: Path, known_models: ModelCard
) -> None:
    with searchlib.open_library(filled_library) as library:
        library.use_model(known_models)
    with searchlib.open_library(filled_library) as library:
        assert library.encoder.card == known_models
        assert library.search(original_photos / "cat.jpg", k=1)[0].score > 0.999
        assert library.add(original_photos).unchanged == 8
        assert library.status().model == "cropping"


def test_an_open_library_follows_when_another_changes_the_model(
    filled_library: Path, original_photos: Path, known_models: ModelCard, encoder: ImageEncoder
) -> None:
    coffee = np.asarray(Image.open(original_photos / "coffee.jpg"))
    with searchlib.open_library(filled_library) as library:
        before = library.search(coffee, k=8)
        assert library.encoder.identity == encoder.identity
        with searchlib.open_library(filled_library) as other:
            other.use_model(known_models)
            expected = other.search(coffee, k=8)
        assert library.search(coffee, k=8) == expected
        assert library.encoder.identity == known_models.identity
        assert [m.score for m in expected] != [m.score for m in before]
        with searchlib.open_library(filled_library) as other:
            other.use_model(encoder.card)
        assert library.add(original_photos).unchanged == 8
        assert library.search(coffee, k=8) == before


def test_a_model_that_is_not_known_here_is_named_and_the_status_is_told_all_the_same(
    filled_library: Path,
    original_photos: Path,
    cropping_card: ModelCard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with searchlib.open_library(filled_library) as library:
        library.use_model(cropping_card)
        # Its own object needs no list of known models.
        assert library.search(original_photos / "cat.jpg", k=1)[0].score > 0.999
    monkeypatch.setenv("SEARCHLIB_MODELS", str(tmp_path / "known"))
    identity = cropping_card.identity
    told = (
        rf"library uses the model cropping \({identity[:12]}\).* `searchlib models pull cropping`"
    )
    with searchlib.open_library(filled_library) as library:
        for act in (library.add, library.search):
            with pytest.raises(errors.ModelMismatchError, match=told):
                act(original_photos / "cat.jpg")
        status = library.status()
        assert (status.model, status.identity, status.vectors) == ("cropping", identity, 8)
        assert [(m.name, m.vectors, m.in_use) for m in status.models] == [
            ("cropping", 8, True),
            ("tiny-vit-5m", 8, False),
        ]
        assert library.skipped() == []


def test_one_library_answers_many_threads_while_it_grows(tmp_path: Path, photos: Path) -> None:
    first, *rest = sorted(photos.iterdir())
    wrong: list[str] = []
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(first)

        def ask() -> None:
            for _ in range(10):
                best = library.search(first, k=1)[0]
                if best.path != str(first) or best.score < 0.999:
                    wrong.append(best.path)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for path in rest:
            library.add(path)
        for thread in threads:
            thread.join()
        assert library.status().images == len(rest) + 1
    assert wrong == []


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    library = searchlib.open_library(tmp_path / "library")
    library.close()
    library.close()


def test_every_error_is_in_the_tree_that_the_docstring_draws() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, errors.SearchlibError)
            assert name in drawn


def test_a_library_for_others_does_not_fetch_from_private_addresses(filled_library: Path) -> None:
    policy = searchlib.FetchPolicy(private=False)
    library = searchlib.open_library(filled_library, fetch_policy=policy)
    with library, pytest.raises(searchlib.errors.SourceError, match="private address"):
        library.search("http://127.0.0.1:9/cat.jpg")
