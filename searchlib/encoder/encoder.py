"""ImageEncoder: pictures in, unit vectors out.

One encoder may be used from many threads. It holds a few engines: a single query wants one engine
on all cores, an ingest wants one engine per core with a thread each, which needs no hand-over
between cores and gives the same vectors to the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder.card import ModelCard
from searchlib.encoder.card_file import built_in_card
from searchlib.encoder.contract import check_image_model, unit_vectors, verify_model_file
from searchlib.encoder.engine import Engine, get_threads, open_engine, set_threads
from searchlib.encoder.pool import EnginePool
from searchlib.encoder.preprocess import prepare

BEST_BATCH = 8
"""More pictures at once are no faster (`python -m benchmarks.clip_speed`) and take more memory."""


class ImageEncoder:
    """Embeds pictures with the model of a card.

    The model's file is read and checked at the first picture, or by `load`, so that an encoder
    that is never asked costs nothing.

    Args:
        card: the model; the one that comes with the package if there is none.
    """

    def __init__(self, card: ModelCard | None = None) -> None:
        self.card = card or built_in_card()
        self._pool = EnginePool(self._open)
        self._verified = False
        self._batch: int | None = None

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        return self.card.dimension

    @property
    def identity(self) -> str:
        """The model identity, 64 hex digits: see ModelCard.identity."""
        return self.card.identity

    @property
    def min_side(self) -> tuple[int, int] | None:
        """The (width, height) that a picture should be decoded to at least; None for all pixels.

        With antialiasing, four times the input: what the decoder leaves out is then less than the
        rounding of the resize does. Without, each pixel that is left out counts, and the vector
        would be that of another picture; `python -m benchmarks.draft` measures both.
        """
        spec = self.card.preprocessing
        return (4 * spec.width, 4 * spec.height) if spec.antialias else None

    def load(self) -> None:
        """Read, check and open the model now.

        Raises:
            ModelNotInstalledError: the model was not downloaded.
            ModelFileError: the model's file is missing, damaged or another than the card says.
            UnexpectedInputsError, WrongDimensionsError: it does not take or give what the card
                says.
            EngineError: the runtime cannot load it.
        """
        with self._pool.borrow():
            pass

    def embed(self, image: Image.Image) -> NDArray[np.float32]:
        """Embed one picture.

        Args:
            image: upright, mode RGB.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            OutputError: the model gave NaN, Inf or a zero vector.
            EncoderError: as for `load`, or the runtime failed.
        """
        pixels = prepare(image, self.card.preprocessing)[None]
        vector: NDArray[np.float32] = self._run(pixels)[0]
        return vector

    def embed_many(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embed some pictures, as many at once as the model takes.

        Args:
            images: upright, mode RGB.

        Returns:
            float32 [len(images), dimension], each row of length 1.

        Raises:
            OutputError: the model gave NaN, Inf or a zero vector for one of them.
            EncoderError: as for `load`, or the runtime failed.
        """
        if self._batch is None:
            self.load()
        step = min(self._batch or 1, BEST_BATCH)
        vectors = np.empty((len(images), self.dimension), np.float32)
        for first in range(0, len(images), step):
            some = images[first : first + step]
            pixels = np.stack([prepare(image, self.card.preprocessing) for image in some])
            vectors[first : first + len(some)] = self._run(pixels)
        return vectors

    @contextmanager
    def for_throughput(self, workers: int) -> Iterator[None]:
        """Arrange for `workers` threads that embed at once; undone at the end of the block."""
        self._pool.resize(workers)
        try:
            with _single_threaded():
                yield
        finally:
            self._pool.resize(1)

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._pool.borrow() as engine:
            (output,) = engine.run([pixels])
        return unit_vectors(output, self.card.name)

    def _open(self) -> Engine:
        if not self._verified:
            verify_model_file(self.card)
            self._verified = True
        engine = open_engine(self.card.path)
        self._batch = check_image_model(engine, self.card)
        return engine


class _SingleThreaded:
    """How many blocks want one thread for each engine, and what there was before the first."""

    lock = threading.Lock()
    blocks = 0
    before = 1


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One thread for each engine of the process, as long as any of these blocks runs."""
    shared = _SingleThreaded
    with shared.lock:
        if shared.blocks == 0:
            shared.before = get_threads()
            set_threads(1)
        shared.blocks += 1
    try:
        yield
    finally:
        with shared.lock:
            shared.blocks -= 1
            if shared.blocks == 0:
                set_threads(shared.before)
