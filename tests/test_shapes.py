"""Shapes on the meta device: each answer of ours against torch's own, in shape, type and order in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import archspec
from archspec.cost import _inputs
from archspec.loading import shipped
from archspec.modules import build_unit
from archspec.shapes import Mode, Shapes, answer, on_meta

aten = torch.ops.aten


class Compared(Mode):
    """Has torch answer every operation, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: set[Any] = set()
        self.left: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ours, theirs = answer(func, args, kwargs), func(*args, **kwargs)
        if ours is NotImplemented:
            self.left.add(func)
            return theirs
        self.answered.add(func)
        assert described(ours) == described(theirs), f"{func}{described(args)}"
        return theirs


def described(result: Any) -> list[Any]:
    return [
        (tuple(x.shape), x.dtype, x.device.type, strides(x)) if isinstance(x, Tensor) else x
        for x in tree_leaves(result)
    ]


def strides(x: Tensor) -> tuple[int, ...]:
    """Those that matter: nothing ever steps along a dimension of size 1."""
    return tuple(stride for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1) if x.numel() else ()


@pytest.mark.parametrize("name", shipped())
def test_all_that_a_shipped_network_does(name: str) -> None:
    for unit in {step.unit for step in archspec.make_plan(name).steps()}:
        with torch.device("meta"), torch.no_grad(), Compared() as seen:
            build_unit(unit).eval()(*_inputs(unit))
        assert seen.answered or not seen.left


