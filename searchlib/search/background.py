"""What cosines mean in one library: how alike pictures are that have nothing to do with each other.

A cosine is no probability, and what is high for one model or library is usual for another. So some
images are drawn at random, and a cosine is compared with those of all pairs of them: at the 99.9th
percentile of one in a thousand pairs is as much alike by chance. Words lie apart from pictures in
the space of a model, and a sum of terms lies apart from both; for such a question the images that
were drawn are compared with the question itself.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord
from searchlib.errors import LibraryError
from searchlib.search.live_index import LiveIndex

if TYPE_CHECKING:
    from searchlib.search.served_index import ServedIndex

logger = logging.getLogger(__name__)

SAMPLE = 512
"""How many images are drawn: 130,816 pairs, of which one is 0.0008 %."""

LEAST = 50
"""A library with fewer vectors has no background."""

# Measured anew when the library has grown or shrunk by as much.
_GROWN = 2.0
_COUNT_SECONDS = 1.0
_SEED = 20_240_229
_SETTING = "background"
_VERSION = 1
# Even steps up to 99 %, and from there on ever finer ones: matches lie at that end.
_PERCENTS = np.array(
    sorted({*range(100), *(100 - np.logspace(0, -3.1, 60)).tolist(), 100.0}), np.float64
)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """How cosines are distributed that come about by chance.

    Attributes:
        of: "pairs" of images drawn at random, or images drawn at random and one "question".
        images: how many were drawn.
        percents: rising from 0 to 100, float64 [n].
        cosines: at these percentiles, float64 [n].
    """

    of: Literal["pairs", "question"]
    images: int
    percents: NDArray[np.float64]
    cosines: NDArray[np.float64]

    def percentile(self, cosine: float) -> float:
        """How many of 100 cosines that come about by chance are lower, 0 to 100."""
        return float(np.interp(cosine, self.cosines, self.percents))

    def cosine(self, percentile: float) -> float:
        """The cosine that so many of 100 which come about by chance are lower than."""
        return float(np.interp(percentile, self.percents, self.cosines))


class Backgrounds:
    """The background of one library and model; may be used from many threads.

    It is measured when it is first asked for, and kept with the library.

    Args:
        catalog: of the library.
        model: whose cosines.
        index: of its vectors.
    """

    def __init__(
        self, catalog: Catalog, model: ModelRecord, index: LiveIndex | ServedIndex
    ) -> None:
        self._catalog = catalog
        self._model = model
        self._index = index
        self._lock = threading.Lock()
        self._pairs: tuple[int, Background] | None = None
        self._counted = 0.0
        self._sample: NDArray[np.float32] | None = None

    def pairs(self) -> Background | None:
        """That of pairs of images; None in a library that is too small."""
        with self._lock:
            now = time.monotonic()
            if self._pairs is not None and now < self._counted + _COUNT_SECONDS:
                return self._pairs[1]
            count = len(self._index)
            self._counted = now
            if count < LEAST:
                return None
            if not _fits(self._pairs, count):
                self._pairs = self._stored()
            if self._pairs is not None and _fits(self._pairs, count):
                return self._pairs[1]
            self._sample = None
            measured = _of_pairs(self._drawn())
            self._pairs = count, measured
            self._store(count, measured)
            return measured

    def of_question(self, vector: NDArray[np.float32]) -> Background | None:
        """That of images and a question, float32 [dimension]; None in a library that is too small.

        It tells no more than `100 / images` percent apart.
        """
        pairs = self.pairs()
        if pairs is None:
            return None
        with self._lock:
            drawn = self._drawn()
        return _distribution("question", len(drawn), drawn @ vector)

    def _drawn(self) -> NDArray[np.float32]:
        """The vectors of the images that were drawn, float32 [n, dimension]."""
        if self._sample is None:
            ids = self._index.current().ids()
            chosen = np.random.default_rng(_SEED).choice(ids, min(SAMPLE, len(ids)), replace=False)
            self._sample = self._catalog.vectors(self._model, chosen.tolist())[1].astype(np.float32)
        return self._sample

    def _stored(self) -> tuple[int, Background] | None:
        text = self._catalog.setting(f"{_SETTING}:{self._model.identity[:16]}")
        return None if text is None else _read(text)

    def _store(self, count: int, measured: Background) -> None:
        if not self._catalog.database.writable:
            return
        cosines = [round(float(cosine), 6) for cosine in measured.cosines]
        text = json.dumps([_VERSION, count, measured.images, cosines], separators=(",", ":"))
        try:
            self._catalog.put_setting(f"{_SETTING}:{self._model.identity[:16]}", text)
        except LibraryError as error:
            # It is measured again at the next opening.
            logger.info("the background of the library cannot be kept: %s", error)


def _fits(known: tuple[int, Background] | None, count: int) -> bool:
    """Whether a library of so many vectors is about as large as it was."""
    return known is not None and 1 / _GROWN < count / known[0] < _GROWN


def _of_pairs(vectors: NDArray[np.float32]) -> Background:
    above = np.triu_indices(len(vectors), 1)
    return _distribution("pairs", len(vectors), (vectors @ vectors.T)[above])


def _distribution(
    of: Literal["pairs", "question"], images: int, cosines: NDArray[np.float32]
) -> Background:
    quantiles = np.percentile(cosines.astype(np.float64), _PERCENTS)
    return Background(of, images, _PERCENTS, np.maximum.accumulate(quantiles))


def _read(text: str) -> tuple[int, Background] | None:
    """What was stored, or None where another version stored it."""
    try:
        version, count, images, cosines = json.loads(text)
        values = np.array(cosines, np.float64)
    except (ValueError, TypeError):
        return None
    if version != _VERSION or values.shape != _PERCENTS.shape or not np.isfinite(values).all():
        return None
    if type(count) is not int or type(images) is not int or count < 1:
        return None
    return count, Background("pairs", images, _PERCENTS, np.maximum.accumulate(values))
