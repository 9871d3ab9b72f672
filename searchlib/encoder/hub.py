"""Hugging Face: its mirror and its token, from the variables that its own tools read."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from searchlib.errors import DownloadError
from searchlib.web import is_localhost, shown

HUGGING_FACE = "https://huggingface.co"


def mirrored(url: str) -> str:
    """A URL of Hugging Face at the mirror that $HF_ENDPOINT names; any other as it is.

    Raises:
        DownloadError: $HF_ENDPOINT is not an https URL (http for this machine only).
    """
    if not url.startswith(f"{HUGGING_FACE}/"):
        return url
    return _endpoint() + url.removeprefix(HUGGING_FACE)


def authorization(url: str) -> dict[str, str]:
    """The header with $HF_TOKEN for Hugging Face or its mirror; none for any other server.

    Raises:
        DownloadError: as `mirrored`.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[!-~]+", token):
        return {}
    there, home = urlsplit(url), urlsplit(_endpoint())
    same = (there.scheme, there.netloc.lower()) == (home.scheme, home.netloc.lower())
    return {"Authorization": f"Bearer {token}"} if same else {}


def _endpoint() -> str:
    named = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not named:
        return HUGGING_FACE
    try:
        parts = urlsplit(named)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_localhost(host))):
        raise DownloadError(f"HF_ENDPOINT is {shown(named)}; it must be an https URL")
    return named
