"""Counting by tracing: every operation that runs is looked up here, and one that is in no table is an error.

Convention: `macs` are the multiply-accumulates of convolutions, linears and matrix products (attention included, whatever
kernel runs it), without biases. `ops` adds, per element, what fvcore counts besides: batch norm 2 (evaluation), layer and
group norm 5, adaptive mean pooling 1 (per input element), bilinear resizing and grid sampling 4 (per output element).
Everything in `FREE` moves, compares or combines elements and counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from archspec.errors import CountError
from archspec.shapes import Mode

aten = torch.ops.aten
Formula = Callable[[tuple[Any, ...], Any], int]


def _mm(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * int(args[0].shape[-1])


def _addmm(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * int(args[1].shape[-1])


def _convolution(args: tuple[Any, ...], out: Tensor) -> int:
    image, weight, transposed = args[0], args[1], bool(args[6])
    moved = image if transposed else out  # a transposed convolution spreads each input value over its kernel
    return int(moved.numel() * prod(weight.shape[1:]))


def _attention(args: tuple[Any, ...], out: Any) -> int:
    query, key, value = args[:3]
    pairs = prod(query.shape[:-1]) * int(key.shape[-2])
    return int(pairs) * (int(query.shape[-1]) + int(value.shape[-1]))


MACS: dict[Any, Formula] = {
    aten.mm: _mm,
    aten.bmm: _mm,
    aten.mv: lambda args, out: args[0].numel(),
    aten.dot: lambda args, out: args[0].numel(),
    aten.addmm: _addmm,
    aten.baddbmm: _addmm,
    aten.addmv: lambda args, out: args[1].numel(),
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}


def _per_output(times: int) -> Formula:
    return lambda args, out: times * (out[0] if isinstance(out, tuple) else out).numel()


OTHER_OPS: dict[Any, Formula] = {
    aten.native_layer_norm: _per_output(5),
    aten.native_group_norm: _per_output(5),
    aten.native_batch_norm: lambda args, out: (5 if args[5] else 2) * out[0].numel(),
    aten._native_batch_norm_legit: lambda args, out: (5 if args[5] else 2) * out[0].numel(),
    aten._native_batch_norm_legit_no_training: _per_output(2),
    aten._batch_norm_with_update: _per_output(5),
    aten._batch_norm_no_update: _per_output(2),
    aten.cudnn_batch_norm: lambda args, out: (5 if args[5] else 2) * out[0].numel(),
    aten._adaptive_avg_pool2d: lambda args, out: args[0].numel(),
    aten.upsample_nearest2d: lambda args, out: 0,
    aten.upsample_bilinear2d: _per_output(4),
    aten._upsample_bilinear2d_aa: _per_output(4),
    aten.upsample_bicubic2d: _per_output(4),
    aten._upsample_bicubic2d_aa: _per_output(4),
    aten.grid_sampler_2d: _per_output(4),
}

_FREE_NAMES = [
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "expand",
    "permute",
    "transpose",
    "t",
    "squeeze",
    "unsqueeze",
    "alias",
    "detach",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "cat",
    "stack",
    "repeat",
    "clone",
    "copy",
    "copy_",
    "_to_copy",
    "to",
    "contiguous",
    "lift_fresh",
    "lift_fresh_copy",
    "as_strided",
    "unfold",
    "narrow",
    "flip",
    "roll",
    "pad",
    "constant_pad_nd",
    "reflection_pad2d",
    "replication_pad2d",
    "pixel_shuffle",
    "pixel_unshuffle",
    "im2col",
    "col2im",
    "channel_shuffle",
    "diagonal",
    "tril",
    "triu",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "zeros",
    "zeros_like",
    "new_zeros",
    "ones",
    "ones_like",
    "new_ones",
    "full",
    "full_like",
    "new_full",
    "fill",
    "fill_",
    "zero",
    "zero_",
    "arange",
    "linspace",
    "eye",
    "scalar_tensor",
    "index",
    "index_select",
    "index_put",
    "index_put_",
    "_index_put_impl_",
    "gather",
    "take",
    "scatter",
    "scatter_",
    "scatter_add",
    "scatter_add_",
    "scatter_reduce",
    "masked_fill",
    "masked_fill_",
    "masked_scatter",
    "where",
    "sort",
    "topk",
    "argsort",
    "argmax",
    "argmin",
    "max",
    "min",
    "amax",
    "amin",
    "kthvalue",
    "cumsum",
    "bucketize",
    "searchsorted",
    "add",
    "add_",
    "sub",
    "sub_",
    "rsub",
    "mul",
    "mul_",
    "div",
    "div_",
    "neg",
    "abs",
    "sign",
    "reciprocal",
    "pow",
    "exp",
    "exp_",
    "log",
    "log_",
    "log1p",
    "expm1",
    "sqrt",
    "rsqrt",
    "square",
    "sin",
    "cos",
    "tan",
    "atan2",
    "floor",
    "ceil",
    "round",
    "remainder",
    "fmod",
    "maximum",
    "minimum",
    "clamp",
    "clamp_",
    "clamp_min",
    "clamp_min_",
    "clamp_max",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_not",
    "bitwise_and",
    "bitwise_or",
    "bitwise_not",
    "isnan",
    "isinf",
    "any",
    "all",
    "sum",
    "mean",
    "var",
    "var_mean",
    "std",
    "std_mean",
    "prod",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
    "addcmul",
    "addcdiv",
    "lerp",
    "floor_divide",
    "gelu",
    "relu",
    "relu_",
    "leaky_relu",
    "silu",
    "silu_",
    "sigmoid",
    "sigmoid_",
    "tanh",
    "softplus",
    "elu",
    "hardtanh",
    "hardtanh_",
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "mish",
    "erf",
    "_softmax",
    "_log_softmax",
    "_safe_softmax",
    "native_dropout",
    "dropout",
    "threshold",
    "max_pool2d_with_indices",
    "avg_pool2d",
    "_fused_dropout",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "randperm",
    "randint",
    "uniform",
    "uniform_",
    "normal_",
    "bernoulli",
    "bernoulli_",
    "exponential",
    "exponential_",
    "_local_scalar_dense",
    "is_same_size",
    "_assert_async",
    "sym_size",
    "sym_numel",
    "resolve_conj",
    "resolve_neg",
]
FREE: set[Any] = {getattr(aten, name) for name in _FREE_NAMES if hasattr(aten, name)}


def register_formula(operation: Any, macs: Formula) -> None:
    """Declare what an operation of a plugin costs: `macs(args, output)`, for one call.

    operation: an overload packet such as `torch.ops.my_library.my_operation`.
    """
    MACS[operation] = macs


class Counter(Mode):
    """Counts whatever runs inside `with Counter() as counter:`. Raises CountError for an unknown operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.other_ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in MACS:
            self.macs += MACS[operation](args, out)
        elif operation in OTHER_OPS:
            self.other_ops += OTHER_OPS[operation](args, out)
        elif operation not in FREE:
            raise CountError(
                f"the operation {operation} is neither counted nor known to be free; "
                "declare it with archspec.counting.register_formula(operation, macs)"
            )
        return out


def trace(module: nn.Module, *inputs: Any) -> tuple[int, int]:
    """(macs, other ops) of one call of `module`, without gradients."""
    with torch.no_grad(), Counter() as counter:
        module(*inputs)
    return counter.macs, counter.other_ops
