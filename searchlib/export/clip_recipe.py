"""The recipe of a CLIP model: weights -> checked -> .pte, card and notice.

The program has one method, `forward`:

- image: float32 [b, 3, side, side], RGB of 0..1, b from 1 to 32, to float32 [b, dimension];
- text: int64 token ids and their mask, [1, n] each, n from 1 to 77, to float32 [1, dimension].

Vectors have length 1. Both are compared, in the runtime that will run them, with transformers.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder.card import ModelCard, Preprocessing, TextCard, card_as_toml
from searchlib.encoder.engine import Engine
from searchlib.encoder.preprocess import prepare
from searchlib.errors import EncoderError, InputError, ModelFileError
from searchlib.export.clip import CLIP_MEAN, CLIP_STD, ImageTower, TextTower
from searchlib.export.clip_weights import (
    TOKENIZER,
    Weights,
    read_image_weights,
    read_text_weights,
)
from searchlib.export.lower import Precision, lower
from searchlib.export.write import MIT, opened, unit, write_model

MAX_BATCH = 32
MAX_DIFFERENCE = 1e-4
MIN_COSINE = {"fp32": 0.9999, "int8": 0.98}
LATENCY_RUNS = 15
TEXTS = (
    "cat",
    "a photo of a dog",
    "a red bicycle leaning against a white wall",
    "two people in the snow, seen from far away, at sunset",
    "the receipt of a restaurant; on it a phone number, a date and a sum in euros " * 6,
)

NOTICE = """\
CLIP, {name}, {tower}.

