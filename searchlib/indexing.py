"""What a library does with its index: choosing, building, verifying and tuning it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Rooms hand out their names when first asked, so that a query does not wait for what it never uses.
from searchlib import index, ingest, search
from searchlib.catalog import Catalog
from searchlib.current import Current, InUse
from searchlib.errors import DiskFullError, InputError, LibraryError
from searchlib.search import (
    MILVUS,
    IndexChoice,
    LiveIndex,
    read_choice,
    recall_of,
    write_choice,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from searchlib.index import Neighbours, Pairs
    from searchlib.search import IndexCheck, IndexStatus, IndexTuning

IndexProgress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""

# A base that turns out to be damaged is thrown away, and the next try starts from the catalog.
_TRIES = 2


class Indexing:
    """The side of a library that looks after its index; see Library."""

    folder: Path
    _catalog: Catalog
    _current: Current

    def index_status(self) -> IndexStatus:
        """What is known of the index without opening it: from the header of its checkpoint.

        Raises:
            LibraryError: the library cannot be read.
        """
        return search.index_status(self._catalog, self._catalog.model(), self.folder)

    def index_choice(self) -> IndexChoice:
        """What was chosen for the index of this library.

        Raises:
            InputError: a recipe that this version does not have.
            LibraryError: the library cannot be read.
        """
        return read_choice(self._catalog)

    def use_index(
        self, recipe: str | None, *, uri: str | None = None, recall: float | None = None
    ) -> IndexChoice:
        """Choose the index of this library.

        The index that there is goes on to serve until the chosen one is built, in the background of
        a process that has the library open for long, or by `build_index`.

        Args:
            recipe: its name, of those that `searchlib index list` shows; "milvus" for a server; by
                the size of the library if None.
            uri: of the Milvus server; only for "milvus".
            recall: the recall@10 that an approximate index is tuned to, above 0 and up to 1; as
                before if None.

        Raises:
            InputError: no recipe of this name, or a recall or URI that cannot be.
            LibraryError: the library cannot be written.
        """
        if recipe == MILVUS and uri:
            from searchlib.index.milvus_service import check_uri

            # Now, and not when the vectors are to be sent.
            check_uri(uri)
            if "://" not in uri:
                # A file of Milvus Lite, for whoever opens the library from wherever.
                uri = ingest.absolute(uri)
        choice = IndexChoice(recipe, recall_of(self._catalog) if recall is None else recall, uri)
        write_choice(self._catalog, choice)
        self._current.reopen_index()
        return choice

    def build_index(
        self,
        *,
        always: bool = False,
        cancel: threading.Event | None = None,
        on_progress: IndexProgress | None = None,
    ) -> bool:
        """Build what was chosen, in this thread, if that is due. Searches and adds go on.

        A Milvus server builds its index by itself; it is sent what it lacks, and all where `always`
        says so.

        Args:
            always: also where it is not due.
            cancel: set it from another thread to leave the index as it is.
            on_progress: called from this thread as it goes on.

        Returns:
            Whether it was built: False where that was not due or was cancelled, or another process
            is at it.

        Raises:
            LibraryError: the library cannot be read or written.
            DiskFullError: there is no room; the index stays as it was.
            IndexServiceError: the server cannot be used.
        """
        now = self._current.get()
        if now is None:
            return False
        self._catalog.database.require_writable()
        if not isinstance(now.index, LiveIndex):
            if always:
                now.index.rebuild()
            now.index.current()
            return always
        stop = cancel or threading.Event()
        try:
            for _ in range(_TRIES):
                if now.index.merge(always=always, stop=stop.is_set, on_progress=on_progress):
                    return True
                if stop.is_set():
                    break
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    f"{self.folder}: no space left to build the index, which stays as it was; make "
                    "room and build it again"
                ) from error
            raise LibraryError(
                f"{self.folder}: the index cannot be written ({error.strerror or error}); it stays "
                "as it was"
            ) from error
        return False

    def verify_index(self, *, on_progress: IndexProgress | None = None) -> IndexCheck:
        """Compare the index with the catalog, and heal it where it is wrong.

        Every byte of its files is compared with its checksum, and every vector with the catalog's.
        Where anything is wrong the index is built anew from the catalog. It compares every vector
        then until `build_index`, or the background, builds what was chosen.

        Raises:
            LibraryError: the catalog cannot be read.
        """
        now = self._current.get()
        if now is None:
            return search.IndexCheck(0, 0, 0, 0, None, healed=False)
        return search.verify(now.index, self._catalog, now.model, on_progress=on_progress)

    def tune_index(
        self, recall: float | None = None, *, on_progress: IndexProgress | None = None
    ) -> IndexTuning:
        """Measure how much of the ten nearest the index finds, and set it to a recall.

        Args:
            recall: above 0 and up to 1, kept for later builds; as chosen before if None.
            on_progress: called from this thread as it goes on.

        Raises:
            InputError: a recall out of range, the library is empty, or a server keeps the index.
            LibraryError: the library cannot be read or written.
        """
        now = self._in_use()
        self._catalog.database.require_writable()
        choice = self.index_choice()
        if isinstance(now.index, LiveIndex) and recall is not None and recall != choice.recall:
            choice = IndexChoice(choice.recipe, recall, choice.uri)
            write_choice(self._catalog, choice)
            now.index.forget_choice()
        return search.measure(now.index, target=choice.recall, on_progress=on_progress)

    def neighbours(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        exact: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Neighbours:
        """The nearest images of many at once, as ids of images.

        Args:
            queries: ids of images, int [q], each of which is left out of its own answer; or vectors
                of the model in use, float [q, dimension], of length 1.
            k: how many.
            exact: compare with every vector, also where the index knows a faster way.
            on_progress: called with how many are answered and how many there are.

        Returns:
            Ids int64 and cosines float32 [q, k'], best first; see `searchlib.index.neighbours`.

        Raises:
            VectorError: ids that are not in the library, vectors that are none, or k below 1.
            InputError: the library is empty.
            LibraryError: the library cannot be read.
        """
        return index.neighbours(
            self._in_use().index.verified(), queries, k, exact=exact, on_progress=on_progress
        )

    def self_join(
        self,
        *,
        threshold: float | None = None,
        k: int | None = None,
        exact: bool | None = None,
        start: int | None = None,
        cancel: threading.Event | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Pairs]:
        """All pairs of images that are near each other, or the nearest others of each image.

        The library is taken as it is at the call. Memory is bounded however many pairs there are.

        Args:
            threshold: the least cosine, -1 to 1; or else
            k: how many others of each image.
            exact: compare all, or search the index for each; by the size of the library if None.
            start: the position of the last block that is known already, to go on from there.
            cancel: set it from another thread to end after the block under way.
            on_progress: called with how much is done and how much there is.

        Yields:
            Pairs of ids of images, a block at a time; see `searchlib.index.self_join`.

        Raises:
            InputError: both or neither of threshold and k, one out of range, or an empty library.
            LibraryError: the library cannot be read.
        """
        return index.self_join(
            self._in_use().index.verified(),
            threshold=threshold,
            k=k,
            exact=exact,
            start=start,
            stop=(lambda: False) if cancel is None else cancel.is_set,
            on_progress=on_progress,
        )

    def _in_use(self) -> InUse:
        now = self._current.get()
        if now is None:
            raise InputError("the library is empty, so it has no index; add images first")
        return now
