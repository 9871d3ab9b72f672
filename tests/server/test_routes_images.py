from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from searchlib import Library
from searchlib.server.originals import disposition, wanted_range
from searchlib.server.problems import Problem


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.fixture
def mine(library: Library, photos: Path) -> Path:
    """A folder of the test's own that the library knows, with the photographs in it."""
    for path in photos.iterdir():
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    assert library.add(photos).added == 8
    return photos


def id_of(library: Library, path: Path) -> int:
    image = library.find(path)
    assert image is not None
    return image.id


def test_lists_go_on_page_by_page_while_images_are_added(
    url: str, library: Library, photos: Path
) -> None:
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = httpx2.get(f"{url}/v1/images", params={"limit": 3, "cursor": cursor}).json()
        seen += [image["id"] for image in page["images"]]
        cursor = page["cursor"]
        if len(seen) == 3:
            with Image.open(photos / "cat.jpg") as image:
                image.rotate(90).save(photos / "turned.png")
            assert library.add(photos / "turned.png").added == 1
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 8
    oldest = httpx2.get(f"{url}/v1/images", params={"order": "oldest", "count": "true"}).json()
    assert [image["id"] for image in oldest["images"]][:8] == seen[::-1]
    assert (oldest["cursor"], oldest["count"]) == (None, 9)


def test_lists_refuse_what_they_do_not_know(url: str) -> None:
    for query, status, code in (
        ("limit=0", 400, "invalid-request"),
        ("limit=1001", 400, "invalid-request"),
        ("order=best", 400, "invalid-request"),
        ("wher=x", 400, "invalid-request"),
        ("cursor=x", 422, "bad-cursor"),
        ("cursor=oldest-3", 422, "bad-cursor"),
        ("where=(", 422, "bad-where"),
    ):
        refused(httpx2.get(f"{url}/v1/images?{query}"), status, code)


def test_an_image_that_is_not_there_is_404(url: str) -> None:
    for path in ("", "/thumbnail", "/original"):
        refused(httpx2.get(f"{url}/v1/images/999999{path}"), 404, "not-found")
        refused(httpx2.get(f"{url}/v1/images/x{path}"), 400, "invalid-request")
    refused(httpx2.delete(f"{url}/v1/images/999999"), 404, "not-found")
    refused(httpx2.patch(f"{url}/v1/images/999999", json={"add_tags": ["a"]}), 404, "not-found")


def test_no_path_leads_out(url: str) -> None:
    for path in ("..%2f..%2fetc%2fpasswd", "../../../etc/passwd", "1/../../../etc/passwd", "%00"):
        for end in ("", "/original", "/thumbnail"):
            answer = httpx2.get(f"{url}/v1/images/{path}{end}")
            assert answer.status_code in (400, 404)
            assert b"root:" not in answer.content


def test_labels_are_put_and_taken(url: str, library: Library) -> None:
    id = library.images(limit=1)[0].id
    changes = {"add_tags": ["b", "a"], "properties": {"rating": "5", "x": "y"}}
    answer = httpx2.patch(f"{url}/v1/images/{id}", json=changes).json()
    assert (answer["added"], answer["removed"]) == (2, 0)
    changes = {"remove_tags": ["a", "c"], "properties": {"x": None}}
    answer = httpx2.patch(f"{url}/v1/images/{id}", json=changes).json()
    assert (answer["added"], answer["removed"]) == (0, 1)
    assert answer["image"]["tags"] == ["b"]
    assert answer["image"]["properties"] == {"rating": "5"}
    assert answer["image"] == httpx2.get(f"{url}/v1/images/{id}").json()
    assert httpx2.get(f"{url}/v1/tags").json() == {"tags": {"b": 1}}


