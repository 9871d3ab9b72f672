"""The public face: what the README shows, and what it promises of an object."""

import dataclasses
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library, errors
from searchlib.encoder import ModelCard, built_in_card, custom
from searchlib.encoder.card import card_as_toml
from searchlib.ingest import WatchEvent


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
        assert list(library.search(photos / "cat.jpg")) == []
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
        before = library.search(coffee, k=8).matches
        assert library.encoder.identity == encoder.identity
        with searchlib.open_library(filled_library) as other:
            other.use_model(known_models)
            expected = other.search(coffee, k=8).matches
        assert library.search(coffee, k=8).matches == expected
        assert library.encoder.identity == known_models.identity
        assert [m.score for m in expected] != [m.score for m in before]
        with searchlib.open_library(filled_library) as other:
            other.use_model(encoder.card)
        assert library.add(original_photos).unchanged == 8
        assert library.search(coffee, k=8).matches == before


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


# -- folders, failures, purge, watching once -----------------------------------------------------


@pytest.fixture
def library(library_folder: Path, encoder: ImageEncoder) -> Iterator[Library]:
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        yield library


def found(library: Library, photos: Path) -> set[str]:
    """The names of all files that a search can give."""
    matches = library.search(photos / "astronaut.jpg", k=100)
    return {Path(path).name for match in matches for path in match.image.paths}


