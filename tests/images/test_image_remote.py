import base64
import subprocess
import sys

import pytest
from blake3 import blake3
from PIL import Image

import searchlib
from searchlib.errors import DecodeError, ImageError, SourceError
from searchlib.images import SERVER_POLICY, FetchPolicy, NamedBytes, digest, load, resolve
from tests.servers import Server, closed_port


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def png(wide_photo, encode):
    return encode(wide_photo.resize((60, 40)), "PNG")


def test_a_url_gives_the_same_as_its_bytes(server, png):
    url = server.serve("/a.png", png)
    for given in (url, url.replace("http:", "HTTP:"), f"{url}?size=large#top"):
        loaded = load(given)
        assert loaded.pixels.tobytes() == load(png).pixels.tobytes()
        assert loaded.digest == digest(given) == blake3(png).digest()
        assert loaded.facts == load(png).facts


def test_a_resolved_url_is_fetched_once(server, png):
    resolved = resolve(server.serve("/a.png", png))
    assert resolved == NamedBytes(server.url("/a.png"), png)
    assert resolve(resolved) == resolved
    assert digest(resolved) == load(resolved).digest == blake3(png).digest()
    assert len(server.requests) == 1


def test_sources_that_cost_nothing_to_take_twice_resolve_to_themselves(tmp_path, photo, png):
    path = tmp_path / "a.png"
    path.write_bytes(png)
    for source in (path, str(path), path.as_uri(), png, photo, str(tmp_path / "gone.png")):
        assert resolve(source) is source


def test_a_query_by_url_fetches_it_once(server, filled_library, encoder, original_photos):
    url = server.serve("/a.jpg", (original_photos / "cat.jpg").read_bytes())
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        best = library.search(url, k=1)[0]
    assert best.path.endswith("/cat.jpg")
    assert len(server.requests) == 1


def test_what_cannot_be_fetched_is_an_error_of_the_source(server):
    url = server.url("/gone.png")
    for operation in (load, digest, resolve):
        with pytest.raises(SourceError) as caught:
            operation(url)
        assert str(caught.value) == f"{url}: the server answered 404 Not Found"
        assert caught.value.source == url
        assert not caught.value.lasting
    with closed_port() as port, pytest.raises(SourceError, match="refused the connection"):
        load(f"http://127.0.0.1:{port}/a.png")


def test_what_was_fetched_and_is_no_picture_is_named_by_its_url(server):
    url = server.serve("/a.png", b"<!DOCTYPE html><html></html>")
    with pytest.raises(DecodeError) as caught:
        load(f"{url}?token=hidden")
    assert str(caught.value) == f"{url}?...: a web page, not a picture"
    with pytest.raises(DecodeError, match="the file is empty"):
        load(server.serve("/b.png", b""))


def test_a_picture_that_is_cut_short_is_no_picture(server, png):
    def short(exchange):
        exchange.head(200, Content_Length=len(png))
        exchange.body(png[:-100])
        exchange.hang_up()

    with pytest.raises(SourceError, match="the connection broke off"):
        load(server.serve("/a.png", short))


def test_the_policy_limits_what_is_fetched(server, png):
    url = server.serve("/a.png", png)
    with pytest.raises(SourceError, match="is larger than 100 bytes"):
        load(url, policy=FetchPolicy(max_bytes=100))
    server.serve("/b.png", lambda exchange: exchange.hang())
    with pytest.raises(SourceError, match=r"sent nothing for 0\.1 seconds"):
        digest(server.url("/b.png"), policy=FetchPolicy(timeout=0.1))
    with pytest.raises(SourceError, match="longer than 0 seconds"):
        resolve(url, policy=FetchPolicy(deadline=0))


def test_a_server_fetches_nothing_of_its_own_network(server, png):
    url = server.serve("/a.png", png)
    for operation in (load, digest, resolve):
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            with pytest.raises(SourceError, match="is a private address"):
                operation(url.replace("127.0.0.1", host), policy=SERVER_POLICY)
    assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://example.com/a.png", "s3://bucket/a.png", "gopher://a/"])
def test_other_urls_are_refused_with_what_is_supported(url):
    with pytest.raises(SourceError, match=r":// is not supported; pass a path or a URL of http"):
        load(url)


