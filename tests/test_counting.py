"""Counting: each formula against a derivation by hand or against fvcore, and an operation that is in no table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import archspec
from archspec import counting, registry
from archspec.cost import module_cost
from archspec.counting import Counter, register_formula
from archspec.errors import CountError, PluginError


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def meta(*sizes: int) -> Tensor:
    return torch.empty(sizes, device="meta")


def trace(module: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """(macs, other ops) of one call."""
    cost = module_cost(module, *inputs)
    return cost.macs, cost.other_ops


# By hand: output values times the products that make one.
FORMULAS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "matrix product": (torch.mm, [(3, 4), (4, 5)], 3 * 5 * 4),
    "batched": (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 5 * 4),
    "batched, one side shared": (torch.matmul, [(2, 3, 4), (4, 5)], 2 * 3 * 5 * 4),
    "matrix by vector": (torch.mv, [(3, 4), (4,)], 3 * 4),
    "two vectors": (torch.dot, [(4,), (4,)], 4),
    "added": (torch.addmm, [(5,), (3, 4), (4, 5)], 3 * 5 * 4),
    "added, batched": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 5 * 4),
    "added, matrix by vector": (torch.addmv, [(3,), (3, 4), (4,)], 3 * 4),
    "einsum": (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 5, 4), (2, 3, 7, 4)], 2 * 3 * 5 * 7 * 4),
    "einsum over a sum": (lambda a, b: torch.einsum("bij,kj->bk", a, b), [(2, 3, 4), (5, 4)], 2 * 5 * 4),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 2), [(3, 4, 5), (4, 5, 6)], 3 * 6 * 20),
    "linear": (F.linear, [(2, 7, 4), (5, 4)], 2 * 7 * 5 * 4),
    "linear with bias": (F.linear, [(2, 7, 4), (5, 4), (5,)], 2 * 7 * 5 * 4),
    "convolution": (F.conv2d, [(2, 6, 9, 8), (10, 6, 3, 3)], 2 * 10 * 7 * 6 * (6 * 9)),
    "convolution with bias": (F.conv2d, [(2, 6, 9, 8), (10, 6, 3, 3), (10,)], 2 * 10 * 7 * 6 * (6 * 9)),
    "strided and padded": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        [(1, 6, 8, 8), (10, 6, 3, 3)],
        10 * 4 * 4 * (6 * 9),
    ),
    "dilated": (lambda x, w: F.conv2d(x, w, dilation=2), [(1, 6, 8, 8), (10, 6, 3, 3)], 10 * 4 * 4 * (6 * 9)),
    "in groups": (lambda x, w: F.conv2d(x, w, groups=2), [(1, 6, 5, 5), (10, 3, 3, 3)], 10 * 3 * 3 * (3 * 9)),
    "depthwise": (lambda x, w: F.conv2d(x, w, groups=6), [(1, 6, 5, 5), (6, 1, 3, 3)], 6 * 3 * 3 * 9),
    "along one axis": (F.conv1d, [(1, 6, 5), (10, 6, 3)], 10 * 3 * (6 * 3)),
    # Transposed: each input value is spread over its kernel, for each output channel of its group.
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        [(2, 6, 5, 4), (6, 10, 3, 3)],
        2 * 6 * 5 * 4 * (10 * 9),
    ),
    "transposed in groups": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=2),
        [(1, 6, 5, 4), (6, 5, 3, 3)],
        6 * 5 * 4 * (5 * 9),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_products(name: str) -> None:
    function, sizes, macs = FORMULAS[name]
    assert trace(Calls(function), *(meta(*size) for size in sizes)) == (macs, 0)
    assert trace(Calls(function), *(torch.randn(size) for size in sizes)) == (macs, 0)


ATTENTION = 2 * 3 * 5 * 7 * (8 + 8)  # batch, heads, queries, keys, and a product for the scores and one for the values


def attention(device: str, **options: Any) -> tuple[int, int]:
    q, k, v = (torch.randn(2, 3, tokens, 8, device=device) for tokens in (5, 7, 7))
    return trace(Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)), q, k, v)


def test_attention_counts_the_same_whatever_kernel_runs() -> None:
    assert attention("meta") == (ATTENTION, 0)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert attention("cpu") == (ATTENTION, 0)
    with sdpa_kernel(SDPBackend.MATH):
        assert attention("cpu") == (ATTENTION, 0)


def test_the_fused_kernel_did_run() -> None:
    """Otherwise the test above would compare the plain one with itself."""
    q = torch.randn(1, 1, 4, 8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.no_grad(), Operations() as seen:
        F.scaled_dot_product_attention(q, q, q)
    assert torch.ops.aten._scaled_dot_product_flash_attention_for_cpu in seen.operations
    assert torch.ops.aten.bmm not in seen.operations


class Operations(counting.Mode):
    """Notes which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1, 5, 7), (2, 3, 5, 7)], ids=str)
def test_a_mask_costs_nothing(device: str, shape: tuple[int, ...]) -> None:
    assert attention(device, attn_mask=torch.zeros(shape, device=device)) == (ATTENTION, 0)


