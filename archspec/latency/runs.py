"""What is timed: a whole network, a chain of its units, and a reference that tells how fast the machine is now.

A unit that runs alone, again and again, finds its weights, its input and its code in the caches, and is too fast by a
tenth or more. So a unit is timed at its place in a network: the chain calls the units of a plan one after the other, as
the network does, and looks at the clock in between. What is handed over is what the network hands over, in the same
order in memory.

Legend: B images, N tokens of the map, P class tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec import api
from archspec.errors import ArchspecError, RunError
from archspec.latency.setting import Mode, Setting
from archspec.latency.timing import Clock, Effort, Run, Span
from archspec.layout import Grid
from archspec.modules import Side
from archspec.plan import Plan, Step

# Time passes as in any training, but weights keep their values, and with them the network its speed.
LEARNING_RATE = 0.0
T = TypeVar("T")


class NetworkRun:
    """A whole network: one evaluation, or one training step (forward, cross entropy, backward, AdamW)."""

    def __init__(self, plan: Plan, setting: Setting, *, compiled: bool = False) -> None:
        self._name = plan.name
        self._image = _image(plan, setting)
        self.network = api.build(plan).to(setting.device).train(setting.mode == "train")
        self._optimizer = _optimizer(self.network) if setting.mode == "train" else None
        # In one graph: torch would fall back without a word, and eager runs would be called compiled ones.
        self._call = torch.compile(self.network, dynamic=False, fullgraph=True) if compiled else self.network
        self._once: Callable[[], object] = self._train if setting.mode == "train" else self._evaluate

    def run(self, clock: Clock) -> Run:
        """One part: the whole. Raises RunError where the network fails."""
        clock.start()
        _guarded(self._name, self._once)
        clock.lap()
        return clock.spans()

    @torch.inference_mode()
    def _evaluate(self) -> None:
        self._call(self._image)

    def _train(self) -> None:
        _loss(self._call(self._image)).backward()
        if self._optimizer:
            self._optimizer.step()
            self._optimizer.zero_grad()


class Chain:
    """The units of a network, one after the other; a run has a part for each step of the plan.

    In training, a unit's time is that of its forward pass, its backward pass, and a step of AdamW on its weights. The
    loss itself is no unit's.
    """

    def __init__(self, plan: Plan, setting: Setting) -> None:
        self.plan = plan
        self._image = _image(plan, setting)
        self.network = api.build(plan).to(setting.device).train(setting.mode == "train")
        self._links = [_Link(step, self.network, setting.mode) for step in plan.steps()]
        self._once = self._train if setting.mode == "train" else self._evaluate

    def run(self, clock: Clock) -> Run:
        """A part for each step. Raises RunError where a unit fails."""
        return _guarded(self.plan.name, lambda: self._once(clock))

    @torch.inference_mode()
    def _evaluate(self, clock: Clock) -> Run:
        self._forward(clock)
        return clock.spans()

    def _forward(self, clock: Clock) -> Tensor:
        x: Tensor = self._image
        grid: Grid = (0, 0)
        side: Side = {}
        clock.start()
        for link in self._links:
            x, grid, side = link.forward(x, grid, side)
            clock.lap()
        return x

    def _train(self, clock: Clock) -> Run:
        last = self._forward(clock).requires_grad_()
        forward = clock.spans()
        _loss(last).backward()  # up to the last unit's output, where the units' own backward passes begin
        backward = _timed(clock, [link.backward for link in reversed(self._links)])
        updates = _timed(clock, [link.update for link in self._links])
        return [_sum(parts) for parts in zip(forward, reversed(backward), updates, strict=True)]


class _Link:
    """One unit of a chain. In training, what it hands over is cut off, so that its backward pass runs on its own."""

    def __init__(self, step: Step, network: nn.Module, mode: Mode) -> None:
        self._role = step.unit.role
        self._opens = step.name.endswith(".blocks.0")  # side information does not outlive a stage
        self._module = network.get_submodule(step.name)
        self._training = mode == "train"
        self._optimizer = _optimizer(self._module) if self._training else None
        self._given: list[tuple[Tensor, Tensor]] = []  # (output, what the next unit takes in its place)

    def forward(self, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Grid, Side]:
        """Tokens (B, P + N, C), the grid and side information (the first unit: the image) -> what comes behind it."""
        x, grid, side = self._call(x, grid, {} if self._opens else side)
        if self._training:
            self._given = []
            x, side = self._cut(x), {name: self._cut(value) for name, value in side.items()}
        return x, grid, side

    def _call(self, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Grid, Side]:
        if self._role == "stem":
            return *self._module(x), side
        if self._role == "downsample":
            return *self._module(x, grid), side
        if self._role == "head":
            return self._module(x), grid, side
        if self._role == "block":
            x, side = self._module(x, grid, side)
            return x, grid, side
        return self._module(x, grid), grid, side

    def _cut(self, output: Tensor) -> Tensor:
        taken = output.detach()
        if output.requires_grad:
            taken.requires_grad_()
            self._given.append((output, taken))
        return taken

    def backward(self) -> None:
        """From the gradients of what the next unit took to those of what this one took."""
        pairs = [(output, taken.grad) for output, taken in self._given if taken.grad is not None]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
        self._given = []

    def update(self) -> None:
        """One step of the optimizer."""
        if self._optimizer:
            self._optimizer.step()
            self._optimizer.zero_grad()


class Reference:
    """A fixed piece of work such as networks do: linears, LayerNorm, GELU, attention, depthwise convolution.

    Its time is kept beside a table's, so that what is measured on another day is put on the same scale.
    """

    EFFORT = Effort(repeats=30)

    def __init__(self, setting: Setting) -> None:
        generator = torch.Generator().manual_seed(0)
        self._tokens = torch.randn(2, 196, 192, generator=generator).to(setting.device)  # (B, N, C)
        self._body = nn.Sequential(_ReferenceBlock(), _ReferenceBlock()).to(setting.device).eval()

    @torch.inference_mode()
    def run(self, clock: Clock) -> Run:
        """One part."""
        clock.start()
        self._body(self._tokens)
        clock.lap()
        return clock.spans()


class _ReferenceBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(192)
        self.qkv = nn.Linear(192, 576)
        self.depthwise = nn.Conv2d(192, 192, 3, padding=1, groups=192)
        self.mlp = nn.Sequential(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 3, 64)).permute(2, 0, 3, 1, 4)  # (B, 3, N, 64) each
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.depthwise(x.unflatten(1, (14, 14)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        return x + cast("Tensor", self.mlp(x))


def _image(plan: Plan, setting: Setting) -> Tensor:
    """Random images (B, channels, height, width), the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(setting.batch, plan.source.width, *plan.source.grid, generator=generator).to(setting.device)


def _optimizer(module: nn.Module) -> torch.optim.Optimizer | None:
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return torch.optim.AdamW(weights, lr=LEARNING_RATE) if weights else None


def _loss(output: Tensor) -> Tensor:
    """Cross entropy of logits (B, classes); of a network without a head, the mean of its map."""
    if output.ndim != 2:
        return output.mean()
    return F.cross_entropy(output, torch.zeros(len(output), dtype=torch.long, device=output.device))


def _timed(clock: Clock, parts: Iterable[Callable[[], None]]) -> Run:
    clock.start()
    for part in parts:
        part()
        clock.lap()
    return clock.spans()


def _sum(parts: Iterable[Span]) -> Span:
    found = list(parts)
    return Span(sum(part.seconds for part in found), sum(part.interruptions for part in found))


def _guarded(name: str, run: Callable[[], T]) -> T:
    try:
        return run()
    except ArchspecError:
        raise
    except Exception as error:  # torch and blocks may fail in any way, such as for lack of memory
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RunError(f"{name}: the run to be timed fails: {reason}") from error
