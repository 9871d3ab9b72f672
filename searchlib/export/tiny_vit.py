"""TinyViT-5M at 224 pixels, written so that XNNPACK takes the whole graph.

The architecture is that of Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision
Transformers" (2022). Three things are written differently, with the same result:

- attention as plain matrix products over a single batch dimension, with the scale folded into the
  query's weights: `scaled_dot_product_attention` brings operators that XNNPACK does not have;
- layer norm as two products with a constant vector (XNNPACK has no mean over the last axis);
- convolutions without batch norm, which is folded into them.

Each of the three would otherwise cut the graph into dozens of delegates.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT = 224
DIMENSIONS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
RESOLUTIONS = (56, 28, 14, 7)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("average", torch.full((1, size), 1.0 / size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - functional.linear(x, self.get_buffer("average"))
        variance = functional.linear(centred * centred, self.get_buffer("average"))
        return centred * torch.rsqrt(variance + 1e-5) * self.weight + self.bias


class Attention(nn.Module):
    """Attention inside one window, with a learned bias for each distance between two places."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = size // heads
        self.norm = LayerNorm(size)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.proj = nn.Linear(size, size)
        self.register_buffer("bias", torch.zeros(heads, window**2, window**2))

    def load(self, qkv_weight: Tensor, qkv_bias: Tensor, distance_biases: Tensor) -> None:
        """Take over the published form: q, k and v interleaved by head, biases by distance."""
        size = self.heads * self.width
        weights = qkv_weight.reshape(self.heads, 3, self.width, size)
        biases = qkv_bias.reshape(self.heads, 3, self.width)
        scales = (self.width**-0.5, 1.0, 1.0)
        for i, linear in enumerate((self.query, self.key, self.value)):
            linear.weight.copy_((weights[:, i] * scales[i]).reshape(size, size))
            linear.bias.copy_((biases[:, i] * scales[i]).reshape(size))
        window = round(self.get_buffer("bias").shape[1] ** 0.5)
        self.get_buffer("bias").copy_(distance_biases[:, distance_index(window)])

    def forward(self, x: Tensor) -> Tensor:
        _, places, size = x.shape
        x = self.norm(x)
        query = self._by_head(self.query(x)).reshape(-1, places, self.width)
        key = self._by_head(self.key(x)).permute(0, 1, 3, 2).reshape(-1, self.width, places)
        value = self._by_head(self.value(x)).reshape(-1, places, self.width)
        weights = torch.bmm(query, key).reshape(-1, self.heads, places, places)
        weights = (weights + self.get_buffer("bias")).softmax(-1).reshape(-1, places, places)
        mixed = torch.bmm(weights, value).reshape(-1, self.heads, places, self.width)
        projected: Tensor = self.proj(mixed.permute(0, 2, 1, 3).reshape(-1, places, size))
        return projected

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1], self.heads, self.width).permute(0, 2, 1, 3)


def distance_index(window: int) -> Tensor:
    """int64 [window², window²]: which distance bias belongs to each pair of places.

    Distances are numbered in the order in which the pairs, row by row, first show them.
    """
    places = list(itertools.product(range(window), range(window)))
    numbers: dict[tuple[int, int], int] = {}
    index = [
        [numbers.setdefault((abs(y1 - y2), abs(x1 - x2)), len(numbers)) for y2, x2 in places]
        for y1, x1 in places
    ]
    return torch.tensor(index)


class Mlp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = LayerNorm(size)
        self.fc1 = nn.Linear(size, 4 * size)
        self.fc2 = nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return out


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class Block(nn.Module):
    """Attention in windows, a depth-wise convolution across their borders, a perceptron."""

    def __init__(self, size: int, heads: int, resolution: int, window: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.window = window
        self.attn = Attention(size, heads, window)
        self.local_conv = _conv(size, size, 3, groups=size)
        self.mlp = Mlp(size)

    def forward(self, x: Tensor) -> Tensor:
        size, side = x.shape[1], self.resolution
        x = x.permute(0, 2, 3, 1)
        x = x + self._windowed(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x.reshape(-1, side * side, size)
        x = x + self.mlp(x)
        return x.reshape(-1, side, side, size).permute(0, 3, 1, 2)

    def _windowed(self, x: Tensor) -> Tensor:
        size, side, window = x.shape[3], self.resolution, self.window
        count = side // window
        if count == 1:
            out: Tensor = self.attn(x.reshape(-1, side * side, size))
            return out.reshape(-1, side, side, size)
        x = x.reshape(-1, window, count, window * size).permute(0, 2, 1, 3)
        x = self.attn(x.reshape(-1, window * window, size))
        x = x.reshape(-1, count, window, window * size).permute(0, 2, 1, 3)
        return x.reshape(-1, side, side, size)


class MBConv(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1 = _conv(size, 4 * size, 1)
        self.conv2 = _conv(4 * size, 4 * size, 3, groups=4 * size)
        self.conv3 = _conv(4 * size, size, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(inner))


class Merge(nn.Module):
    """Halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 1)
        self.conv2 = _conv(outputs, outputs, 3, stride=2, groups=outputs)
        self.conv3 = _conv(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        out: Tensor = self.conv3(inner)
        return out


class Stage(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        size = DIMENSIONS[number]
        self.downsample = Merge(DIMENSIONS[number - 1], size)
        self.blocks = nn.ModuleList(
            Block(size, HEADS[number], RESOLUTIONS[number], WINDOWS[number])
            for _ in range(DEPTHS[number])
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class TinyViT(nn.Module):
    """float32 [n, 3, 224, 224], values 0..1, to float32 [n, 320], not yet of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = _conv(3, DIMENSIONS[0] // 2, 3, stride=2)
        self.stem2 = _conv(DIMENSIONS[0] // 2, DIMENSIONS[0], 3, stride=2)
        self.convs = nn.Sequential(*(MBConv(DIMENSIONS[0]) for _ in range(DEPTHS[0])))
        self.stages = nn.Sequential(*(Stage(number) for number in range(1, len(DIMENSIONS))))
        self.norm = LayerNorm(DIMENSIONS[-1])
        # Not folded into the first convolution: that pads with the mean, which is not zero here.
        std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer(
            "shift", -torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1) / std, persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.get_buffer("scale") + self.get_buffer("shift")
        x = self.stem2(functional.gelu(self.stem1(x)))
        x = self.stages(self.convs(x))
        pooled = x.mean((2, 3), keepdim=True).reshape(-1, DIMENSIONS[-1])
        out: Tensor = self.norm(pooled)
        return out
