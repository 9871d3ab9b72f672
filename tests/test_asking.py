"""What a library is asked, with real pictures and models."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library, Question, Term, Threshold, errors
from searchlib.encoder import custom, registry


@pytest.fixture
def library(filled_library: Path, encoder: ImageEncoder) -> Iterator[Library]:
    """A library of eight photographs."""
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        yield library


def names(matches: object) -> list[str]:
    return [Path(match.path).name for match in matches]  # type: ignore[attr-defined]


def id_of(library: Library, path: Path) -> int:
    image = library.find(path)
    assert image is not None
    return image.id


# -- searching -----------------------------------------------------------------------------------


def test_two_pictures_are_searched_for_at_once(library: Library, original_photos: Path) -> None:
    found = library.search([original_photos / "cat.jpg", original_photos / "rocket.jpg"])
    assert set(names(found[:2])) == {"cat.jpg", "rocket.jpg"}
    assert [term.term for term in found[0].terms] == [
        str(original_photos / "cat.jpg"),
        str(original_photos / "rocket.jpg"),
    ]


def test_what_it_should_be_unlike_moves_down(library: Library, original_photos: Path) -> None:
    cat, coffee = original_photos / "cat.jpg", original_photos / "coffee.jpg"
    plain = names(library.search(cat))
    turned = library.search(like=cat, unlike=coffee)
    assert names(turned)[-1] == "coffee.jpg"
    assert names(turned)[0] == plain[0] == "cat.jpg"
    assert turned[-1].terms[1].share < 0 < turned[-1].terms[1].cosine
    assert turned[-1].terms[1].weight == -1


def test_a_stored_image_a_vector_and_a_path_ask_the_same(
    library: Library, original_photos: Path
) -> None:
    path = original_photos / "coffee.jpg"
    by_path = library.search(path)
    by_id = library.search(id_of(library, path))
    by_vector = library.search(library.embed(path))
    assert names(by_vector) == names(by_path)
    assert names(by_id) == names(by_path)[1:]
    assert [match.score for match in by_id] == [match.score for match in by_path[1:]]


def test_a_question_is_asked_as_a_whole(library: Library, original_photos: Path) -> None:
    path = original_photos / "coffee.jpg"
    question = Question((Term(image=path),), k=3, threshold=Threshold(0.1))
    assert library.search(question).matches == library.search(path, k=3, min_similarity=0.1).matches


def test_an_answer_tells_how_it_came_about(library: Library, original_photos: Path) -> None:
    found = library.search(original_photos / "coffee.jpg", k=2, min_similarity="0.05")
    assert found.model == "tiny-vit-5m"
    assert (found.threshold, found.least) == (Threshold(0.05), 0.05)
    assert found.exact
    assert found.cursor is not None
    spent = found.timings
    parts = (spent.decode, spent.encode, spent.search, spent.fetch)
    assert all(part >= 0 for part in parts)
    assert spent.search > 0
    assert sum(parts) <= spent.total
    # Its vector is stored, so nothing is embedded.
    assert spent.encode == 0
    assert [match.rank for match in found] == [1, 2]
    assert [match.percentile for match in found] == [None, None]


def test_percentiles_need_a_library_that_is_large_enough(
    library: Library, original_photos: Path
) -> None:
    assert library.background() is None
    with pytest.raises(errors.InputError, match="too small"):
        library.search(original_photos / "coffee.jpg", min_similarity="99%")


def test_pages_of_a_search_by_picture_follow_each_other(
    library: Library, original_photos: Path
) -> None:
    path = original_photos / "coffee.jpg"
    whole = names(library.search(path, k=100))
    pages, cursor = [], None
    while True:
        page = library.search(path, k=3, cursor=cursor)
        pages += names(page)
        cursor = page.cursor
        if cursor is None:
            break
    assert pages == whole
    assert names(library.search(path, k=2, offset=3)) == whole[3:5]


def test_conditions_choose_which_path_of_an_image_is_shown(
    encoder: ImageEncoder, library_folder: Path, photos: Path
) -> None:
    copies = photos / "zz copies"
    copies.mkdir()
    shutil.copy(photos / "cat.jpg", copies / "kitten.jpg")
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos)
        (plain, *_) = library.search(photos / "cat.jpg")
        assert plain.path == str(photos / "cat.jpg")
        (within,) = library.search(photos / "cat.jpg", where=f'folder:"{copies}"')
        assert within.path == str(copies / "kitten.jpg")
        assert within.image.paths == (str(photos / "cat.jpg"), str(copies / "kitten.jpg"))


def test_conditions_that_cannot_be_understood_are_pointed_at(library: Library) -> None:
    with pytest.raises(errors.WhereError) as caught:
        library.search(1, where="format:jpeg and fodler:x")
    assert caught.value.text[caught.value.start : caught.value.end] == "fodler"
    assert "folder" in str(caught.value)


def test_nearly_identical_pictures_are_shown_as_one(
    encoder: ImageEncoder, library_folder: Path, photos: Path
) -> None:
    with Image.open(photos / "coffee.jpg") as image:
        image.save(photos / "coffee again.jpg", quality=85)
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos)
        plain = library.search(photos / "coffee.jpg", k=3)
        assert set(names(plain[:2])) == {"coffee.jpg", "coffee again.jpg"}
        together = library.search(photos / "coffee.jpg", k=3, collapse=True)
        assert names(together)[0] == "coffee.jpg"
        assert together[0].alike == (str(photos / "coffee again.jpg"),)
        assert "coffee again.jpg" not in names(together)


def test_thumbnails_are_named_where_the_library_keeps_them(
    encoder: ImageEncoder, library_folder: Path, photos: Path
) -> None:
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos / "cat.jpg")
        assert library.search(photos / "cat.jpg")[0].thumbnail is None
        library.add(photos, thumbnails=True)
        thumbnail = library.search(photos / "rocket.jpg")[0].thumbnail
        assert thumbnail is not None
        with Image.open(thumbnail) as image:
            assert max(image.size) <= 256


# -- words ---------------------------------------------------------------------------------------


@pytest.fixture
def with_words(
    models_folder: Path,  # noqa: ARG001 - where models are kept
    make_card: Callable[..., Path],
    make_text_card: Callable[..., Path],
    library_folder: Path,
    photos: Path,
) -> Iterator[Library]:
    """A library whose model has a text side; both have random weights."""
    custom.add(make_text_card(name="words"))
    custom.add(make_card(name="pictures", text_model="words"))
    with searchlib.open_library(
        library_folder, encoder=ImageEncoder(registry.find("pictures"))
    ) as library:
        library.add(photos)
        yield library


def test_words_are_searched_for_in_the_space_of_the_pictures(with_words: Library) -> None:
    vector = with_words.embed_text("a dog on the beach")
    assert vector.shape == (512,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    found = with_words.search(text="a dog on the beach")
    assert names(found) == names(with_words.search(vector))
    assert [term.kind for term in found[0].terms] == ["text"]
    assert found[0].terms[0].term == "a dog on the beach"
    assert found.timings.encode > 0


def test_words_and_pictures_are_weighed_against_each_other(
    with_words: Library, photos: Path
) -> None:
    found = with_words.search(
        [Term(text="dog", weight=2.0), Term(image=photos / "cat.jpg")], unlike=photos / "coins.png"
    )
    assert [(term.kind, term.weight) for term in found[0].terms] == [
        ("text", 2.0),
        ("image", 1.0),
        ("image", -1.0),
    ]
    for match in found:
        assert sum(term.share for term in match.terms) == pytest.approx(match.score, abs=1e-5)


def test_a_model_that_knows_only_pictures_says_so(library: Library) -> None:
    with pytest.raises(errors.TextUnsupportedError, match="tiny-vit-5m knows only pictures"):
        library.search(text="dog")
    with pytest.raises(errors.TextUnsupportedError):
        library.embed_text("dog")


def test_a_text_side_of_other_dimensions_is_refused(
    models_folder: Path,  # noqa: ARG001 - where models are kept
    make_text_card: Callable[..., Path],
    encoder: ImageEncoder,
    library_folder: Path,
    photos: Path,
) -> None:
    custom.add(make_text_card(name="words"))
    card = dataclasses.replace(encoder.card, name="odd", text_model="words")
    with searchlib.open_library(library_folder, encoder=ImageEncoder(card)) as library:
        library.add(photos / "cat.jpg")
        with pytest.raises(errors.ModelSourceError, match="512 dimensions"):
            library.search(text="dog")


# -- single images, lists, tags ------------------------------------------------------------------


def test_images_are_listed_in_the_order_in_which_they_came(library: Library) -> None:
    newest = library.images()
    assert len(newest) == library.count() == 8
    assert [image.id for image in newest] == sorted((i.id for i in newest), reverse=True)
    assert library.images(newest_first=False) == newest[::-1]
    assert library.images(after=newest[2].id, limit=2) == newest[3:5]
    pngs = library.images("format:png")
    assert {image.facts.format for image in pngs} == {"PNG"}
    assert library.count("format:png") == len(pngs) == 3
    with pytest.raises(errors.InputError, match="at least 1"):
        library.images(limit=0)


def test_an_image_is_found_by_its_id_its_path_and_its_bytes(
    library: Library, original_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = library.find(original_photos / "cat.jpg")
    assert image is not None
    assert library.image(image.id) == image == library.by_digest(image.digest)
    monkeypatch.chdir(original_photos)
    assert library.find("cat.jpg") == image
    assert library.find("dog.jpg") is None
    assert library.image(10**15) is None
    assert library.by_digest("0" * 64) is None
    with pytest.raises(errors.InputError, match="no digest"):
        library.by_digest("x")


def test_tags_and_values_are_found_and_taken_away_again(
    library: Library, original_photos: Path
) -> None:
    cat, coffee = original_photos / "cat.jpg", original_photos / "coffee.jpg"
    assert library.tag([cat, id_of(library, coffee)], "table", "indoors") == 4
    assert library.tag(cat, "table") == 0
    library.set_properties(cat, {"rating": "5", "album": "Home"})
    assert library.tags() == {"indoors": 2, "table": 2}
    assert set(names(library.search(cat, where="tag:table"))) == {"cat.jpg", "coffee.jpg"}
    assert names(library.search(coffee, where="tag:table and key.rating>=4")) == ["cat.jpg"]
    image = library.find(cat)
    assert image is not None
    assert image.tags == ("indoors", "table")
    assert dict(image.properties) == {"rating": "5", "album": "Home"}
    library.set_properties(cat, {"rating": None})
    assert library.count("key.rating>=4") == 0
    assert library.untag(cat, "table", "never") == 1
    assert library.tags() == {"indoors": 2, "table": 1}


def test_what_is_not_in_the_library_is_not_tagged(library: Library, original_photos: Path) -> None:
    with pytest.raises(errors.NotFoundError, match=r"dog\.jpg: is not in the library"):
        library.tag([original_photos / "cat.jpg", original_photos / "dog.jpg"], "pet")
    with pytest.raises(errors.InputError):
        library.tag(10**12, "pet")
    assert library.tags() == {}


def test_an_original_is_given_out_only_while_it_is_what_the_library_knows(
    encoder: ImageEncoder, library_folder: Path, photos: Path, tmp_path: Path
) -> None:
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos)
        cat = photos / "cat.jpg"
        number = id_of(library, cat)
        assert library.original(number) == cat
        secret = tmp_path / "secret.txt"
        secret.write_text("not a picture")
        cat.unlink()
        with pytest.raises(errors.ImageGoneError, match=r"cat\.jpg"):
            library.original(number)
        cat.symlink_to(secret)
        with pytest.raises(errors.ImageGoneError):
            library.original(number)
        with pytest.raises(errors.NotFoundError):
            library.original(10**12)


def test_the_text_of_an_odd_path_is_no_trouble(
    encoder: ImageEncoder, library_folder: Path, photos: Path
) -> None:
    odd = os.fsdecode(os.fsencode(photos) + b"/odd \xff name.jpg")
    shutil.copy(photos / "cat.jpg", odd)
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos)
        image = library.find(odd)
        assert image is not None
        assert odd in image.paths
        assert library.tag(odd, "odd") == 1
        (match,) = library.search(odd, k=1, where="name:odd*")
        assert match.path == odd
        assert match.terms[0].term.isprintable()
