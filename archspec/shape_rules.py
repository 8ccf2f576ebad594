"""What operations give on the meta device, for those that do not work element by element; `shapes` says why.

A rule takes an operation's arguments by their names in torch's schema and returns meta tensors, or NotImplemented for
arguments that it does not know or that do not fit one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

Sizes: TypeAlias = Sequence[int]
Rule: TypeAlias = Callable[..., Any]
aten = torch.ops.aten

EXACT = (torch.float32, torch.float64)  # with lower precision some figures of norms have a type of their own


def broadcast(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """The shape of tensors that work together element by element, or None where they do not fit."""
    sizes = [1] * max(x.dim() for x in tensors)
    for x in tensors:
        for dim in range(-x.dim(), 0):
            if x.shape[dim] != 1:
                if sizes[dim] not in (1, x.shape[dim]):
                    return None
                sizes[dim] = x.shape[dim]
    return tuple(sizes)


def _new(like: Tensor, sizes: Sizes, *, dtype: torch.dtype | None = None, format_of: Tensor | None = None) -> Tensor:
    """A contiguous result; channels-last where the map `format_of` is."""
    last = format_of is not None and _is_channels_last(format_of)
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(sizes, dtype=dtype or like.dtype, device="meta", memory_format=order)


def _is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a map lie innermost, its rows outside of its columns; there may be gaps."""
    if x.dim() != 4 or not x.stride(1):
        return False
    reach = 0
    for dim in (1, 3, 2, 0):
        if x.stride(dim) < reach or (dim == 0 and reach == x.stride(1)):
            return False
        reach = x.stride(dim) * max(x.shape[dim], 1)
    return True


def _at(sizes: Sizes, dim: int, size: int) -> Sizes:
    """`sizes` with another one at `dim`."""
    return (*sizes[:dim], size, *sizes[dim + 1 :])


def _has(dims: int, dim: int) -> bool:
    return -dims <= dim < dims


def _mm(self: Tensor, mat2: Tensor) -> Any:
    fits = self.dtype == mat2.dtype and self.shape[1] == mat2.shape[0]
    return _new(self, (self.shape[0], mat2.shape[1])) if fits else NotImplemented


def _mv(self: Tensor, vec: Tensor) -> Any:
    fits = self.dtype == vec.dtype and self.shape[1] == vec.shape[0]
    return _new(self, self.shape[:1]) if fits else NotImplemented


def _bmm(self: Tensor, mat2: Tensor) -> Any:
    fits = self.dtype == mat2.dtype and (self.shape[0], self.shape[2]) == tuple(mat2.shape[:2])
    return _new(self, (*self.shape[:2], mat2.shape[2])) if fits else NotImplemented


def _addmm(self: Tensor, mat1: Tensor, mat2: Tensor, **_: Any) -> Any:
    return _added(self, _mm(mat1, mat2))


def _baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, **_: Any) -> Any:
    return _added(self, _bmm(batch1, batch2))


def _added(bias: Tensor, product: Any) -> Any:
    fits = product is not NotImplemented and bias.dtype == product.dtype
    return product if fits and broadcast([bias, product]) == product.shape else NotImplemented


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Any:
    taken, given = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        taken, given = given, taken
    options = (weight.shape[2:], stride, padding, dilation, output_padding)
    fits = input.dtype == weight.dtype and input.shape[1] == taken
    if not fits or any(len(option) != input.dim() - 2 for option in options):
        return NotImplemented
    axes = zip(input.shape[2:], *options, strict=True)
    sizes = [_spread(*axis) if transposed else _positions(*axis[:5]) for axis in axes]
    return _new(input, (input.shape[0], given, *sizes)) if min(sizes) > 0 else NotImplemented


def _spread(size: int, kernel: int, stride: int, padding: int, dilation: int, more: int) -> int:
    """What a transposed convolution makes of one axis."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + more + 1


def _positions(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool = False) -> int:
    """How many positions a kernel has along one axis."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count  # none may start in the padding behind


