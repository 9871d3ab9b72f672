"""The index of a library that a Milvus server keeps, in step with the catalog.

The catalog stays the truth. The server remembers up to where the change log was applied, so after
an outage of either side the rest of the log is replayed; where that is not possible, because the
server was emptied or the catalog put back from a backup, all vectors are sent again. Applying a
change twice does no harm, so several processes may do it at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Changes, ModelRecord
from searchlib.errors import IndexServiceError, VectorError
from searchlib.index import Neighbours, Subset
from searchlib.index.milvus_index import MilvusIndex

logger = logging.getLogger(__name__)

TOKEN = "SEARCHLIB_MILVUS_TOKEN"
"""The environment variable with `user:password` or an API key; it is not kept in the library."""

WAIT_SECONDS = 10.0
"""How long a question waits for another process that sends vectors, before it is asked of what is
there."""

REPLAY_AT_MOST = 100_000
"""After more changes than this all vectors are sent again, a block at a time: the changes of a
replay are in memory all together."""

_NAME = "index.name"


class ServedIndex:
    """The index of one library and model; may be used from many threads.

    Args:
        catalog: the truth.
        model: whose vectors are indexed.
        uri: of the server.
    """

    def __init__(self, catalog: Catalog, model: ModelRecord, uri: str) -> None:
        self._catalog = catalog
        self._model = model
        self._uri = uri
        self._lock = threading.Lock()
        self._index: MilvusIndex | None = None
        self._seq = 0

    def __len__(self) -> int:
        return len(self.current())

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,
    ) -> Neighbours:
        """The nearest images as of now: see VectorIndex.search.

        Raises:
            IndexServiceError: the server cannot be used.
        """
        index = self.current()
        try:
            return index.search(queries, k, among=among, exact=exact)
        except IndexServiceError:
            # Perhaps its vectors are gone; who opens it again sees that and sends them.
            self._drop(index)
            raise

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            self._index = None

    def refresh(self) -> None:
        """Apply what was committed since.

        While the server cannot be reached nothing is lost: the change log keeps it, and the next
        question applies it.
        """
        try:
            self.current()
        except IndexServiceError as error:
            logger.warning("%s; the index follows when it can be reached again", error)

    def save(self) -> None:
        """The same as `refresh`: the server keeps what it was sent."""
        self.refresh()

    def current(self) -> MilvusIndex:
        """The index as of now; what was committed before the call is in it.

        Raises:
            IndexServiceError: the server cannot be used.
            InputError: the extra `milvus` is not installed, or the URI is none.
        """
        with self._lock:
            index = self._index or self._opened()
            if self._index is None or self._catalog.last_seq(self._model) != self._seq:
                with self._alone() as alone:
                    if alone:
                        self._bring_up_to_date(index)
            self._index = index
            return index

    def merge(
        self,
        *,
        always: bool = False,
        stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> bool:
        """Nothing: the server builds its index by itself."""
        del always, stop, on_progress
        self.refresh()
        return False

    def forget_choice(self) -> None:
        """Nothing: this index is made for one choice."""

    def rebuild(self) -> None:
        """Send all vectors again.

        Raises:
            IndexServiceError: the server cannot be used.
        """
        index = self.current()
        with self._lock, self._alone() as alone:
            if alone:
                self._send_all(index)

    def _drop(self, index: MilvusIndex) -> None:
        with self._lock:
            if self._index is index:
                self._index = None
        index.close()

    def _opened(self) -> MilvusIndex:
        return MilvusIndex(
            self._uri,
            dimension=self._model.dimension,
            identity=self._model.identity,
            library=self._library(),
            token=os.environ.get(TOKEN),
        )

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep the other processes of this library from writing to the server; says if they do."""
        from filelock import FileLock, Timeout

        lock = FileLock(str(self._catalog.database.folder / "index.lock"), timeout=WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            # It sends what this process would send.
            yield False
            return
        except (OSError, NotImplementedError):
            # A library that can only be read, or a file system that knows no locks.
            yield True
            return
        try:
            yield True
        finally:
            lock.release()

    def _bring_up_to_date(self, index: MilvusIndex) -> None:
        # As it is now: another process may have done it.
        self._seq = index.seq()
        if not self._belongs(index):
            self._send_all(index)
        elif self._catalog.last_seq(self._model) != self._seq:
            self._follow(index)

    def _library(self) -> str:
        """A name that no other library on the server has."""
        name = self._catalog.setting(_NAME)
        if name is None:
            self._catalog.put_setting(_NAME, secrets.token_hex(8))
            # As it is now: another process may have done the same.
            name = self._catalog.setting(_NAME)
            assert name is not None
        return name

    def _follow(self, index: MilvusIndex) -> None:
        if self._catalog.changes_since(self._model, self._seq) > REPLAY_AT_MOST:
            self._send_all(index)
            return
        changes = self._catalog.changes(self._model, after=self._seq)
        self._apply(index, changes)
        # Last, so that what is cut off is replayed.
        index.set_seq(changes.seq)
        self._seq = changes.seq

    def _apply(self, index: MilvusIndex, changes: Changes) -> None:
        try:
            if len(changes.removed):
                index.remove(changes.removed)
            if len(changes.ids):
                index.upsert(changes.ids, changes.vectors)
        except VectorError as error:
            raise self._catalog.database.damaged("a stored vector is not valid") from error

    def _send_all(self, index: MilvusIndex) -> None:
        index.clear()
        nothing = np.empty(0, np.int64)
        with self._catalog.vector_blocks(self._model) as (seq, ids, blocks):
            sent = 0
            for codes in blocks:
                some = ids[sent : sent + len(codes)]
                self._apply(index, Changes(0, some, codes, nothing))
                sent += len(codes)
        index.set_seq(seq)
        self._seq = seq

    def _belongs(self, index: MilvusIndex) -> bool:
        """Whether the last change that the server has is the one of that number in the catalog."""
        if self._seq == 0:
            return len(index) == 0
        change = self._catalog.change_at(self._model, self._seq)
        if change is None:
            return False
        if len(change.removed):
            return int(change.removed[0]) not in index
        return int(change.ids[0]) in index
