"""Everything that searchlib raises on purpose.

    SearchlibError
    ├── InputError            a call that cannot be answered: k below 1, a path that is not there
    │   ├── WhereError          conditions that cannot be understood; points at the wrong word
    │   ├── CursorError         not a cursor of this library, or one of another question
    │   └── NotFoundError       no image of this id, or at this path
    ├── WebError              a URL that cannot be fetched; reaches the user as one of the two below
    ├── ImageError            one picture that cannot be used; names the file and the reason
    │   ├── SourceError         it cannot be read: missing, no permission, not a file, no such URL
    │   ├── DecodeError         it was read and is not a picture that can be decoded
    │   └── TooLargeError       it has more pixels than the limit
    ├── EncoderError
    │   ├── CardError           a model card that is missing, incomplete or contradicts its model
    │   │   ├── WrongDimensionsError    the model takes or gives another shape than is asked for
    │   │   └── UnexpectedInputsError   the model takes another number or type of inputs
    │   ├── ModelFileError      the .pte file is missing, truncated or has another checksum
    │   ├── EngineError         the runtime refused; carries ExecuTorch's own code and message
    │   ├── OutputError         the model gave NaN, Inf, zero or another dimension
    │   ├── NotLoadedError      embeddings were asked of a model that was not loaded
    │   ├── AlreadyGeneratingError  the model is at work and the caller did not want to wait
    │   ├── ModelSourceError    no model of this name, or a source that is none
    │   ├── ModelNotInstalledError  a known model that was not downloaded yet
    │   ├── TextUnsupportedError    words were asked for, and the model knows only pictures
    │   └── DownloadError       a model that cannot be downloaded; names the URL
    │       ├── OfflineError            downloads are switched off
    │       ├── DownloadInterruptedError  it broke off; the next try goes on from there
    │       └── ChecksumError           what came has another length or SHA-256
    ├── VectorError           vectors or ids of the wrong shape, dtype, length or value
    │   └── VectorFileError     a file of vectors that cannot be taken over; names the file
    ├── IndexServiceError     the server that keeps the index cannot be used; names its address
    ├── ServerError           a server of this package refused; raised by Client
    │   └── ServerUnreachableError  there is no answer from it
    ├── CheckpointError       an index file that is missing, torn, damaged or another's; it is
    │                         rebuilt from the catalog and does not reach the user
    └── LibraryError          the library as a whole; names its folder
        ├── LibraryNotFoundError   there is no library in this folder
        ├── LibraryReadOnlyError   the folder cannot be written
        ├── LibraryBusyError       another process held the database, or changes the model
        ├── LibraryDamagedError    the catalog is not a database, or a damaged one
        ├── LibraryTooNewError     a newer searchlib wrote it
        ├── DiskFullError          no space left; what was committed before stays
        ├── ImageGoneError         the file of an image is not what the library knows any more
        └── ModelMismatchError     its vectors come from another model

`str(error)` is one line for a person: what happened, to which file, and what to do.
"""

from __future__ import annotations

from typing import Any


class SearchlibError(Exception):
    """The root of the tree: catch this to catch all that searchlib raises on purpose."""


class InputError(SearchlibError, ValueError):
    """A call that cannot be answered as it was asked."""


class WhereError(InputError):
    """Conditions that cannot be understood.

    Attributes:
        text: the conditions as they were given.
        start, end: where in the text the wrong word is.
        reason: what is wrong with it, and what to write.
    """

    def __init__(self, text: str, start: int, end: int, reason: str) -> None:
        word = text[start:end]
        super().__init__(f"{word!r}: {reason}" if word else reason)
        self.text = text
        self.start = start
        self.end = end
        self.reason = reason

    def pointed(self) -> str:
        """Three lines for a terminal: the text, a mark under the wrong word, and the reason."""
        # Whatever would move the mark is one place wide.
        line = "".join(character if character.isprintable() else " " for character in self.text)
        mark = " " * self.start + "^" * max(1, self.end - self.start)
        return f"{line}\n{mark}\n{self.reason}"

    def __reduce__(self) -> tuple[type[WhereError], tuple[str, int, int, str]]:
        return type(self), (self.text, self.start, self.end, self.reason)


class CursorError(InputError):
    """Not a cursor of this library, or one of another question."""


class NotFoundError(InputError):
    """There is no image of this id, or at this path."""


