"""Change of model: all images get their vectors, whatever happens to their files meanwhile."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library, Progress
from searchlib.catalog import Catalog
from searchlib.encoder import ModelCard
from searchlib.errors import (
    LibraryBusyError,
    LibraryError,
    ModelFileError,
    ModelMismatchError,
)
from searchlib.images import load
from searchlib.ingest import Handling, change_model, ingest


@pytest.fixture
def library(filled_library: Path, encoder: ImageEncoder) -> Iterator[Library]:
    """Knows the eight photographs in `original_photos`; its encoder was given."""
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        yield library


@pytest.fixture
def own(library_folder: Path, photos: Path, encoder: ImageEncoder) -> Iterator[Library]:
    """Knows the eight photographs in `photos`, which the test may change."""
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        library.add(photos)
        yield library


def another(photos: Path, number: int = 1) -> Path:
    """A photograph that is not one of the eight, put into their folder."""
    path = photos / f"another-{number}.png"
    with Image.open(photos / "coffee.jpg") as coffee:
        coffee.crop((20 * number, 10, 20 * number + 150, 200)).save(path)
    return path


def stored(folder: Path, identity: str) -> dict[bytes, bytes]:
    """The vector of each image under a model, by the image's digest."""
    query = (
        "SELECT digest, vector FROM embedding JOIN image ON image.id = image_id "
        "JOIN model ON model.id = model_id WHERE identity = ?"
    )
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        return dict(database.execute(query, [identity]))


def assert_all_of(library: Library, encoder: ImageEncoder, count: int) -> None:
    """Every picture has the vector that this model gives it alone, and is found by it."""
    status = library.status()
    assert (status.identity, status.images, status.vectors) == (encoder.identity, count, count)
    vectors = stored(library.folder, encoder.identity)
    for image in library._catalog.images(range(1, 100)).values():
        pixels = load(Path(image.paths[0]), min_side=encoder.min_side).pixels
        alone = encoder.embed(pixels).astype("<f2").tobytes()
        assert vectors[bytes.fromhex(image.digest)] == alone
        (best,) = library.search(Path(image.paths[0]), k=1)
        assert (best.image.digest, best.score > 0.999) == (image.digest, True)


def test_every_image_gets_the_vector_that_the_new_model_gives_it_alone(
    library: Library, encoder: ImageEncoder, cropping: ImageEncoder
) -> None:
    before = stored(library.folder, encoder.identity)
    told: list[Progress] = []
    change = library.use_model(cropping.card, on_progress=told.append)
    assert (change.name, change.identity) == ("cropping", cropping.identity)
    assert (change.embedded, change.kept, change.failed) == (8, 0, [])
    assert told == [Progress("embedding", n, 8) for n in range(1, 9)]
    assert_all_of(library, cropping, 8)
    assert stored(library.folder, encoder.identity) == before
    # Square pictures are the same to both models; the others must not be.
    assert len({*before.values(), *stored(library.folder, cropping.identity).values()}) > 8


def test_the_way_back_embeds_only_what_came_since(
    library: Library, cropping: ImageEncoder, encoder: ImageEncoder, photos: Path
) -> None:
    library.use_model(cropping.card)
    new = another(photos)
    assert library.add(new).added == 1
    assert_all_of(library, cropping, 9)
    change = library.use_model(encoder.card)
    assert (change.embedded, change.kept, change.failed) == (1, 8, [])
    assert_all_of(library, encoder, 9)


def test_the_model_in_use_gets_what_it_lacks_and_nothing_else_happens(
    library: Library, encoder: ImageEncoder
) -> None:
    change = library.use_model(encoder.card)
    assert (change.embedded, change.kept, change.failed) == (0, 8, [])
    with library._catalog.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM embedding WHERE image_id = 3")
        connection.exec_driver_sql("INSERT INTO change (model_id, image_id) VALUES (1, 3)")
    change = library.use_model(encoder.card)
    assert (change.embedded, change.kept, change.failed) == (1, 7, [])
    assert_all_of(library, encoder, 8)