def test_a_folder_is_registered_with_its_rules_and_forgotten_with_its_files_kept(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.folders() == []
    folder = library.register(photos, exclude=["*.png"], marker=".here", events="no")
    assert (folder.path, folder.exclude, folder.marker) == (str(photos), ("*.png",), ".here")
    assert folder.watched
    library.add(photos.parent / "photos" / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    ruled = library.register("photos", include=["*.jpg"], recursive=False, follow_links=True)
    assert (ruled.id, ruled.exclude, ruled.marker, ruled.events) == (folder.id, (), None, "auto")
    assert library.folders() == [ruled]
    assert library.register("not/there/yet").path == str(tmp_path / "not" / "there" / "yet")
    assert library.unregister("not/there/yet")
    assert library.unregister("photos")
    assert not library.unregister("photos")
    assert library.folders() == []
    assert library.search(photos / "cat.jpg", k=1)[0].path == str(photos / "cat.jpg")


def test_what_cannot_be_watched_is_refused_and_not_registered(
    library: Library, photos: Path
) -> None:
    with pytest.raises(errors.InputError, match="is a file"):
        library.register(photos / "cat.jpg")
    with pytest.raises(errors.InputError, match="correct this pattern"):
        library.register(photos, exclude=["!"])
    assert library.folders() == []
    with pytest.raises(errors.InputError, match="no folder is watched"):
        library.watch(once=True)
    library.add(photos)  # an added folder is not a watched one
    assert [folder.watched for folder in library.folders()] == [False]
    with pytest.raises(errors.InputError, match="no folder is watched"):
        library.watch(once=True)


def test_the_rules_of_a_registered_folder_count_for_add(library: Library, photos: Path) -> None:
    library.register(photos, exclude=["*.png"])
    names = {path.name for path in photos.glob("*.jpg")}
    assert library.add(photos).added == len(names)
    assert found(library, photos) == names


def test_watching_once_takes_in_all_that_is_there_and_follows_what_changed(
    library: Library, photos: Path
) -> None:
    names = {path.name for path in photos.iterdir()}
    (photos / "broken.jpg").write_bytes(b"no picture")
    told: list[WatchEvent] = []
    report = library.watch(photos, once=True, settle=0.01, on_event=told.append)
    assert (report.added, len(report.skipped), report.cancelled) == (8, 1, False)
    assert found(library, photos) == names
    kinds = [event.kind for event in told]
    assert (kinds[0], kinds[-1]) == ("started", "stopped")
    assert {"scanning", "scanned", "file", "idle"} <= set(kinds)
    outcomes = {event.path: event.outcome for event in told if event.kind == "file"}
    assert len(outcomes) == 9
    assert outcomes[str(photos / "broken.jpg")] == "skipped"

    (photos / "coffee.jpg").rename(photos / "tea.jpg")
    (photos / "rocket.jpg").unlink()
    shutil.copy(photos / "cat.jpg", photos / "twin.jpg")
    report = library.watch(once=True, settle=0.01)
    assert (report.added, report.moved, report.copies, report.missing) == (0, 1, 1, 1)
    assert found(library, photos) == (names - {"coffee.jpg", "rocket.jpg"}) | {
        "tea.jpg",
        "twin.jpg",
    }
    again = library.watch(once=True, settle=0.01)
    assert (again.added, again.moved, again.copies, again.missing) == (0, 0, 0, 0)
    assert again.unchanged == 8


def test_watching_once_keeps_what_is_missing_for_the_grace_time(
    library: Library, photos: Path
) -> None:
    library.watch(photos, once=True, settle=0.01)
    (photos / "cat.jpg").unlink()
    assert library.watch(once=True, settle=0.01, grace_days=1).purged == 0
    assert library.status().vectors == 8
    assert library.watch(once=True, settle=0.01, grace_days=0).purged == 1
    assert library.status().vectors == 7


def test_a_watch_that_is_stopped_before_it_began_says_so(library: Library, photos: Path) -> None:
    stop = threading.Event()
    stop.set()
    report = library.watch(photos, once=True, stop=stop)
    assert report.cancelled
    assert library.status().images == 0


def test_only_one_watches_a_library_and_the_second_says_who_does(
    library: Library, photos: Path, encoder: ImageEncoder
) -> None:
    library.register(photos)
    stop, idle = threading.Event(), threading.Event()

    def hear(event: WatchEvent) -> None:
        if event.kind == "idle":
            idle.set()

    watcher = threading.Thread(
        target=library.watch, kwargs={"stop": stop, "settle": 0.01, "on_event": hear}
    )
    watcher.start()
    try:
        assert idle.wait(60)
        with searchlib.open_library(library.folder, encoder=encoder) as other:
            with pytest.raises(errors.LibraryBusyError, match=str(os.getpid())):
                other.watch(once=True)
            # Asking and adding go on.
            assert other.search(photos / "cat.jpg", k=1)[0].path == str(photos / "cat.jpg")
            assert other.add(photos).unchanged == 8
    finally:
        stop.set()
        watcher.join()
    assert library.watch(once=True, settle=0.01).unchanged == 8


def test_failures_are_told_and_retried_as_a_whole_or_below_a_path(
    library: Library, photos: Path
) -> None:
    below = photos / "below"
    below.mkdir()
    broken = [photos / "a.jpg", below / "b.jpg", below / "c.jpg"]
    for path in broken:
        path.write_bytes(b"no picture")
    library.add(photos)
    assert [failure.path for failure in library.failures()] == [str(path) for path in broken]
    assert [failure.path for failure in library.failures(below)] == [str(p) for p in broken[1:]]
    assert [failure.path for failure in library.failures(broken[0], below / "c.jpg")] == [
        str(broken[0]),
        str(broken[2]),
    ]
    assert library.failures(photos / "nothing") == []
    assert [skipped.path for skipped in library.skipped()] == [str(path) for path in broken]
    assert {(failure.kind, failure.attempts) for failure in library.failures()} == {("content", 1)}

    # The bytes are the same to the size and the time, so that only who asks reads them again.
    status = broken[1].stat()
    healed = (photos / "cat.jpg").read_bytes()
    broken[1].write_bytes(healed)
    assert len(library.retry_failures(below).skipped) == 1
    os.utime(broken[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [failure.path for failure in library.failures()] == [str(broken[0]), str(broken[2])]
    assert [failure.attempts for failure in library.failures()] == [1, 2]
    report = library.retry_failures()
    assert [skipped.path for skipped in report.skipped] == [str(broken[0]), str(broken[2])]
    assert [failure.attempts for failure in library.failures()] == [2, 3]
    for path in (broken[0], broken[2]):
        path.unlink()
    assert library.retry_failures().skipped == []
    assert library.failures() == []
    assert library.retry_failures().found == 0


def test_more_failures_than_a_statement_takes_are_retried(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for n in range(600):
        (folder / f"{n:03}.jpg").touch()
    assert len(library.add(folder).skipped) == 600
    assert len(library.retry_failures().skipped) == 600
    assert {failure.attempts for failure in library.failures()} == {2}


def test_a_purge_ends_the_grace_time(library: Library, photos: Path) -> None:
    library.add(photos)
    shutil.copy(photos / "cat.jpg", photos / "twin.jpg")
    library.add(photos)
    for name in ("cat.jpg", "coffee.jpg"):
        (photos / name).unlink()
    library.add(photos)
    before = library.search(photos / "rocket.jpg", k=100).matches
    assert library.status().vectors == 8
    assert library.purge(older_than_days=1) == 0
    assert library.purge() == 2
    assert library.purge() == 0
    # The cat has another place.
    assert library.status().vectors == 7
    assert library.search(photos / "rocket.jpg", k=100).matches == before


def test_an_image_that_was_edited_away_goes_with_a_purge(library: Library, photos: Path) -> None:
    library.add(photos)
    shutil.copy(photos / "rocket.jpg", photos / "cat.jpg")
    assert library.add(photos).changed == 1
    assert library.status().vectors == 8
    assert library.purge(older_than_days=1) == 0
    assert library.status().vectors == 8
    library.purge()
    assert library.status().vectors == 7
    assert len(library.search(photos / "cat.jpg", k=100)) == 7
