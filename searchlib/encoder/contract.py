"""What an encoder asks of a model: one file with the right bytes, inputs and output."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.encoder.card import ModelCard, Preprocessing, TextCard
from searchlib.errors import (
    ModelFileError,
    ModelNotInstalledError,
    OutputError,
    UnexpectedInputsError,
    WrongDimensionsError,
)

if TYPE_CHECKING:
    from searchlib.encoder.engine import Engine, TensorSpec


def file_sha256(path: Path) -> tuple[str, int]:
    """The SHA-256 of a model's file, 64 hex digits, and its length in bytes.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelFileError(
            f"{path}: the model file cannot be read: {error.strerror}; install it again"
        ) from error
    return digest.hexdigest(), size


def verify_model_file(card: ModelCard | TextCard) -> None:
    """Compare a model's file, and its tokenizer if it has one, with its card.

    A .pte whose weights have flipped bits loads without complaint and gives wrong vectors.

    Raises:
        ModelNotInstalledError: it was not downloaded.
        ModelFileError: it is unreadable, or has another length or SHA-256.
    """
    if card.url is not None and not card.installed:
        raise ModelNotInstalledError(
            f"the model {card.name} is not downloaded; run: searchlib models pull {card.name}"
        )
    _verify(card.path, card.sha256, card.bytes)
    if isinstance(card, TextCard):
        _verify(card.tokenizer, card.tokenizer_sha256, None)


def _verify(path: Path, sha256: str | None, length: int | None) -> None:
    found, size = file_sha256(path)
    if length not in (None, size):
        raise ModelFileError(
            f"{path}: the model file has {size} bytes and its card says {length}; install it again"
        )
    if found != sha256:
        raise ModelFileError(
            f"{path}: the model file is damaged (its SHA-256 is not the one on its card); "
            "install it again"
        )


def check_image_model(engine: Engine, card: ModelCard) -> int:
    """Compare a model with its card, and say how many pictures it takes at once.

    Raises:
        UnexpectedInputsError: it does not take one float32 array of four dimensions.
        WrongDimensionsError: it takes pictures, or gives vectors, of another shape.
    """
    spec = card.preprocessing
    if len(engine.inputs) != 1 or not _is(engine.inputs[0], "float32", 4):
        raise UnexpectedInputsError(
            f"{card.path}: the model takes {_words(engine.inputs)}; an image model takes one "
            "float32 [n, 3, height, width]"
        )
    batch, *shape = engine.inputs[0].shape
    if shape != [3, spec.height, spec.width]:
        raise WrongDimensionsError(
            f"{card.path}: the model takes pictures of {shape} and its card says "
            f"{[3, spec.height, spec.width]}"
        )
    _check_output(engine, card.path, batch, card.dimension)
    return batch


def check_text_model(engine: Engine, card: TextCard) -> int:
    """Compare a model with its card, and say how many tokens it takes at the most.

    Raises:
        UnexpectedInputsError: it does not take token ids and a mask, int64 [1, n] each.
        WrongDimensionsError: it takes several texts at once, or gives vectors of another shape.
    """
    if len(engine.inputs) != 2 or not all(_is(one, "int64", 2) for one in engine.inputs):
        raise UnexpectedInputsError(
            f"{card.path}: the model takes {_words(engine.inputs)}; a text model takes token ids "
            "and their mask, int64 [1, n] each"
        )
    batch, tokens = engine.inputs[0].shape
    if batch != 1 or engine.inputs[1].shape != (1, tokens):
        raise WrongDimensionsError(
            f"{card.path}: the model takes {_words(engine.inputs)}; ids and mask must be [1, n]"
        )
    _check_output(engine, card.path, 1, card.dimension)
    return min(tokens, card.max_tokens)


def _check_output(engine: Engine, path: Path, batch: int, dimension: int) -> None:
    from searchlib.encoder.engine import TensorSpec

    if engine.outputs != (TensorSpec("float32", (batch, dimension)),):
        raise WrongDimensionsError(
            f"{path}: the model gives {_words(engine.outputs)} and its card says float32 "
            f"{[batch, dimension]}"
        )


def _is(spec: TensorSpec, dtype: str, dimensions: int) -> bool:
    return spec.dtype == dtype and len(spec.shape) == dimensions


def _words(specs: tuple[TensorSpec, ...]) -> str:
    return " and ".join(f"{spec.dtype} {list(spec.shape)}" for spec in specs) or "nothing"


def bare_card(path: Path) -> ModelCard:
    """The card of a `.pte` file without one, prepared as React Native ExecuTorch does it.

    That is straight to the input's size, bilinear, without antialiasing, with values 0..1. Input
    and dimension are what the model says.

    Raises:
        ModelFileError: the file is missing or not an ExecuTorch program.
        EngineError: the runtime cannot load it.
        UnexpectedInputsError, WrongDimensionsError: it is not an image model.
    """
    from searchlib.encoder.engine import open_engine

    engine = open_engine(path)
    if len(engine.inputs) != 1 or not _is(engine.inputs[0], "float32", 4):
        raise UnexpectedInputsError(
            f"{path}: the model takes {_words(engine.inputs)}; an image model takes one float32 "
            "[n, 3, height, width]"
        )
    batch, channels, height, width = engine.inputs[0].shape
    outputs = engine.outputs
    plain = len(outputs) == 1 and _is(outputs[0], "float32", 2) and outputs[0].shape[0] == batch
    if channels != 3 or not plain:
        raise WrongDimensionsError(
            f"{path}: the model takes {_words(engine.inputs)} and gives {_words(outputs)}; an "
            "image model takes [n, 3, height, width] and gives float32 [n, dimension]"
        )
    sha256, size = file_sha256(path)
    return ModelCard(
        name=path.stem,
        summary="a model without a card",
        path=path,
        sha256=sha256,
        bytes=size,
        dimension=outputs[0].shape[1],
        licence="unknown",
        source=path.name,
        preprocessing=Preprocessing(
            width=width,
            height=height,
            resize="squash",
            interpolation="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            antialias=False,
        ),
    )


def unit_vectors(output: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Rows of length 1.

    Args:
        output: of a model, float32 [n, dimension].
        name: of the model, for the error.

    Raises:
        OutputError: a row has NaN, Inf or only zeros.
    """
    lengths = np.linalg.norm(output.astype(np.float64), axis=1, keepdims=True)
    for length in lengths[:, 0].tolist():
        if not np.isfinite(length) or length < 1e-12:
            raise OutputError(f"the model {name} gave a vector of length {length} for this input")
    unit: NDArray[np.float32] = (output / lengths.astype(np.float32)).astype(np.float32)
    return unit