def _max_pool(self: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Any:
    sizes = _pooled(self, kernel_size, stride, padding, dilation, ceil_mode)
    if min(sizes) < 1:
        return NotImplemented
    return _new(self, sizes, format_of=self), _new(self, sizes, dtype=torch.int64, format_of=self)


def _avg_pool(self: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, **_: Any) -> Any:
    sizes = _pooled(self, kernel_size, stride, padding, (1,), ceil_mode)
    return _new(self, sizes, format_of=self) if min(sizes) > 0 else NotImplemented


def _pooled(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool = False) -> Sizes:
    options = (_pair(option) for option in (kernel, stride or kernel, padding, dilation))
    return (*x.shape[:-2], *(_positions(*axis, ceil=ceil) for axis in zip(x.shape[-2:], *options, strict=True)))


def _pair(option: Sizes) -> Sizes:
    return option if len(option) == 2 else (option[0], option[0])


def _im2col(self: Tensor, kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> Any:
    sizes = _pooled(self, kernel_size, stride, padding, dilation)
    if self.dim() != 4 or min(sizes) < 1:
        return NotImplemented
    return _new(self, (self.shape[0], self.shape[1] * prod(_pair(kernel_size)), sizes[2] * sizes[3]))


def _col2im(self: Tensor, output_size: Sizes, kernel_size: Sizes, **_: Any) -> Any:
    if self.dim() != 3:
        return NotImplemented
    return _new(self, (self.shape[0], self.shape[1] // prod(_pair(kernel_size)), *output_size))


def _resized(self: Tensor, output_size: Sizes, **_: Any) -> Any:
    return _new(self, (*self.shape[:-2], *output_size), format_of=self)


def _sampled(input: Tensor, grid: Tensor, **_: Any) -> Any:
    return _new(input, (*input.shape[:2], *grid.shape[1:3]), format_of=input)


def _layer_norm(input: Tensor, normalized_shape: Sizes, **_: Any) -> Any:
    outer = input.dim() - len(normalized_shape)
    if tuple(input.shape[outer:]) != tuple(normalized_shape) or input.dtype not in EXACT:
        return NotImplemented
    figures = (*input.shape[:outer], *(1 for _ in normalized_shape))
    return _new(input, input.shape), _new(input, figures), _new(input, figures)


def _group_norm(input: Tensor, N: int, group: int, **_: Any) -> Any:
    if input.dtype not in EXACT:
        return NotImplemented
    return _new(input, input.shape, format_of=input), _new(input, (N, group)), _new(input, (N, group))


def _batch_norm(input: Tensor, **_: Any) -> Any:
    if input.dtype not in EXACT:
        return NotImplemented
    figures = input.shape[1:2]
    return _new(input, input.shape, format_of=input), _new(input, figures), _new(input, figures)


def _softmax(self: Tensor, half_to_float: bool = False, dtype: torch.dtype | None = None, **_: Any) -> Any:
    plain = self.dtype.is_floating_point and not half_to_float and dtype is None
    return _new(self, self.shape) if plain else NotImplemented


def _cat(tensors: Sequence[Tensor], dim: int) -> Any:
    first = tensors[0]
    if any(x.dtype != first.dtype or x.dim() != first.dim() for x in tensors) or not _has(first.dim(), dim):
        return NotImplemented
    dim %= first.dim()
    if any(_at(x.shape, dim, 0) != _at(first.shape, dim, 0) for x in tensors):
        return NotImplemented
    last = all(_is_channels_last(x) for x in tensors)
    return _new(first, _at(first.shape, dim, sum(x.shape[dim] for x in tensors)), format_of=first if last else None)


def _stack(tensors: Sequence[Tensor], dim: int) -> Any:
    first = tensors[0]
    if any(x.shape != first.shape or x.dtype != first.dtype for x in tensors) or not _has(first.dim() + 1, dim):
        return NotImplemented
    dim %= first.dim() + 1
    return _new(first, (*first.shape[:dim], len(tensors), *first.shape[dim:]))


def _repeat(self: Tensor, repeats: Sizes) -> Any:
    sizes = (*(1 for _ in range(len(repeats) - self.dim())), *self.shape)
    return _new(self, [size * times for size, times in zip(sizes, repeats, strict=True)])


def _like(self: Tensor, **_: Any) -> Any:
    return _new(self, self.shape)


def _put(self: Tensor, **_: Any) -> Any:
    return _new(self, self.shape) if self.is_contiguous() else NotImplemented


def _gather(self: Tensor, index: Tensor, **_: Any) -> Any:
    return _new(self, index.shape)


def _index(self: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Integers for neighbouring dimensions."""
    given = [x for x in indices if x is not None]
    first = next(dim for dim, x in enumerate(indices) if x is not None)
    sizes = broadcast(given)
    if sizes is None or len(given) != len(indices) - first or any(x.dtype == torch.bool for x in given):
        return NotImplemented
    return _new(self, (*self.shape[:first], *sizes, *self.shape[len(indices) :]))


def _topk(self: Tensor, k: int, dim: int, **_: Any) -> Any:
    if not _has(self.dim(), dim) or k > self.shape[dim]:
        return NotImplemented
    sizes = _at(self.shape, dim % self.dim(), k)
    return _new(self, sizes), _new(self, sizes, dtype=torch.int64)


def _reduced(*dtypes: torch.dtype | None) -> Rule:
    """A rule for figures over some dimensions; `dtypes` of the results, None for that of the input."""

    def rule(
        self: Tensor,
        dim: int | Sizes | None = None,
        keepdim: bool = False,
        dtype: torch.dtype | None = None,
        **_: Any,
    ) -> Any:
        axes = [dim] if isinstance(dim, int) else dim or range(self.dim())
        plain = self.dtype.is_floating_point and self.dim() and dtype in (None, self.dtype)
        if not plain or not all(_has(self.dim(), axis) for axis in axes):
            return NotImplemented
        over = {axis % self.dim() for axis in axes}
        sizes = [1 if axis in over else size for axis, size in enumerate(self.shape) if keepdim or axis not in over]
        results = tuple(_new(self, sizes, dtype=of) for of in dtypes)
        return results if len(results) > 1 else results[0]

    return rule


RULES: dict[Any, Rule] = {
    aten.mm.default: _mm,
    aten.mv.default: _mv,
    aten.bmm.default: _bmm,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _baddbmm,
    aten.convolution.default: _convolution,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten.native_batch_norm.default: _batch_norm,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten._safe_softmax.default: _softmax,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.im2col.default: _im2col,
    aten.col2im.default: _col2im,
    aten._adaptive_avg_pool2d.default: _resized,
    aten.upsample_nearest2d.default: _resized,
    aten.upsample_bilinear2d.default: _resized,
    aten.upsample_bicubic2d.default: _resized,
    aten._upsample_bilinear2d_aa.default: _resized,
    aten._upsample_bicubic2d_aa.default: _resized,
    aten.grid_sampler_2d.default: _sampled,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.repeat.default: _repeat,
    aten.gather.default: _gather,
    aten.index.Tensor: _index,
    aten.index_put.default: _put,
    aten.topk.default: _topk,
    **dict.fromkeys(
        [aten.scatter.value, aten.scatter.src, aten.scatter_add.default, aten.tril.default, aten.triu.default], _like
    ),
    **dict.fromkeys(
        [
            aten.mean.default,
            aten.mean.dim,
            aten.sum.default,
            aten.sum.dim_IntList,
            aten.amax.default,
            aten.amin.default,
            aten.var.correction,
            aten.std.correction,
            aten.logsumexp.default,
            aten.linalg_vector_norm.default,
        ],
        _reduced(None),
    ),
    **dict.fromkeys([aten.max.dim, aten.min.dim], _reduced(None, torch.int64)),
    **dict.fromkeys([aten.argmax.default, aten.argmin.default], _reduced(torch.int64)),
    **dict.fromkeys([aten.var_mean.correction, aten.std_mean.correction], _reduced(None, None)),
}
