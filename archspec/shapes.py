"""Shapes on the meta device, without waiting for a compiler.

Without weights a network is checked and counted on torch's meta device. There torch works out most results in Python,
and the first of them imports sympy and torch's compiler: a second or more, many times what a plan takes. `Shapes`
answers the common operations itself; the rest, and whatever looks wrong, it leaves to torch, which is slower but knows.

What works element by element is answered by *twins*: the operation runs on small CPU tensors, of size 1 or 2 where the
real ones are larger, that lie in memory in the same order, and gives the type of the result and its order. Others have
a rule in shape_rules. Either way a result has the shape, the type and the order in memory that torch's own has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.shape_rules import RULES, broadcast

aten = torch.ops.aten

# Answered by twins although torch does not call them pointwise: the result is as large as the first tensor.
SAME_SIZE = {
    aten.cumsum.default,
    aten.empty_like.default,
    aten.flip.default,
    aten.floor_divide.default,
    aten.full_like.default,
    aten.hardswish.default,
    aten.ones_like.default,
    aten.roll.default,
    aten.sort.default,
    aten.sort.stable,
    aten.zeros_like.default,
}
# These start threads on a CPU, which may take longer than all the rest; another's result has the same shape and type.
STAND_IN = {aten.gelu.default: aten.silu.default}
# Here torch is fast itself, and an answer of ours would lose what a copy or a fill is bound to.
LEFT_TO_TORCH = {aten.clone.default, aten._to_copy.default, aten.copy_.default, aten.fill_.Scalar}


class Mode(TorchDispatchMode):
    """A dispatch mode that does not import the compiler, which torch does otherwise, to keep it out of the mode."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Shapes(Mode):
    """Inside `with Shapes():`, meta tensors get their results from here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = answer(func, args, kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules made and run inside have shapes but no memory."""
    with torch.device("meta"), Shapes():
        yield


def answer(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an operation on meta tensors, or NotImplemented."""
    tensors = [x for arg in (*args, *kwargs.values()) for x in _tensors(arg)]
    if func in LEFT_TO_TORCH or not _all_meta(tensors):
        return NotImplemented
    if func in RULES:
        return RULES[func](**_named(func, args, kwargs))
    random, pointwise, in_place = _traits(func)
    if in_place:
        fits = broadcast(tensors) == args[0].shape and all(x.dtype == args[0].dtype for x in tensors)
        return args[0] if fits else NotImplemented
    if random or not (pointwise or func in SAME_SIZE):
        return NotImplemented  # a random twin would move the CPU's generator on
    if func in STAND_IN:
        func, kwargs = STAND_IN[func], {}
    return _from_twins(func, args, kwargs, broadcast(tensors))


def _tensors(arg: Any) -> Iterator[Tensor]:
    if isinstance(arg, Tensor):
        yield arg
    elif isinstance(arg, list | tuple):
        yield from (x for x in arg if isinstance(x, Tensor))


def _all_meta(tensors: Sequence[Tensor]) -> bool:
    """Whether there are meta tensors and, beside them, at most single numbers."""
    return any(x.is_meta for x in tensors) and all(x.is_meta or not x.dim() for x in tensors)


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
    """All arguments of a call, by name."""
    parameters = _parameters(func)
    given = {name: arg for (name, _), arg in zip(parameters, args, strict=False)}
    return {**dict(parameters), **given, **kwargs}


def _from_twins(func: Any, args: Sequence[Any], kwargs: dict[str, Any], sizes: tuple[int, ...] | None) -> Any:
    if sizes is None:
        return NotImplemented
    twin = func(*map(_twin, args), **{name: _twin(arg) for name, arg in kwargs.items()})
    twins = twin if isinstance(twin, tuple) else (twin,)
    if any(x.shape != _small(sizes) for x in twins):
        return NotImplemented
    results = tuple(torch.empty_strided(sizes, _strides(sizes, x), dtype=x.dtype, device="meta") for x in twins)
    return results if isinstance(twin, tuple) else results[0]


def _twin(arg: Any) -> Any:
    """For a meta tensor a small one on the CPU, its dimensions in the same order in memory, expanded ones expanded."""
    if isinstance(arg, torch.device):
        return torch.device("cpu")
    if not isinstance(arg, Tensor) or not arg.is_meta:
        return arg
    sizes = _small(arg.shape)
    strides = [stride if arg.stride(dim) else 0 for dim, stride in enumerate(_strides(sizes, arg))]
    return torch.empty_strided(sizes, strides, dtype=arg.dtype, device="cpu").fill_(1)  # to 1 no operation objects


def _small(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(size, 2) for size in sizes)


def _strides(sizes: Sequence[int], like: Tensor) -> list[int]:
    """Strides of a tensor without gaps, its dimensions in the order of those of `like`."""
    strides, step = [0] * len(sizes), 1
    # Of two equal strides the one of size 1 is inside: with it, the step to the next dimension stays the same.
    for dim in sorted(range(len(sizes)), key=lambda dim: (like.stride(dim), like.shape[dim] != 1, -dim)):
        strides[dim] = step
        step *= max(sizes[dim], 1)
    return strides