class WebError(SearchlibError):
    """A URL that cannot be fetched.

    Attributes:
        reason: why, without the URL.
        status: the HTTP status where the server answered with one that is no success.
        interrupted: True where the answer broke off and another try may go on from there.
    """

    def __init__(
        self, url: str, reason: str, *, status: int | None = None, interrupted: bool = False
    ) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.status = status
        self.interrupted = interrupted

    def __reduce__(self) -> tuple[type[WebError], tuple[str, str], dict[str, Any]]:
        return type(self), (self.url, self.reason), self.__dict__


class ImageError(SearchlibError):
    """One picture that cannot be used.

    Attributes:
        source: the picture in words a person recognises: its path, "<bytes>", "<base64>", ...
        reason: why, without the name of the picture.
        lasting: True where only other bytes can change the outcome, so that trying again is idle.
    """

    lasting = True

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str], dict[str, Any]]:
        return type(self), (self.source, self.reason), self.__dict__


class SourceError(ImageError):
    """The picture cannot be read: missing, no permission, not a file, no such URL."""

    lasting = False


class DecodeError(ImageError):
    """The bytes were read and are not a picture that can be decoded."""


class TooLargeError(ImageError):
    """The picture has more pixels than the limit."""


class EncoderError(SearchlibError):
    """The encoder cannot be opened or cannot embed."""


class CardError(EncoderError):
    """A model card that is missing, incomplete or contradicts its model."""


class WrongDimensionsError(CardError):
    """The model takes or gives another shape than its card or the contract asks for."""


class UnexpectedInputsError(CardError):
    """The model takes another number or type of inputs than an encoder of its kind."""


class ModelFileError(EncoderError):
    """The model's file is missing, truncated or has another checksum than its card says."""


class EngineError(EncoderError):
    """The ExecuTorch runtime refused.

    Attributes:
        code: ExecuTorch's error code (runtime/core/error.h), or None where there is none.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class OutputError(EncoderError):
    """The model gave NaN, Inf, a zero vector or another dimension than its card says."""


class NotLoadedError(EncoderError):
    """Embeddings were asked of a model that was not loaded."""


class AlreadyGeneratingError(EncoderError):
    """The model is at work, and the caller did not want to wait for it."""


class ModelSourceError(EncoderError):
    """There is no model of this name, or the source is not one that a model can come from."""


class ModelNotInstalledError(EncoderError):
    """A known model that was not downloaded yet."""


class TextUnsupportedError(EncoderError):
    """Words were asked for, and the model of the library knows only pictures."""


class DownloadError(EncoderError):
    """A model that cannot be downloaded."""


class OfflineError(DownloadError):
    """A download is needed, and downloads are switched off."""


class DownloadInterruptedError(DownloadError):
    """The download broke off; what came is kept, and the next try goes on from there."""


class ChecksumError(DownloadError):
    """What was downloaded has another length or SHA-256 than it should have."""


class VectorError(SearchlibError, ValueError):
    """Vectors or ids of the wrong shape, dtype, length or value."""


class VectorFileError(VectorError):
    """A file of vectors that cannot be taken over."""


class IndexServiceError(SearchlibError):
    """The server that keeps the index cannot be reached, or refuses; names its address."""


class ServerError(SearchlibError):
    """A server of this package refused.

    Attributes:
        status: of HTTP; None where there was no answer.
        code: why, as docs/http.md lists it.
        detail: why, in words.
        retry_after: seconds after which another try may do better, or None.
    """

    def __init__(
        self, detail: str, *, status: int | None, code: str, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    def __reduce__(self) -> Any:
        return _server_error, (type(self), self.detail, self.status, self.code, self.retry_after)


def _server_error(
    kind: type[ServerError], detail: str, status: int | None, code: str, retry_after: float | None
) -> ServerError:
    return kind(detail, status=status, code=code, retry_after=retry_after)


class ServerUnreachableError(ServerError):
    """There is no answer from the server."""


class CheckpointError(SearchlibError):
    """An index file that is missing, torn, damaged, or of another model or recipe."""


class LibraryError(SearchlibError):
    """The library as a whole cannot be used."""


class LibraryNotFoundError(LibraryError):
    """There is no library in this folder."""


class LibraryReadOnlyError(LibraryError):
    """The library's folder cannot be written."""


class LibraryBusyError(LibraryError):
    """Another process held the database for too long, or is changing the model."""


class LibraryDamagedError(LibraryError):
    """The catalog is not a database, or SQLite found it damaged."""


class LibraryTooNewError(LibraryError):
    """A newer searchlib wrote this library."""


class DiskFullError(LibraryError):
    """No space left on the library's disk; what was committed before stays."""


class ImageGoneError(LibraryError):
    """No file of an image is in place as the library knows it."""


class ModelMismatchError(LibraryError):
    """The library's vectors come from another model than the one asked for."""
