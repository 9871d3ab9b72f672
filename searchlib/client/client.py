"""A library on another machine, or in another process: the questions of Library, over HTTP.

    with Client("http://127.0.0.1:8765") as library:
        for match in library.search("a.jpg", where="taken:2024"):
            print(match.score, match.path)

Paths in answers are those of the server's machine; paths in questions are those of this one, and
their files are sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import httpx2
import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Heartbeat, ImageRecord, ModelVectors
from searchlib.client.answers import image_of, listed, refusal, results
from searchlib.client.sending import as_file, encoded, in_words, is_url, similarity
from searchlib.errors import InputError, ServerError, ServerUnreachableError
from searchlib.images import NamedBytes, Source
from searchlib.search import (
    Asked,
    Question,
    Results,
    Term,
    Threshold,
    compose,
)
from searchlib.search.embedding import label_of
from searchlib.status import Status

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.ingest import WatchEvent

Fetch = Literal["client", "server"]

_PAGE = 1000
_LONGEST_WAIT = 10.0
_QUIET = 60.0


@dataclass(frozen=True, slots=True)
class _Sent:
    """A query in JSON, and the pictures that go with it."""

    query: dict[str, Any]
    pictures: list[NamedBytes]


class Client:
    """A library behind a server of this package; may be used from many threads.

    A server that is busy is asked once more after the time that it names, up to ten seconds.

    Args:
        url: of the server, such as "http://127.0.0.1:8765".
        token: that the server asks for.
        timeout: seconds that may pass without a byte.
        fetch: who fetches pictures that are given as URLs: this process, or the server, which
            takes them from public addresses only.

    Raises:
        InputError: it is no URL of http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        fetch: Fetch = "client",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"{url!r} is no server; give a URL such as http://127.0.0.1:8765")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = url
        self._fetch = fetch
        self._timeout = timeout
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the connections; calling it twice does no harm."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def search(
        self,
        query: Asked | Sequence[Asked] | Question | None = None,
        *,
        text: str | Sequence[str] | None = None,
        like: Asked | Sequence[Asked] | None = None,
        unlike: Asked | Sequence[Asked] | None = None,
        where: str | Condition | None = None,
        k: int | None = 10,
        min_similarity: float | str | Threshold | None = None,
        offset: int = 0,
        cursor: str | None = None,
        collapse: bool = False,
        exact: bool = False,
    ) -> Results:
        """The images nearest to a question, best first; see `Library.search`.

        `Match.thumbnail` is None: ask for it with `thumbnail`.

        Raises:
            InputError: the question means nothing.
            SourceError: a picture of it cannot be read or fetched here.
            ServerError: the server refused; its `code` says why.
            ServerUnreachableError: there is no answer.
        """
        conditions: str | Condition | None
        if isinstance(query, Question):
            question, conditions = query, query.where
        else:
            question = compose(
                query,
                text=text,
                like=like,
                unlike=unlike,
                k=k,
                min_similarity=min_similarity,
                offset=offset,
                cursor=cursor,
                collapse=collapse,
                exact=exact,
            )
            conditions = where
        sent = self._sent(question, in_words(conditions))
        found = self._search(sent)
        # A server gives so many at once.
        while question.k is None and found.cursor is not None:
            sent.query.update(cursor=found.cursor, offset=0)
            rest = self._search(sent)
            found = replace(found, matches=found.matches + rest.matches, cursor=rest.cursor)
        return found

    def image(self, id: int) -> ImageRecord | None:
        """An image by its id; None where there is none with a file in place."""
        try:
            return image_of(self._json("GET", f"/v1/images/{int(id)}"))
        except ServerError as error:
            if error.code == "not-found":
                return None
            raise

    def images(
        self,
        where: str | Condition | None = None,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> list[ImageRecord]:
        """Images that meet conditions, in the order in which they were added.

        See `Library.images`.
        """
        if limit < 1:
            raise InputError(f"the limit is {limit}; ask for at least 1 image")
        order = "newest" if newest_first else "oldest"
        asked: dict[str, Any] = {"order": order, "where": in_words(where) or ""}
        if after is not None:
            asked["cursor"] = f"{order}-{after}"
        found: list[ImageRecord] = []
        while len(found) < limit:
            asked["limit"] = min(_PAGE, limit - len(found))
            page = self._json("GET", "/v1/images", params=asked)
            found += map(image_of, listed(page, "images"))
            asked["cursor"] = page.get("cursor")
            if asked["cursor"] is None:
                break
        return found

    def count(self, where: str | Condition | None = None) -> int:
        """How many images with a file in place meet conditions."""
        asked = {"where": in_words(where) or "", "count": "true", "limit": 1}
        return int(self._json("GET", "/v1/images", params=asked)["count"])

    def embed(self, image: Source) -> NDArray[np.float32]:
        """The vector of an image with the server's model, float32 [dimension], of length 1."""
        if self._fetch == "server" and is_url(image):
            return self._vector({"url": image})
        picture = encoded(image)
        answer = self._json("POST", "/v1/embed", files=[as_file(picture)])
        return np.asarray(answer["vector"], np.float32)

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """The vector of words with the text side of the server's model."""
        return self._vector({"text": text})

    def add(self, *pictures: Source, tags: Sequence[str] = ()) -> list[ImageRecord]:
        """Upload pictures into the server's own folder.

        Args:
            pictures: as for `search`; a path is one of a file, not of a folder.
            tags: that they get.

        Returns:
            The images in the order of the pictures, also those that the library had already.

        Raises:
            SourceError: a picture cannot be read here; those before it are uploaded.
            ServerError: the server refused one, which is not a picture for example; the same.
        """
        found = []
        for each in pictures:
            files = [as_file(encoded(each))]
            answer = self._json("POST", "/v1/images", files=files, params={"tag": list(tags)})
            found.append(image_of(answer))
        return found

    def remove(self, id: int) -> None:
        """Delete an uploaded image; its file goes to the server's trash.

        Raises:
            ServerError: "not-found", or "not-managed" where a file of it was not uploaded.
        """
        self._request("DELETE", f"/v1/images/{int(id)}")

    def tag(self, images: int | Sequence[int], *tags: str) -> int:
        """Put tags on images of these ids; says how many were put that were not there."""
        return self._patched(images, {"add_tags": list(tags)}, "added")

    def untag(self, images: int | Sequence[int], *tags: str) -> int:
        """Take tags off images of these ids; says how many were taken."""
        return self._patched(images, {"remove_tags": list(tags)}, "removed")

    def tags(self) -> dict[str, int]:
        """All tags, by name, and how many images have each."""
        return dict(self._json("GET", "/v1/tags")["tags"])

    def set_properties(
        self, images: int | Sequence[int], properties: Mapping[str, str | None]
    ) -> None:
        """Give images values of your own under keys; None takes one away."""
        self._patched(images, {"properties": dict(properties)}, "added")

    def thumbnail(self, id: int) -> bytes:
        """A small picture of an image: WebP of up to 256 pixels on the longer side."""
        return self._request("GET", f"/v1/images/{int(id)}/thumbnail").content

    def original(self, id: int) -> bytes:
        """The file of an image."""
        return self._request("GET", f"/v1/images/{int(id)}/original").content

    def status(self) -> Status:
        """What is in the library."""
        found = self._json("GET", "/v1/status")["library"]
        last, watcher = found["last_change"], found["watcher"]
        values = {each.name: found.get(each.name) for each in fields(Status)}
        values.update(
            folder=Path(found["folder"]),
            last_change=None if last is None else datetime.fromisoformat(last),
            models=tuple(ModelVectors(**each) for each in found["models"]),
            watcher=None if watcher is None else Heartbeat(**watcher),
        )
        return Status(**values)

    def events(self) -> Iterator[WatchEvent]:
        """What happens to files from now on, while the server watches folders; until it stops.

        The kind "lost" says how many were missed by a listener that did not keep up.

        Raises:
            ServerError, ServerUnreachableError: as the others.
        """
        from searchlib.ingest import WatchEvent

        known = {each.name for each in fields(WatchEvent)}
        try:
            # The server is heard of every few seconds, whether anything happens or not.
            patience = max(self._timeout, _QUIET)
            with self._http.stream("GET", "/v1/events", timeout=patience) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise refusal(answer)
                kind = ""
                for line in answer.iter_lines():
                    name, _, value = line.partition(":")
                    if name == "event":
                        kind = value.strip()
                    elif name == "data":
                        data = json.loads(value)
                        told = {key: each for key, each in data.items() if key in known}
                        yield WatchEvent(**{**told, "kind": kind})
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _search(self, sent: _Sent) -> Results:
        if not sent.pictures:
            return results(self._json("POST", "/v1/search", json=sent.query))
        query = ("query", (None, json.dumps(sent.query), "application/json"))
        files = [*map(as_file, sent.pictures), query]
        return results(self._json("POST", "/v1/search", files=files))

    def _sent(self, question: Question, where: str | None) -> _Sent:
        pictures: list[NamedBytes] = []
        query: dict[str, Any] = {
            "terms": [self._term(term, pictures) for term in question.terms],
            "where": where,
            "k": question.k,
            "min_similarity": similarity(question.threshold),
            "offset": question.offset,
            "cursor": question.cursor,
            "collapse": question.collapse,
            "exact": question.exact,
            "explain": True,
        }
        return _Sent(query, pictures)

    def _term(self, term: Term, pictures: list[NamedBytes]) -> dict[str, Any]:
        written: dict[str, Any] = {"weight": float(term.weight), "label": term.label}
        if term.image is not None:
            written["label"] = label_of(term, "image")
            if self._fetch == "server" and is_url(term.image):
                written["url"] = term.image
            else:
                written["upload"] = len(pictures)
                pictures.append(encoded(term.image))
        elif term.stored is not None:
            written["id"] = int(term.stored)
        elif term.vector is not None:
            written["vector"] = np.asarray(term.vector, np.float64).tolist()
        else:
            written["text"] = term.text
        return written

    def _vector(self, asked: dict[str, Any]) -> NDArray[np.float32]:
        return np.asarray(self._json("POST", "/v1/embed", json=asked)["vector"], np.float32)

    def _patched(self, images: int | Sequence[int], changes: dict[str, Any], told: str) -> int:
        ids = [images] if isinstance(images, (int, np.integer)) else images
        return sum(
            int(self._json("PATCH", f"/v1/images/{int(id)}", json=changes)[told]) for id in ids
        )

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._request(method, path, **options)
        with suppress(ValueError):
            found = answer.json()
            if isinstance(found, dict):
                return found
        raise ServerError(
            f"{self._url}: what answers there is no server of searchlib",
            status=answer.status_code,
            code="no-answer",
        )

    def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, path, **options)
            if answer.status_code == 503:
                refused = refusal(answer)
                if refused.code == "busy":
                    # Nothing was done yet, so that asking again does nothing twice.
                    time.sleep(min(refused.retry_after or 1.0, _LONGEST_WAIT))
                    answer = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise InputError(f"{self._url}: no request can be made: {error}") from error
        if not answer.is_success:
            raise refusal(answer)
        return answer

    def _unreachable(self, error: httpx2.TransportError) -> ServerUnreachableError:
        reason = "no answer in time" if isinstance(error, httpx2.TimeoutException) else str(error)
        return ServerUnreachableError(
            f"{self._url}: {reason or type(error).__name__}; is `searchlib serve` running there?",
            status=None,
            code="unreachable",
        )
