"""Pictures as text: data URIs and base64."""

from __future__ import annotations

import binascii
import re

from searchlib.errors import SourceError

_STANDARD = re.compile(r"[A-Za-z0-9+/]+(={0,2})")
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]+(={0,2})")
_TO_STANDARD = str.maketrans("-_", "+/")

DATA_LABEL = "<data URI>"
BASE64_LABEL = "<base64>"


def data_uri(uri: str) -> bytes:
    """The bytes of a data URI (RFC 2397), in base64 or percent-encoded. The media type is ignored.

    Raises:
        SourceError: it is not one.
    """
    from urllib.parse import unquote_to_bytes

    head, comma, data = uri.partition(",")
    if not comma:
        raise SourceError(DATA_LABEL, "is not a data URI: there is no comma before the data")
    content = unquote_to_bytes(data)
    if not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
        return content
    decoded = from_base64(content.decode("latin-1"))
    if decoded is None:
        raise SourceError(DATA_LABEL, "its base64 is damaged")
    return decoded


def from_base64(text: str) -> bytes | None:
    """The bytes of base64 (RFC 4648), or None where the text is not that.

    The alphabet is the standard or the URL-safe one, not both at once. White space may stand
    anywhere, and padding may be left out, but must be right where it is there.
    """
    text = "".join(text.split())
    if not text:
        return b""
    found = _STANDARD.fullmatch(text) or _URL_SAFE.fullmatch(text)
    if found is None or (found[1] and len(text) % 4 != 0):
        return None
    try:
        return binascii.a2b_base64(text.translate(_TO_STANDARD) + "=" * (-len(text) % 4))
    except binascii.Error:  # one character more than whole bytes
        return None
