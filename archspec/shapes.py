"""Shapes on the meta device, without waiting for a compiler.

Without weights a network is checked and counted on torch's meta device. There torch works out most results in Python,
and the first of them imports sympy and torch's compiler: a second or more, many times what a plan takes. `Shapes`
answers the common operations itself. The rest, and whatever looks wrong, it leaves to torch, which is slower but knows.

Element by element a result follows from a *twin*: the operation runs on small CPU tensors, of size 1 or 2 where the real
ones are larger, that lie in memory in the same order; that gives the result's type and order. Other operations have a
rule below. Either way the result has the shape, the type and the order in memory that torch's own answer has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Sizes: TypeAlias = Sequence[int]
Rule: TypeAlias = Callable[..., Any]
aten = torch.ops.aten

# Answered by twins although torch does not call them pointwise: the result is as large as the first tensor.
SAME_SIZE = {
    aten.floor_divide.default,
    aten.hardswish.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.cumsum.default,
    aten.sort.default,
    aten.sort.stable,
    aten.flip.default,
    aten.roll.default,
}
# On CPUs these start threads, which may take longer than all the rest; another one has the same results' shape and type.
STAND_IN = {aten.gelu.default: aten.silu.default}
# torch answers these in C++; copies among them would lose track of where they copy to.
LEFT_TO_TORCH = {aten.clone.default, aten._to_copy.default, aten.copy_.default, aten.fill_.Scalar}

EXACT = (torch.float32, torch.float64)  # of lower precision some results have another type


class Mode(TorchDispatchMode):
    """A dispatch mode that does not import the compiler, which torch otherwise does to keep it out of the mode."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Shapes(Mode):
    """Inside `with Shapes():`, meta tensors get their results from the rules of this module."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = _answer(func, args, kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules made and run inside have shapes but no memory."""
    with torch.device("meta"), Shapes():
        yield


