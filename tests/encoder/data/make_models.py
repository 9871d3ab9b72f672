"""Write the small .pte programs that the tests of the engine run; needs torch and torchao.

    python tests/encoder/data/make_models.py

The weights are simple ramps, so that the tests can say with numpy what each model must answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import executorch.kernels.quantized  # noqa: F401  (registers the out variants)
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import Dim, export
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

HERE = Path(__file__).parent


class Linear(nn.Module):
    """relu(x @ weight.T + bias)"""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        with torch.no_grad():
            self.linear.weight.copy_((torch.arange(24.0).reshape(4, 6) - 12) / 8)
            self.linear.bias.copy_(torch.arange(4.0) / 4 - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class Lookup(nn.Module):
    """The mean of the rows that the ids name, of those that the mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 3)
        with torch.no_grad():
            self.table.weight.copy_(torch.arange(30.0).reshape(10, 3) / 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows = self.table(ids) * mask.unsqueeze(-1)
        return rows.sum(1) / mask.sum(1, keepdim=True)


class Pair(nn.Module):
    """The sum and the product of two arrays, as two outputs."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, a * b


class Logarithm(nn.Module):
    """log(x): NaN below zero, -inf at zero; long enough to be shared among threads."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Picture(nn.Module):
    """An image model that the tests can follow: the means of four quarters, mixed."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken
        self.linear = nn.Linear(12, 512)
        with torch.no_grad():
            self.linear.weight.copy_(torch.sin(torch.arange(512.0 * 12) ** 1.5).reshape(512, 12))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(x, 112).reshape(-1, 12)
        out: Tensor = self.linear(means)
        return torch.sqrt(-1 - out * out) if self.broken else out


class Words(nn.Module):
    """A text model that the tests can follow: the mean of a row for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 512)
        with torch.no_grad():
            self.table.weight.copy_(torch.sin(torch.arange(32.0 * 512) ** 1.5).reshape(32, 512))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows = self.table(ids) * mask.unsqueeze(-1)
        return rows.sum(1) / mask.sum(1, keepdim=True)


def write(name: str, program: Any, *, lower: bool = True) -> None:
    """Lower an exported program to XNNPACK (or to the portable operators alone) and save it."""
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()] if lower else [])
    buffer = edge.to_executorch().buffer
    (HERE / name).write_bytes(buffer)
    print(f"{name}: {len(buffer)} bytes")  # noqa: T201


def quantized_linear() -> Any:
    """Linear with int8 weights and dynamically quantized input, as PT2E writes it."""
    example = (torch.linspace(-1, 1, 18).reshape(3, 6),)
    quantizer = XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    )
    prepared = prepare_pt2e(export(Linear().eval(), example).module(), quantizer)
    prepared(*example)
    return export(convert_pt2e(prepared), example)


def main() -> None:
    torch.manual_seed(0)
    rows = {0: Dim("n", min=1, max=8)}
    tokens = {1: Dim("tokens", min=1, max=7)}
    # Examples are distinct tensors: torch.export takes one tensor given twice for one input.
    ids, mask = torch.arange(5).reshape(1, 5), torch.ones(1, 5, dtype=torch.int64)
    write("linear.pte", export(Linear().eval(), (torch.zeros(3, 6),), dynamic_shapes=(rows,)))
    write("lookup.pte", export(Lookup().eval(), (ids, mask), dynamic_shapes=(tokens, tokens)))
    write("pair.pte", export(Pair().eval(), (torch.zeros(2, 3), torch.ones(2, 3))))
    length = {0: Dim("length", min=1, max=65536)}
    write("logarithm.pte", export(Logarithm().eval(), (torch.ones(4),), dynamic_shapes=(length,)))
    # One input of the real shape and two, so that the tests need no batch of real pictures.
    one, two = torch.zeros(1, 3, 224, 224), torch.zeros(2, 3, 224, 224)
    write("picture.pte", export(Picture().eval(), (one,)))
    write("nan_picture.pte", export(Picture(broken=True).eval(), (one,)))
    batch = {0: Dim("n", min=1, max=4)}
    write("pictures.pte", export(Picture().eval(), (two,), dynamic_shapes=(batch,)))
    ids, mask = torch.arange(5).reshape(1, 5), torch.ones(1, 5, dtype=torch.int64)
    tokens = {1: Dim("tokens", min=1, max=16)}
    write("words.pte", export(Words().eval(), (ids, mask), dynamic_shapes=(tokens, tokens)))
    # Not lowered: what XNNPACK does not take must run on the quantized kernels.
    write("quantized.pte", quantized_linear(), lower=False)


if __name__ == "__main__":
    main()
