"""TextEncoder: words in, a unit vector out, in the space of an image model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never

import numpy as np
from numpy.typing import NDArray

from searchlib.encoder.card import TextCard
from searchlib.encoder.contract import check_text_model, unit_vectors, verify_model_file
from searchlib.encoder.engine import Engine, open_engine
from searchlib.encoder.pool import EnginePool
from searchlib.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextEncoder:
    """Embeds texts with the model of a card; may be used from many threads.

    The model's files are read and checked at the first text, or by `load`.

    Args:
        card: the model.
    """

    def __init__(self, card: TextCard) -> None:
        self.card = card
        self._pool: EnginePool[Never, Never] = EnginePool(self._open)
        self._tokenizer: Tokenizer | None = None

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        return self.card.dimension

    def load(self) -> None:
        """Read, check and open the model and its tokenizer now.

        Raises:
            ModelNotInstalledError: the model was not downloaded.
            ModelFileError: a file is missing, damaged or another than the card says.
            UnexpectedInputsError, WrongDimensionsError: it does not take or give what the card
                says.
            EngineError: the runtime cannot load it.
        """
        with self._pool.borrow():
            pass

    def embed(self, text: str) -> NDArray[np.float32]:
        """Embed one text.

        Args:
            text: in any language that the model knows; cut to the model's longest input.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            InputError: the text is empty, or not a text.
            OutputError: the model gave NaN, Inf or a zero vector.
            EncoderError: as for `load`, or the runtime failed.
        """
        if not isinstance(text, str):
            raise InputError(f"a text is needed, not {type(text).__name__}")
        if not text.strip():
            raise InputError("the text is empty; give at least one word")
        with self._pool.borrow() as engine:
            assert self._tokenizer is not None
            # Half of a surrogate pair is no text to the tokenizer.
            encoding = self._tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8"))
            ids = np.array([encoding.ids], np.int64)
            mask = np.array([encoding.attention_mask], np.int64)
            if ids.size == 0:
                raise InputError("the text has no words that the model knows")
            (output,) = engine.run([ids, mask])
        vector: NDArray[np.float32] = unit_vectors(output, self.card.name)[0]
        return vector

    def _open(self, single_threaded: bool) -> Engine:
        if self._tokenizer is None:
            verify_model_file(self.card)
        engine = open_engine(self.card.path, single_threaded=single_threaded)
        longest = check_text_model(engine, self.card)
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            try:
                tokenizer = Tokenizer.from_file(str(self.card.tokenizer))
            except Exception as error:  # the package raises nothing narrower
                raise ModelFileError(
                    f"{self.card.tokenizer}: not a tokenizer.json: {error}; install it again"
                ) from error
            tokenizer.no_padding()
            tokenizer.enable_truncation(longest)
            self._tokenizer = tokenizer
        return engine
