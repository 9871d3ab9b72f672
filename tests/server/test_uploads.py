from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from blake3 import blake3
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.errors import DiskFullError, LibraryReadOnlyError
from searchlib.images import NamedBytes
from searchlib.server.problems import Problem
from searchlib.server.uploads import TRASH, Uploads

PNG = {"Content-Type": "image/png"}


def drawing(number: int, format: str = "PNG") -> bytes:
    """A picture that no other number has."""
    written = io.BytesIO()
    image = Image.radial_gradient("L").resize((160, 120)).rotate(number, expand=True)
    image.save(written, format)
    return written.getvalue()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(filled_library: Path) -> Path:
    return filled_library / "uploads"


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_picture_is_kept_under_its_digest_and_found(
    url: str, library: Library, folder: Path
) -> None:
    content = drawing(1)
    answer = httpx2.post(f"{url}/v1/images?tag=a&tag=b", content=content, headers=PNG)
    digest = blake3(content).hexdigest()
    assert answer.status_code == 201
    image = answer.json()
    assert answer.headers["location"] == f"/v1/images/{image['id']}"
    assert (image["digest"], image["tags"]) == (digest, ["a", "b"])
    # Its sender gave no name.
    assert files_of(folder) == {f"{digest[:2]}/{digest}.png"}
    found = httpx2.post(f"{url}/v1/search", content=content, headers=PNG).json()["matches"]
    assert found[0]["id"] == image["id"]
    assert library.search(content)[0].image.id == image["id"]


def test_the_same_bytes_are_kept_once(url: str, folder: Path, original_photos: Path) -> None:
    content = drawing(2)
    first = httpx2.post(f"{url}/v1/images", files={"image": ("a.png", content)})
    again = httpx2.post(f"{url}/v1/images?tag=x", files={"image": ("b.gif", content)})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {**first.json(), "tags": ["x"]}
    assert len(files_of(folder)) == 1
    # Bytes that lie in a folder of the user's are not kept here as well.
    cat = (original_photos / "cat.jpg").read_bytes()
    known = httpx2.post(f"{url}/v1/images", content=cat, headers=PNG)
    assert known.status_code == 200
    assert known.json()["paths"] == [str(original_photos / "cat.jpg")]
    assert len(files_of(folder)) == 1


def test_of_a_name_only_the_end_of_a_picture_counts(url: str, folder: Path) -> None:
    names = {
        "a.JPG": ".jpg", "../../../x.webp": ".webp", "x.exe": ".png", "x": ".png", "": ".png",
        "x.png/../../y.tiff": ".tiff", "a.png\0.sh": ".png", "x." + "y" * 300: ".png",
        "..\\..\\x.gif": ".gif", 'a".bmp': ".bmp", "a\n.jpeg": ".jpeg", ".png": ".png",
    }  # fmt: skip
    for number, (name, extension) in enumerate(names.items(), 10):
        content = drawing(number)
        answer = httpx2.post(f"{url}/v1/images", files={"image": (name, content)})
        assert answer.status_code == 201, answer.text
        digest = blake3(content).hexdigest()
        assert f"{digest[:2]}/{digest}{extension}" in files_of(folder), name
    assert len(files_of(folder)) == len(names)


def test_many_at_once_are_all_kept(url: str, library: Library, folder: Path) -> None:
    pictures = [drawing(number) for number in range(30, 42)] * 2

    def send(content: bytes) -> int:
        answer = httpx2.post(f"{url}/v1/images", content=content, headers=PNG, timeout=60)
        assert answer.status_code in (200, 201), answer.text
        return int(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(send, pictures))
    assert ids[:12] == ids[12:]
    assert len(set(ids)) == 12
    assert len(files_of(folder)) == 12
    assert library.status().images == 8 + 12


