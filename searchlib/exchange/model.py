"""Whose vectors these are: what a file or its user declares against the library's model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from searchlib.errors import (
    ModelMismatchError,
    ModelNotInstalledError,
    ModelSourceError,
    VectorFileError,
)
from searchlib.exchange.rows import Header

_IDENTITY = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Target:
    """The model of a library, also where it has no vector yet.

    Attributes:
        name: of its card.
        identity: 64 hex digits.
        dimension: of its vectors.
    """

    name: str
    identity: str
    dimension: int


def require_model(
    header: Header,
    target: Target,
    path: Path,
    *,
    declared: str | None,
    identity_of: Callable[[str], str],
) -> None:
    """Refuse vectors that are not declared to be of the library's model.

    Args:
        header: of the file.
        target: the library's model.
        path: of the file, for errors.
        declared: the model's name or identity as the caller says it.
        identity_of: the identity of a model's name; raises ModelSourceError where there is none.

    Raises:
        ModelMismatchError: they are of another model, or the caller says another than the file.
        VectorFileError: nobody says which model it is, or the dimension is not that model's.
        ModelSourceError: no model of this name is known.
    """
    in_file = None
    if header.identity is not None:
        in_file = (header.model or "a model", header.identity)
    elif header.model is not None:
        in_file = _named(header.model, target, identity_of)
    by_caller = None if declared is None else _named(declared, target, identity_of)
    if in_file is not None and by_caller is not None and in_file[1] != by_caller[1]:
        raise ModelMismatchError(
            f"{path}: its header says {_words(*in_file)} and you say {_words(*by_caller)}; leave "
            "the model out, or correct the header"
        )
    name, identity = by_caller or in_file or (None, None)
    if name is None or identity is None:
        raise VectorFileError(
            f"{path}: nothing says which model these vectors are of; put a header with the model's "
            'identity into the file, or name the model: --model NAME, or model="NAME"'
        )
    if identity != target.identity:
        raise ModelMismatchError(
            f"{path}: these vectors are of {_words(name, identity)} and the library's of "
            f"{_words(target.name, target.identity)}; vectors of two models cannot be compared. "
            "Embed the images with the library's model, or change that first"
        )
    if header.dimension not in (None, target.dimension):
        raise VectorFileError(
            f"{path}: its header says that the vectors have {header.dimension} numbers and those "
            f"of {target.name} have {target.dimension}; correct the header or the vectors"
        )


def _named(text: str, target: Target, identity_of: Callable[[str], str]) -> tuple[str, str]:
    """A model's name and identity, from either."""
    if _IDENTITY.fullmatch(text):
        identity = text.lower()
        return (target.name if identity == target.identity else "a model", identity)
    try:
        return text, identity_of(text)
    except (ModelSourceError, ModelNotInstalledError) as error:
        # A model of the user's own may be in use and not be installed here.
        if text == target.name:
            return text, target.identity
        # One whose identity is not known before it is downloaded is not the one in use.
        if isinstance(error, ModelNotInstalledError):
            return text, ""
        raise


def _words(name: str, identity: str) -> str:
    return f"{name} ({identity[:12]})" if identity else name
