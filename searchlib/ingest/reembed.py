"""Change of model: every image gets a vector of another model, and then that one is used.

    images without a vector -> [ read, compare, decode, embed ] x workers -> commit, until none is
    left -> prepare the index -> switch

The old model stays in use until the switch, which is one transaction, so that the library is
searched and added to meanwhile. What is committed stays: after an interruption the next run embeds
only what is missing. The vectors of the old model stay as well, for the way back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord, Unembedded
from searchlib.encoder import ImageEncoder
from searchlib.encoder.priority import give_way
from searchlib.errors import ImageError, LibraryBusyError, LibraryError, OutputError
from searchlib.images import DEFAULT_MAX_PIXELS, open_file, printable
from searchlib.ingest.intake import BATCH_FILES, BATCH_SECONDS, in_order
from searchlib.ingest.place import processors
from searchlib.ingest.report import Progress, Skipped

logger = logging.getLogger(__name__)

_PAGE = 1024

_Vector = tuple[int, NDArray[np.float32]]
_Failure = tuple[int, Skipped]


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What a change of model came to.

    Attributes:
        name: of the model that is in use now.
        identity: of that model, 64 hex digits.
        embedded: images that got their vector in this run.
        kept: images that had one of this model already.
        failed: of each image that got none one file, and why; the next `add` tries again.
        seconds: that it took.
    """

    name: str
    identity: str
    embedded: int
    kept: int
    failed: list[Skipped]
    seconds: float


def change_model(
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    *,
    before_switch: Callable[[], None],
    workers: int | None = None,
    background: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_progress: Callable[[Progress], None] | None = None,
) -> ModelChange:
    """Embed what has a file and no vector of a model, and put the model to use.

    Args:
        catalog: of the library.
        encoder: of the new model.
        model: the encoder's record in the catalog.
        before_switch: called when all vectors are there and the old model is still in use; more
            than once where images were added meanwhile.
        workers: how many images are worked on at once; as many as there are processors if None.
        background: let other threads of this process have the processors first.
        max_pixels: refuse pictures with more.
        on_progress: called from this thread.

    Raises:
        LibraryBusyError: another run changes the model of this library.
        LibraryError: no image can be embedded, or the catalog cannot be written. The old model
            stays in use; what was committed stays too.
        EncoderError: the model cannot be used at all.
    """
    started = time.monotonic()
    with _alone(catalog):
        run = _Run(catalog, encoder, model, max_pixels, on_progress or (lambda _: None))
        kept, lacking = catalog.coverage(model)
        while True:
            run.embed_lacking(lacking, workers or processors(), background=background)
            old = catalog.model()
            if old not in (None, model) and not run.embedded and len(run.failed) > kept:
                raise _none_readable(catalog.database.folder, old, model, run.failed)
            before_switch()
            if catalog.switch_model(model, without=run.failed.keys()):
                break
            # Another thread or process has added images meanwhile.
            _, lacking = catalog.coverage(model)
    return ModelChange(
        name=model.name,
        identity=model.identity,
        embedded=run.embedded,
        kept=kept,
        failed=list(run.failed.values()),
        seconds=time.monotonic() - started,
    )


def _none_readable(
    folder: Path, old: ModelRecord, new: ModelRecord, failed: dict[int, Skipped]
) -> LibraryError:
    first = next(iter(failed.values()))
    return LibraryError(
        f"{folder}: none of {len(failed)} images can be embedded with {new.name}, so the library "
        f"goes on using {old.name} (the first: {printable(first.path)}: {first.reason}). See that "
        "the drive with the images is mounted, then run the command again"
    )


@contextmanager
def _alone(catalog: Catalog) -> Iterator[None]:
    """Keep other changes of model out; the lock goes with the process, however that ends."""
    folder = catalog.database.folder
    with catalog.database.translated():
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LibraryBusyError(
                f"{folder}: the model of this library is being changed already; wait until that "
                "is done, then run the command again"
            ) from None
        except OSError as error:
            # Two at once only do the same work twice: what they write agrees.
            logger.debug("%s cannot be locked: %s", folder, error.strerror)
        yield
    finally:
        os.close(descriptor)


class _Run:
    """Embeds what a model lacks, and remembers what could not be embedded."""

    def __init__(
        self,
        catalog: Catalog,
        encoder: ImageEncoder,
        model: ModelRecord,
        max_pixels: int,
        tell: Callable[[Progress], None],
    ) -> None:
        self.embedded = 0
        self.failed: dict[int, Skipped] = {}
        self._catalog = catalog
        self._encoder = encoder
        self._model = model
        self._max_pixels = max_pixels
        self._tell = tell
        self._batch: list[_Vector] = []
        self._last = time.monotonic()

    def embed_lacking(self, lacking: int, workers: int, *, background: bool) -> None:
        """Embed all images that have no vector; `lacking` is how many, for the progress."""
        total = lacking + self.embedded
        if not lacking:
            return
        with self._encoder.for_throughput(workers):
            try:
                images = self._lacking()
                with closing(
                    in_order(self._embed, images, workers, background=background)
                ) as results:
                    for result in results:
                        self._take(result)
                        done = self.embedded + len(self._batch) + len(self.failed)
                        total = max(total, done)
                        self._tell(Progress("embedding", done, total, len(self.failed)))
            finally:
                self._commit()

    def _lacking(self) -> Iterator[Unembedded]:
        after = 0
        while page := self._catalog.without_vector(self._model, after=after, limit=_PAGE):
            yield from (image for image in page if image.id not in self.failed)
            after = page[-1].id

    def _embed(self, image: Unembedded) -> _Vector | _Failure:
        """The vector from the first of its files that can be used; called by many threads."""
        failure: Skipped | None = None
        for path in image.paths:
            try:
                with open_file(path) as opened:
                    if opened.digest == image.digest:
                        give_way()
                        loaded = opened.load(
                            min_side=self._encoder.min_side, max_pixels=self._max_pixels
                        )
                        give_way()
                        return image.id, self._encoder.embed(loaded.pixels)
                reason = "was changed since it was added"
            except ImageError as error:
                reason = error.reason
            except OutputError as error:
                reason = str(error)
            failure = failure or Skipped(path, reason)
        assert failure is not None
        return image.id, failure

    def _take(self, result: _Vector | _Failure) -> None:
        image_id, outcome = result
        if isinstance(outcome, Skipped):
            self.failed[image_id] = outcome
            logger.info("not embedded: %s: %s", printable(outcome.path), outcome.reason)
        else:
            self._batch.append((image_id, outcome))
        late = time.monotonic() - self._last > BATCH_SECONDS
        if len(self._batch) >= BATCH_FILES or (self._batch and late):
            self._commit()

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._catalog.put_vectors(self._model, batch)
            self.embedded += len(batch)
        self._last = time.monotonic()
