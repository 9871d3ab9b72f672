"""Files that are meant to break something: each is answered, and the server goes on."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
_SAMPLE = 60

PROBLEMS = {400, 413, 415, 422}
BODY = {"Content-Type": "application/octet-stream"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def encoded(format: str, **options: Any) -> bytes:
    written = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(written, format, **options)
    return written.getvalue()


def hostile() -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    squeezed = zlib.compress(b"\0" * 50_000_000, 9)
    yield "bomb.png", png(50_000, 50_000, squeezed)
    yield "lying.png", png(2**31 - 1, 2**31 - 1, squeezed)
    yield "long.png", png(10, 10, squeezed)
    yield (
        "text-bomb.png",
        (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
            + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 30_000_000))
            + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 30_000_000))
            + chunk(b"IDAT", zlib.compress(b"\0" * 20))
            + chunk(b"IEND", b"")
        ),
    )
    yield "bomb.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x01\0\0;"
    yield "bomb.bmp", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 2**30, 2**30, 1, 24,
                                          0, 0, 0, 0, 0, 0)  # fmt: skip
    yield "loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"):
        whole = encoded(format)
        for length in (1, 12, len(whole) // 2, len(whole) - 1):
            yield f"cut-{length}.{format.lower()}", whole[:length]
        flipped = bytearray(whole)
        for at in range(20, len(flipped), max(1, len(flipped) // 50)):
            flipped[at] ^= 0x55
        yield f"flipped.{format.lower()}", bytes(flipped)
    exif = Image.Exif()
    exif[0x010F] = "<script>alert(1)</script>\r\nX-Evil: 1\0\u202e"
    exif[0x0112] = 6
    yield "exif.jpg", encoded("JPEG", exif=exif)
    for name, content in {
        "empty.jpg": b"", "text.jpg": b"hello", "page.jpg": b"<html><script>1</script>",
        "drawing.svg": b"<svg xmlns='x' onload='alert(1)'/>", "a.pdf": b"%PDF-1.7",
        "a.zip": b"PK\x03\x04" + b"\0" * 100, "a.ps": b"%!PS\n(/etc/passwd) run",
        "a.exe": b"MZ" + b"\0" * 100, "nul.jpg": b"\0" * 1000, "path.jpg": b"/etc/passwd",
    }.items():  # fmt: skip
        yield name, content
    whole = encoded("PNG")
    for name in ("../../etc/cron.d/x.png", "a\0b.png", "a\r\nX-Evil: 1.png", 'a"b.png', "'.png",
                 "/abs/x.png", "..", ".", "\udcff.png", "x" * 5000 + ".png", "a.png.php",
                 "-rf.png", "%2e%2e%2fx.png", "CON.png", "\u202egnp.exe", "${HOME}.png",
                 "`id`.png"):  # fmt: skip
        yield name, whole


def form(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A form whose file has this very name, as no client would send it."""
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="'
    body = head + name.encode("utf-8", "surrogateescape") + b'"\r\n\r\n' + content
    return body + b"\r\n--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


def check(answer: httpx2.Response, what: str) -> None:
    """It is an answer, or a problem that tells nothing of the inside."""
    assert "x-evil" not in answer.headers, what
    if answer.status_code in (200, 201):
        assert answer.headers["content-type"] == "application/json", what
        answer.json()
        return
    assert answer.status_code in PROBLEMS, (what, answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json", what
    problem = answer.json()
    assert problem["status"] == answer.status_code, what
    assert problem["detail"].isprintable(), (what, problem)
    assert "Traceback" not in answer.text, what
    assert "site-packages" not in answer.text, what


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_made_up_files_are_answered_and_the_server_goes_on(
    serve: str, filled_library: Path, tmp_path: Path
) -> None:
    before = files_of(tmp_path)
    with httpx2.Client(base_url=serve, timeout=60) as client:
        for name, content in hostile():
            body, headers = form(name, content)
            for path in ("search", "embed", "images"):
                check(client.post(f"/v1/{path}", content=body, headers=headers), name)
            check(client.post("/v1/search", content=content, headers=BODY), name)
        pages = client.get("/v1/images", params={"limit": 1000}).json()["images"]
        for image in pages:
            for end in ("thumbnail", "original"):
                answer = client.get(f"/v1/images/{image['id']}/{end}")
                assert answer.status_code == 200, image
                assert answer.headers["content-type"].startswith("image/"), image
                assert "x-evil" not in answer.headers
        assert client.get("/readyz").status_code == 200
    uploads = filled_library / "uploads"
    assert uploads.is_dir()
    new = {tmp_path / name for name in files_of(tmp_path) - before}
    # Nothing was written but pictures below the folder of uploads, and the library's own files.
    assert all(filled_library in path.parents for path in new)
    assert all(len(path.stem) == 64 for path in new if uploads in path.parents)
    assert len(list(filled_library.iterdir())) < 30


def test_bad_files_of_the_world_are_answered_and_the_server_goes_on(
    serve: str, shared_data: Path
) -> None:
    folder = shared_data / "bad"
    if not folder.is_dir():
        pytest.skip("there are no bad files")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert files
    chosen = files if FULL else files[:: max(1, len(files) // _SAMPLE)]
    with httpx2.Client(base_url=serve, timeout=60) as client:
        for path in chosen:
            body, headers = form(path.name, path.read_bytes())
            for to in ("search", "images"):
                check(client.post(f"/v1/{to}", content=body, headers=headers), str(path))
        assert client.get("/readyz").status_code == 200