def test_labels_that_cannot_be_are_refused_and_change_nothing(url: str, library: Library) -> None:
    id = library.images(limit=1)[0].id
    for changes in (
        {"add_tags": ["ok", ""]},
        {"add_tags": ["ok", "x" * 201]},
        {"add_tags": ["ok"], "remove_tags": ["line\nbreak"]},
        {"add_tags": ["ok"], "properties": {"": "x"}},
        {"add_tags": ["ok"], "properties": {"a": 5}},
        {"add_tags": "ok"},
        {"tags": ["ok"]},
    ):
        refused(httpx2.patch(f"{url}/v1/images/{id}", json=changes), 400, "invalid-request")
    image = library.image(id)
    assert image is not None
    assert image.tags == ()


def test_an_original_is_sent_with_all_that_keeps_a_browser_from_running_it(
    url: str, library: Library, original_photos: Path
) -> None:
    path = original_photos / "cat.jpg"
    answer = httpx2.get(f"{url}/v1/images/{id_of(library, path)}/original")
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith('inline; filename="cat.jpg"')
    assert answer.headers["accept-ranges"] == "bytes"


def test_parts_of_an_original_are_those_of_the_file(
    url: str, library: Library, original_photos: Path
) -> None:
    path = original_photos / "cat.jpg"
    whole = path.read_bytes()
    size = len(whole)
    at = f"{url}/v1/images/{id_of(library, path)}/original"
    etag = httpx2.head(at).headers["etag"]
    for asked, part in (
        ("bytes=0-0", whole[:1]),
        ("bytes=5-99", whole[5:100]),
        ("bytes=-7", whole[-7:]),
        (f"bytes={size - 1}-", whole[-1:]),
        (f"bytes=10-{size * 2}", whole[10:]),
        (f"bytes=-{size * 2}", whole),
    ):
        answer = httpx2.get(at, headers={"Range": asked, "If-Range": etag})
        assert (answer.status_code, answer.content) == (206, part)
        start = whole.index(part) if len(part) > 5 else None
        assert answer.headers["content-range"].endswith(f"/{size}")
        assert start is None or answer.headers["content-range"].startswith(f"bytes {start}-")
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = httpx2.get(at, headers={"Range": asked})
        refused(answer, 416, "bad-range")
        assert answer.headers["content-range"] == f"bytes */{size}"
    for headers in (
        {"Range": "lines=1-2"},
        {"Range": "bytes=5-1"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "bytes=0-1", "If-Range": '"other"'},
    ):
        answer = httpx2.get(at, headers=headers)
        assert (answer.status_code, answer.content) == (200, whole)