def test_an_interrupted_change_leaves_the_old_model_and_goes_on_the_next_time(
    library: Library, encoder: ImageEncoder, cropping: ImageEncoder
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.use_model(cropping.card, workers=1, on_progress=interrupt)
    assert_all_of(library, encoder, 8)
    change = library.use_model(cropping.card)
    assert (change.embedded, change.kept) == (5, 3)
    assert_all_of(library, cropping, 8)


def test_an_empty_library_simply_switches(
    library_folder: Path, original_photos: Path, cropping: ImageEncoder
) -> None:
    with searchlib.open_library(library_folder) as library:
        change = library.use_model(cropping.card)
        assert (change.embedded, change.kept, change.failed) == (0, 0, [])
        assert list(library.search(original_photos / "cat.jpg")) == []
        assert library.add(original_photos).added == 8
        assert_all_of(library, cropping, 8)


def test_the_old_model_is_searched_and_added_to_until_the_switch(
    library: Library, encoder: ImageEncoder, cropping: ImageEncoder, photos: Path
) -> None:
    new = another(photos)
    with searchlib.open_library(library.folder, encoder=encoder) as other:

        def meanwhile(progress: Progress) -> None:
            assert other.search(photos / "cat.jpg", k=1)[0].score > 0.999
            if progress.done == 5:
                assert other.add(new).added == 1

        change = library.use_model(cropping.card, on_progress=meanwhile)
        assert change.embedded == 9
        assert_all_of(library, cropping, 9)
        with pytest.raises(ModelMismatchError, match="models use tiny-vit-5m"):
            other.search(photos / "cat.jpg")


def test_what_was_added_before_the_last_moment_is_caught_up(
    library: Library, encoder: ImageEncoder, cropping: ImageEncoder, photos: Path
) -> None:
    catalog = library._catalog
    old = catalog.model()
    assert old is not None
    new = catalog.known_model(identity=cropping.identity, name="cropping", dimension=320)
    prepared: list[int] = []

    def add_another() -> None:
        assert catalog.model() == old
        prepared.append(len(prepared))
        if len(prepared) <= 2:
            path = another(photos, len(prepared))
            (result,) = ingest(catalog, encoder, old, [path], Handling(1))
            assert result.outcome == "added"

    change = change_model(catalog, cropping, new, before_switch=add_another)
    assert (change.embedded, len(prepared)) == (10, 3)
    assert catalog.model() == new
    assert catalog.coverage(new) == (10, 0)


def test_threads_of_the_same_object_go_on_searching(
    library: Library, cropping: ImageEncoder, original_photos: Path
) -> None:
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                for path in original_photos.glob("*.jpg"):
                    best = library.search(path, k=1)[0]
                    if best.path != str(path) or best.score < 0.999:
                        wrong.append(best)
        except searchlib.SearchlibError as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    library.use_model(cropping.card)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_all_of(library, cropping, 8)


def test_an_add_of_the_old_model_stops_at_the_switch_and_leaves_no_gap(
    library: Library, cropping: ImageEncoder, photos: Path
) -> None:
    another(photos)
    with searchlib.open_library(library.folder, encoder=cropping) as other:

        def switch(progress: Progress) -> None:
            if progress.stage == "embedding" and progress.done == 1:
                other.use_model(cropping.card)

        with pytest.raises(ModelMismatchError, match="changed to the model cropping meanwhile"):
            library.add(photos, on_progress=switch)
        assert_all_of(other, cropping, 8)
        report = other.add(photos)
        assert (report.added, report.copies) == (1, 8)
        assert_all_of(other, cropping, 9)


def test_a_file_is_not_marked_as_back_for_a_model_that_was_replaced(
    library: Library, cropping: ImageEncoder, original_photos: Path
) -> None:
    catalog = library._catalog
    old = catalog.model()
    assert old is not None
    cat = str(original_photos / "cat.jpg")
    file = catalog.places.known(cat, old)[cat]
    catalog.places.mark_missing([cat])
    assert library.use_model(cropping.card).embedded == 7
    with pytest.raises(ModelMismatchError, match="run the command again"):
        catalog.places.mark_present(old, [file.id])
    assert library.status().images == 7


def test_one_change_at_a_time(library: Library, cropping: ImageEncoder) -> None:
    refused: list[LibraryBusyError] = []
    with searchlib.open_library(library.folder) as other:

        def another(_: Progress) -> None:
            with pytest.raises(LibraryBusyError, match="is being changed already") as caught:
                other.use_model(cropping.card)
            refused.append(caught.value)

        assert library.use_model(cropping.card, on_progress=another).embedded == 8
        assert len(refused) == 8
        assert other.use_model(cropping.card).kept == 8


def test_an_image_is_read_from_any_of_its_files(
    own: Library, cropping: ImageEncoder, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    assert own.add(tmp_path / "copy").copies == 8
    (photos / "cat.jpg").unlink()
    (photos / "coffee.jpg").write_bytes(b"something else")
    change = own.use_model(cropping.card)
    assert (change.embedded, change.failed) == (8, [])


def test_images_that_cannot_be_read_are_told_and_embedded_by_a_later_add(
    own: Library, cropping: ImageEncoder, photos: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away.jpg"
    (photos / "cat.jpg").rename(away)
    other = photos / "coffee.jpg"
    was, status = other.read_bytes(), other.stat()
    other.write_bytes((photos / "rocket.jpg").read_bytes())
    change = own.use_model(cropping.card)
    assert change.embedded == 6
    assert {Path(skipped.path).name: skipped.reason for skipped in change.failed} == {
        "cat.jpg": "no such file",
        "coffee.jpg": "was changed since it was added",
    }
    assert own.search(away, k=1)[0].path != str(photos / "cat.jpg")
    # As they were: to the file system nothing has happened to them since they were added.
    away.rename(photos / "cat.jpg")
    other.write_bytes(was)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = own.add(photos)
    assert (report.embedded, report.unchanged, report.skipped) == (2, 6, [])
    assert report.found == 8
    assert_all_of(own, cropping, 8)
    assert own.add(photos).unchanged == 8


def test_a_missing_file_that_returns_after_the_change_is_embedded(
    own: Library, cropping: ImageEncoder, encoder: ImageEncoder, photos: Path, tmp_path: Path
) -> None:
    cat, away = photos / "cat.jpg", tmp_path / "away.jpg"
    cat.rename(away)
    assert own.add(photos).missing == 1
    change = own.use_model(cropping.card)
    assert (change.embedded, change.failed) == (7, [])
    assert len(stored(own.folder, encoder.identity)) == 8
    away.rename(cat)
    report = own.add(photos)
    assert (report.embedded, report.unchanged) == (1, 7)
    assert_all_of(own, cropping, 8)


def test_a_file_that_broke_is_skipped_by_the_next_add_and_not_tried_each_time(
    own: Library, cropping: ImageEncoder, photos: Path
) -> None:
    path = photos / "cat.jpg"
    path.write_bytes(b"torn")
    assert [skipped.path for skipped in own.use_model(cropping.card).failed] == [str(path)]
    assert [skipped.path for skipped in own.add(photos).skipped] == [str(path)]
    assert own._catalog.coverage(own._catalog.model()) == (7, 0)


def test_a_drive_that_is_not_mounted_stops_the_change(
    own: Library, cropping: ImageEncoder, encoder: ImageEncoder, photos: Path, tmp_path: Path
) -> None:
    photos.rename(tmp_path / "unmounted")
    with pytest.raises(LibraryError, match=r"none of 8 images .* goes on using tiny-vit-5m"):
        own.use_model(cropping.card)
    assert own.status().identity == encoder.identity
    (tmp_path / "unmounted").rename(photos)
    assert_all_of(own, encoder, 8)
    assert own.use_model(cropping.card).embedded == 8


def test_a_few_lost_files_do_not_stop_the_way_back(
    own: Library, cropping: ImageEncoder, encoder: ImageEncoder, photos: Path
) -> None:
    own.use_model(cropping.card)
    new = another(photos)
    own.add(new)
    new.unlink()
    change = own.use_model(encoder.card)
    assert (change.embedded, change.kept, len(change.failed)) == (0, 8, 1)
    assert own.status().identity == encoder.identity


def test_a_damaged_model_is_refused_before_anything_is_done(
    library: Library, cropping_card: ModelCard, encoder: ImageEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(cropping_card.path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"model\.pte"):
        library.use_model(replace(cropping_card, path=path))
    assert_all_of(library, encoder, 8)


def test_the_checkpoint_of_the_new_model_is_there_before_the_switch(
    library: Library, cropping: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Catalog.switch_model
    there: list[bool] = []

    def noted(catalog: Catalog, *args: object, **options: object) -> bool:
        name = f"index-{cropping.identity[:16]}.ckpt"
        there.append((library.folder / name).exists())
        return switch(catalog, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "switch_model", noted)
    library.use_model(cropping.card)
    assert there == [True]


def test_vectors_are_stored_as_an_add_stores_them(
    library: Library, cropping: ImageEncoder, original_photos: Path, tmp_path: Path
) -> None:
    library.use_model(cropping.card)
    with searchlib.open_library(tmp_path / "fresh", encoder=cropping) as fresh:
        fresh.add(original_photos)
    assert stored(library.folder, cropping.identity) == stored(
        tmp_path / "fresh", cropping.identity
    )
    with closing(sqlite3.connect(library.folder / "catalog.db")) as database:
        changes = database.execute("SELECT model_id, image_id FROM change ORDER BY seq").fetchall()
    assert sorted(changes) == [(model, image) for model in (1, 2) for image in range(1, 9)]
    np.testing.assert_array_equal([model for model, _ in changes], [1] * 8 + [2] * 8)