def _answer(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    tensors = [x for arg in (*args, *kwargs.values()) for x in _tensors(arg)]
    if func in LEFT_TO_TORCH or not any(x.is_meta for x in tensors):
        return NotImplemented
    if any(x.dim() and not x.is_meta for x in tensors):
        return NotImplemented  # only a single CPU number may be among meta tensors
    if func in RULES:
        return RULES[func](**_named(func, args, kwargs))
    random, pointwise, in_place = _traits(func)
    if in_place:
        fits = _broadcast(tensors) == args[0].shape and all(x.dtype == args[0].dtype for x in tensors)
        return args[0] if fits else NotImplemented
    if random or not (pointwise or func in SAME_SIZE):
        return NotImplemented  # a random twin would move the CPU's generator on
    if func in STAND_IN:
        func, kwargs = STAND_IN[func], {}
    return _from_twins(func, args, kwargs, _broadcast(tensors))


def _tensors(arg: Any) -> Iterator[Tensor]:
    if isinstance(arg, Tensor):
        yield arg
    elif isinstance(arg, list | tuple):
        yield from (x for x in arg if isinstance(x, Tensor))


@cache
def _traits(func: Any) -> tuple[bool, bool, bool]:
    """(draws random numbers, works element by element, does either in place)."""
    random, pointwise = (tag in func.tags for tag in (torch.Tag.nondeterministic_seeded, torch.Tag.pointwise))
    writes = func._schema.is_mutable
    in_place = writes and (random or pointwise) and func.overloadpacket.__name__.endswith("_")
    return random, pointwise and not writes, in_place


@cache
def _parameters(func: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((parameter.name, parameter.default_value) for parameter in func._schema.arguments)


def _named(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name."""
    parameters = _parameters(func)
    given = {name: arg for (name, _), arg in zip(parameters, args, strict=False)}
    return {**dict(parameters), **given, **kwargs}


def _broadcast(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """The shape of all together, or None."""
    sizes = [1] * max(x.dim() for x in tensors)
    for x in tensors:
        for dim in range(-x.dim(), 0):
            if x.shape[dim] != 1:
                if sizes[dim] not in (1, x.shape[dim]):
                    return None
                sizes[dim] = x.shape[dim]
    return tuple(sizes)


def _from_twins(func: Any, args: Sequence[Any], kwargs: dict[str, Any], sizes: tuple[int, ...] | None) -> Any:
    if sizes is None:
        return NotImplemented
    named = {name: _twin(arg) if isinstance(arg, Tensor) else arg for name, arg in kwargs.items()}
    named = {name: torch.device("cpu") if isinstance(arg, torch.device) else arg for name, arg in named.items()}
    twin = func(*(_twin(arg) if isinstance(arg, Tensor) else arg for arg in args), **named)
    twins = twin if isinstance(twin, tuple) else (twin,)
    if any(x.shape != _small(sizes) for x in twins):
        return NotImplemented
    results = tuple(torch.empty_strided(sizes, _strides(sizes, x), dtype=x.dtype, device="meta") for x in twins)
    return results if isinstance(twin, tuple) else results[0]


def _twin(x: Tensor) -> Tensor:
    """A small CPU tensor whose dimensions lie in memory in the order of those of `x`; expanded ones stay expanded."""
    if not x.is_meta:
        return x
    sizes = _small(x.shape)
    strides = [stride if x.stride(dim) else 0 for dim, stride in enumerate(_strides(sizes, x))]
    twin = torch.empty_strided(sizes, strides, dtype=x.dtype, device="cpu")
    return twin.fill_(1)  # no operation objects to a one


def _small(sizes: Sizes) -> tuple[int, ...]:
    return tuple(min(size, 2) for size in sizes)


def _strides(sizes: Sizes, like: Tensor) -> list[int]:
    """Strides of a tensor without gaps, its dimensions in the order of those of `like`."""
    strides, step = [0] * len(sizes), 1
    # Of equal strides that of size 1 is the inner one, since it multiplies what is outside by 1.
    for dim in sorted(range(len(sizes)), key=lambda dim: (like.stride(dim), like.shape[dim] != 1, -dim)):
        strides[dim] = step
        step *= max(sizes[dim], 1)
    return strides


def _new(like: Tensor, sizes: Sizes, *, dtype: torch.dtype | None = None, format_of: Tensor | None = None) -> Tensor:
    """A contiguous result; or channels-last, where the map `format_of` is."""
    order = torch.contiguous_format
    if format_of is not None and _is_channels_last(format_of):
        order = torch.channels_last
    return torch.empty(sizes, dtype=dtype or like.dtype, device="meta", memory_format=order)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _mm(self: Tensor, mat2: Tensor) -> Any:
    if self.dtype != mat2.dtype or self.shape[1] != mat2.shape[0]:
        return NotImplemented
    return _new(self, (self.shape[0], mat2.shape[1]))


def _mv(self: Tensor, vec: Tensor) -> Any:
    fits = self.dtype == vec.dtype and self.shape[1] == vec.shape[0]
    return _new(self, self.shape[:1]) if fits else NotImplemented


def _addmm(self: Tensor, mat1: Tensor, mat2: Tensor, beta: Any, alpha: Any) -> Any:
    out = _mm(mat1, mat2)
    return out if out is NotImplemented or _broadcast([self, out]) == out.shape else NotImplemented


def _bmm(self: Tensor, mat2: Tensor) -> Any:
    if self.dtype != mat2.dtype or (self.shape[0], self.shape[2]) != tuple(mat2.shape[:2]):
        return NotImplemented
    return _new(self, (*self.shape[:2], mat2.shape[2]))


def _baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, beta: Any, alpha: Any) -> Any:
    out = _bmm(batch1, batch2)
    return out if out is NotImplemented or _broadcast([self, out]) == out.shape else NotImplemented


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
    spatial = input.dim() - 2
    if transposed or weight.shape[1] * groups != input.shape[1] or not spatial == len(stride) == len(padding):
        return NotImplemented
    kernel = weight.shape[2:]
    sizes = [_windows(*of, False) for of in zip(input.shape[2:], kernel, stride, padding, dilation, strict=True)]
    return _new(input, (input.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else NotImplemented


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """How many positions a kernel has along one axis."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count  # none may start in the padding


def _max_pool(self: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Any:
    sizes = _pooled(self, kernel_size, stride, padding, dilation, ceil_mode)
    return _new(self, sizes, format_of=self), _new(self, sizes, dtype=torch.int64, format_of=self)


def _avg_pool(self: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, **_: Any) -> Any:
    return _new(self, _pooled(self, kernel_size, stride, padding, (1,), ceil_mode), format_of=self)


def _pooled(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool) -> Sizes:
    of = zip(x.shape[-2:], *(_pair(option) for option in (kernel, stride or kernel, padding, dilation)), strict=True)
    return (*x.shape[:-2], *(_windows(*along, ceil) for along in of))


def _pair(option: Sizes) -> Sizes:
    return option if len(option) == 2 else (option[0], option[0])


def _adaptive_pool(self: Tensor, output_size: Sizes) -> Any:
    return _new(self, (*self.shape[:-2], *output_size), format_of=self)


def _resized(self: Tensor, output_size: Sizes, **_: Any) -> Any:
    return _new(self, (*self.shape[:2], *output_size), format_of=self)


def _sampled(input: Tensor, grid: Tensor, **_: Any) -> Any:
    return _new(input, (*input.shape[:2], *grid.shape[1:3]), format_of=input)


def _softmax(self: Tensor, half_to_float: bool = False, **options: Any) -> Any:
    plain = not half_to_float and options.get("dtype") is None and self.dtype.is_floating_point
    return _new(self, self.shape) if plain else NotImplemented


def _layer_norm(input: Tensor, normalized_shape: Sizes, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
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
    figures = (input.shape[1],)
    return _new(input, input.shape, format_of=input), _new(input, figures), _new(input, figures)


def _cat(tensors: Sequence[Tensor], dim: int) -> Any:
    first, *others = tensors
    dim %= first.dim()
    fits = all(
        x.dtype == first.dtype and x.shape[:dim] == first.shape[:dim] and x.shape[dim + 1 :] == first.shape[dim + 1 :]
        for x in others
    )
    if not fits:
        return NotImplemented
    sizes = (*first.shape[:dim], sum(x.shape[dim] for x in tensors), *first.shape[dim + 1 :])
    return _new(first, sizes, format_of=first if all(_is_channels_last(x) for x in others) else None)


def _stack(tensors: Sequence[Tensor], dim: int) -> Any:
    first = tensors[0]
    dim %= first.dim() + 1
    if any(x.shape != first.shape or x.dtype != first.dtype for x in tensors):
        return NotImplemented
    return _new(first, (*first.shape[:dim], len(tensors), *first.shape[dim:]))


def _repeat(self: Tensor, repeats: Sizes) -> Any:
    sizes = (*(1 for _ in range(len(repeats) - self.dim())), *self.shape)
    return _new(self, [size * times for size, times in zip(sizes, repeats, strict=True)])


def _gather(self: Tensor, dim: int, index: Tensor, sparse_grad: bool) -> Any:
    return _new(self, index.shape)


def _like(self: Tensor, **_: Any) -> Any:
    return _new(self, self.shape)


def _index(self: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """One index of integers, or several along the first dimensions."""
    given = [x for x in indices if x is not None]
    first = next(dim for dim, x in enumerate(indices) if x is not None)
    sizes = _broadcast(given)
    if sizes is None or any(x.dtype == torch.bool for x in given) or any(x is None for x in indices[first:]):
        return NotImplemented
    return _new(self, (*self.shape[:first], *sizes, *self.shape[len(indices) :]))


def _topk(self: Tensor, k: int, dim: int, **_: Any) -> Any:
    dim %= self.dim()
    sizes = (*self.shape[:dim], k, *self.shape[dim + 1 :])
    return _new(self, sizes), _new(self, sizes, dtype=torch.int64)


def _reduced(*dtypes: torch.dtype | None) -> Rule:
    """A rule for what becomes one figure along some dimensions; `dtypes` of the results, None for that of the input."""

    def rule(self: Tensor, dim: int | Sizes | None = None, keepdim: bool = False, **options: Any) -> Any:
        if not self.dtype.is_floating_point or options.get("dtype") not in (None, self.dtype):
            return NotImplemented
        along = [dim] if isinstance(dim, int) else dim or range(self.dim())
        gone = {axis % self.dim() for axis in along} if self.dim() else set()
        sizes = [1 if axis in gone else n for axis, n in enumerate(self.shape) if keepdim or axis not in gone]
        results = tuple(_new(self, sizes, dtype=dtype) for dtype in dtypes)
        return results if len(results) > 1 else results[0]

    return rule


RULES: dict[Any, Rule] = {
    aten.mm.default: _mm,
    aten.mv.default: _mv,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
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
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten.upsample_nearest2d.default: _resized,
    aten.upsample_bilinear2d.default: _resized,
    aten.upsample_bicubic2d.default: _resized,
    aten.grid_sampler_2d.default: _sampled,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.repeat.default: _repeat,
    aten.gather.default: _gather,
    aten.scatter.value: _like,
    aten.scatter.src: _like,
    aten.scatter_add.default: _like,
    aten.tril.default: _like,
    aten.triu.default: _like,
    aten.index.Tensor: _index,
    aten.topk.default: _topk,
    aten.mean.default: _reduced(None),
    aten.mean.dim: _reduced(None),
    aten.sum.default: _reduced(None),
    aten.sum.dim_IntList: _reduced(None),
    aten.amax.default: _reduced(None),
    aten.amin.default: _reduced(None),
    aten.max.dim: _reduced(None, torch.int64),
    aten.min.dim: _reduced(None, torch.int64),
    aten.argmax.default: _reduced(torch.int64),
    aten.argmin.default: _reduced(torch.int64),
    aten.var.correction: _reduced(None),
    aten.std.correction: _reduced(None),
    aten.var_mean.correction: _reduced(None, None),
    aten.std_mean.correction: _reduced(None, None),
    aten.logsumexp.default: _reduced(None),
    aten.linalg_vector_norm.default: _reduced(None),
}
