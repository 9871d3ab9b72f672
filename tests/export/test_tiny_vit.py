"""The recipe of the built-in encoder; needs the extra `export`.

With `SEARCHLIB_TINY_VIT_WEIGHTS` naming the published .onnx or wheel, the whole recipe runs.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import save_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from searchlib.encoder import ImageEncoder, built_in_card, load_card  # noqa: E402
from searchlib.errors import ModelFileError  # noqa: E402
from searchlib.export.tiny_vit import Attention, LayerNorm, Mlp, distance_index  # noqa: E402
from searchlib.export.tiny_vit_weights import _modules, read_weights  # noqa: E402

WEIGHTS = os.environ.get("SEARCHLIB_TINY_VIT_WEIGHTS")


def randomised(module: "torch.nn.Module") -> "torch.nn.Module":
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def test_layer_norm_is_torchs() -> None:
    norm = randomised(LayerNorm(320))
    x = torch.randn(2, 49, 320) * 5 + 3
    expected = functional.layer_norm(x, (320,), norm.weight, norm.bias, 1e-5)
    torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)


def test_attention_is_the_published_one() -> None:
    heads, width, window = 4, 8, 7
    size = heads * width
    attention = randomised(Attention(size, heads, window))
    weight, bias = torch.randn(3 * size, size) * 0.2, torch.randn(3 * size)
    distances = torch.randn(heads, window * window)
    x = torch.randn(3, window * window, size)
    with torch.no_grad():
        attention.load(weight, bias, distances)
        qkv = functional.linear(attention.norm(x), weight, bias)
        query, key, value = (
            part.permute(0, 2, 1, 3)
            for part in qkv.reshape(3, window * window, heads, 3 * width).split(width, dim=3)
        )
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=distances[:, distance_index(window)]
        )
        expected = attention.proj(mixed.permute(0, 2, 1, 3).reshape(x.shape))
        torch.testing.assert_close(attention(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_places_at_the_same_distance_share_a_bias(window: int) -> None:
    index = distance_index(window)
    assert index.shape == (window**2, window**2)
    assert sorted(set(index.flatten().tolist())) == list(range(window**2))
    by_distance: dict[tuple[int, int], set[int]] = {}
    for a in range(window**2):
        for b in range(window**2):
            distance = (abs(a // window - b // window), abs(a % window - b % window))
            by_distance.setdefault(distance, set()).add(int(index[a, b]))
    assert all(len(numbers) == 1 for numbers in by_distance.values())


def timm_weights() -> "dict[str, torch.Tensor]":
    """Random weights under timm's names, with batch norm apart."""
    from searchlib.export.tiny_vit import TinyViT

    tensors: dict[str, torch.Tensor] = {}
    for name, module in _modules(TinyViT()):
        if isinstance(module, torch.nn.Conv2d):
            channels = module.weight.shape[0]
            tensors[f"{name}.conv.weight"] = torch.randn(module.weight.shape) * 0.2
            for part in ("weight", "bias", "running_mean"):
                tensors[f"{name}.bn.{part}"] = torch.randn(channels)
            tensors[f"{name}.bn.running_var"] = torch.rand(channels) + 0.1
        elif isinstance(module, Attention):
            size = module.heads * module.width
            tensors[f"{name}.qkv.weight"] = torch.randn(3 * size, size)
            tensors[f"{name}.qkv.bias"] = torch.randn(3 * size)
            places = module.get_buffer("bias").shape[1]
            tensors[f"{name}.attention_biases"] = torch.randn(module.heads, places)
            for part in ("norm", "proj"):
                for key, value in module.get_submodule(part).named_parameters():
                    tensors[f"{name}.{part}.{key}"] = torch.randn(value.shape)
        elif isinstance(module, Mlp):
            for key, value in module.named_parameters():
                tensors[f"{name}.{key}"] = torch.randn(value.shape)
        else:
            tensors["head.norm.weight"] = torch.randn(320)
            tensors["head.norm.bias"] = torch.randn(320)
    tensors["head.fc.weight"] = torch.randn(21841, 320)
    tensors["head.fc.bias"] = torch.randn(21841)
    return tensors


def test_weights_of_timm_are_read_and_batch_norm_is_folded(tmp_path: Path) -> None:
    tensors = timm_weights()
    save_file(tensors, tmp_path / "model.safetensors")
    weights = read_weights(tmp_path / "model.safetensors")
    assert weights.onnx is None
    for name, module in _modules(weights.model):
        if isinstance(module, torch.nn.Conv2d):
            x = torch.randn(1, module.weight.shape[1] * module.groups, 9, 9)
            plain = functional.conv2d(
                x,
                tensors[f"{name}.conv.weight"],
                stride=module.stride,
                padding=module.padding,
                groups=module.groups,
            )
            expected = functional.batch_norm(
                plain,
                tensors[f"{name}.bn.running_mean"],
                tensors[f"{name}.bn.running_var"],
                tensors[f"{name}.bn.weight"],
                tensors[f"{name}.bn.bias"],
            )
            torch.testing.assert_close(module(x), expected, atol=1e-3, rtol=1e-3)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    tensors = timm_weights()
    del tensors["stages.2.blocks.3.mlp.fc1.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"stages\.2\.blocks\.3\.mlp\.fc1\.weight is missing"):
        read_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.onnx", b"garbage", "SHA-256"),
        ("w.whl", b"garbage", "cannot be read"),
        ("w.safetensors", b"garbage", "not a safetensors file"),
        ("w.bin", b"garbage", "come as .safetensors, .onnx or .whl"),
        ("missing.onnx", None, "cannot be read"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=words):
        read_weights(tmp_path / name)


@pytest.mark.skipif(WEIGHTS is None, reason="SEARCHLIB_TINY_VIT_WEIGHTS names no file")
def test_the_recipe_gives_the_model_in_the_package(tmp_path: Path) -> None:
    from searchlib.export.recipe import export_tiny_vit

    photographs = [Image.fromarray(skimage.data.coffee()), Image.fromarray(skimage.data.rocket())]
    report = export_tiny_vit(tmp_path, photographs=photographs, weights=Path(str(WEIGHTS)))
    assert report.onnx_difference is not None
    assert report.onnx_difference <= 1e-4
    assert report.min_cosine > 0.99
    card = load_card(report.card)
    assert card.preprocessing == built_in_card().preprocessing
    ours, new = ImageEncoder(), ImageEncoder(card)
    for image in photographs:
        np.testing.assert_allclose(new.embed(image), ours.embed(image), atol=1e-3)