def test_what_the_caller_has_is_not_sent_again(url: str, library: Library) -> None:
    id = library.images(limit=1)[0].id
    for end in ("original", "thumbnail"):
        at = f"{url}/v1/images/{id}/{end}"
        head = httpx2.head(at)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(httpx2.get(at).content)
        etag = head.headers["etag"]
        for tags in (etag, f'"x", W/{etag}', "*"):
            again = httpx2.get(at, headers={"If-None-Match": tags})
            assert (again.status_code, again.content) == (304, b"")
        assert httpx2.get(at, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_file_that_was_swapped_or_changed_is_not_sent(
    url: str, library: Library, mine: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")

    def linked(path: Path) -> None:
        path.unlink()
        path.symlink_to(secret)

    def linked_to_a_copy(path: Path) -> None:
        shutil.copy2(path, tmp_path / "copy")
        path.unlink()
        path.symlink_to(tmp_path / "copy")

    def edited(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"x")

    def replaced(path: Path) -> None:
        # The same length and time, and other bytes.
        status = path.stat()
        path.rename(tmp_path / "old")
        path.write_bytes(b"\xff" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def folder_linked(path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / path.name).write_text("the secret")
        path.parent.rename(tmp_path / "moved")
        path.parent.symlink_to(elsewhere)

    swaps: list[tuple[str, Callable[[Path], Any]]] = [
        ("astronaut.jpg", Path.unlink),
        ("camera.png", linked),
        ("cat.jpg", edited),
        ("clock.png", replaced),
        ("coffee.jpg", pipe),
        ("coins.png", linked_to_a_copy),
        ("hubble.jpg", folder_linked),
    ]
    ids = {name: id_of(library, mine / name) for name, _ in swaps}
    for name, swap in swaps:
        at = f"{url}/v1/images/{ids[name]}"
        assert httpx2.get(f"{at}/original").status_code == 200, name
        swap(mine / name)
        refused(httpx2.get(f"{at}/original"), 410, "image-gone")
        if swap is linked_to_a_copy:
            # It shows the very bytes that the library read.
            assert httpx2.get(f"{at}/thumbnail").status_code == 200
        else:
            refused(httpx2.get(f"{at}/thumbnail"), 410, "image-gone")


def test_another_place_of_the_same_bytes_is_as_good(
    url: str, library: Library, mine: Path, tmp_path: Path
) -> None:
    other = tmp_path / "z" / "other.jpg"
    other.parent.mkdir()
    shutil.copy(mine / "cat.jpg", other)
    assert library.add(other).copies == 1
    id = id_of(library, other)
    content = other.read_bytes()
    (mine / "cat.jpg").write_bytes(b"changed")
    assert httpx2.get(f"{url}/v1/images/{id}/original").content == content
    assert httpx2.get(f"{url}/v1/images/{id}/thumbnail").status_code == 200


def test_a_name_cannot_break_out_of_its_header(url: str, library: Library, mine: Path) -> None:
    names = ['a"; filename="evil.html', "a\r\nX-Evil: 1", "Füße 🦶", "a\\", "%0d%0aX: 1", "\u202e"]
    for number, name in enumerate(names):
        path = mine / f"{name}.jpg"
        Image.linear_gradient("L").rotate(7 * number + 3).save(path)
        assert library.add(path).added == 1
        answer = httpx2.get(f"{url}/v1/images/{id_of(library, path)}/original")
        assert answer.content == path.read_bytes()
        assert "x-evil" not in answer.headers
        header = answer.headers["content-disposition"]
        assert header.count('"') == 2
        assert "html;" not in header


@given(st.text(min_size=1).map(lambda name: name.replace("/", "_")))
def test_any_name_is_a_valid_header_and_comes_back(name: str) -> None:
    from urllib.parse import unquote

    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return
    header = disposition(f"/x/{name}")
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert unquote(header.rpartition("''")[2]) == os.fsencode(name).decode("utf-8", "replace")


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
def test_ranges_are_those_of_a_slice(size: int, first: int, last: int) -> None:
    whole = bytes(range(size))

    def part(header: str) -> bytes | None:
        try:
            found = wanted_range(header, size)
        except Problem:
            return None
        return whole if found is None else whole[found[0] : found[1]]

    if first <= last:
        assert part(f"bytes={first}-{last}") == (whole[first : last + 1] or None)
    else:
        assert part(f"bytes={first}-{last}") == whole
    assert part(f"bytes={first}-") == (whole[first:] or None)
    assert part(f"bytes=-{last}") == (whole[-last:] if last else None)


def test_a_thumbnail_is_made_where_the_library_keeps_none(url: str, library: Library) -> None:
    image = library.images(limit=1)[0]
    assert library.thumbnail(image.digest) is None
    answer = httpx2.get(f"{url}/v1/images/{image.id}/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as small:
        assert (small.format, max(small.size)) == ("WEBP", 256)
        assert not small.getexif()
    assert library.thumbnail(image.digest) is None
    # From now on it keeps them.
    (library.folder / "thumbnails").mkdir()
    again = httpx2.get(f"{url}/v1/images/{image.id}/thumbnail")
    kept = library.thumbnail(image.digest)
    assert kept is not None
    assert kept.read_bytes() == httpx2.get(again.url).content


def test_a_path_that_is_no_text_is_told_as_text(url: str, library: Library, mine: Path) -> None:
    path = os.fsencode(mine) + b"/\xff.jpg"
    shutil.copy(mine / "cat.jpg", path)
    assert library.add(os.fsdecode(path)).copies == 1
    id = id_of(library, mine / "cat.jpg")
    paths = httpx2.get(f"{url}/v1/images/{id}").json()["paths"]
    assert str(mine / "\ufffd.jpg") in paths
    assert httpx2.post(f"{url}/v1/search", json={"terms": [{"id": id}]}).status_code == 200
