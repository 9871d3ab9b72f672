"""The terms of a question as vectors."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib import images
from searchlib.errors import (
    InputError,
    ModelSourceError,
    NotFoundError,
    TextUnsupportedError,
)
from searchlib.images import DEFAULT_MAX_PIXELS, OWN_POLICY

if TYPE_CHECKING:
    from searchlib.catalog import Catalog, ModelRecord
    from searchlib.encoder import ImageEncoder
    from searchlib.encoder.text import TextEncoder
    from searchlib.images import FetchPolicy, Source
    from searchlib.search.match import TermKind
    from searchlib.search.question import Term
    from searchlib.search.stopwatch import Stopwatch

# Vectors of a length below this are no direction, but what rounding left.
_SHORTEST = 1e-6
_LONGEST_LABEL = 60


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The terms of a question, ready to be compared with.

    Attributes:
        vectors: of the terms, float64 [t, dimension], each of length 1.
        weights: of them, float64 [t].
        kinds: what each term is.
        labels: each in words.
        vector: what is searched for, float32 [dimension], of length 1: the sum of the weighted
            vectors, brought to length 1.
        length: of that sum before.
        stored: the ids of images that are terms themselves.
    """

    vectors: NDArray[np.float64]
    weights: NDArray[np.float64]
    kinds: tuple[TermKind, ...]
    labels: tuple[str, ...]
    vector: NDArray[np.float32]
    length: float
    stored: frozenset[int]

    def shares(self, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each term adds to the cosine with the whole, for cosines float64 [n, t]."""
        shares: NDArray[np.float64] = cosines * (self.weights / self.length)
        return shares


class Embedder:
    """Makes vectors of terms with one model; may be used from many threads.

    Args:
        catalog: of the library.
        encoder, model: in use.
        max_pixels: refuse an image with more.
        policy: what may be fetched where an image is a URL.
    """

    def __init__(
        self,
        catalog: Catalog,
        encoder: ImageEncoder,
        model: ModelRecord,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        policy: FetchPolicy = OWN_POLICY,
    ) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._model = model
        self._max_pixels = max_pixels
        self._policy = policy
        self._texts: TextEncoder | None = None
        self._lock = threading.Lock()

    def terms(self, terms: Sequence[Term], watch: Stopwatch) -> Terms:
        """The terms of a question as vectors.

        Raises:
            InputError: no term has a weight above 0, or a weight that is no number; terms
                that take each other away; a vector of another length.
            NotFoundError: an id of no image with a vector.
            TextUnsupportedError: words, and a model that knows only pictures.
            ImageError, EncoderError: an image or a text cannot be embedded.
        """
        if not all(math.isfinite(term.weight) and term.weight != 0 for term in terms):
            raise InputError("a weight is a number other than 0")
        if not any(term.weight > 0 for term in terms):
            raise InputError("all terms are unlike; say at least one thing that it should be like")
        kinds = tuple(_kind(term) for term in terms)
        vectors = np.stack([self._vector(term, watch) for term in terms], dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        weights = np.array([term.weight for term in terms], np.float64)
        whole = weights @ vectors
        length = float(np.linalg.norm(whole))
        if length < _SHORTEST * float(np.abs(weights).sum()):
            raise InputError("the terms take each other away; change their weights")
        return Terms(
            vectors=vectors,
            weights=weights,
            kinds=kinds,
            labels=tuple(label_of(term, kind) for term, kind in zip(terms, kinds, strict=True)),
            vector=(whole / length).astype(np.float32),
            length=length,
            stored=frozenset(term.stored for term in terms if term.stored is not None),
        )

    def image(self, source: Source, watch: Stopwatch) -> NDArray[np.float32]:
        """The vector of an image, float32 [dimension]: the stored one where these bytes have one.

        Raises:
            ImageError, EncoderError: the image cannot be decoded or embedded.
        """
        with watch.step("decode"):
            # A URL is fetched once, for both of what follows.
            source = images.resolve(source, policy=self._policy)
            known = images.digest(source)
            stored = None if known is None else self._catalog.vector(known, self._model)
            if stored is not None:
                return stored
            image = images.load(
                source, min_side=self._encoder.min_side, max_pixels=self._max_pixels
            )
        with watch.step("encode"):
            return self._encoder.embed(image.pixels)

    def text(self, text: str, watch: Stopwatch) -> NDArray[np.float32]:
        """The vector of words, float32 [dimension].

        Raises:
            TextUnsupportedError: the model knows only pictures.
            InputError: there are no words.
            EncoderError: the text model cannot be used.
        """
        with watch.step("encode"):
            return self._text_encoder().embed(text)

    def _vector(self, term: Term, watch: Stopwatch) -> NDArray[np.floating]:
        if term.image is not None:
            return self.image(term.image, watch)
        if term.text is not None:
            return self.text(term.text, watch)
        if term.stored is not None:
            with watch.step("decode"):
                return self._stored(term.stored)
        assert term.vector is not None
        return self._given(term.vector)

    def _stored(self, id: int) -> NDArray[np.float16]:
        # More than a database can count to is no id.
        known = [id] if 0 < id < 1 << 63 else []
        ids, vectors = self._catalog.vectors(self._model, known)
        if not len(ids):
            raise NotFoundError(f"there is no image {id} with a vector in this library")
        vector: NDArray[np.float16] = vectors[0]
        return vector

    def _given(self, vector: NDArray[np.floating] | Sequence[float]) -> NDArray[np.float64]:
        try:
            given = np.asarray(vector, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the vector of the question is not numbers: {error}") from error
        if given.shape != (self._model.dimension,):
            raise InputError(
                f"the vector of the question has the shape {given.shape}; the model "
                f"{self._model.name} has {self._model.dimension} dimensions"
            )
        with np.errstate(all="ignore"):
            length = np.linalg.norm(given)
        if not np.isfinite(length) or length < _SHORTEST:
            raise InputError("the vector of the question is no direction: zero, NaN or infinite")
        return given

    def _text_encoder(self) -> TextEncoder:
        with self._lock:
            if self._texts is None:
                card = self._encoder.card
                if card.text_model is None:
                    raise TextUnsupportedError(
                        f"the model {card.name} knows only pictures, so words cannot be searched "
                        "for; `searchlib models use clip` changes over to one that knows both"
                    )
                # Tokenizers and their rules, which a question without words should not pay.
                from searchlib.encoder import registry
                from searchlib.encoder.text import TextEncoder

                found = registry.find_text(card.text_model)
                if found.dimension != self._model.dimension:
                    raise ModelSourceError(
                        f"{found.name} gives {found.dimension} dimensions and {card.name} "
                        f"{self._model.dimension}; correct text_model in its card"
                    )
                self._texts = TextEncoder(found)
            return self._texts


def _kind(term: Term) -> TermKind:
    given: list[TermKind] = []
    if term.image is not None:
        given.append("image")
    if term.stored is not None:
        given.append("stored")
    if term.vector is not None:
        given.append("vector")
    if term.text is not None:
        given.append("text")
    if len(given) != 1:
        raise InputError("a term is one of an image, a stored image, a vector or a text")
    return given[0]


def label_of(term: Term, kind: TermKind) -> str:
    """A term in words for whoever reads the answer."""
    if term.label:
        return term.label
    if kind == "stored":
        return f"id:{term.stored}"
    if kind == "vector":
        return "<vector>"
    given = term.text if kind == "text" else term.image
    if isinstance(given, images.NamedBytes):
        given = given.label
    if isinstance(given, (str, os.PathLike)):
        words = images.printable(os.fspath(given))
        return words if len(words) <= _LONGEST_LABEL else words[: _LONGEST_LABEL - 1] + "…"
    return f"<{type(given).__name__}>"
