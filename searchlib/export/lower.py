"""A torch model to an ExecuTorch program for the CPU."""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]


def lower(
    model: nn.Module,
    *example: Tensor,
    precision: Precision,
    dynamic: tuple[int, int] | None = None,
) -> bytes:
    """Export a model with XNNPACK and return the bytes of its .pte file.

    Args:
        model: takes these tensors and gives one float32 tensor.
        example: an input each, of the shape that the program will take.
        precision: "int8" quantises the linear layers, weights per channel and activations per
            token as they come (dynamic), and leaves convolutions, attention and norms in float32.
        dynamic: a dimension of all inputs and its largest size, where that dimension may have any
            size from 1 on; in the examples it is 2 or more. Of the shapes inside the model, none
            may depend on it in two dimensions.
    """
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    # The same tensor given twice would become one input.
    example = tuple(tensor.clone() for tensor in example)
    shapes = None
    if dynamic is not None:
        size = torch.export.Dim("size", min=1, max=dynamic[1])
        # One entry for all arguments of a forward(*example).
        shapes = tuple({dynamic[0]: size} for _ in example)
    with warnings.catch_warnings():
        # The exporter's own use of deprecated torch calls.
        warnings.simplefilter("ignore")
        program = torch.export.export(model.eval(), example, dynamic_shapes=shapes)
        if precision == "int8":
            graph = _quantised(program.module(), example)
            program = torch.export.export(graph, example, dynamic_shapes=shapes)
        edge = to_edge_transform_and_lower(
            program,
            transform_passes=None if dynamic is None else [_infer_sizes],
            partitioner=[_partitioner(whole=dynamic is not None)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    calls = [n for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    delegates = sum("executorch_call_delegate" in str(n.target) for n in calls)
    left = sorted({str(n.target) for n in calls if "aten" in str(n.target)})
    logger.info("%d delegates; operators outside them: %s", delegates, ", ".join(left) or "none")
    buffer: bytes = edge.to_executorch().buffer
    return buffer


def _quantised(graph: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
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
    prepared(*example)
    quantised: nn.Module = convert_pt2e(prepared)
    return quantised


def _infer_sizes(graph: Any) -> Any:
    """Let reshapes infer the size that is not fixed: XNNPACK takes no computed ones."""
    from torch.fx.passes.infra.pass_base import PassResult

    for node in graph.graph.nodes:
        if node.op == "call_function" and "view_copy" in str(node.target):
            shape = list(node.meta["val"].shape)
            if sum(not isinstance(size, int) for size in shape) == 1:
                node.args = (
                    node.args[0],
                    [size if isinstance(size, int) else -1 for size in shape],
                )
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return PassResult(graph, True)


def _partitioner(*, whole: bool) -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from torch.fx.passes.infra.partitioner import Partition

    class Whole(XnnpackPartitioner):
        """Makes one partition of all that XNNPACK takes, where that is possible.

        The partitioner merges step by step and gives up at every layer of a transformer, though
        nothing lies in between.
        """

        def generate_partitions(self, program: Any) -> list[Partition]:
            groups = self.get_matched_nodes_from_configs(program)
            taken = {node for group in groups for node in group}
            after = set(taken)
            for node in program.graph.nodes:
                if node.op == "call_function" and not after.isdisjoint(node.all_input_nodes):
                    if node in taken and not (after - taken).isdisjoint(node.all_input_nodes):
                        return list(super().generate_partitions(program))
                    after.add(node)
            nodes = [node for node in program.graph.nodes if node in taken]
            return [Partition(id=0, nodes=nodes)]

    return Whole() if whole else XnnpackPartitioner()
