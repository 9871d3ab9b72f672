"""The index of a library that a Milvus server keeps, in step with the catalog.

The catalog stays the truth. The server remembers up to where the change log was applied, so after
an outage of either side the rest of the log is replayed; where that is not possible, because the
server was emptied or the catalog put back from a backup, all vectors are sent again. Applying a
change twice does no harm. The processes of one machine take turns all the same (`index.lock`), so
that none sends what another one sends.

Sending all writes over what is there and removes the rest at the end, in place of beginning with
an empty collection: another process that searches meanwhile always finds all that it knows of.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Changes, ModelRecord
from searchlib.errors import IndexServiceError, InputError
from searchlib.index import Neighbours, Subset
from searchlib.index.milvus_index import MilvusIndex
from searchlib.search.following import alone, apply_changes

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
_UNKNOWN = -1
_FOR_EVER = -1.0


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
        self._seq = _UNKNOWN

    def __len__(self) -> int:
        return len(self.current())

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with every vector unless it is told to."""
        return False

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
            with self._lock:
                self._forget(index)
            raise

    def verified(self) -> MilvusIndex:
        """The same as `current`: the server looks after its files."""
        return self.current()

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            self._forget(self._index)

    def refresh(self) -> None:
        """Apply what was committed since.

        While the server cannot be reached nothing is lost: the change log keeps it, and the next
        question applies it.
        """
        try:
            self.current()
        except (IndexServiceError, InputError) as error:
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
            if self._index is None:
                self._index, self._seq = self._opened(), _UNKNOWN
            index = self._index
            last = self._catalog.last_seq(self._model)
            if last != self._seq:
                try:
                    with self._alone(WAIT_SECONDS) as alone:
                        if alone:
                            self._bring_up_to_date(index)
                        elif last and index.seq() == 0:
                            raise IndexServiceError(
                                f"{index.address}: another process is sending the vectors of this "
                                "library to Milvus; try again when it has"
                            )
                except BaseException:
                    # Perhaps its collection is gone; who opens it again makes it anew.
                    self._forget(index)
                    raise
            return index

    def rebuild(self) -> None:
        """Send all vectors again.

        Raises:
            IndexServiceError: the server cannot be used.
        """
        index = self.current()
        # For as long as another process sends: it may not send all.
        with self._lock, self._alone(_FOR_EVER):
            try:
                self._send_all(index)
                self._follow(index)
            except BaseException:
                self._forget(index)
                raise

    def _forget(self, index: MilvusIndex | None) -> None:
        """Close an index, and open another one for the next question; the lock is held."""
        if self._index is index:
            self._index, self._seq = None, _UNKNOWN
        if index is not None:
            index.close()

    def _opened(self) -> MilvusIndex:
        return MilvusIndex(
            self._uri,
            dimension=self._model.dimension,
            identity=self._model.identity,
            library=self._library(),
            token=os.environ.get(TOKEN),
        )

    def _alone(self, seconds: float) -> AbstractContextManager[bool]:
        """Keep the other processes of this library from writing to the server."""
        # A library that can only be read has an index to follow all the same.
        return alone(self._catalog.database.folder, seconds=seconds, unlocked=True)

    def _bring_up_to_date(self, index: MilvusIndex) -> None:
        # As it is now: another process may have done it.
        self._seq = index.seq()
        last = self._catalog.last_seq(self._model)
        if self._seq == 0 and last == 0 and not len(index):
            return
        if self._seq == 0 or not self._follow(index):
            # First, so that what is cut off is not taken for the whole.
            index.set_seq(0)
            self._send_all(index)
            # What came meanwhile; and another machine may have sent some of it in between.
            self._follow(index)

    def _library(self) -> str:
        """A name that no other library on the server has."""
        name = self._catalog.setting(_NAME)
        if name is None:
            name = self._catalog.ensure_setting(_NAME, secrets.token_hex(8))
        return name

    def _follow(self, index: MilvusIndex) -> bool:
        """Apply the changes after those that the server has; False where that is not possible."""
        if self._catalog.changes_since(self._model, self._seq) > REPLAY_AT_MOST:
            return False
        changes = self._catalog.changes(self._model, after=self._seq)
        if not self._belongs(index, changes):
            return False
        if changes.seq != self._seq:
            apply_changes(index, changes, self._catalog)
            # Last, so that what is cut off is replayed.
            index.set_seq(changes.seq)
            self._seq = changes.seq
        return True

    def _send_all(self, index: MilvusIndex) -> None:
        nothing = np.empty(0, np.int64)
        with self._catalog.vector_blocks(self._model) as (seq, ids, blocks):
            sent = 0
            for codes in blocks:
                some = ids[sent : sent + len(codes)]
                apply_changes(index, Changes(0, some, codes, nothing), self._catalog)
                sent += len(codes)
        index.remove(np.setdiff1d(index.ids(), ids))
        index.set_seq(seq)
        self._seq = seq

    def _belongs(self, index: MilvusIndex, later: Changes) -> bool:
        """Whether the last change that the server has is the one of that number in the catalog.

        It is not where the catalog was put back from a backup: its numbers start again at an
        older one, and the server holds what never happened.
        """
        change = self._catalog.change_at(self._model, self._seq)
        if change is None:
            return self._seq == 0
        id = int(np.concatenate((change.ids, change.removed))[0])
        if id in later.ids or id in later.removed:
            # What it was at that change is not known any more.
            return True
        if len(change.removed):
            return id not in index
        return id in index and bool((index.vectors([id]) == change.vectors).all())