def test_what_was_uploaded_can_be_deleted_and_comes_back(
    url: str, library: Library, folder: Path
) -> None:
    content = drawing(50)
    id = httpx2.post(f"{url}/v1/images?tag=x", content=content, headers=PNG).json()["id"]
    answer = httpx2.delete(f"{url}/v1/images/{id}")
    assert (answer.status_code, answer.content) == (204, b"")
    refused(httpx2.get(f"{url}/v1/images/{id}"), 404, "not-found")
    refused(httpx2.delete(f"{url}/v1/images/{id}"), 404, "not-found")
    assert id not in [match.image.id for match in library.search(content)]
    (trashed,) = files_of(folder)
    assert trashed.startswith(f"{TRASH}/")
    assert (folder / trashed).read_bytes() == content
    again = httpx2.post(f"{url}/v1/images", content=content, headers=PNG)
    assert (again.status_code, again.json()["id"]) == (201, id)


def test_nothing_of_the_users_is_ever_deleted(
    url: str, library: Library, folder: Path, photos: Path
) -> None:
    with Image.open(photos / "cat.jpg") as image:
        image.rotate(180).save(photos / "own.png")
    own = (photos / "own.png").read_bytes()
    content = drawing(60)
    id = httpx2.post(f"{url}/v1/images", content=content, headers=PNG).json()["id"]
    (photos / "copy.png").write_bytes(content)
    library.add(photos)
    # A picture that a person put into the folder is theirs as well.
    (folder / "theirs.png").write_bytes(drawing(61))
    library.add(folder / "theirs.png")
    before = files_of(photos), files_of(folder)
    for path in (photos / "own.png", photos / "copy.png", folder / "theirs.png"):
        image = library.find(path)
        assert image is not None
        answer = httpx2.delete(f"{url}/v1/images/{image.id}")
        refused(answer, 409, "not-managed")
        assert library.image(image.id) == image
    assert (files_of(photos), files_of(folder)) == before
    assert (photos / "own.png").read_bytes() == own
    (photos / "copy.png").unlink()
    library.add(photos)
    assert httpx2.delete(f"{url}/v1/images/{id}").status_code == 204


def test_what_is_no_picture_leaves_no_trace(url: str, library: Library, folder: Path) -> None:
    before = library.status()
    for content in (b"", b"hello", drawing(70)[:300], b"\x89PNG\r\n\x1a\n"):
        refused(httpx2.post(f"{url}/v1/images", content=content, headers=PNG), 422, "not-a-picture")
    assert not folder.exists()
    after = library.status()
    assert (after.images, after.skipped, after.failed) == (
        before.images, before.skipped, before.failed
    )  # fmt: skip


def test_a_picture_with_too_many_pixels_is_413(
    running: Callable[..., Any], filled_library: Path, encoder: ImageEncoder
) -> None:
    with searchlib.open_library(filled_library, encoder=encoder, max_pixels=10_000) as library:
        url = running(of=library).url
        for path in ("images", "search", "embed"):
            answer = httpx2.post(f"{url}/v1/{path}", content=drawing(0), headers=PNG)
            refused(answer, 413, "too-large")
    assert not (filled_library / "uploads").exists()


def test_a_folder_that_cannot_be_written_is_told(library: Library, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LibraryReadOnlyError, match="uploads cannot be kept"):
        Uploads(library, tmp_path / "file").add(NamedBytes("a.png", drawing(80)))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_and_leaves_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def open_full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "xb":
            return real(path, mode, *rest, **options)
        real(path, mode).close()
        return real(Path("/dev/full"), "wb", buffering=0)

    uploads = Uploads(library, tmp_path / "uploads")
    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(DiskFullError, match="make room"):
        uploads.add(NamedBytes("a.png", drawing(81)))
    monkeypatch.undo()
    assert files_of(tmp_path / "uploads") == set()
    assert uploads.add(NamedBytes("a.png", drawing(81)))[1]