def test_a_file_whose_name_looks_like_another_url_is_read(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    photo.save("s3:/a.png")
    assert load("s3://a.png").pixels.size == photo.size


@pytest.mark.parametrize("url", ["http://[::1/a.png", "https://", "http://a\nb/"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(SourceError, match="is not a URL") as caught:
        load(url)
    assert "\n" not in str(caught.value)


def test_a_data_uri_gives_the_same_as_its_bytes(png):
    plain = base64.b64encode(png).decode()
    wrapped = base64.encodebytes(png).decode()
    percent = "".join(f"%{byte:02X}" for byte in png)
    for uri in (
        f"data:image/png;base64,{plain}",
        f"DATA:;BASE64,{plain.rstrip('=')}",
        f"data:image/png;name=a.png; base64 ,{wrapped}",
        f"data:;base64,{plain.replace('+', '%2B').replace('=', '%3D')}",
        f"data:image/png,{percent}",
        f"data:,{percent}",
    ):
        assert load(uri).digest == digest(uri) == blake3(png).digest()
        assert load(uri).pixels.tobytes() == load(png).pixels.tobytes()


@pytest.mark.parametrize(
    ("uri", "kind", "reason"),
    [
        ("data:image/png;base64", SourceError, "there is no comma before the data"),
        ("data:image/png;base64,????", SourceError, "its base64 is damaged"),
        ("data:image/png;base64,iVBORw0KGgo=iVBO", SourceError, "its base64 is damaged"),
        ("data:image/png;base64,A", SourceError, "its base64 is damaged"),
        ("data:image/png;base64,", DecodeError, "the file is empty"),
        ("data:,", DecodeError, "the file is empty"),
        ("data:text/plain,hello%20there", DecodeError, "not an image"),
        ("data:text/html;base64,PGh0bWw+", DecodeError, "a web page, not a picture"),
    ],
)
def test_a_data_uri_without_a_picture_is_refused(uri, kind, reason):
    with pytest.raises(kind, match=reason) as caught:
        load(uri)
    assert caught.value.source == "<data URI>"


def test_base64_gives_the_same_as_its_bytes(png, photo, encode):
    for content in (png, encode(photo, "JPEG"), encode(photo, "WEBP"), encode(photo, "GIF")):
        standard = base64.b64encode(content).decode()
        url_safe = base64.urlsafe_b64encode(content).decode()
        for text in (
            standard,
            url_safe,
            standard.rstrip("="),
            url_safe.rstrip("="),
            base64.encodebytes(content).decode(),
            f"\r\n  {standard}\t",
        ):
            assert load(text).digest == digest(text) == blake3(content).digest()


def test_the_smallest_picture_is_known_as_base64(encode):
    content = encode(Image.new("P", (1, 1)), "GIF")
    assert load(base64.b64encode(content).decode()).digest == blake3(content).digest()


@pytest.mark.parametrize("length", [60, 100, 5000])
def test_base64_of_no_picture_is_refused_as_that(length):
    text = base64.b64encode(b"All work and no play. " * 1000)[:length].decode()
    for operation in (load, digest, resolve):
        with pytest.raises(DecodeError) as caught:
            operation(text)
        assert caught.value.source == (text if length == 60 else "<base64>")
        assert caught.value.reason == (
            f"no such file, and as base64 it is {length * 3 // 4} bytes that are no picture: "
            "not an image: no decoder knows its first bytes"
        )
    page = base64.b64encode(b"<!DOCTYPE html><html><body></body></html>").decode()
    with pytest.raises(DecodeError, match="a web page, not a picture"):
        load(page)


def test_base64_that_is_damaged_is_no_file_and_not_repeated(png):
    text = base64.b64encode(png * 3).decode()
    for damaged in (text[:100] + "!" + text[100:], text[:-3] + "=====", text + "_-+/", "x " * 3000):
        for operation in (load, digest):
            with pytest.raises(ImageError) as caught:
                operation(damaged)
            assert len(str(caught.value)) < 200


def test_a_damaged_picture_in_base64_is_named_by_its_kind(png):
    with pytest.raises(DecodeError) as caught:
        load(base64.b64encode(png[: len(png) // 2]).decode())
    assert caught.value.source == "<base64>"
    assert "truncated" in caught.value.reason


@pytest.mark.parametrize(
    "name",
    [
        *("photos/holiday", "a/b/c", "a.jpg", "IMG1234", "", "\0", "/9j/4AAQ", "iVBORw0KGgo="),
        *("/tmp/nothingofthisnameisherenothing", "./" + "a" * 40, "~/" + "b" * 40, "é" * 40),
        "photographs/of-the_summer/in/Norway/and/Sweden",
    ],
)
def test_a_name_that_happens_to_be_base64_is_a_missing_file(name):
    with pytest.raises(SourceError) as caught:
        load(name)
    assert caught.value.reason == "no such file" or "\0" in name


def test_a_file_comes_before_base64(tmp_path, monkeypatch, png, photo):
    monkeypatch.chdir(tmp_path)
    name = base64.urlsafe_b64encode(png[:60]).decode()
    photo.save(name, "PNG")
    assert load(name).pixels.size == photo.size


def test_local_pictures_do_not_load_the_client(tmp_path, photo):
    path = tmp_path / "a.png"
    photo.save(path)
    script = (
        "import sys, searchlib, searchlib.images as images\n"
        "images.load(sys.argv[1])\n"
        "assert not {'httpcore2', 'httpx2', 'searchlib.web', 'ssl', 'socket'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)
