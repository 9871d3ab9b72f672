import gzip
import io
import socket
import subprocess
import sys
import time
import zlib

import pytest

from searchlib.errors import WebError
from searchlib.web import MAX_REDIRECTS, Guard, fetch, shown, size_words, stream
from tests.servers import Server, closed_port, make_certificate

WEB = Guard(schemes=frozenset({"http", "https"}))


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    try:
        return make_certificate(tmp_path_factory.mktemp("certificate"))
    except OSError:
        pytest.skip("there is no openssl command to make a certificate with")


def get(url, **options):
    return fetch(url, **{"max_bytes": 1_000_000, "timeout": 10, "guard": WEB, **options})


def refused(url, **options):
    with pytest.raises(WebError) as caught:
        get(url, **options)
    error = caught.value
    assert str(error) == f"{error.url}: {error.reason}"
    assert "\n" not in str(error)
    return error


def drip(exchange):
    while not exchange.owner.ending.is_set():
        exchange.body(b"x")
        exchange.wfile.flush()
        time.sleep(0.02)


def test_a_body_is_fetched_whole_with_and_without_a_length(server):
    body = bytes(range(256)) * 1000
    assert get(server.serve("/a", body)) == body
    assert get(server.serve("/empty", b"")) == b""

    def chunked(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        for start in range(0, len(body), 10_000):
            exchange.chunk(body[start : start + 10_000])
        exchange.chunk(b"")

    def until_closed(exchange):
        exchange.head(200)
        exchange.body(body)

    assert get(server.serve("/chunked", chunked)) == body
    assert get(server.serve("/closed", until_closed)) == body


def test_urls_are_sent_as_servers_expect_them(server):
    seen = []
    for path in ("/a%20b/%C3%A9.jpg", "/a b/é.jpg", "/x?q=1&r=a b#part", "", "?q"):
        server.routes.clear()
        with pytest.raises(WebError):
            get(server.url(path))
        seen.append(server.requests[-1][0])
    assert seen == ["/a%20b/%C3%A9.jpg", "/a%20b/%C3%A9.jpg", "/x?q=1&r=a%20b", "/", "/?q"]


@pytest.mark.parametrize("status", [404, 403, 410, 500, 503, 204, 304, 302])
def test_a_status_that_is_no_success_is_named(server, status):
    error = refused(server.serve("/a", lambda exchange: exchange.head(status)))
    assert error.status == status
    assert error.reason.startswith(f"the server answered {status} ")
    assert not error.interrupted


def test_a_longer_body_than_the_limit_is_refused_by_its_announcement(server):
    def huge(exchange):
        exchange.head(200, Content_Length=2_000_000_000)
        exchange.hang()

    error = refused(server.serve("/a", huge), max_bytes=100_000_000)
    assert error.reason == "is larger than 100 MB, the most that is fetched"
    assert get(server.serve("/b", bytes(1000)), max_bytes=1000) == bytes(1000)
    refused(server.serve("/c", bytes(1001)), max_bytes=1000)


def test_an_endless_body_ends_at_the_limit(server):
    def endless(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        while True:
            exchange.chunk(bytes(60_000))

    assert "is larger than" in refused(server.serve("/a", endless)).reason


def test_gzip_that_was_not_asked_for_is_decompressed_up_to_the_limit(server):
    def packed(body):
        return lambda exchange: exchange.whole(body, Content_Encoding="gzip")

    body = bytes(range(256)) * 1024
    for length in (0, 1, 65_535, 65_536, 65_537, 200_000, len(body)):
        packed_body = gzip.compress(body[:length])
        assert get(server.serve("/a", packed(packed_body))) == body[:length]
        assert get(server.serve("/b", packed(packed_body + b"more"))) == body[:length]
    assert set(server.headers_of("Accept-Encoding")) == {"identity"}
    error = refused(server.serve("/c", packed(gzip.compress(body)[:-9])))
    assert error.interrupted
    assert "is not the gzip" in refused(server.serve("/d", packed(b"plain"))).reason
    other = server.serve("/e", lambda exchange: exchange.whole(b"", Content_Encoding="gzip, br"))
    assert "not asked for" in refused(other).reason


def test_a_gzip_bomb_is_refused_and_never_unpacked(server):
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = io.BytesIO()
    for _ in range(200):
        bomb.write(packer.compress(bytes(1_000_000)))
    bomb.write(packer.flush())
    assert len(bomb.getvalue()) < 2_000_000
    url = server.serve(
        "/a", lambda exchange: exchange.whole(bomb.getvalue(), Content_Encoding="gzip")
    )
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "import searchlib.web as web\n"
        "from searchlib.errors import WebError\n"
        "guard = web.Guard(schemes=frozenset({'http'}))\n"
        "try:\n"
        "    web.fetch(sys.argv[1], max_bytes=2_000_000, guard=guard)\n"
        "except WebError as error:\n"
        "    assert 'is larger than 2 MB' in str(error)\n"
        # Not ru_maxrss, which begins with that of the process that forked.
        "    status = Path('/proc/self/status')\n"
        "    words = status.read_text() if status.exists() else 'VmHWM: 0 kB'\n"
        "    peak = int(re.search(r'VmHWM:\\s+(\\d+) kB', words)[1])\n"
        "    sys.exit(0 if peak < 150_000 else 4)\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, url], timeout=60, check=False)
    assert done.returncode == 0


def test_a_body_that_breaks_off_says_so(server):
    def short(exchange):
        exchange.head(200, Content_Length=1000)
        exchange.body(b"x" * 10)
        exchange.hang_up()

    def no_end(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        exchange.chunk(b"x" * 10)
        exchange.hang_up()

    for behaviour in (short, no_end):
        error = refused(server.serve("/a", behaviour))
        assert (error.reason, error.interrupted) == ("the connection broke off", True)
    error = refused(server.serve("/b", lambda exchange: exchange.hang_up()))
    assert (error.reason, error.interrupted) == ("the server closed the connection", True)


def test_bytes_beyond_the_announced_length_are_not_read(server):
    def long(exchange):
        exchange.head(200, Content_Length=10)
        exchange.body(b"x" * 1000)

    assert get(server.serve("/a", long)) == b"x" * 10


def test_a_server_that_says_nothing_is_left(server):
    error = refused(server.serve("/a", lambda exchange: exchange.hang()), timeout=0.2)
    assert (error.reason, error.interrupted) == ("the server sent nothing for 0.2 seconds", True)

    def half(exchange):
        exchange.head(200, Content_Length=1000)
        exchange.body(b"x" * 10)
        exchange.hang()

    assert refused(server.serve("/b", half), timeout=0.2).reason == error.reason


def test_a_slow_drip_ends_at_the_deadline_in_the_body_and_in_the_head(server):
    def slow_body(exchange):
        exchange.head(200, Content_Length=1_000_000)
        drip(exchange)

    def slow_head(exchange):
        exchange.body(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        drip(exchange)

    for behaviour in (slow_body, slow_head):
        error = refused(server.serve("/a", behaviour), deadline=0.4, timeout=30)
        assert error.reason == "it took longer than 0.4 seconds"


def test_the_deadline_holds_over_redirects(server):
    def again(exchange):
        time.sleep(0.2)
        exchange.head(302, Location="/a")

    error = refused(server.serve("/a", again), deadline=0.3, timeout=30)
    assert "longer than 0.3 seconds" in error.reason


def test_what_is_no_http_is_said(server):
    error = refused(
        server.serve("/a", lambda exchange: exchange.body(b"220 mail.example ESMTP\r\n\r\n"))
    )
    assert error.reason == "the server does not speak HTTP"


def test_no_network_is_said_in_plain_words():
    with closed_port() as port:
        assert refused(f"http://127.0.0.1:{port}/").reason == "the server refused the connection"

    def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    expected = "its server is not found; check the name and the network connection"
    guard = Guard(WEB.schemes, resolve=unknown)
    assert refused("http://pictures.test/", guard=guard).reason == expected
    assert refused("http://pictures.invalid/").reason == expected
    nowhere = Guard(WEB.schemes, resolve=lambda *_: [])
    assert "has no address" in refused("http://pictures.test/", guard=nowhere).reason


def test_the_next_address_is_tried_where_the_first_does_not_answer(server):
    server.serve("/a", b"picture")
    guard = Guard(WEB.schemes, resolve=lambda *_: ["127.0.0.77", "127.0.0.1"])
    assert get(server.url("/a", "pictures.test"), guard=guard) == b"picture"


def test_https_checks_the_certificate_and_the_name_in_it(certificate, monkeypatch):
    with Server(certificate) as server:
        server.serve("/a", b"picture")
        assert "its certificate is not trusted" in refused(server.url("/a")).reason
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(server.url("/a")) == b"picture"
        guard = Guard(resolve=lambda *_: ["127.0.0.1"])
        assert get(server.url("/a", "pictures.test"), guard=guard) == b"picture"
        wrong = refused(server.url("/a", "other.test"), guard=guard)
        assert "its certificate is not trusted" in wrong.reason
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        assert "cannot be reached" in refused(server.url("/a")).reason


def test_https_to_a_server_without_it_is_said(server):
    url = server.serve("/a", b"").replace("http:", "https:")
    assert "no secure connection could be made" in refused(url).reason


def test_a_redirect_from_https_to_http_is_refused_even_where_both_are_allowed(
    certificate, server, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    target = server.serve("/plain", b"picture")
    with Server(certificate) as secure:
        start = secure.serve("/a", lambda exchange: exchange.head(302, Location=target))
        error = refused(start)
        assert error.reason == f"it is redirected from https to http, to {target}"
        refused(start, guard=Guard(insecure_localhost=True))
        back = server.serve(
            "/b", lambda exchange: exchange.head(302, Location=secure.serve("/c", b"secure"))
        )
        assert get(back) == b"secure"
    assert [path for path, _ in server.requests] == ["/b"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, status):
    server.serve("/deep/b", lambda exchange: exchange.head(302, Location="../c?x=1"))
    server.serve("/c", b"picture")
    start = server.serve("/a", lambda exchange: exchange.head(status, Location="deep/b"))
    assert get(start) == b"picture"
    assert [path for path, _ in server.requests] == ["/a", "/deep/b", "/c?x=1"]


def test_redirects_end(server):
    start = server.serve("/a", lambda exchange: exchange.head(302, Location="/a"))
    error = refused(start)
    assert error.reason == f"it is redirected more than {MAX_REDIRECTS} times"
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/", "javascript:1"]
)
def test_a_redirect_to_another_scheme_is_refused(server, target):
    start = server.serve("/a", lambda exchange: exchange.head(302, Location=target))
    error = refused(start)
    assert error.url == start
    assert error.reason.startswith("it is redirected to ")
    assert "is not allowed here, only http or https" in error.reason


@pytest.mark.parametrize("target", ["http://[/", "http://a:99999/", "http://a b/"])
def test_a_redirect_to_what_is_no_url_is_refused(server, target):
    start = server.serve("/a", lambda exchange: exchange.head(302, Location=target))
    assert "is not a URL" in refused(start).reason


def test_an_error_behind_a_redirect_says_where(server):
    start = server.serve("/a", lambda exchange: exchange.head(302, Location="/gone?secret=1"))
    expected = f"it is redirected to {server.url('/gone')}?...: the server answered 404 Not Found"
    assert refused(start).reason == expected


def test_credentials_are_not_sent_to_another_server(server):
    with Server() as other:
        other.serve("/c", b"picture")
        server.serve("/b", lambda exchange: exchange.head(302, Location=other.url("/c")))
        server.serve("/a", lambda exchange: exchange.head(302, Location="/b"))
        sent = {"Authorization": "Bearer secret", "Range": "bytes=0-"}
        with stream(server.url("/a"), headers=sent, guard=WEB) as answer:
            assert b"".join(answer.chunks()) == b"picture"
        assert server.headers_of("Authorization") == ["Bearer secret"] * 2
        assert other.headers_of("Authorization") == [None]
        assert other.headers_of("Range") == ["bytes=0-"]
        assert get(server.url("/a").replace("//", "//me:pass%20word@")) == b"picture"
        assert server.headers_of("Authorization")[2:] == ["Basic bWU6cGFzcyB3b3Jk"] * 2
        assert other.headers_of("Authorization") == [None, None]


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a", "file:///etc/passwd", "example.com/a.jpg", "", "//example.com/a"),
        *("http://", "http:///a", "http://[::1", "http://exa mple.com/", "http://a:b/"),
        *("http://a\nb/", "http://example.com/\0", "http://exa%6dple.com/", "http://-\u2100.com/"),
        "http://" + "é" * 80 + ".com/",
    ],
)
def test_what_is_no_url_of_the_web_is_refused_without_a_request(url):
    def never(*place):
        raise AssertionError(f"{place} was looked up")

    refused(url, guard=Guard(WEB.schemes, resolve=never))


def test_http_is_for_this_machine_only_where_https_is_asked_for(server):
    server.serve("/a", b"model")
    guard = Guard(insecure_localhost=True)
    for host in ("127.0.0.1", "localhost"):
        assert get(server.url("/a", host), guard=guard) == b"model"
    for host in ("pictures.test", "10.0.0.1", "2130706433"):
        error = refused(server.url("/a", host), guard=guard)
        assert error.reason == "http:// is not allowed here, only https"
    refused(server.url("/a"), guard=Guard())


def test_errors_show_neither_login_nor_query(server):
    secret = f"http://me:hidden@127.0.0.1:{server.port}/a?token=hidden#hidden"
    error = refused(secret)
    assert "hidden" not in str(error)
    assert error.url == f"http://127.0.0.1:{server.port}/a?..."


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/b.jpg", "https://a.example/b.jpg"),
        ("https://u:p@a.example:8/b?c=d#e", "https://a.example:8/b?..."),
        ("https://u@b@a.example/", "https://a.example/"),
        ("https://a.example/\u202eb\x1b[0m", "https://a.example/%E2%80%AEb%1B[0m"),
        ("https://a.example/\udcff", "https://a.example/?"),
        ("https://[::1", "<URL>"),
        ("https://a.example/" + "x" * 5000, "https://a.example/" + "x" * 179 + "..."),
    ],
)
def test_urls_are_shown_as_one_short_line(url, expected):
    assert shown(url) == expected


def test_sizes_are_said_in_words():
    words = [size_words(count) for count in (0, 999, 1000, 1500, 96_400_000, 2 * 10**9)]
    assert words == ["0 bytes", "999 bytes", "1 kB", "1.5 kB", "96.4 MB", "2 GB"]


def test_a_stream_gives_status_headers_and_pieces(server):
    url = server.serve("/a", lambda exchange: exchange.whole(b"x" * 200_000, 206, X_Two="a"))
    with stream(url, headers={"Range": "bytes=5-"}, guard=WEB) as answer:
        assert (answer.status, answer.length, answer.url) == (206, 200_000, url)
        assert answer.headers["x-two"] == "a"
        pieces = list(answer.chunks())
    assert b"".join(pieces) == b"x" * 200_000
    assert max(map(len, pieces)) <= 65_536
    assert server.headers_of("Range") == ["bytes=5-"]


def test_the_client_is_imported_with_the_first_request_only():
    script = (
        "import sys, searchlib, searchlib.images, searchlib.encoder.download\n"
        "assert not {'httpcore2', 'httpx2', 'h11', 'filelock', 'urllib.request'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