def test_a_start_adds_what_a_killed_server_left(library: Library, folder: Path) -> None:
    uploads = Uploads(library, folder)
    content = drawing(90)
    digest = blake3(content).hexdigest()
    (folder / digest[:2]).mkdir(parents=True)
    (folder / digest[:2] / f"{digest}.png").write_bytes(content)
    half = folder / digest[:2] / f".{digest}.png.12345678.tmp"
    half.write_bytes(content[:100])
    fresh = folder / digest[:2] / f".{digest}.png.87654321.tmp"
    fresh.write_bytes(content[:100])
    os.utime(half, (1, 1))
    uploads.recover()
    image = library.find(folder / digest[:2] / f"{digest}.png")
    assert image is not None
    assert not half.exists()
    # It may be one that another server writes now.
    assert fresh.exists()
    # Killed between the trash and the library.
    (folder / digest[:2] / f"{digest}.png").rename(folder / "x")
    (folder / "x").unlink()
    assert library.image(image.id) is not None
    uploads.recover()
    assert library.image(image.id) is None


def test_the_trash_is_emptied_after_thirty_days(library: Library, folder: Path) -> None:
    for day in ("2020-01-31", "2999-01-01", "mine", "0000-00-00"):
        (folder / TRASH / day).mkdir(parents=True)
        (folder / TRASH / day / "a.png").touch()
    (folder / TRASH / "2020-02-01").symlink_to(folder / TRASH / "mine")
    Uploads(library, folder).recover()
    kept = {path.name for path in (folder / TRASH).iterdir()}
    assert kept == {"2999-01-01", "mine", "0000-00-00", "2020-02-01"}
    assert (folder / TRASH / "mine" / "a.png").exists()


def test_an_image_that_somebody_else_deletes_meanwhile_is_gone(
    library: Library, folder: Path
) -> None:
    uploads = Uploads(library, folder)
    image, _ = uploads.add(NamedBytes("a.png", drawing(95)))
    Path(image.paths[0]).unlink()
    uploads.remove(image.id)
    assert library.image(image.id) is None
    with pytest.raises(searchlib.SearchlibError):
        uploads.remove(image.id)


def test_a_link_in_the_place_of_an_upload_is_not_followed(
    library: Library, folder: Path, photos: Path
) -> None:
    uploads = Uploads(library, folder)
    image, _ = uploads.add(NamedBytes("a.png", drawing(96)))
    path = Path(image.paths[0])
    path.unlink()
    path.symlink_to(photos / "cat.jpg")
    with pytest.raises(Problem):
        uploads.remove(image.id)
    assert (photos / "cat.jpg").exists()
    assert path.is_symlink()


def test_every_upload_that_was_confirmed_outlives_kill_9(
    start_server: Callable[..., Any], filled_library: Path, encoder: ImageEncoder, folder: Path
) -> None:
    confirmed: list[int] = []
    sent = {}
    for round in range(3):
        served = start_server()
        enough = threading.Event()

        def send(numbers: range, url: str = served.url, enough: threading.Event = enough) -> None:
            for number in numbers:
                content = drawing(number)
                sent[number] = blake3(content).hexdigest()
                try:
                    answer = httpx2.post(f"{url}/v1/images", content=content, headers=PNG)
                except httpx2.TransportError:
                    return
                if answer.status_code in (200, 201):
                    confirmed.append(number)
                    if len(confirmed) >= 4 * (round + 1):  # noqa: B023 - ends with the round
                        enough.set()

        starts = (100 + 120 * round, 160 + 120 * round)
        threads = [threading.Thread(target=send, args=(range(s, s + 60),)) for s in starts]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        served.process.kill()
        served.process.communicate(timeout=60)
        for thread in threads:
            thread.join()
    assert confirmed
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        known = {image.digest for image in library.images(limit=1000)}
        assert {sent[number] for number in confirmed} <= known
        # What is whole and was not confirmed is taken in by the next start, and nothing else.
        Uploads(library, folder).recover()
        kept = {Path(name).stem for name in files_of(folder) if not name.endswith(".tmp")}
        known = {image.digest for image in library.images("folder:" + str(folder), limit=1000)}
        assert kept == known
        assert known <= set(sent.values())
