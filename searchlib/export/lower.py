"""A torch model to an ExecuTorch program for the CPU."""

from __future__ import annotations

import logging
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]


def lower(model: nn.Module, example: Tensor, *, precision: Precision) -> bytes:
    """Export a model with XNNPACK and return the bytes of its .pte file.

    Args:
        model: takes and gives one float32 tensor.
        example: an input of the shape that the program will take.
        precision: "int8" quantises the linear layers, weights per channel and activations per
            token as they come (dynamic), and leaves convolutions, attention and norms in float32.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    with warnings.catch_warnings():
        # The exporter's own use of deprecated torch calls.
        warnings.simplefilter("ignore")
        program = torch.export.export(model.eval(), (example,))
        if precision == "int8":
            program = torch.export.export(_quantised(program.module(), example), (example,))
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    calls = [n for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    delegates = sum("executorch_call_delegate" in str(n.target) for n in calls)
    left = sorted({str(n.target) for n in calls if "aten" in str(n.target)})
    logger.info("%d delegates; operators outside them: %s", delegates, ", ".join(left) or "none")
    buffer: bytes = edge.to_executorch().buffer
    return buffer


def _quantised(graph: nn.Module, example: Tensor) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    # By module type, so that the constant products inside the layer norms stay exact.
    quantizer = XNNPACKQuantizer().set_module_type(
        nn.Linear, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    )
    prepared = prepare_pt2e(graph, quantizer)
    prepared(example)
    quantised: nn.Module = convert_pt2e(prepared)
    return quantised
