"""What other people's counters say of a network: fvcore's FlopCountAnalysis and torch's FlopCounterMode.

Both run the built network on zeros, as their users would, and keep quiet about what they leave out; what that is, and
what it comes to, says `archspec.count_reasons`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from archspec.counting import MACS
from archspec.memory import inference_memory
from archspec.network import Network

Tool = Literal["fvcore", "torch"]
ATTENTION = "attention"  # the kind of whatever runs inside F.scaled_dot_product_attention
# What fvcore calls the operations that multiply and accumulate; the others it counts are norms, pooling and sampling.
PRODUCTS = {"addmm", "bmm", "conv", "einsum", "linear", "matmul", "mm"}
# The operations, as they run, that those may consist of. fvcore has no name for any other.
INSIDE_PRODUCTS = {f"aten.{name}" for name in ("addmm", "bmm", "convolution", "dot", "mm", "mv")}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tool counted in one forward pass of a batch.

    counts: by module (the whole network is ""), then by what the tool calls the operation. per_mac: how many it counts
    for a multiply-accumulate. products: which of its operations are made of them. skipped: operations that it passed
    over. failure: why there are no counts.
    """

    tool: Tool
    counts: Mapping[str, Mapping[str, int]]
    per_mac: int
    products: frozenset[str]
    skipped: frozenset[str]
    failure: str = ""

    @property
    def total(self) -> int | None:
        """Its figure for the network, or None where it failed."""
        return None if self.failure else self.of("")

    def of(self, module: str) -> int:
        """Its figure for a module; nothing where it saw none."""
        return sum(self.counts.get(module, {}).values())


def ask(tool: Tool, network: Network, batch: int = 1, *, unfused: bool = False) -> Seen:
    """What a tool counts for a batch of images.

    unfused: attention is written out as products of matrices first. A tool that fails is answered, not raised.
    """
    reason = _too_large(network, batch)
    if not reason:
        with quiet(), torch.no_grad():
            try:
                image = torch.zeros(batch, network.plan.source.width, *network.plan.source.grid)
                return _ASK[tool](network, image, unfused)
            except Exception as error:  # another tool may fail in any way; the table goes on without it
                reason = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
    return Seen(tool, {}, 1, frozenset(), frozenset(), reason)


def _too_large(network: Network, batch: int) -> str:
    """Why a batch is not run: a machine that swaps is worse than a sentence."""
    needed = inference_memory(network.plan, batch=batch).total
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= available:
        return ""
    return f"{batch:,} images need {needed / 2**30:,.1f} GiB, this machine has {available / 2**30:,.1f} GiB"


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor log lines: what the tools leave out is told in another way."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _ask_fvcore(network: Network, image: Tensor, unfused: bool) -> Seen:
    from fvcore.nn import FlopCountAnalysis

    with WrittenOut() if unfused else ExitStack():
        analysis = FlopCountAnalysis(network, image)
        found = analysis.by_module_and_operator()
    counts = {module: {kind: int(count) for kind, count in kinds.items()} for module, kinds in found.items()}
    passed_over = {name.replace("::", ".") for name in analysis.unsupported_ops()}
    skipped = passed_over | {str(packet) for packet in MACS if str(packet) not in INSIDE_PRODUCTS}
    if "aten.scaled_dot_product_attention" in passed_over:
        skipped.add(ATTENTION)
    return Seen("fvcore", counts, 1, frozenset(PRODUCTS), frozenset(skipped))


def _ask_torch(network: Network, image: Tensor, unfused: bool) -> Seen:
    from torch.utils.flop_counter import FlopCounterMode

    with ExitStack() as stack:
        if unfused:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        mode = stack.enter_context(FlopCounterMode(display=False))
        attention = stack.enter_context(_InAttention(mode))
        network(image)
    root = type(network).__name__
    counts = {
        "" if module == "Global" else module.removeprefix(f"{root}."): {str(kind): int(n) for kind, n in kinds.items()}
        for module, kinds in mode.get_flop_counts().items()
    }
    skipped = {str(packet) for packet in MACS if packet not in mode.flop_registry}
    if attention.calls and not attention.counted:
        skipped.add(ATTENTION)
    return Seen("torch", counts, 2, frozenset(kind for kinds in counts.values() for kind in kinds), frozenset(skipped))


_ASK = {"fvcore": _ask_fvcore, "torch": _ask_torch}


class FunctionMode(TorchFunctionMode):
    """Sees the calls of torch's functions, before they are split into operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `attention` in place of F.scaled_dot_product_attention, and everything else as it is."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        return self.other(func, args, kwargs)

    def attention(self, *args: Any, **kwargs: Any) -> Any:
        """The result of F.scaled_dot_product_attention."""
        return F.scaled_dot_product_attention(*args, **kwargs)

    def other(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of any other function."""
        return func(*args, **kwargs)


class WrittenOut(FunctionMode):
    """Attention as two products and a softmax, for tools that do not know the fused kernels."""

    def attention(self, *args: Any, **kwargs: Any) -> Any:
        """The same result, where it is asked for without dropout, causality or shared heads."""
        plain = not any(kwargs.get(option) for option in ("dropout_p", "is_causal", "enable_gqa"))
        return _attention(*args, kwargs) if plain and len(args) == 3 else super().attention(*args, **kwargs)


def _attention(q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> Tensor:
    scale, mask = options.get("scale"), options.get("attn_mask")
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)  # (..., queries, keys)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    out: Tensor = scores.softmax(-1) @ v
    return out


class _InAttention(FunctionMode):
    """What torch's counter counts inside attention, whatever kernel runs."""

    def __init__(self, mode: Any) -> None:
        super().__init__()
        self.mode = mode
        self.calls = 0
        self.counted = 0

    def attention(self, *args: Any, **kwargs: Any) -> Any:
        before = self.mode.get_total_flops()
        out = super().attention(*args, **kwargs)
        self.calls += 1
        self.counted += self.mode.get_total_flops() - before
        return out