def test_values_of_another_width() -> None:
    """A GPU's kernel takes them, as the plain one does; on the meta device it can be asked by name."""
    q, k, v = meta(1, 1, 5, 8), meta(1, 1, 7, 8), meta(1, 1, 7, 6)
    on_gpu = torch.ops.aten._scaled_dot_product_efficient_attention
    assert trace(Calls(F.scaled_dot_product_attention), q, k, v) == (5 * 7 * (8 + 6), 0)
    assert trace(Calls(lambda q, k, v: on_gpu(q, k, v, None, False)), q, k, v) == (5 * 7 * (8 + 6), 0)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "kernel",
    [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    ids=lambda kernel: kernel.name,
)
def test_attention_on_a_gpu(kernel: SDPBackend) -> None:
    q, k, v = (torch.randn(2, 3, tokens, 8, device="cuda", dtype=torch.float16) for tokens in (5, 7, 7))
    with sdpa_kernel(kernel):
        assert trace(Calls(F.scaled_dot_product_attention), q, k, v) == (ATTENTION, 0)


class Everything(nn.Module):
    """Attention, convolution, the norms, resizing, sampling, pooling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.layer, self.group, self.batch = nn.LayerNorm(16), nn.GroupNorm(2, 16), nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.layer(x)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.conv(self.batch(self.group(y.mT.reshape(1, 16, 4, 4))))
        y = F.interpolate(self.dropout(y), scale_factor=2, mode="bilinear")
        y = F.grid_sample(y, torch.zeros(1, 6, 6, 2, device=y.device), align_corners=False)
        return torch.einsum("bchw,dc->bdhw", F.adaptive_avg_pool2d(y, 2), self.proj.weight)


EVERYTHING = (
    16 * 16 * (48 + 16) + 2 * 2 * 16 * 16 * 8 + 16 * 16 * 9 + 16 * 16 * 4,  # linears, attention, convolution, einsum
    16 * 16 * (5 + 5 + 2) + 4 * 16 * (8 * 8 + 6 * 6) + 16 * 6 * 6,  # the norms, resizing and sampling, pooling
)


@pytest.mark.parametrize("device", ["meta", "cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_same_on_any_device_with_or_without_gradients(device: str, mode: Callable[[], Any]) -> None:
    module = Everything().to(device).eval()
    with mode():
        x = torch.randn(1, 16, 16, device=device)  # in inference mode, linear and attention arrive in one piece
        with Counter() as counter:
            module(x)
    assert (counter.macs, counter.other_ops) == EVERYTHING


def sample(scores: Tensor) -> Tensor:
    return F.gumbel_softmax(scores, hard=True)


FREE = {
    "sort": lambda x: x.sort(dim=1, stable=True)[0],
    "argsort": lambda x: x.argsort(dim=-1),
    "topk": lambda x: x.topk(2, dim=-1).values,
    "gather": lambda x: x.gather(1, x.argsort(dim=1)),
    "scatter": lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0),
    "scatter_add": lambda x: x.scatter_add(1, x.argsort(dim=1), x),
    "take_along": lambda x: torch.take_along_dim(x, x.argsort(dim=1), dim=1),
    "index": lambda x: x[:, torch.arange(2, device=x.device)],
    "gumbel": sample,
    "softmax": lambda x: x.softmax(-1),
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "max pooling": lambda x: F.max_pool2d(x[:, None], 2),
    "roll": lambda x: x.roll((1, 2), (0, 1)),
    "pad": lambda x: F.pad(x, (1, 1), mode="reflect"),
    "windows": lambda x: F.unfold(x[:, None], 2),
    "pixel shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 16, 2, 2), 2),
    "activations": lambda x: F.gelu(F.silu(F.relu(F.hardswish(F.softplus(x))))),
    "deviation": lambda x: x.std(dim=1) + x.var(dim=1) + torch.linalg.vector_norm(x, dim=1),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", FREE)
def test_what_moves_compares_and_combines_is_free(name: str, device: str) -> None:
    assert trace(Calls(FREE[name]), torch.randn(4, 4, 4, device=device)) == (0, 0)


def test_nomination_in_training_counts_as_in_evaluation() -> None:
    """Training draws the nominated context, evaluation takes the best; the products are the same."""
    from archspec.blocks.s_nommer import SNomMer

    with torch.device("meta"):
        module = SNomMer(16, heads=2)
    x = meta(1, 16, 16, 16)
    assert trace(module.train(), x)[0] == trace(module.eval(), x)[0] > 0


# fvcore's own handles count the same modules; it traces, so they run on the CPU.
NORMS = {
    "batch norm": (nn.BatchNorm2d(8).eval(), 2),
    "batch norm without weight": (nn.BatchNorm2d(8, affine=False).eval(), 1),
    "batch norm in training": (nn.BatchNorm2d(8), 5),
    "layer norm": (nn.LayerNorm(6), 5),
    "layer norm without weight": (nn.LayerNorm(6, elementwise_affine=False), 4),
    "group norm": (nn.GroupNorm(2, 8), 5),
    "group norm without weight": (nn.GroupNorm(2, 8, affine=False), 4),
    "adaptive pooling": (nn.AdaptiveAvgPool2d(2), 1),
    "bilinear": (Calls(lambda x: F.interpolate(x, size=(4, 3), mode="bilinear")), 4 / 3),  # a third of 6 x 6
    "nearest": (Calls(lambda x: F.interpolate(x, size=(4, 3))), 1 / 3),
    "grid sampling": (Calls(lambda x: F.grid_sample(x, torch.zeros(2, 4, 3, 2), align_corners=False)), 4 / 3),
}


@pytest.mark.parametrize("name", NORMS)
def test_other_operations_as_fvcore_counts_them(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    module, times = NORMS[name]
    x = torch.randn(2, 8, 6, 6)
    assert trace(module, x) == (0, times * x.numel())
    analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False)
    assert analysis.total() == times * x.numel()


def test_pooling_to_one_value_is_a_mean() -> None:
    """Where fvcore counts 1 per element; torch itself turns it into a mean, which is free here and there."""
    assert trace(nn.AdaptiveAvgPool2d(1), meta(2, 8, 6, 6)) == (0, 0)


REFUSED = {
    "fourier": lambda x: torch.fft.rfft2(x),
    "inverse": lambda x: torch.linalg.inv(x),
    "singular values": lambda x: torch.linalg.svd(x),
    "solve": lambda x: torch.linalg.solve(x, x),
    "matrix exponential": lambda x: torch.linalg.matrix_exp(x),
    "distances": lambda x: torch.cdist(x, x),
    "three-way product": lambda x: F.bilinear(x, x, torch.ones(2, 4, 4)),
    "recurrent": lambda x: nn.LSTM(4, 4)(x),
    "sum of products": lambda x: torch.addbmm(x, x[None], x[None]),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", REFUSED)
def test_products_of_matrices_without_a_formula_are_refused(name: str, mode: Callable[[], Any]) -> None:
    with mode(), pytest.raises(CountError, match="neither counted nor known to be free"), Counter():
        REFUSED[name](torch.eye(4))


def test_the_table_of_free_operations() -> None:
    names = [name for group in counting.FREE_NAMES.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []
    priced = {*counting.MACS, *counting.OTHER_OPS}
    assert counting.FREE.isdisjoint(priced)
    # A price would be lost on what is free by torch's own word.
    words = [overload for packet in priced for overload in packet.overloads() if free_by_tag(packet, overload)]
    assert words == []


def free_by_tag(packet: Any, overload: str) -> bool:
    func = getattr(packet, overload)
    return func.is_view or torch.Tag.pointwise in func.tags


@pytest.fixture
def scan() -> Iterator[Any]:
    """A custom operation: its library, gone again after the test."""
    library = torch.library.Library("archspec_tests", "DEF")
    library.define("scan(Tensor x) -> Tensor")
    library.impl("scan", lambda x: x.clone(), "CompositeExplicitAutograd")
    packet = torch.ops.archspec_tests.scan
    yield packet
    counting.MACS.pop(packet, None)
    library._destroy()


def test_an_unknown_operation_is_named_until_it_has_a_formula(scan: Any) -> None:
    module = Calls(lambda x: scan(x @ x))
    with pytest.raises(CountError, match=r"archspec_tests\.scan is neither counted nor known.*register_formula"):
        trace(module, meta(4, 4))
    register_formula(scan, lambda args, out: 3 * out.numel())
    assert trace(module, meta(4, 4)) == (4**3 + 3 * 16, 0)


def test_a_formula_for_one_overload_is_one_for_all(scan: Any) -> None:
    register_formula(scan.default, lambda args, out: 7)
    assert trace(Calls(scan), meta(4)) == (7, 0)


def test_a_formula_for_anything_else_is_refused() -> None:
    with pytest.raises(PluginError, match="no operation of torch's"):
        register_formula(torch.relu, lambda args, out: 0)


PLUGIN = """
import torch
from torch import nn

from archspec.registry import register


@register("mixer", "scan_for_tests")
class Scan(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        return torch.ops.archspec_tests.scan(self.proj(x))
"""


def test_in_a_plan_the_unit_is_named_too(scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_providers()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # what the plugin registers is gone afterwards
    file = tmp_path / "scan.py"
    file.write_text(PLUGIN)
    registry.load_plugin(file)
    plan = archspec.make_plan("vit_tiny", sets=["stages[0].blocks={3: {mixer: scan_for_tests}}"])
    with pytest.raises(CountError, match=r"stages\.0\.blocks\.3: the operation archspec_tests\.scan is neither"):
        archspec.count(plan)
    register_formula(scan, lambda args, out: out.numel())
    tokens, width = 197, 192
    attention = tokens * width * 4 * width + 2 * tokens**2 * width
    scanning = tokens * width * width + tokens * width
    assert archspec.count("vit_tiny").macs - archspec.count(plan).macs == attention - scanning
