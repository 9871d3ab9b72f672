"""ImageEncoder: a picture in, a unit vector out.

One encoder may be used from many threads. It holds a few engines, each with its own copy of the
weights as the runtime packs them: a single query wants one engine on all cores, an ingest wants
one engine per core with a thread each, which needs no hand-over between cores and gives the same
vectors to the last bit.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder.card import ModelCard, built_in_card
from searchlib.encoder.engine import Engine, TensorSpec, get_threads, open_engine, set_threads
from searchlib.encoder.preprocess import prepare
from searchlib.errors import CardError, ModelFileError, OutputError

MAX_ENGINES = 8


class ImageEncoder:
    """Embeds pictures with the model of a card.

    The model's file is read and checked at the first picture, not before, so that an encoder that
    is never asked costs nothing.

    Args:
        card: the model; the one that comes with the package if there is none.
    """

    def __init__(self, card: ModelCard | None = None) -> None:
        self.card = card or built_in_card()
        self._engines: queue.LifoQueue[Engine] = queue.LifoQueue()
        self._opened = 0
        self._limit = 1
        self._verified = False
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        return self.card.dimension

    @property
    def identity(self) -> str:
        """The model identity, 64 hex digits: see ModelCard.identity."""
        return self.card.identity

    @property
    def min_side(self) -> tuple[int, int]:
        """The (width, height) that a picture should be decoded to at least.

        Twice the input: scaling by a decoder is coarse, and what is left for the resize hides it.
        """
        spec = self.card.preprocessing
        return 2 * spec.width, 2 * spec.height

    def embed(self, image: Image.Image) -> NDArray[np.float32]:
        """Embed one picture.

        Args:
            image: upright, mode RGB.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            ModelFileError: the model's file is missing, damaged or another than the card says.
            CardError: the model does not take or give what the card says.
            EngineError: the runtime failed.
            OutputError: the model gave NaN, Inf or a zero vector.
        """
        pixels = prepare(image, self.card.preprocessing)[None]
        engine = self._acquire()
        try:
            (output,) = engine.run([pixels])
        finally:
            self._engines.put(engine)
        return _unit(output[0], self.card.name)

    @contextmanager
    def for_throughput(self, workers: int) -> Iterator[None]:
        """Arrange for `workers` threads that embed at once; undone at the end of the block."""
        before = get_threads()
        self._arrange(engines=max(1, min(workers, MAX_ENGINES)), threads=1)
        try:
            yield
        finally:
            self._arrange(engines=1, threads=before)

    def _arrange(self, *, engines: int, threads: int) -> None:
        with self._lock:
            self._limit = engines
            while self._opened > engines:
                self._engines.get()
                self._opened -= 1
        set_threads(threads)

    def _acquire(self) -> Engine:
        try:
            return self._engines.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if self._opened < self._limit:
                engine = self._open()
                self._opened += 1
                return engine
        return self._engines.get()

    def _open(self) -> Engine:
        if not self._verified:
            verify_model_file(self.card)
            self._verified = True
        engine = open_engine(self.card.path)
        _check_contract(engine, self.card)
        return engine


def verify_model_file(card: ModelCard) -> None:
    """Compare a model's file with its card.

    A .pte whose weights have flipped bits loads without complaint and gives wrong vectors.

    Raises:
        ModelFileError: it is missing, unreadable, or has another length or SHA-256.
    """
    try:
        with card.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != card.bytes:
                raise ModelFileError(
                    f"{card.path}: the model file has {size} bytes and its card says "
                    f"{card.bytes}; install it again"
                )
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelFileError(
            f"{card.path}: the model file cannot be read: {error.strerror}; install it again"
        ) from error
    if digest.hexdigest() != card.sha256:
        raise ModelFileError(
            f"{card.path}: the model file is damaged (its SHA-256 is not the one on its card); "
            "install it again"
        )


def _check_contract(engine: Engine, card: ModelCard) -> None:
    spec = card.preprocessing
    expected = TensorSpec("float32", (1, 3, spec.height, spec.width))
    if engine.inputs != (expected,):
        raise CardError(
            f"{card.path}: the model takes {engine.inputs} and its card means {expected}"
        )
    given = TensorSpec("float32", (1, card.dimension))
    if engine.outputs != (given,):
        raise CardError(f"{card.path}: the model gives {engine.outputs} and its card says {given}")


def _unit(vector: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length < 1e-12:
        raise OutputError(f"the model {name} gave a vector of length {length} for this picture")
    unit: NDArray[np.float32] = (vector / np.float32(length)).astype(np.float32)
    return unit
