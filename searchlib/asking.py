"""What a library is asked: searches, single images and lists, and what its user says of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib import ingest
from searchlib.catalog import Catalog, ImageRecord, Stat
from searchlib.current import Current, InUse
from searchlib.encoder.priority import querying
from searchlib.errors import ImageGoneError, InputError, NotFoundError
from searchlib.images import printable
from searchlib.search import (
    Answerer,
    Asked,
    Background,
    Embedder,
    Question,
    Results,
    Stopwatch,
    Threshold,
    check,
    compose,
    condition_of,
)
from searchlib.upkeep import THUMBNAILS

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.images import FetchPolicy, Source

# What a database can count to.
_IDS = range(1, 1 << 63)

ImageName = int | str | os.PathLike[str]
"""An image of the library: its id, or a path that it lies at."""


class Asking:
    """The side of a library that answers; see Library."""

    folder: Path
    _catalog: Catalog
    _current: Current
    _max_query_pixels: int
    _fetch_policy: FetchPolicy
    _answering: tuple[InUse, Answerer, Embedder] | None
    _answering_lock: threading.Lock

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
        """The images nearest to a question, best first.

            library.search("a.jpg")
            library.search(["a.jpg", "b.jpg"])
            library.search(text="dog on a beach", like="a.jpg", unlike="b.jpg", where="taken:2024")

        The vectors of all terms are added up by their weights, and the sum is searched for. An
        image that is asked by its id is not among its own matches; one that is asked by its path or
        bytes is.

        Args:
            query: what the matches should be like, one or several: a path, a file URI, an http(s)
                URL, a data URI, base64, encoded bytes, a Pillow image or an array uint8 [height,
                width, 3]; the id of a stored image, an int; a vector, float [dimension]; a `Term`,
                which has a weight. Or a whole `Question`, and nothing else then.
            text: words, one or several texts, where the model has a text side.
            like, unlike: more of the same; `unlike` counts with its weight below 0.
            where: conditions that each match meets, such as "taken:2024 and tag:beach";
                docs/filters.md has all.
            k: how many at most; None for all that reach `min_similarity`.
            min_similarity: leaves out what is less similar: 0.8 is a cosine, "99.9%" a percentile.
            offset: leaves out so many of the best.
            cursor: goes on behind an earlier answer to the same question, without those images
                that were added since.
            collapse: pictures that are nearly identical are one match.
            exact: compare with every vector, also where the index knows a faster way.

        Raises:
            InputError: the question cannot be answered as it was asked.
            WhereError, CursorError, NotFoundError: the conditions cannot be understood, the cursor
                is of another question, a stored image is not there.
            TextUnsupportedError: words, and a model that knows only pictures.
            ImageError: an image of the question cannot be used.
            LibraryError, EncoderError: the library or the model cannot be used.
        """
        if isinstance(query, Question):
            question = query
        else:
            question = compose(
                query,
                text=text,
                like=like,
                unlike=unlike,
                where=where,
                k=k,
                min_similarity=min_similarity,
                offset=offset,
                cursor=cursor,
                collapse=collapse,
                exact=exact,
            )
        check(question)
        with querying():
            parts = self._parts()
            return Results(()) if parts is None else parts[1].answer(question)

    def image(self, id: int) -> ImageRecord | None:
        """An image by its id; None where there is none with a file in place."""
        return self._catalog.images([id]).get(id) if id in _IDS else None

    def images(
        self,
        where: str | Condition | None = None,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> list[ImageRecord]:
        """Images that meet conditions, in the order in which they were added.

        Args:
            where: the conditions, as for `search`; all images if None.
            after: goes on behind the image of this id.
            limit: how many at most.
            newest_first: begin with the one that was added last.

        Raises:
            InputError: `limit` is below 1.
            NotFoundError: `after` can be no image's id.
            WhereError: the conditions cannot be understood.
        """
        if limit < 1:
            raise InputError(f"the limit is {limit}; ask for at least 1 image")
        if after is not None and after not in _IDS:
            raise NotFoundError(f"there is no image {after} to go on behind")
        ids = self._catalog.selection.page(
            condition_of(where), after=after, limit=limit, newest_first=newest_first
        )
        images = self._catalog.images(ids)
        return [images[id] for id in ids if id in images]

    def count(self, where: str | Condition | None = None) -> int:
        """How many images with a file in place meet conditions, as for `search`.

        Raises:
            WhereError: the conditions cannot be understood.
        """
        return self._catalog.selection.count(condition_of(where))

    def find(self, path: str | os.PathLike[str]) -> ImageRecord | None:
        """The image that lies at a path; None where the library knows none there."""
        at = ingest.absolute(path)
        id = self._catalog.selection.find([at]).get(at)
        return None if id is None else self.image(id)

    def by_digest(self, digest: str) -> ImageRecord | None:
        """The image of these bytes; None where the library has none with a file in place.

        Args:
            digest: 64 hex digits, as ImageRecord.digest.

        Raises:
            InputError: it is no digest.
        """
        try:
            known = self._catalog.known_images([bytes.fromhex(digest)], None)
        except ValueError as error:
            raise InputError(f"{digest!r} is no digest; give the 64 hex digits of one") from error
        return next((self.image(found.id) for found in known.values()), None)

    def places(self, id: int) -> dict[str, Stat]:
        """Where an image lies, by path, and what its files were like when they were read."""
        image = self.image(id)
        found = self._catalog.digests_at(image.paths) if image is not None else {}
        return {path: stat for path, (stat, _) in found.items()}

    def original(self, id: int) -> Path:
        """Where an image lies, untouched since the library read it.

        Raises:
            NotFoundError: there is no image of this id.
            ImageGoneError: its files are gone or were changed; `add` or `watch` finds out more.
        """
        places = self.places(id)
        if not places:
            raise NotFoundError(f"there is no image {id} with a file in place in this library")
        for path, stat in places.items():
            try:
                now = Path(path).stat()
            except OSError:
                continue
            if (now.st_size, now.st_mtime_ns, now.st_ino) == (stat.size, stat.mtime_ns, stat.inode):
                return Path(path)
        raise ImageGoneError(
            f"{printable(next(iter(places)))}: is gone or was changed; run `searchlib add` on it"
        )

    def embed(self, image: Source) -> NDArray[np.float32]:
        """The vector of an image with the model in use: the stored one where these bytes have one.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            ImageError, EncoderError: the image cannot be decoded or embedded.
        """
        with querying():
            return self._embedder().image(image, Stopwatch())

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """The vector of words with the text side of the model in use.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            TextUnsupportedError: the model knows only pictures.
            InputError: there are no words.
            EncoderError: the text model cannot be used.
        """
        with querying():
            return self._embedder().text(text, Stopwatch())

    def tag(self, images: ImageName | Sequence[ImageName], *tags: str) -> int:
        """Put tags on images; says how many were put that were not there.

        Args:
            images: ids, or paths that they lie at.
            tags: words of up to 200 characters.

        Raises:
            NotFoundError: one of the images is not in the library; nothing was changed.
            InputError: a tag that cannot be one.
            LibraryError: the library cannot be written.
        """
        return self._catalog.labels.tag(self._ids(images), tags)

    def untag(self, images: ImageName | Sequence[ImageName], *tags: str) -> int:
        """Take tags off images; says how many were taken.

        Raises:
            NotFoundError, InputError, LibraryError: as `tag`.
        """
        return self._catalog.labels.untag(self._ids(images), tags)

    def tags(self) -> dict[str, int]:
        """All tags, by name, and how many images with a file in place have each."""
        return self._catalog.labels.tags()

    def set_properties(
        self, images: ImageName | Sequence[ImageName], properties: Mapping[str, str | None]
    ) -> None:
        """Give images values of your own under keys; None takes one away.

        Raises:
            NotFoundError, InputError, LibraryError: as `tag`.
        """
        self._catalog.labels.put(self._ids(images), properties)

    def background(self) -> Background | None:
        """How alike pictures of this library are that were put together at random.

        None in a library with fewer than 50 vectors.

        Raises:
            LibraryError: the library cannot be read.
        """
        parts = self._parts()
        return None if parts is None else parts[1].backgrounds.pairs()

    def _ids(self, images: ImageName | Sequence[ImageName]) -> list[int]:
        if isinstance(images, (int, str, os.PathLike)):
            images = [images]
        names: Sequence[ImageName] = images
        paths = {
            name: ingest.absolute(name) for name in names if not isinstance(name, (int, np.integer))
        }
        found = self._catalog.selection.find(list(paths.values()))
        ids = []
        for name in names:
            if isinstance(name, (int, np.integer)):
                if int(name) not in _IDS:
                    raise NotFoundError(f"there is no image {name} in this library")
                ids.append(int(name))
            elif paths[name] in found:
                ids.append(found[paths[name]])
            else:
                raise NotFoundError(
                    f"{printable(paths[name])}: is not in the library; add it first"
                )
        return ids

    def _embedder(self) -> Embedder:
        parts = self._parts(self._current.begin())
        assert parts is not None
        return parts[2]

    def _parts(self, now: InUse | None = None) -> tuple[InUse, Answerer, Embedder] | None:
        """What answers with the model in use; None in a library that has none yet."""
        now = now or self._current.get()
        if now is None:
            return None
        with self._answering_lock:
            if self._answering is None or self._answering[0] is not now:
                embedder = Embedder(
                    self._catalog,
                    now.encoder,
                    now.model,
                    max_pixels=self._max_query_pixels,
                    policy=self._fetch_policy,
                )
                answerer = Answerer(
                    self._catalog,
                    now.model,
                    now.index,
                    embedder,
                    thumbnails=self.folder / THUMBNAILS,
                )
                self._answering = now, answerer, embedder
            return self._answering
