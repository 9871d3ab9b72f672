"""Embeddings without a library: an image or a text in, a vector out.

The shape of React Native ExecuTorch's image and text embeddings, in Python:

    from searchlib import ImageEmbeddings

    model = ImageEmbeddings.from_model_name("clip", on_download_progress=print)
    similarity = model.forward("one.jpg") @ model.forward("https://example.org/two.jpg")

All calls may come from many threads at once; each gets the vector that it would get alone, to the
last bit.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from searchlib.encoder import ImageEncoder, ModelCard, TextCard, registry
from searchlib.encoder.card_file import load_any_card
from searchlib.encoder.contract import bare_card
from searchlib.encoder.priority import querying
from searchlib.encoder.text import TextEncoder
from searchlib.errors import (
    AlreadyGeneratingError,
    CardError,
    ModelSourceError,
    NotLoadedError,
    SearchlibError,
)
from searchlib.images import DEFAULT_MAX_PIXELS, OWN_POLICY, FetchPolicy, Source, load

OnProgress = Callable[[float], None]
ModelSource = str | PathLike[str] | ModelCard | TextCard

_Encoder = TypeVar("_Encoder", ImageEncoder, TextEncoder)
_Self = TypeVar("_Self", bound="_Embeddings[Any]")


class _Embeddings(ABC, Generic[_Encoder]):
    def __init__(
        self,
        model_source: ModelSource | None = None,
        *,
        prevent_load: bool = False,
        offline: bool = False,
        on_download_progress: OnProgress | None = None,
    ) -> None:
        self._source = model_source
        self._offline = offline
        self._prevent_load = prevent_load
        self._encoder: _Encoder | None = None
        self._running = 0
        self._lock = threading.Lock()
        self._error: SearchlibError | None = None
        self._progress = 0.0
        if model_source is not None and not prevent_load:
            self.load(on_download_progress=on_download_progress)

    @classmethod
    def from_model_name(
        cls: type[_Self], name: str, *, on_download_progress: OnProgress | None = None
    ) -> _Self:
        """Load a model that has a name, and download it first where it is missing.

        Raises:
            ModelSourceError: there is no model of this name.
            EncoderError: as for `load`.
        """
        self = cls()
        self._load(lambda _: self._named(name), name, on_download_progress)
        return self

    @classmethod
    def from_custom_model(
        cls: type[_Self],
        model_source: ModelSource,
        *,
        on_download_progress: OnProgress | None = None,
    ) -> _Self:
        """Load a model from its card or its `.pte` file: see `load`.

        Raises:
            EncoderError: as for `load`.
        """
        self = cls()
        self.load(model_source, on_download_progress=on_download_progress)
        return self

    @property
    def is_ready(self) -> bool:
        """Whether a model is loaded."""
        return self._encoder is not None

    @property
    def is_generating(self) -> bool:
        """Whether a vector is being made at this moment."""
        return self._running > 0

    @property
    def error(self) -> SearchlibError | None:
        """Why the last `load` or `forward` failed; None where it did not."""
        return self._error

    @property
    def download_progress(self) -> float:
        """How much of the model is in place, 0 to 1."""
        return self._progress

    @property
    def prevent_load(self) -> bool:
        """Whether the model named at construction waited for `load`."""
        return self._prevent_load

    @property
    def dimension(self) -> int:
        """The length of the vectors.

        Raises:
            NotLoadedError: no model is loaded.
        """
        return self._loaded().dimension

    @property
    def identity(self) -> str:
        """The identity of the model, 64 hex digits: vectors of two identities do not compare.

        Raises:
            NotLoadedError: no model is loaded.
        """
        return self._loaded().card.identity

    def load(
        self,
        model_source: ModelSource | None = None,
        *,
        on_download_progress: OnProgress | None = None,
    ) -> None:
        """Load a model, in place of the one that was loaded.

        Args:
            model_source: the name of a model, a card (an object, or the path of a `.toml`), or the
                path, file URI or https URL of a `.pte` file; the one given at construction if
                there is none. A file without a card is prepared as React Native ExecuTorch
                prepares a picture.
            on_download_progress: called with 0 to 1, from this thread.

        Raises:
            ModelSourceError: the source is none of these.
            AlreadyGeneratingError: a vector is being made with the model that is loaded.
            DownloadError: the model cannot be downloaded.
            EncoderError: the model cannot be opened, or is not of this kind.
        """
        source = self._source if model_source is None else model_source
        self._load(lambda tell: self._resolve(source, tell), source, on_download_progress)

    def delete(self) -> None:
        """Let go of the model and its memory; calling it twice does no harm.

        Raises:
            AlreadyGeneratingError: a vector is being made.
        """
        with self._lock:
            self._require_rest()
            self._encoder = None
            self._progress = 0.0

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()

    def _load(
        self,
        resolve: Callable[[OnProgress], ModelCard | TextCard],
        source: ModelSource | None,
        told: OnProgress | None,
    ) -> None:
        def tell(progress: float) -> None:
            self._progress = progress
            if told is not None:
                told(progress)

        with self._failing():
            with self._lock:
                self._require_rest()
            self._progress = 0.0
            card = resolve(tell)
            if card.url is not None and not card.installed:
                card = registry.pull(card, on_progress=tell, offline=self._offline)
            encoder = self._open(card)
            encoder.load()
            if self._progress < 1:
                tell(1.0)
            with self._lock:
                self._require_rest()
                self._encoder = encoder
            self._source = source

    def _resolve(self, source: ModelSource | None, tell: OnProgress) -> ModelCard | TextCard:
        if isinstance(source, (ModelCard, TextCard)):
            return source
        if source is None:
            raise ModelSourceError("no model is named; pass a model source to load")
        if not isinstance(source, (str, PathLike)):
            raise ModelSourceError(
                f"a model source is a name, a path, a URL or a card, not {type(source).__name__}"
            )
        text = fspath(source)
        if not isinstance(text, str):
            raise ModelSourceError("a model source is a path of text, not of bytes")
        scheme = urlsplit(text).scheme.lower() if "://" in text else ""
        if scheme == "file":
            text = unquote(urlsplit(text).path)
        elif scheme:
            path = registry.pull_file(text, on_progress=tell, offline=self._offline)
            return self._from_file(path)
        path = Path(text)
        if path.is_dir():
            path = path / registry.CARD
        if path.suffix == ".toml":
            return load_any_card(path)
        if path.suffix == ".pte" or path.is_file():
            return self._from_file(path)
        if isinstance(source, str) and not scheme:
            return self._named(source)
        raise ModelSourceError(f"{text}: no such model; pass a name, a card or a .pte file")

    @abstractmethod
    def _named(self, name: str) -> ModelCard | TextCard: ...

    @abstractmethod
    def _from_file(self, path: Path) -> ModelCard | TextCard: ...

    @abstractmethod
    def _open(self, card: ModelCard | TextCard) -> _Encoder: ...

    def _loaded(self) -> _Encoder:
        encoder = self._encoder
        if encoder is None:
            raise NotLoadedError("the model is not loaded; call load first")
        return encoder

    def _require_rest(self) -> None:
        if self._running:
            raise AlreadyGeneratingError("the model is making a vector; wait until it is done")

    @contextmanager
    def _generating(self, *, wait: bool) -> Iterator[_Encoder]:
        with self._failing():
            with self._lock:
                encoder = self._loaded()
                if not wait:
                    self._require_rest()
                self._running += 1
            try:
                yield encoder
            finally:
                with self._lock:
                    self._running -= 1

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except SearchlibError as error:
            self._error = error
            raise
        self._error = None


class ImageEmbeddings(_Embeddings[ImageEncoder]):
    """Makes vectors of images.

    Args:
        model_source: loaded at once if there is one: see `load`.
        prevent_load: wait for a call of `load`.
        offline: raise OfflineError where a model would have to be downloaded.
        on_download_progress: called with 0 to 1, from this thread.

    Raises:
        EncoderError: as for `load`.
    """

    def forward(
        self,
        image: Source,
        *,
        wait: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        fetch_policy: FetchPolicy = OWN_POLICY,
    ) -> NDArray[np.float32]:
        """The vector of an image.

        Args:
            image: a path, file URI, http(s) URL, data URI, base64, encoded bytes, a Pillow image,
                or raw pixels, uint8 [height, width, 3].
            wait: for other calls on this model; False to raise AlreadyGeneratingError instead.
            max_pixels: refuse an image with more.
            fetch_policy: what may be fetched where the image is a URL; a server that takes URLs
                from others forbids private addresses.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            NotLoadedError: no model is loaded.
            ImageError: the image cannot be read or decoded.
            AlreadyGeneratingError: another call is running, and `wait` is False.
            OutputError: the model gave NaN, Inf or a zero vector.
            EncoderError: the runtime failed.
        """
        with querying(), self._generating(wait=wait) as encoder:
            loaded = load(
                image, min_side=encoder.min_side, max_pixels=max_pixels, policy=fetch_policy
            )
            return encoder.embed(loaded.pixels)

    async def aforward(
        self,
        image: Source,
        *,
        wait: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        fetch_policy: FetchPolicy = OWN_POLICY,
    ) -> NDArray[np.float32]:
        """`forward` in another thread, for programs that run on asyncio."""
        return await asyncio.to_thread(
            self.forward, image, wait=wait, max_pixels=max_pixels, fetch_policy=fetch_policy
        )

    def _named(self, name: str) -> ModelCard:
        return registry.find(name)

    def _from_file(self, path: Path) -> ModelCard:
        return bare_card(path)

    def _open(self, card: ModelCard | TextCard) -> ImageEncoder:
        if not isinstance(card, ModelCard):
            raise ModelSourceError(f"{card.name} is a text model; use TextEmbeddings")
        return ImageEncoder(card)


class TextEmbeddings(_Embeddings[TextEncoder]):
    """Makes vectors of texts, in the space of the image model that they belong to.

    Args:
        model_source: loaded at once if there is one: see `load`. The name of an image model means
            its text model.
        prevent_load, offline, on_download_progress: as for ImageEmbeddings.

    Raises:
        EncoderError: as for `load`.
    """

    def forward(self, text: str, *, wait: bool = True) -> NDArray[np.float32]:
        """The vector of a text.

        Args:
            text: cut where it is longer than the model can read.
            wait: as for ImageEmbeddings.forward.

        Returns:
            float32 [dimension], of length 1.

        Raises:
            NotLoadedError: no model is loaded.
            InputError: the text is empty.
            AlreadyGeneratingError: another call is running, and `wait` is False.
            OutputError: the model gave NaN, Inf or a zero vector.
            EncoderError: the runtime failed.
        """
        with self._generating(wait=wait) as encoder:
            return encoder.embed(text)

    async def aforward(self, text: str, *, wait: bool = True) -> NDArray[np.float32]:
        """`forward` in another thread, for programs that run on asyncio."""
        return await asyncio.to_thread(self.forward, text, wait=wait)

    def _named(self, name: str) -> TextCard:
        return registry.find_text(name)

    def _from_file(self, path: Path) -> TextCard:
        raise CardError(f"{path}: a text model needs a card that names its tokenizer")

    def _open(self, card: ModelCard | TextCard) -> TextEncoder:
        if not isinstance(card, TextCard):
            raise ModelSourceError(f"{card.name} is an image model; use ImageEmbeddings")
        return TextEncoder(card)