OpenAI's code and weights: Copyright (c) 2021 OpenAI, MIT License
(https://github.com/openai/CLIP). Weights of others have the licence that these give them.
Architecture: A. Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021.
Weights read from: {origin}.
Exported for the ExecuTorch runtime by `searchlib export clip`.

"""


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What an export made and how near it stays to its source.

    Attributes:
        card: the model card that was written; the .pte file lies beside it.
        bytes: the length of the .pte file.
        compared: on how many photographs, or texts.
        difference: largest absolute difference between the unit vectors of transformers and of
            the network that is exported, before that.
        min_cosine, mean_cosine: of the .pte file's vectors to those of transformers.
        onnx_cosine: the smallest cosine of the .pte file's vectors to those of onnxruntime on the
            source, or None where the source is not ONNX.
        latency_ms: of one picture or text in the runtime, the median of some.
    """

    card: Path
    bytes: int
    compared: int
    difference: float
    min_cosine: float
    mean_cosine: float
    onnx_cosine: float | None
    latency_ms: float


def export_clip(
    out: Path,
    *,
    photographs: Sequence[Image.Image],
    weights: str,
    precision: Precision = "fp32",
    text: bool = False,
    name: str | None = None,
) -> ClipReport:
    """Build a CLIP encoder from published weights.

    Args:
        out: the folder for `card.toml`, the .pte file, `NOTICE` and, for texts, `tokenizer.json`;
            made if missing.
        photographs: upright RGB pictures to compare vectors on; a text tower needs none.
        weights: a folder, a name on Hugging Face, or a file, as `read_image_weights` takes.
        precision: see `lower`.
        text: the text tower and not that of the images.
        name: for the card and the files; as the published models are named if there is none.

    Raises:
        ModelSourceError: the weights are not there.
        ModelFileError: the weights are not usable.
        InputError: there is no photograph.
        EncoderError: the vectors differ from those of the source; nothing is written.
    """
    if text:
        return _export_text(out, read_text_weights(weights), precision, name)
    if not photographs:
        raise InputError("there is no photograph to compare vectors on; give at least one")
    return _export_image(out, read_image_weights(weights), photographs, precision, name)


def _export_image(
    out: Path,
    source: Weights[ImageTower],
    photographs: Sequence[Image.Image],
    precision: Precision,
    name: str | None,
) -> ClipReport:
    sizes = source.tower.sizes
    spec = Preprocessing(
        width=sizes.side,
        height=sizes.side,
        resize="squash",
        interpolation="bilinear",
        antialias=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    pixels = np.stack([prepare(image, spec) for image in photographs])
    with torch.no_grad():
        given = torch.from_numpy(_normalised(pixels))
        expected = unit(source.reference(pixel_values=given).image_embeds.numpy())
        ours = source.tower(torch.from_numpy(pixels)).numpy()
    difference = _difference(ours, expected)
    if precision == "int8":
        source.tower.turn()
        source.tower.round_patches()
    example = torch.zeros(2, 3, sizes.side, sizes.side)
    program = lower(source.tower, example, precision=precision, dynamic=(0, MAX_BATCH))
    inputs = [[one[None]] for one in pixels]
    with opened(program) as engine:
        found, latency = _vectors(engine, inputs), _latency(engine, inputs)
    cosines = _checked(found, expected, precision)
    onnx_cosine = _onnx_cosine(source.onnx, pixels, found)
    quantised = "-quantized" if precision == "int8" else ""
    name = name or f"{source.name}-image{quantised}"
    card = ModelCard(
        name=name,
        summary=f"CLIP {source.name.removeprefix('clip-')}, images, {precision}",
        path=out / f"{name}.pte",
        sha256=hashlib.sha256(program).hexdigest(),
        bytes=len(program),
        dimension=sizes.dimension,
        licence=source.licence,
        source=source.origin,
        preprocessing=spec,
        text_model=f"{source.name}-text" if source.both else None,
    )
    notice = NOTICE.format(name=source.name, tower="the image tower", origin=source.origin) + MIT
    return ClipReport(
        card=write_model(out, card.path.name, program, card=card_as_toml(card), notice=notice),
        bytes=len(program),
        compared=len(photographs),
        difference=difference,
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        onnx_cosine=onnx_cosine,
        latency_ms=latency,
    )


def _export_text(
    out: Path, source: Weights[TextTower], precision: Precision, name: str | None
) -> ClipReport:
    sizes = source.tower.sizes
    inputs = _tokens(source, sizes.max_tokens)
    with torch.no_grad():
        given = [[torch.from_numpy(array) for array in pair] for pair in inputs]
        expected = np.concatenate(
            [
                unit(source.reference(input_ids=ids, attention_mask=mask).text_embeds.numpy())
                for ids, mask in given
            ]
        )
        ours = np.concatenate([source.tower(*pair).numpy() for pair in given])
    difference = _difference(ours, expected)
    if precision == "int8":
        source.tower.turn()
    example = torch.ones(1, min(8, sizes.max_tokens), dtype=torch.int64)
    program = lower(
        source.tower, example, example, precision=precision, dynamic=(1, sizes.max_tokens)
    )
    with opened(program) as engine:
        found, latency = _vectors(engine, inputs), _latency(engine, inputs)
    cosines = _checked(found, expected, precision)
    quantised = "-quantized" if precision == "int8" else ""
    name = name or f"{source.name}-text{quantised}"
    tokenizer = source.tokenizer or b""
    card = TextCard(
        name=name,
        summary=f"CLIP {source.name.removeprefix('clip-')}, texts, {precision}",
        path=out / f"{name}.pte",
        sha256=hashlib.sha256(program).hexdigest(),
        bytes=len(program),
        dimension=sizes.dimension,
        licence=source.licence,
        source=source.origin,
        tokenizer=out / TOKENIZER,
        tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
        max_tokens=sizes.max_tokens,
    )
    notice = NOTICE.format(name=source.name, tower="the text tower", origin=source.origin) + MIT
    out.mkdir(parents=True, exist_ok=True)
    (out / TOKENIZER).write_bytes(tokenizer)
    return ClipReport(
        card=write_model(out, card.path.name, program, card=card_as_toml(card), notice=notice),
        bytes=len(program),
        compared=len(inputs),
        difference=difference,
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        onnx_cosine=None,
        latency_ms=latency,
    )


def _normalised(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = np.array(CLIP_MEAN, np.float32)[:, None, None]
    return (pixels - mean) / np.array(CLIP_STD, np.float32)[:, None, None]


def _tokens(source: Weights[TextTower], longest: int) -> list[list[NDArray[np.int64]]]:
    """The token ids and masks of some texts, from a few tokens to the most."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(source.tokenizer or b"")
    except Exception as error:  # the package raises nothing narrower
        raise ModelFileError(f"{source.origin}: not a {TOKENIZER}: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    encodings = [tokenizer.encode(text) for text in TEXTS]
    return [
        [np.array([one.ids], np.int64), np.array([one.attention_mask], np.int64)]
        for one in encodings
    ]


def _difference(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    difference = float(np.abs(ours - expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise EncoderError(
            f"the network differs from transformers on the same weights by {difference:.1e}, "
            f"and at most {MAX_DIFFERENCE:.0e} is allowed"
        )
    return difference


def _vectors(
    engine: Engine, inputs: Sequence[Sequence[NDArray[np.float32] | NDArray[np.int64]]]
) -> NDArray[np.float32]:
    return np.concatenate([engine.run(one)[0] for one in inputs])


def _latency(
    engine: Engine, inputs: Sequence[Sequence[NDArray[np.float32] | NDArray[np.int64]]]
) -> float:
    times = []
    for number in range(LATENCY_RUNS):
        start = time.perf_counter()
        engine.run(inputs[number % len(inputs)])
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def _checked(
    found: NDArray[np.float32], expected: NDArray[np.float32], precision: Precision
) -> NDArray[np.float32]:
    """The cosines, which are high enough."""
    cosines: NDArray[np.float32] = (unit(found) * expected).sum(axis=1)
    if not cosines.min() >= MIN_COSINE[precision]:
        raise EncoderError(
            f"the exported model's vectors are off: cosine {cosines.min():.5f} to transformers, "
            f"and at least {MIN_COSINE[precision]} is asked of {precision}"
        )
    return cosines


def _onnx_cosine(
    onnx: bytes | None, pixels: NDArray[np.float32], found: NDArray[np.float32]
) -> float | None:
    if onnx is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    vectors = [
        session.run(["image_embeds"], {"pixel_values": _normalised(one[None])})[0] for one in pixels
    ]
    return float((unit(np.concatenate(vectors)) * unit(found)).sum(axis=1).min())
