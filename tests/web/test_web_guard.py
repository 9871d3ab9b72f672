import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.errors import WebError
from searchlib.web import Guard, fetch, is_localhost, is_public
from tests.servers import Server

PRIVATE = [
    *("127.0.0.1", "127.255.0.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "0.0.0.0", "0.1.2.3", "100.64.0.1", "224.0.0.1", "239.1.2.3"),
    *("240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:a01:203", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2002:a01:203::1", "2001:db8::1"),
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_off_the_open_internet_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_open_internet_are_public(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_the_clothes_of_ipv6_is_as_public_as_it_is(address):
    number = int(address)
    for clothed in (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x64FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ):
        assert is_public(str(clothed)) == is_public(str(address))


def test_only_this_machine_is_localhost():
    assert all(map(is_localhost, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    others = ("localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", "::2")
    assert not any(map(is_localhost, others))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "0"),
        *("localhost", "LOCALHOST"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "10.0.0.1", "169.254.169.254"),
    ],
)
def test_a_guard_against_private_addresses_knows_every_spelling_of_them(server, host):
    server.serve("/a", b"secret")
    guard = Guard(schemes=frozenset({"http"}), private=False)
    with pytest.raises(WebError, match="is a private address"):
        fetch(server.url("/a", host), max_bytes=100, guard=guard)
    assert server.requests == []


def test_a_name_is_refused_by_the_address_that_it_leads_to(server):
    asked = []

    def resolve(host, port):
        asked.append((host, port))
        return ["93.184.216.34", "127.0.0.1"]

    guard = Guard(schemes=frozenset({"http"}), private=False, resolve=resolve)
    with pytest.raises(WebError, match=r"pictures\.test is a private address"):
        fetch(server.url("/a", "pictures.test"), max_bytes=100, guard=guard)
    assert asked == [("pictures.test", server.port)]


def test_the_address_that_was_looked_up_is_the_one_that_is_connected_to(server):
    server.serve("/a", b"picture")
    answers = [["127.0.0.1"], ["192.0.2.1"]]
    guard = Guard(schemes=frozenset({"http"}), resolve=lambda *_: answers.pop(0))
    assert fetch(server.url("/a", "pictures.test"), max_bytes=100, guard=guard) == b"picture"
    assert server.headers_of("Host") == [f"pictures.test:{server.port}"]
    assert len(answers) == 1


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    # No test can listen on a public address, so one of this machine is taken for one.
    monkeypatch.setattr("searchlib.web.connect.is_public", lambda address: address == "127.0.0.1")
    names = {"inside.test": "10.0.0.1"}
    schemes = frozenset({"http"})
    guard = Guard(schemes, private=False, resolve=lambda host, _: [names.get(host, host)])
    server.serve("/secret", b"secret")
    for host in ("127.0.0.2", "inside.test", "10.0.0.1", "[::1]"):
        target = server.url("/secret", host)
        start = server.serve("/start", lambda exchange, to=target: exchange.head(302, Location=to))
        with pytest.raises(WebError, match=r"it is redirected to .* is a private address"):
            fetch(start, max_bytes=100, guard=guard)
    assert {path for path, _ in server.requests} == {"/start"}
    server.serve("/start", lambda exchange: exchange.head(302, Location="/secret"))
    assert fetch(server.url("/start"), max_bytes=100, guard=guard) == b"secret"


def test_a_guard_against_private_addresses_uses_no_proxy(server, monkeypatch):
    server.routes["http://pictures.test/a"] = lambda exchange: exchange.whole(b"by proxy")
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = "http://pictures.test/a"
    schemes = frozenset({"http"})
    assert fetch(url, max_bytes=100, guard=Guard(schemes)) == b"by proxy"
    guard = Guard(schemes, private=False, resolve=lambda *_: ["10.0.0.1"])
    with pytest.raises(WebError, match="is a private address"):
        fetch(url, max_bytes=100, guard=guard)
    assert len(server.requests) == 1
