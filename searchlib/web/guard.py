"""Where a request may go: schemes and addresses."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Networks of IPv6 that lead to another address, and that `ipaddress` takes for public ones.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")

Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which the system would try them.

    Raises:
        OSError: it has none, or they cannot be looked up.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet.

    Not public are loopback, private, shared, link-local, multicast, reserved and unspecified ones,
    and those of IPv6 that stand for such an address of IPv4.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and (ip in _NAT64 or ip in _IPV4_COMPATIBLE):
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64_LOCAL or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def is_localhost(host: str) -> bool:
    """Whether a host, by its name or as a literal address, is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """Where a request may go, and where its redirects may lead.

    A redirect from https to http is refused whatever the schemes.

    Attributes:
        schemes: of "http" and "https" those that are allowed.
        insecure_localhost: whether http is allowed to this machine besides.
        private: whether addresses that are not public may be connected to. Not for a server that
            fetches what others ask for: it would reach what only its own network should. The
            address that was checked is the one that is connected to, and no proxy is used.
        resolve: a host and a port to its addresses.
    """

    schemes: frozenset[str] = frozenset({"https"})
    insecure_localhost: bool = False
    private: bool = True
    resolve: Resolver = resolve
