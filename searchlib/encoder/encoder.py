"""ImageEncoder: pictures in, unit vectors out.

One encoder may be used from many threads. It holds a few engines: a single query wants one engine
on all cores; many queries at once, and an ingest, want one engine per core with a thread each,
which needs no hand-over between cores and gives the same vectors to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.encoder.card import ModelCard
from searchlib.encoder.card_file import built_in_card
from searchlib.encoder.contract import check_image_model, unit_vectors, verify_model_file
from searchlib.encoder.pool import EnginePool
from searchlib.encoder.priority import ingesting
from searchlib.errors import EncoderError, OutputError

if TYPE_CHECKING:
    from PIL import Image

    from searchlib.encoder.engine import Engine

_Pixels = NDArray[np.float32]
_Vector = NDArray[np.float32]

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
        self._pool: EnginePool[_Pixels, _Vector] = EnginePool(self._open)
        self._verified = False

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

        Pictures that wait for an engine at the same time may be run together; each gets the vector,
        or the error, that it would get alone. A thread that has stepped back (see
        `searchlib.encoder.priority`) lets others go first.

        Args:
            image: upright, mode RGB.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            OutputError: the model gave NaN, Inf or a zero vector.
            EncoderError: as for `load`, or the runtime failed.
        """
        from searchlib.encoder.preprocess import prepare

        return self._pool.run(prepare(image, self.card.preprocessing), self._embed_together)

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
        from searchlib.encoder.preprocess import prepare

        if not self._verified:
            self.load()
        step = self._pool.largest_batch
        vectors = np.empty((len(images), self.dimension), np.float32)
        for first in range(0, len(images), step):
            some = images[first : first + step]
            pixels = np.stack([prepare(image, self.card.preprocessing) for image in some])
            with self._pool.borrow() as engine:
                (output,) = engine.run([pixels])
            vectors[first : first + len(some)] = unit_vectors(output, self.card.name)
        return vectors

    @contextmanager
    def for_throughput(self, workers: int) -> Iterator[None]:
        """Arrange for an ingest whose `workers` threads embed at once, each on its own engine.

        Queries are answered meanwhile, and do not wait for one of these engines. All but one are
        let go at the end of the block.
        """
        with ingesting(), self._pool.for_workers(workers):
            yield

    def _embed_together(
        self, engine: Engine, pictures: Sequence[_Pixels]
    ) -> list[_Vector | Exception]:
        try:
            (output,) = engine.run([np.stack(pictures)])
        except EncoderError as error:
            if len(pictures) == 1:
                return [error]
            return [one for each in pictures for one in self._embed_together(engine, [each])]
        vectors: list[_Vector | Exception] = []
        for row in output:
            try:
                vectors.append(unit_vectors(row[None], self.card.name)[0])
            except OutputError as error:
                vectors.append(error)
        return vectors

    def _open(self, single_threaded: bool) -> Engine:
        # A query for a stored image needs no more than the card.
        from searchlib.encoder.engine import open_engine

        if not self._verified:
            verify_model_file(self.card)
            self._verified = True
        engine = open_engine(self.card.path, single_threaded=single_threaded)
        self._pool.largest_batch = min(check_image_model(engine, self.card), BEST_BATCH)
        return engine
