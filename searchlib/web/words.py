"""URLs, sizes and statuses in messages."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote, urlsplit

# What may stand in a path and a query (RFC 3986), and "%", as most URLs are escaped already.
UNESCAPED = "/?:@!$&'()*+,;=%~-._[]|"

_LONGEST = 200


def shown(url: str) -> str:
    """A URL for messages: one line, without login, query and fragment, and not too long."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<URL>"
    host = parts.netloc.rpartition("@")[2]
    text = f"{parts.scheme}:{f'//{host}' if host else ''}{parts.path}"
    text = quote(text, safe=UNESCAPED, errors="replace") + ("?..." if parts.query else "")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def size_words(count: int) -> str:
    """A number of bytes for a person."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} bytes"


def status_words(status: int) -> str:
    """An HTTP status with its name, as "404 Not Found"."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