def x(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(sizes, dtype=dtype, device="meta")


def chosen(*sizes: int) -> Tensor:
    return x(*sizes, dtype=torch.int64)


def channels_last(*sizes: int) -> Tensor:
    return x(*sizes).contiguous(memory_format=torch.channels_last)


ANSWERED: dict[str, Callable[[], Any]] = {
    "broadcast": lambda: x(4, 1, 3) + x(5, 1),
    "with a number": lambda: x(4, 3) * 2.5,
    "a number tensor": lambda: x(4, 3) * torch.tensor(2.0),
    "types promoted": lambda: x(4, 3) + chosen(3),
    "integers divided": lambda: chosen(4, 3) / chosen(3),
    "compared": lambda: x(4, 3) > x(3),
    "chosen between": lambda: torch.where(x(4, 3) > 0, x(4, 3), 0.0),
    "permuted": lambda: x(4, 5, 3).permute(2, 0, 1).relu(),
    "permuted and broadcast": lambda: x(4, 5, 3).permute(2, 0, 1) * x(4, 1),
    "orders that differ": lambda: x(4, 5).T + x(5, 4),
    "channels last": lambda: F.gelu(channels_last(2, 4, 5, 6)),
    "expanded": lambda: x(4, 1, 3).expand(4, 5, 3) + 1,
    "with gaps": lambda: x(4, 6)[:, ::2].exp(),
    "class token": lambda: x(2, 5, 3)[:, :1] * x(3),
    "empty": lambda: x(0, 3) + x(3),
    "tanh approximation": lambda: F.gelu(x(4, 3), approximate="tanh"),
    "half precision": lambda: F.gelu(x(4, 3, dtype=torch.bfloat16)),
    "filled like": lambda: torch.full_like(x(4, 5).T, 2.0),
    "of another type": lambda: torch.ones_like(x(4, 3), dtype=torch.int64),
    "in place": lambda: x(4, 3).add_(x(3)),
    "random in place": lambda: x(4, 3).normal_(),
    "sorted": lambda: x(4, 3).sort(dim=0, stable=True),
    "summed up": lambda: x(4, 3).cumsum(0),
    "rolled": lambda: x(4, 3).roll(1, 0),
    "matrix product": lambda: x(4, 3) @ x(3, 5),
    "by a vector": lambda: x(2, 4, 3) @ x(3),
    "batched": lambda: x(7, 4, 3) @ x(7, 3, 5),
    "linear": lambda: F.linear(x(2, 4, 3), x(5, 3), x(5)),
    "added": lambda: torch.baddbmm(x(4, 5), x(7, 4, 3), x(7, 3, 5)),
    "attention": lambda: F.scaled_dot_product_attention(x(1, 2, 5, 4), x(1, 2, 6, 4), x(1, 2, 6, 4)),
    "masked": lambda: F.scaled_dot_product_attention(x(1, 2, 5, 4), x(1, 2, 5, 4), x(1, 2, 5, 4), x(5, 5)),
    "convolution": lambda: F.conv2d(x(2, 6, 9, 8), x(4, 3, 3, 2), x(4), stride=(2, 1), padding=1, groups=2),
    "dilated": lambda: F.conv2d(channels_last(2, 6, 9, 8), x(4, 6, 3, 3), dilation=(2, 3)),
    "along one axis": lambda: F.conv1d(x(2, 6, 9), x(4, 6, 3), padding=1),
    "transposed": lambda: F.conv_transpose2d(
        x(2, 6, 5, 4), x(6, 2, 3, 2), stride=2, padding=1, output_padding=1, groups=3
    ),
    "layer norm": lambda: F.layer_norm(x(2, 5, 3), (3,), x(3), x(3)),
    "group norm": lambda: F.group_norm(channels_last(2, 6, 4, 5), 2, x(6), x(6)),
    "batch norm": lambda: F.batch_norm(channels_last(2, 6, 4, 5), x(6), x(6), x(6), x(6)),
    "in training": lambda: F.batch_norm(x(8, 6), x(6), x(6), x(6), x(6), training=True),
    "softmax": lambda: x(2, 4, 5).mT.softmax(-1),
    "log softmax": lambda: x(2, 4, 5).log_softmax(1),
    "max pooling": lambda: F.max_pool2d(channels_last(2, 4, 7, 9), 3, 2, 1, ceil_mode=True),
    "last window outside": lambda: F.max_pool2d(x(2, 4, 7, 7), 2, 3, 1, ceil_mode=True),
    "mean pooling": lambda: F.avg_pool2d(x(2, 4, 7, 9), (2, 3), ceil_mode=True),
    "adaptive": lambda: F.adaptive_avg_pool2d(channels_last(2, 4, 7, 9), (3, 2)),
    "a slice of channels": lambda: F.adaptive_avg_pool2d(channels_last(2, 8, 7, 9)[:, :4], 3),
    "windows": lambda: F.unfold(x(2, 4, 7, 9), 3, padding=1, stride=2),
    "windows put back": lambda: F.fold(x(2, 4 * 9, 4 * 5), (7, 9), 3, padding=1, stride=2),
    "nearest": lambda: F.interpolate(x(2, 4, 7, 9), scale_factor=2),
    "bilinear": lambda: F.interpolate(channels_last(2, 4, 7, 9), (5, 6), mode="bilinear"),
    "bicubic": lambda: F.interpolate(x(2, 4, 7, 9), (5, 6), mode="bicubic", antialias=True),
    "grid sampling": lambda: F.grid_sample(x(2, 4, 7, 9), x(2, 3, 5, 2), align_corners=False),
    "joined": lambda: torch.cat((x(2, 1, 3), x(2, 4, 3)), dim=1),
    "maps joined": lambda: torch.cat((channels_last(2, 1, 3, 3), channels_last(2, 4, 3, 3)), dim=-3),
    "of two orders": lambda: torch.cat((channels_last(2, 2, 3, 3), x(2, 4, 3, 3)), dim=1),
    "stacked": lambda: torch.stack((x(2, 3), x(2, 3)), dim=-1),
    "repeated": lambda: x(2, 3).repeat(4, 1, 2),
    "gathered": lambda: x(2, 5).gather(1, chosen(2, 3)),
    "scattered": lambda: x(2, 5).scatter(1, chosen(2, 3), 1.0),
    "indexed": lambda: x(2, 5, 3)[:, chosen(4)],
    "indexed by a map": lambda: x(9, 3)[chosen(4, 4)],
    "indexed twice": lambda: x(2, 5, 3)[chosen(4, 1), chosen(6)],
    "put": lambda: x(2, 5, 3).index_put((chosen(2, 1), chosen(4)), x(2, 4, 3)),
    "the largest": lambda: x(2, 5, 3).topk(2, dim=1),
    "triangle": lambda: x(4, 4).tril(),
    "mean": lambda: x(2, 5, 3).mean((0, -1)),
    "mean of all": lambda: x(2, 5, 3).mean(),
    "sum": lambda: x(2, 5, 3).mT.sum(1, keepdim=True),
    "maximum": lambda: x(2, 5, 3).max(dim=1),
    "where": lambda: x(2, 5, 3).argmax(-1, keepdim=True),
    "where of all": lambda: x(2, 5, 3).argmin(),
    "largest": lambda: x(2, 5, 3).amax((1, 2)),
    "deviation": lambda: x(2, 5, 3).std(1, keepdim=True),
    "both": lambda: torch.var_mean(x(2, 5, 3), 1),
    "length": lambda: torch.linalg.vector_norm(x(2, 5, 3), dim=(1, 2), keepdim=True),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_answers(name: str) -> None:
    with torch.no_grad(), Compared() as seen:
        ANSWERED[name]()
    assert seen.answered


# Where arguments do not fit, torch's own error must be heard.
WRONG: dict[str, Callable[[], Any]] = {
    "inner sizes": lambda: x(4, 3) @ x(4, 5),
    "batches": lambda: torch.bmm(x(2, 4, 3), x(3, 3, 5)),
    "a vector": lambda: x(4, 3) @ x(4),
    "bias": lambda: torch.addmm(x(4), x(4, 3), x(3, 5)),
    "broadcast": lambda: x(4, 3) + x(4),
    "in place": lambda: x(4, 1).add_(x(4, 3)),
    "in place, types": lambda: chosen(4).add_(x(4)),
    "channels": lambda: F.conv2d(x(1, 6, 5, 5), x(4, 3, 3, 3)),
    "kernel": lambda: F.conv2d(x(1, 6, 5, 5), x(4, 6, 7, 7)),
    "norm": lambda: torch.native_layer_norm(x(2, 5), (4,), x(4), x(4), 1e-5),
    "joined": lambda: torch.cat((x(2, 3), x(2, 4)), dim=0),
    "stacked": lambda: torch.stack((x(2, 3), x(2, 4))),
    "too small to pool": lambda: F.max_pool2d(x(1, 4, 3, 3), 5),
    "too small for windows": lambda: F.unfold(x(1, 4, 3, 3), 5),
    "more than there are": lambda: x(4, 3).topk(4),
    "indices": lambda: x(5, 5)[chosen(2), chosen(3)],
    "devices": lambda: x(4, 3) + torch.ones(3),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_torchs_to_refuse(name: str) -> None:
    with pytest.raises(RuntimeError) as theirs:
        WRONG[name]()
    with Shapes(), pytest.raises(RuntimeError) as heard:
        WRONG[name]()
    assert str(heard.value) == str(theirs.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.cat((x(2, 3), x(2, 3)), dim=2),
        lambda: torch.stack((x(2, 3), x(2, 3)), dim=3),
        lambda: x(2, 3).mean(dim=2),
        lambda: x(2, 3).topk(1, dim=2),
    ],
)
def test_nor_is_a_dimension_that_is_not_there(wrong: Callable[[], Any]) -> None:
    with Shapes(), pytest.raises(IndexError, match="Dimension out of range"):
        wrong()


def test_only_meta_tensors_are_answered() -> None:
    with Shapes():
        assert (torch.ones(2) + torch.ones(2)).tolist() == [2.0, 2.0]


def test_modules_made_on_meta_draw_no_random_numbers() -> None:
    before = torch.get_rng_state()
    with on_meta():
        linear = nn.Linear(3, 4)
        y = F.dropout(linear(torch.empty(2, 3)), 0.5)
    assert (y.shape, y.device.type) == ((2, 4), "meta")
    assert torch.equal(torch.get_rng_state(), before)
