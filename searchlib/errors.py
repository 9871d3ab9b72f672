"""Everything that searchlib raises on purpose.

    SearchlibError
    ├── InputError            a call that cannot be answered: k below 1, a path that is not there
    ├── ImageError            one picture that cannot be used; names the file and the reason
    │   ├── SourceError         it cannot be read: missing, no permission, not a file, not base64
    │   ├── DecodeError         it was read and is not a picture that can be decoded
    │   └── TooLargeError       it has more pixels than the limit
    ├── EncoderError
    │   ├── CardError           a model card that is missing, incomplete or contradicts its model
    │   ├── ModelFileError      the .pte file is missing, truncated or has another checksum
    │   ├── EngineError         the runtime refused; carries ExecuTorch's own code and message
    │   └── OutputError         the model gave NaN, Inf, zero or another dimension
    ├── VectorError           vectors or ids of the wrong shape, dtype, length or value
    ├── CheckpointError       an index file that is missing, torn, damaged or another's; it is
    │                         rebuilt from the catalog and does not reach the user
    └── LibraryError          the library as a whole; names its folder
        ├── LibraryNotFoundError   there is no library in this folder
        ├── LibraryReadOnlyError   the folder cannot be written
        ├── LibraryBusyError       another process held the database for too long
        ├── LibraryDamagedError    the catalog is not a database, or a damaged one
        ├── LibraryTooNewError     a newer searchlib wrote it
        ├── DiskFullError          no space left; what was committed before stays
        └── ModelMismatchError     its vectors come from another model

`str(error)` is one line for a person: what happened, to which file, and what to do.
"""

from __future__ import annotations


class SearchlibError(Exception):
    """The root of the tree: catch this to catch all that searchlib raises on purpose."""


class InputError(SearchlibError, ValueError):
    """A call that cannot be answered as it was asked."""


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

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class SourceError(ImageError):
    """The picture cannot be read: missing, no permission, not a file, not base64."""

    lasting = False


class DecodeError(ImageError):
    """The bytes were read and are not a picture that can be decoded."""


class TooLargeError(ImageError):
    """The picture has more pixels than the limit."""


class EncoderError(SearchlibError):
    """The encoder cannot be opened or cannot embed."""


class CardError(EncoderError):
    """A model card that is missing, incomplete or contradicts its model."""


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


class VectorError(SearchlibError, ValueError):
    """Vectors or ids of the wrong shape, dtype, length or value."""


class CheckpointError(SearchlibError):
    """An index file that is missing, torn, damaged, or of another model or recipe."""


class LibraryError(SearchlibError):
    """The library as a whole cannot be used."""


class LibraryNotFoundError(LibraryError):
    """There is no library in this folder."""


class LibraryReadOnlyError(LibraryError):
    """The library's folder cannot be written."""


class LibraryBusyError(LibraryError):
    """Another process held the database for longer than the time-out."""


class LibraryDamagedError(LibraryError):
    """The catalog is not a database, or SQLite found it damaged."""


class LibraryTooNewError(LibraryError):
    """A newer searchlib wrote this library."""


class DiskFullError(LibraryError):
    """No space left on the library's disk; what was committed before stays."""


class ModelMismatchError(LibraryError):
    """The library's vectors come from another model than the one asked for."""
