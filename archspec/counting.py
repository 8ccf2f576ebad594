"""Counting by tracing: every operation that runs is looked up here, and one that is in no table is an error.

Convention: `macs` are the multiply-accumulates of convolutions, linears and matrix products (attention included,
whatever kernel runs it), without biases. `ops` adds, per element, what fvcore counts besides: batch norm 2 (in
evaluation), layer and group norm 5, each one less without a weight; adaptive mean pooling 1 (per input element; to a
single value it is a plain mean, and free); resizing and grid sampling 4, by nearest neighbours 1 (per output element).
What moves, compares or combines elements counts nothing.

`activations` are the elements that the operations with multiply-accumulates put out, as fvcore and RegNet's authors
count them (Radosavovic et al. 2020, section 3.2); fused attention puts out its result, and no matrix of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from archspec.errors import CountError, PluginError
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
    aten._scaled_dot_product_attention_math_for_mps: _attention,
}


def _per_output(times: int) -> Formula:
    return lambda args, out: times * (out[0] if isinstance(out, tuple) else out).numel()


def _norm(weight: int, plain: int = 4) -> Formula:
    """Per element `plain` and, where there is an argument number `weight` to scale by, one more."""
    return lambda args, out: (plain + (args[weight] is not None)) * args[0].numel()


def _batch_norm(args: tuple[Any, ...], out: Any) -> int:
    return _norm(1, 4 if args[5] else 1)(args, out)  # in evaluation the mean and the deviation are there already


OTHER_OPS: dict[Any, Formula] = {
    aten.native_layer_norm: _norm(2),
    aten.native_group_norm: _norm(1),
    aten.native_batch_norm: _batch_norm,
    aten.cudnn_batch_norm: _batch_norm,
    aten._native_batch_norm_legit: lambda args, out: _norm(1, 4 if args[-3] else 1)(args, out),
    aten._native_batch_norm_legit_no_training: _norm(1, 1),
    aten._batch_norm_with_update: _norm(1),
    aten._batch_norm_no_update: _norm(1, 1),
    aten._adaptive_avg_pool2d: lambda args, out: args[0].numel(),
    aten.upsample_nearest2d: _per_output(1),
    aten._upsample_nearest_exact2d: _per_output(1),
    aten.upsample_bilinear2d: _per_output(4),
    aten._upsample_bilinear2d_aa: _per_output(4),
    aten.upsample_bicubic2d: _per_output(4),
    aten._upsample_bicubic2d_aa: _per_output(4),
    aten.grid_sampler_2d: _per_output(4),
}

# What counts nothing, by the reason; besides, every operation that torch marks as a view or as pointwise is free.
FREE_NAMES = {
    "moves elements": """
        _to_copy _unsafe_view as_strided_ cat channel_shuffle col2im constant_pad_nd copy copy_ detach_ embedding flip
        gather im2col index index_put index_put_ _index_put_impl_ index_select lift_fresh_copy masked_fill_
        masked_scatter pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d repeat replication_pad1d
        replication_pad2d roll rot90 scatter scatter_ select_scatter slice_scatter squeeze_ stack t_ take transpose_
        tril triu unsafe_split unsafe_split_with_sizes unsqueeze_
    """,
    "creates elements": """
        arange empty empty_like empty_strided eye fill fill_ full full_like linspace new_empty new_empty_strided
        new_full new_ones new_zeros ones ones_like scalar_tensor tril_indices triu_indices zero zero_ zeros zeros_like
    """,
    "compares elements": """
        all amax amin aminmax any argmax argmin bucketize cummax cummin kthvalue max max_pool2d_with_indices median min
        searchsorted sort topk
    """,
    "combines elements, without products of matrices": """
        _log_softmax _prelu_kernel _safe_softmax _softmax avg_pool2d cumprod cumsum floor_divide glu hardswish
        hardswish_ index_add index_add_ linalg_vector_norm log_sigmoid_forward logsumexp mean norm prod scatter_add
        scatter_add_ scatter_reduce std std_mean sum var var_mean
    """,
    "draws random elements": """
        bernoulli bernoulli_ exponential exponential_ native_dropout normal_ rand rand_like randint randn randn_like
        randperm uniform uniform_
    """,
    "speaks of types, not of elements": "promote_types result_type",
}
FREE: set[Any] = {
    getattr(aten, name) for names in FREE_NAMES.values() for name in names.split() if hasattr(aten, name)
}  # a later torch may have dropped one


_formula_modules: list[str] = []  # of declared ones, in the order of their declaration


def is_free(func: Any) -> bool:
    """Whether an operation (an overload, as a dispatch mode sees it) counts nothing."""
    return func.overloadpacket in FREE or func.is_view or torch.Tag.pointwise in func.tags


def register_formula(operation: Any, macs: Formula) -> None:
    """Declare what an operation of a plugin costs: `macs(args, output)`, for one call.

    operation: such as `torch.ops.my_library.my_operation`. Raises PluginError for anything else.
    """
    packet = getattr(operation, "overloadpacket", operation)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        raise PluginError(f"{operation!r} is no operation of torch's; give such as torch.ops.my_library.my_operation")
    MACS[packet] = macs
    _formula_modules.append(macs.__module__)


def formula_modules() -> tuple[str, ...]:
    """The modules of the formulas that were declared so far, in order; costs are remembered by it."""
    return tuple(_formula_modules)


class Counter(Mode):
    """Counts whatever runs inside `with Counter() as counter:`. Raises CountError for an unknown operation."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.other_ops = 0
        self.activations = 0  # elements that convolutions, linears and matrix products put out

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = func.overloadpacket
        macs, other_ops = MACS.get(operation), OTHER_OPS.get(operation)
        if macs is None and other_ops is None and not is_free(func):
            return self._parts(func, args, kwargs)
        out = func(*args, **kwargs)
        if macs:
            self.macs += macs(args, out)
            self.activations += (out[0] if isinstance(out, tuple) else out).numel()
        self.other_ops += other_ops(args, out) if other_ops else 0
        return out

    def _parts(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Count what an operation consists of: in inference mode a linear, say, arrives here in one piece."""
        with self:
            out = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            raise CountError(
                f"the operation {func.overloadpacket} is neither counted nor known to be free; "
                "declare it with archspec.counting.register_formula(operation, macs)"
            )
        return out


class FusedAttention(TorchFunctionMode):
    """Inside, attention puts out its result and no matrix of pairs, on the meta device too, where it is split up."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.counter.activations
        out = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            self.counter.activations = before + out.numel()
        return out
