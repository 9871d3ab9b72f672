"""Pictures from the web."""

from __future__ import annotations

from dataclasses import dataclass

from searchlib.errors import SourceError, WebError


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched where a picture is given as a URL.

    It does not keep a text from being taken for the path of a file: whoever takes pictures from
    others and does not want theirs read must not pass them paths.

    Attributes:
        max_bytes: the longest file, as it is decoded from the transfer.
        timeout: seconds that may pass without a byte.
        deadline: seconds that all of it may take.
        private: whether addresses that are not of the open internet may be fetched from.
    """

    max_bytes: int = 100_000_000
    timeout: float = 10.0
    deadline: float = 300.0
    private: bool = True


OWN_POLICY = FetchPolicy()
"""For what the user of this process asks for."""

SERVER_POLICY = FetchPolicy(deadline=20.0, private=False)
"""For a server that fetches what others ask for; see `searchlib.web.Guard`."""


def fetch_picture(url: str, policy: FetchPolicy) -> tuple[str, bytes]:
    """The URL as it may be shown, and the bytes behind it.

    Raises:
        SourceError: it cannot be fetched.
    """
    from searchlib.web import Guard, fetch, shown

    guard = Guard(schemes=frozenset({"http", "https"}), private=policy.private)
    try:
        content = fetch(
            url,
            max_bytes=policy.max_bytes,
            timeout=policy.timeout,
            deadline=policy.deadline,
            guard=guard,
        )
    except WebError as error:
        raise SourceError(error.url, error.reason) from error
    return shown(url), content
