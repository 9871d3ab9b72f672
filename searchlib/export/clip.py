"""The towers of CLIP, written so that XNNPACK takes all their matrix work in one piece.

The architecture is that of Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision" (2021), as in transformers' CLIPVisionModelWithProjection and
CLIPTextModelWithProjection, whose weights `load` takes. What is written differently gives the same
result:

- layer norm has only the scaling: every matrix that writes into the residual stream is centred
  beforehand, so that the mean over the features is zero and need not be subtracted, and the norm's
  gain and bias are folded into the linear layer that follows. The mean square is a product with a
  constant vector, because XNNPACK has no mean over the last axis;
- attention as plain matrix products over a single batch dimension, with the scale folded into the
  query's weights: `scaled_dot_product_attention` brings operators that XNNPACK does not have;
- the factor of the quick GELU, x * sigmoid(1.702 x), is folded into the layers around it;
- the patches are cut out by a permutation, so that their convolution is a linear layer, which is
  quantised with the others; mean and deviation of the pixels are folded into it;
- the last layer is only computed for the one place whose vector is asked for;
- a vector is picked out by a product with zeros and a one: XNNPACK cannot slice where a dimension
  is not fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
QUICK_GELU = 1.702
MASKED = -1e4
"""Added to what must not be attended to: its share in a float32 softmax is exactly 0."""

SPREAD = 64
"""Features that are mixed with each other for int8: more gain nothing and take time."""

Activation = Literal["quick_gelu", "gelu"]
Pick = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """The sizes of a tower's layers.

    Attributes:
        width: of the residual stream.
        layers, heads: their numbers.
        hidden: the width inside a perceptron.
        activation: inside a perceptron.
        eps: of the layer norms.
        dimension: of the vectors that come out.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    activation: Activation
    eps: float
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision(Transformer):
    """The sizes of an image tower.

    Attributes:
        side: of the input, in pixels.
        patch: the side of a patch.
    """

    side: int
    patch: int

    @property
    def places(self) -> int:
        """The patches and, before them, the class token."""
        return int((self.side // self.patch) ** 2) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Transformer):
    """The sizes of a text tower.

    Attributes:
        vocabulary: how many tokens there are.
        max_tokens: of a text.
        end: the id of the token whose vector is the text's, or None where it is the highest id.
    """

    vocabulary: int
    max_tokens: int
    end: int | None


class Scale(nn.Module):
    """A layer norm without gain and bias, of vectors whose mean is zero."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("average", torch.full((1, size), 1.0 / size), persistent=False)
        self.register_buffer("eps", torch.full((1,), eps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        square = functional.linear(x * x, self.get_buffer("average"), self.get_buffer("eps"))
        return x * torch.rsqrt(square)


class Layer(nn.Module):
    """Attention and a perceptron."""

    def __init__(self, sizes: Transformer) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.activation = sizes.activation
        self.norm1 = Scale(sizes.width, sizes.eps)
        self.query = nn.Linear(sizes.width, sizes.width)
        self.key = nn.Linear(sizes.width, sizes.width)
        self.value = nn.Linear(sizes.width, sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)
        self.norm2 = Scale(sizes.width, sizes.eps)
        self.fc1 = nn.Linear(sizes.width, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.width)

    def load(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Take over transformers' weights of the layer whose names begin with `prefix`."""
        factor = QUICK_GELU if self.activation == "quick_gelu" else 1.0
        norm1, norm2, attention = f"{prefix}.layer_norm1", f"{prefix}.layer_norm2", "self_attn"
        scale = (self.query.weight.shape[0] // self.heads) ** -0.5
        query = _after(weights, norm1, *_linear(weights, f"{prefix}.{attention}.q_proj"))
        _copy(self.query, query[0] * scale, query[1] * scale)
        for linear, name in ((self.key, "k_proj"), (self.value, "v_proj")):
            pair = _linear(weights, f"{prefix}.{attention}.{name}")
            _copy(linear, *_after(weights, norm1, *pair))
        _copy(self.out, *_centred(*_linear(weights, f"{prefix}.{attention}.out_proj")))
        inner = _after(weights, norm2, *_linear(weights, f"{prefix}.mlp.fc1"))
        _copy(self.fc1, inner[0] * factor, inner[1] * factor)
        outer = _centred(*_linear(weights, f"{prefix}.mlp.fc2"))
        _copy(self.fc2, outer[0] / factor, outer[1])

    def turn(self, turn: Tensor) -> None:
        """Read from and write into a residual stream that was turned: see `spread`."""
        for reader in (self.query, self.key, self.value, self.fc1):
            _copy(reader, reader.weight.double() @ turn, reader.bias.double())
        for writer in (self.out, self.fc2):
            _copy(writer, turn.T @ writer.weight.double(), turn.T @ writer.bias.double())
        # What attention mixes is turned within each head, and turned back by the next matrix.
        part = self.value.weight.shape[0] // self.heads
        inner = torch.block_diag(*[spread(part)] * self.heads)
        _copy(self.value, inner.T @ self.value.weight.double(), inner.T @ self.value.bias.double())
        _copy(self.out, self.out.weight.double() @ inner, self.out.bias.double())

    def forward(self, x: Tensor, mask: Tensor | None = None, pick: Pick | None = None) -> Tensor:
        """One layer.

        Args:
            x: [n, places, width].
            mask: [1, places or 1, places], added to the weights of the attention.
            pick: takes the one place out of [n, places, width] that the result is asked for.

        Returns:
            [n, places or 1, width].
        """
        known = self.norm1(x)
        asking = known if pick is None else pick(known)
        x = x if pick is None else pick(x)
        scores = torch.bmm(
            self._by_head(self.query(asking), (0, 2, 1, 3)),
            self._by_head(self.key(known), (0, 2, 3, 1)),
        )
        if mask is not None:
            scores = scores + mask
        mixed = torch.bmm(scores.softmax(-1), self._by_head(self.value(known), (0, 2, 1, 3)))
        mixed = mixed.reshape(x.shape[0], self.heads, x.shape[1], -1).permute(0, 2, 1, 3)
        x = x + self.out(mixed.reshape(x.shape))
        inner = self.fc1(self.norm2(x))
        if self.activation == "quick_gelu":
            inner = inner * torch.sigmoid(inner)
        else:
            inner = functional.gelu(inner)
        out: Tensor = x + self.fc2(inner)
        return out

    def _by_head(self, x: Tensor, order: tuple[int, ...]) -> Tensor:
        """[n, places, width] to [n * heads, ...], with (n, places, heads, part) in `order`."""
        split = x.reshape(x.shape[0], x.shape[1], self.heads, -1).permute(order)
        return split.reshape(-1, split.shape[2], split.shape[3])


class ImageTower(nn.Module):
    """float32 [n, 3, side, side], RGB of 0..1, to float32 [n, dimension] of length 1."""

    def __init__(self, sizes: Vision) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch = nn.Linear(3 * sizes.patch**2, sizes.width)
        self.register_buffer("middle", torch.full((1, 1, 1, 1), 0.5), persistent=False)
        self.register_buffer("table", torch.zeros(1, sizes.places, sizes.width))
        self.norm = Scale(sizes.width, sizes.eps)
        self.register_buffer("gain", torch.ones(sizes.width))
        self.register_buffer("bias", torch.zeros(sizes.width))
        self.register_buffer("mean_gain", torch.ones(1, sizes.width))
        self.register_buffer("turned", None)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.register_buffer("first", torch.eye(sizes.places)[:1].clone(), persistent=False)
        self.head = Head(sizes)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of transformers' CLIPVisionModelWithProjection.

        Raises:
            KeyError: a weight is missing.
        """
        model = "vision_model"
        embeddings = f"{model}.embeddings"
        kernel = weights[f"{embeddings}.patch_embedding.weight"].double()
        std = torch.tensor(CLIP_STD, dtype=torch.float64).reshape(1, 3, 1, 1)
        mean = torch.tensor(CLIP_MEAN, dtype=torch.float64).reshape(1, 3, 1, 1)
        middle = self.get_buffer("middle").double()
        shift = (kernel * (middle - mean) / std).sum((1, 2, 3))
        _copy(self.patch, *_centred((kernel / std).flatten(1), shift))
        table = weights[f"{embeddings}.position_embedding.weight"].double().clone()
        table[0] += weights[f"{embeddings}.class_embedding"].double()
        gain = weights[f"{model}.pre_layrnorm.weight"].double()
        bias = weights[f"{model}.pre_layrnorm.bias"].double()
        with torch.no_grad():
            self.get_buffer("table").copy_(table - table.mean(1, keepdim=True))
            self.get_buffer("gain").copy_(gain)
            self.get_buffer("bias").copy_(bias - bias.mean())
            self.get_buffer("mean_gain").copy_(gain[None] / len(gain))
        for number, layer in enumerate(self.layers):
            layer.load(weights, f"{model}.encoder.layers.{number}")
        self.head.load(weights, f"{model}.post_layernorm", "visual_projection")

    def turn(self) -> None:
        """Turn the residual stream, so that int8 loses less of it: see `spread`."""
        turn = spread(self.sizes.width)
        # Its own transpose.
        self.turned = hadamard(self.sizes.width).float()
        for layer in self.layers:
            cast(Layer, layer).turn(turn)
        self.head.turn(turn)

    def round_patches(self) -> None:
        """Round the weights of the patches to the 255 values that int8 will give them.

        The error of each weight is handed to its neighbours not yet rounded, as Floyd and Steinberg
        do it with grey values, so that what remains is a fine pattern that photographs do not have.
        Rounded one by one, the errors add up wherever a picture is plain: on a photograph that
        costs more than all other matrices together.
        """
        side = self.sizes.patch
        weight = self.patch.weight.detach()
        step = (weight.abs().amax(1) / 127)[:, None, None, None]
        exact = weight.reshape(-1, 3, side, side) / step
        left, rounded = exact.clone(), torch.zeros_like(exact)
        for y in range(side):
            ahead = 1 if y % 2 == 0 else -1
            for x in range(side)[::ahead]:
                # The largest weight of a row gives the step and has to stay.
                largest = exact[:, :, y, x].abs() > 127 - 1e-3
                value = torch.where(largest, exact[:, :, y, x], left[:, :, y, x])
                rounded[:, :, y, x] = value.round().clamp(-127, 127)
                shares = [
                    (at, share)
                    for *at, share in (
                        (y, x + ahead, 7),
                        (y + 1, x - ahead, 3),
                        (y + 1, x, 5),
                        (y + 1, x + ahead, 1),
                    )
                    if at[0] < side and 0 <= at[1] < side
                ]
                error = value - rounded[:, :, y, x]
                for at, share in shares:
                    left[:, :, at[0], at[1]] += error * share / sum(part for _, part in shares)
        _copy(self.patch, (rounded * step).reshape(weight.shape), self.patch.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        patch, count = self.sizes.patch, self.sizes.side // self.sizes.patch
        # Grey is zero, so that the range of a plain patch, which always has zero in it, is small.
        x = x - self.get_buffer("middle")
        x = x.reshape(-1, 3, count, patch, count, patch).permute(0, 2, 4, 1, 3, 5)
        x = self.patch(x.reshape(-1, count * count, 3 * patch * patch))
        x = self.norm(functional.pad(x, (0, 0, 1, 0)) + self.get_buffer("table"))
        # The one norm that writes into the residual stream: its gain takes the mean from zero.
        mean = functional.linear(x, self.get_buffer("mean_gain"))
        x = x * self.get_buffer("gain") - mean + self.get_buffer("bias")
        if self.turned is not None:
            # In float32: here, before the turn, int8 would lose most.
            places, width = self.sizes.places, self.sizes.width
            parts = x.reshape(-1, places * width // len(self.turned), len(self.turned))
            x = functional.linear(parts, self.turned).reshape(-1, places, width)
        for layer in self.layers[:-1]:
            x = layer(x)
        x = self.layers[-1](x, pick=self._first)
        vectors: Tensor = self.head(x.reshape(-1, self.sizes.width))
        return vectors

    def _first(self, x: Tensor) -> Tensor:
        return functional.linear(x.permute(0, 2, 1), self.get_buffer("first")).permute(0, 2, 1)


class TextTower(nn.Module):
    """int64 token ids [1, n] and their mask [1, n], 1 or 0, to float32 [1, dimension] of length 1.

    The mask's ones are the text; what comes after them has no influence.
    """

    def __init__(self, sizes: Text) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("tokens", torch.zeros(sizes.vocabulary, sizes.width))
        self.register_buffer("positions", torch.zeros(sizes.max_tokens, sizes.width))
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.head = Head(sizes)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of transformers' CLIPTextModelWithProjection.

        Raises:
            KeyError: a weight is missing.
        """
        model = "text_model"
        with torch.no_grad():
            for name, buffer in (("token", "tokens"), ("position", "positions")):
                table = weights[f"{model}.embeddings.{name}_embedding.weight"].double()
                self.get_buffer(buffer).copy_(table - table.mean(1, keepdim=True))
        for number, layer in enumerate(self.layers):
            layer.load(weights, f"{model}.encoder.layers.{number}")
        self.head.load(weights, f"{model}.final_layer_norm", "text_projection")

    def turn(self) -> None:
        """Turn the residual stream, so that int8 loses less of it: see `spread`."""
        turn = spread(self.sizes.width)
        with torch.no_grad():
            for name in ("tokens", "positions"):
                self.get_buffer(name).copy_(self.get_buffer(name).double() @ turn)
        for layer in self.layers:
            cast(Layer, layer).turn(turn)
        self.head.turn(turn)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        # In numbers and not in slices of tables, which may not be longer than the text here.
        places = torch.arange(ids.shape[1])
        end = ids.argmax(1) if self.sizes.end is None else (ids == self.sizes.end).long().argmax(1)
        one = (places == end).float().reshape(1, 1, -1)
        later = (places > places.reshape(-1, 1)).float()[None]
        absent = (1 - mask).float()[:, None]
        x = functional.embedding(ids, self.get_buffer("tokens"))
        x = x + functional.embedding(places, self.get_buffer("positions"))
        hidden = (later + absent) * MASKED
        for layer in self.layers[:-1]:
            x = layer(x, mask=hidden)
        hidden = torch.bmm(one, hidden)
        x = self.layers[-1](x, mask=hidden, pick=lambda places: torch.bmm(one, places))
        vectors: Tensor = self.head(x.reshape(1, self.sizes.width))
        return vectors


class Head(nn.Module):
    """The last norm, the projection into the common space, and the division by the length."""

    def __init__(self, sizes: Transformer) -> None:
        super().__init__()
        self.norm = Scale(sizes.width, sizes.eps)
        self.projection = nn.Linear(sizes.width, sizes.dimension)
        self.register_buffer("ones", torch.ones(1, sizes.dimension), persistent=False)

    def load(self, weights: Mapping[str, Tensor], norm: str, projection: str) -> None:
        """Take over transformers' weights of these two names."""
        matrix = weights[f"{projection}.weight"].double()
        _copy(self.projection, *_after(weights, norm, matrix, matrix.new_zeros(len(matrix))))

    def turn(self, turn: Tensor) -> None:
        """Read from a residual stream that was turned: see `spread`."""
        _copy(
            self.projection, self.projection.weight.double() @ turn, self.projection.bias.double()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection(self.norm(x))
        return x * torch.rsqrt(functional.linear(x * x, self.get_buffer("ones")))


# Folding is done in float64, so that it costs no more than the rounding of the result.


def hadamard(size: int) -> Tensor:
    """Hadamard's matrix of up to 64 rows, as many as divide `size`, orthogonal, float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    while len(matrix) < SPREAD and size % (2 * len(matrix)) == 0:
        matrix = torch.kron(matrix, pair)
    return matrix


def spread(size: int) -> Tensor:
    """An orthogonal matrix, float64 [size, size], that spreads each feature over many others.

    CLIP's residual stream has a few features that are many times as large as the others. Rounded
    to int8 with them, the others lose what they say. A norm without a gain does not see a turn, so
    that the stream can be turned for good by turning the matrices that write and read it; then all
    features are of like size (Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated
    LLMs", 2024).
    """
    part = hadamard(size)
    return torch.block_diag(*[part] * (size // len(part)))


def _linear(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()


def _after(
    weights: Mapping[str, Tensor], norm: str, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """A linear layer with the gain and bias of the norm before it."""
    gain, shift = _linear(weights, norm)
    return weight * gain, bias + weight @ shift


def _centred(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer without the mean of what it gave."""
    return weight - weight.mean(0), bias - bias.mean()


def _copy(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
