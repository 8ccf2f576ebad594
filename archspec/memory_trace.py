"""How much memory a unit needs while it runs, byte by byte: it runs once on fake tensors, and every storage is watched.

Fake tensors have the shapes, types and kernels of CPU tensors and no memory of their own. Attention is what runs, the
fused kernel with the little that it keeps, and not its decomposition. Allocations are rounded up to 512 bytes, as
torch's allocators do. torch's compiler is imported for it, which takes a second, once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from archspec.modules import build_unit
from archspec.plan import Unit
from archspec.spec import Block

Precision = Literal["fp32", "bf16"]
ROUNDING = 512
DROP_PATH = 0.1  # any rate: what stochastic depth keeps does not depend on it


@dataclass(frozen=True, slots=True)
class Trace:
    """Bytes of a unit at one batch. Its input and its output are apart, for they belong to two units.

    fixed: parameters and buffers; largest: the largest parameter that is trained. output: its output, 0 where it hands
    on its input. saved: what it keeps for the backward pass besides input and output, which it may need, too
    (saves_input, saves_output). forward: the most that lives at once in the forward pass, output included and input
    not. backward: the same in the backward pass, from `saved` on, with the output if it is saved, the gradients of
    output and input, and those of the parameters. half: its output is bfloat16.
    """

    fixed: int
    largest: int
    output: int
    saved: int
    saves_input: bool
    saves_output: bool
    forward: int
    backward: int
    half: bool


class Storages(TorchDispatchMode):
    """Counts the bytes of storages that are made inside, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def ignore(self, *tensors: Tensor) -> None:
        """These are somebody else's."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[id(storage)] = weakref.ref(storage)

    def mark(self) -> None:
        """Look for the peak from here on."""
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: Any) -> None:
        key, size = id(storage), rounded(storage.nbytes())
        known = self._known.get(key)
        if known is not None and known() is storage:
            return

        def gone(_: object) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def rounded(size: int) -> int:
    """Bytes as they are allocated."""
    return -(-size // ROUNDING) * ROUNDING


class _Entry(torch.autograd.Function):
    """Stands for the units before: takes the gradient of the input and keeps none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leaf: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        return None, None


class _Exit(torch.autograd.Function):
    """Stands for the units behind: gives the output a gradient of its size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.sizes, ctx.options = x.shape, {"dtype": x.dtype, "device": x.device}
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.empty(ctx.sizes, **ctx.options)


def trace_training(
    unit: Unit, batch: int, precision: Precision, *, half: bool, drop_path: bool, checkpointing: bool
) -> Trace:
    """One training step of a unit in its network. half: it is given bfloat16, as autocast may leave it."""
    with torch.device("meta"):
        module = build_unit(unit, drop_path=DROP_PATH if drop_path else 0.0).train()
    with _fake():
        module._apply(_fake_weight)
        inputs = _inputs(unit, batch, torch.bfloat16 if half else torch.float32)
        return _step(module, unit, inputs, precision, checkpointing and isinstance(unit.part, Block))


def trace_inference(unit: Unit, batch: int, precision: Precision, *, half: bool) -> Trace:
    """One forward pass of a unit in its network, in evaluation and without gradients."""
    with torch.device("meta"):
        module = build_unit(unit).eval()
    with _fake(), torch.no_grad():
        module._apply(_fake_weight)
        inputs = _inputs(unit, batch, torch.bfloat16 if half else torch.float32)
        with _watched(module, inputs) as storages, _cast(precision):
            out = _first(module(*inputs))
            size = _own_size(out, inputs[0])
    return Trace(*_sizes(module), size, 0, False, False, storages.peak, 0, out.dtype == torch.bfloat16)


def _step(module: nn.Module, unit: Unit, inputs: tuple[Any, ...], precision: Precision, again: bool) -> Trace:
    saved: set[int] = set()
    kept: list[Any] = []  # an id is only good while its object lives

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage())
        saved.add(id(kept[-1]))
        return tensor

    leaf = torch.empty((), requires_grad=True)
    with _watched(module, inputs) as storages:
        storages.ignore(leaf)
        x = inputs[0] if unit.role == "stem" else _Entry.apply(inputs[0], leaf)
        with _cast(precision), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            arguments = (x, *inputs[1:])
            result = checkpoint(module, *arguments, use_reentrant=False) if again else module(*arguments)
            out = _first(result)
            del result
            size, gives_half = _own_size(out, inputs[0]), out.dtype == torch.bfloat16
            of_input, of_output = (id(tensor.untyped_storage()) for tensor in (inputs[0], out))
            if unit.role == "head":
                out = F.cross_entropy(out.float(), torch.zeros(len(out), dtype=torch.long))
        forward = storages.peak
        held = storages.live - size
        loss = _Exit.apply(out) if unit.role != "head" else out
        del out, x, arguments
        kept.clear()
        storages.mark()
        loss.backward()
    return Trace(
        *_sizes(module), size, held, again or of_input in saved, of_output in saved, forward, storages.peak, gives_half
    )


@contextmanager
def _fake() -> Iterator[None]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def _watched(module: nn.Module, inputs: tuple[Any, ...]) -> Iterator[Storages]:
    storages = Storages()
    storages.ignore(*module.parameters(), *module.buffers(), *(x for x in inputs if isinstance(x, Tensor)))
    with storages:
        yield storages


def _cast(precision: Precision) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


def _first(result: Any) -> Tensor:
    """A unit's tokens, without their grid."""
    found: Tensor = result[0] if isinstance(result, tuple) else result
    return found


def _own_size(out: Tensor, given: Tensor) -> int:
    same = out.untyped_storage() is given.untyped_storage()
    return 0 if same else rounded(out.untyped_storage().nbytes())


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Bytes of all parameters and buffers, and of the largest parameter that is trained."""
    every = sum(rounded(tensor.nbytes) for tensor in (*module.parameters(), *module.buffers()))
    return every, max((rounded(p.nbytes) for p in module.parameters() if p.requires_grad), default=0)


def _inputs(unit: Unit, batch: int, dtype: torch.dtype) -> tuple[Any, ...]:
    state = unit.source
    if unit.role == "stem":
        return (torch.empty(batch, state.width, *state.grid),)
    tokens = torch.empty(batch, state.tokens, state.width, dtype=dtype)
    if unit.role == "head":
        return (tokens,)
    if isinstance(unit.part, Block):
        height, width = state.grid
        return tokens, state.grid, {name: torch.empty(batch, height * width) for name in unit.part.needs}
    return tokens, state.grid


def _fake_weight(weight: Tensor) -> Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
