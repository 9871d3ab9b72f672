"""The model in use: which encoder and which index go with a library at this moment.

Another process may change the model at any time, so that every search and every add asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchlib.catalog import Catalog, ModelRecord
from searchlib.catalog.models import mismatch
from searchlib.encoder import ImageEncoder, ModelCard, built_in_card
from searchlib.errors import InputError, ModelMismatchError
from searchlib.search import MILVUS, LiveIndex, read_choice

if TYPE_CHECKING:
    from searchlib.search.served_index import ServedIndex


@dataclass(frozen=True, slots=True)
class InUse:
    """What searches and adds with the model in use."""

    encoder: ImageEncoder
    model: ModelRecord
    index: LiveIndex | ServedIndex


class Current:
    """Follows the model of one library; may be used from many threads.

    Args:
        catalog: of the library.
        given: the encoder that the library was opened with; if there is none, that of its vectors,
            and in an empty library the one that comes with the package.
        background: build indexes in a thread of their own; the caller closes this object.
    """

    def __init__(
        self, catalog: Catalog, given: ImageEncoder | None, *, background: bool = False
    ) -> None:
        self._catalog = catalog
        self._background = background
        self._folder = catalog.database.folder
        self._given = given
        self._built_in: ImageEncoder | None = None
        self._now: InUse | None = None
        self._coming: InUse | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop what goes on in the background."""
        with self._lock:
            if self._now is not None:
                self._now.index.close()

    def reopen_index(self) -> None:
        """Open the index anew at the next question: another one was chosen."""
        with self._lock:
            if self._now is not None:
                self._now.index.close()
            self._now = None

    def first_encoder(self) -> ImageEncoder:
        """The encoder that an empty library begins with."""
        with self._lock:
            if self._built_in is None:
                self._built_in = ImageEncoder()
            return self._given or self._built_in

    def first_card(self) -> ModelCard:
        """The card of that encoder, which need not be opened for it."""
        return self._given.card if self._given else built_in_card()

    def encoder(self) -> ImageEncoder:
        """The encoder that was given, else that of the model in use.

        Raises:
            ModelMismatchError: no card of the model in use is known here.
        """
        if self._given is not None:
            return self._given
        now = self.get()
        return self.first_encoder() if now is None else now.encoder

    def get(self) -> InUse | None:
        """The model in use as of now; None in a library that has none yet.

        Raises:
            ModelMismatchError: it is not that of the encoder given, or its card is not known.
        """
        model, now = self._catalog.model(), self._now
        if model is None:
            return None
        if now is not None and now.model == model:
            return now
        with self._lock:
            # Again, for another thread may have changed it while this one waited.
            model = self._catalog.model()
            if model is None:
                return None
            if self._coming is not None and self._coming.model == model:
                self._follow(self._coming)
            if self._now is None or self._now.model != model:
                encoder = self._encoder_of(model)
                self._go_over(InUse(encoder, model, self._index_of(model)))
            assert self._now is not None
            return self._now

    def begin(self) -> InUse:
        """The model in use, which an empty library gets now.

        Raises:
            ModelMismatchError: as `get`.
        """
        now = self.get()
        if now is None:
            # Where another process was faster with another model, its model counts.
            with suppress(ModelMismatchError):
                self.begin_with(self.first_encoder())
            now = self.get()
            assert now is not None
        return now

    def begin_with(self, encoder: ImageEncoder) -> ModelRecord:
        """Put an encoder's model to use in an empty library.

        Raises:
            ModelMismatchError: another one is in use.
        """
        return self._catalog.use_model(
            identity=encoder.identity, name=encoder.card.name, dimension=encoder.dimension
        )

    @contextmanager
    def change_to(self, card: ModelCard) -> Iterator[InUse]:
        """A model that is put to use inside the block, and followed after it.

        Raises:
            EncoderError: the model cannot be used.
        """
        encoder = ImageEncoder(card)
        if self._given is not None and self._given.identity == encoder.identity:
            encoder = self._given
        encoder.load()
        model = self._catalog.known_model(
            identity=encoder.identity, name=card.name, dimension=encoder.dimension
        )
        index = self._index_of(model)
        # From the moment of the switch on, other threads need it.
        coming = self._coming = InUse(encoder, model, index)
        try:
            yield coming
            with self._lock:
                self._follow(coming)
        finally:
            self._coming = None

    def _index_of(self, model: ModelRecord) -> LiveIndex | ServedIndex:
        with suppress(InputError):  # of another version: by size then, as if nothing was chosen
            choice = read_choice(self._catalog)
            if choice.recipe == MILVUS and choice.uri:
                from searchlib.search.served_index import ServedIndex

                return ServedIndex(self._catalog, model, choice.uri)
        return LiveIndex(self._catalog, model, self._folder, background=self._background)

    def _go_over(self, now: InUse) -> None:
        if self._now is not None and self._now.index is not now.index:
            self._now.index.close()
        self._now = now

    def _follow(self, coming: InUse) -> None:
        """Go over to a model that this object put to use itself."""
        self._go_over(coming)
        if self._given is not None:
            self._given = coming.encoder

    def _encoder_of(self, model: ModelRecord) -> ImageEncoder:
        if self._given is not None:
            card = self._given.card
            if card.identity != model.identity:
                raise mismatch(self._folder, model, identity=card.identity, name=card.name)
            return self._given
        if self._built_in is None:
            self._built_in = ImageEncoder()
        if self._built_in.identity == model.identity:
            return self._built_in
        # Looks into folders, which a query with the built-in model should not pay.
        from searchlib.encoder import registry

        known = registry.card_for(model.identity)
        if known is None:
            raise ModelMismatchError(
                f"{self._folder}: this library uses the model {model.name} "
                f"({model.identity[:12]}), which is not installed here; run `searchlib models "
                f"pull {model.name}`, or `searchlib models add CARD` if it is one of your own"
            )
        return ImageEncoder(known)
