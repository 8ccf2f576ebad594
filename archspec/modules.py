"""From a unit of the plan to its module: the one place where parts are put together.

Legend: B images, N tokens of the map, P class tokens, C channels (width), H x W the grid. Between units run tokens
(B, P + N, C) and the grid; a part that is registered with layout="map" sees a view (B, C, H, W) of the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from archspec import unit_records
from archspec.errors import ArchspecError, OptionError, PluginError, Problem, SpecError, in_order
from archspec.layout import Grid, to_map, to_tokens
from archspec.plan import Plan, Unit, at_option, within
from archspec.registry import Layout
from archspec.shapes import on_meta
from archspec.spec import At, Block, Modifier
from archspec.validation import Part, problem

COST = "cost"  # what records of costs are called
REMEMBERED = 50_000  # units whose check and cost are kept, at about 2 kB each
Side: TypeAlias = dict[str, Tensor]
Call: TypeAlias = Callable[[nn.Module, Tensor, Grid, Side, Tensor], tuple[Tensor, Side]]
INPUT = "input"  # what a mixer with side information finds its branch's input under, as it was before the norm


class Stem(nn.Module):
    """Image (B, channels, height, width) -> tokens (B, N, C) and their grid."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: Tensor) -> tuple[Tensor, Grid]:
        x = self.body(image)  # (B, C, H, W)
        return to_tokens(x), (x.shape[2], x.shape[3])


class Downsample(nn.Module):
    """Tokens (B, P + N, C) of one stage -> tokens of the next, and their grid."""

    def __init__(self, body: nn.Module, prefix: int) -> None:
        super().__init__()
        self.body = body
        self.prefix = prefix
        self.carry: Callable[[Tensor], Tensor] = getattr(body, "prefix_tokens", nn.Identity())

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        y = self.body(to_map(x[:, self.prefix :], grid))  # (B, C', H', W')
        tokens = to_tokens(y)  # (B, N', C')
        if self.prefix:
            tokens = torch.cat([self.carry(x[:, : self.prefix]), tokens], dim=1)
        return tokens, (y.shape[2], y.shape[3])


class ClassToken(nn.Module):
    """Puts a learned token in front: (B, N, C) -> (B, 1 + N, C). Normal initial values."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=std))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)


class OnTokens(nn.Module):
    """A part that ignores the grid, such as a norm, where the grid is handed along."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return cast("Tensor", self.body(x))


class LayerScale(nn.Module):
    """A learned scale per channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training, drops the branch of an image with probability `rate` and rescales the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = x.new_empty(x.shape[0], 1, 1).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4g}"


class Skip(nn.Module):
    """A branch, a position encoding or a norm that is left out."""

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x


class Branch(nn.Module):
    """x + drop_path(scale(end(body(front(norm(x)))))): mixer or FFN with what belongs to it.

    `side` is what mixers hand to later ones of their stage, by name: a value for each token of the map, (B, N).
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        norm: nn.Module,
        front: nn.Module,
        end: nn.Module,
        scale: nn.Module,
        drop_path: nn.Module,
        call: Call,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.front = front
        self.body = body
        self.end = end
        self.scale = scale
        self.drop_path = drop_path
        self.call = call

    def forward(self, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Side]:
        y, side = self.call(self.body, self.front(self.norm(x)), grid, side, x)
        return x + self.drop_path(self.scale(self.end(y))), side


class SkipBranch(nn.Module):
    """A mixer or an FFN that is left out."""

    def forward(self, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Side]:
        return x, side


def _on_tokens(body: nn.Module, x: Tensor, grid: Grid, side: Side, raw: Tensor) -> tuple[Tensor, Side]:
    return body(x), side


def _on_map(body: nn.Module, x: Tensor, grid: Grid, side: Side, raw: Tensor) -> tuple[Tensor, Side]:
    return to_tokens(body(to_map(x, grid))), side


def _on_tokens_with_side(body: nn.Module, x: Tensor, grid: Grid, side: Side, raw: Tensor) -> tuple[Tensor, Side]:
    y, given = body(x, {**side, INPUT: raw})
    return y, {name: value for name, value in given.items() if name != INPUT}


def _on_map_with_side(body: nn.Module, x: Tensor, grid: Grid, side: Side, raw: Tensor) -> tuple[Tensor, Side]:
    y, given = body(to_map(x, grid), {**side, INPUT: raw})
    return to_tokens(y), {name: value for name, value in given.items() if name != INPUT}


CALLS: dict[tuple[Layout, bool], Call] = {
    ("tokens", False): _on_tokens,
    ("map", False): _on_map,
    ("tokens", True): _on_tokens_with_side,
    ("map", True): _on_map_with_side,
}


class MapMiddle(nn.Module):
    """Modifiers in the middle of an FFN on maps; its hidden layer comes with the channels last, (B, H, W, D)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.body(x.flatten(1, 2)).unflatten(1, x.shape[1:3]))


class MapPosition(nn.Module):
    """A position encoding that works on maps."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return to_tokens(self.body(to_map(x, grid)))


class BlockModule(nn.Module):
    """Position encoding of the block, then the mixer's branch, then the FFN's."""

    def __init__(self, position: nn.Module, mixer: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.position = position
        self.mixer = mixer
        self.ffn = ffn

    def forward(self, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Side]:
        x, side = self.mixer(self.position(x, grid), grid, side)
        return cast("tuple[Tensor, Side]", self.ffn(x, grid, side))


def build_unit(unit: Unit, *, drop_path: float = 0.0, std: float = 0.02) -> nn.Module:
    """The module of a unit, on the current default device.

    Raises SpecError where a constructor refuses an option, PluginError where it fails.
    """
    state, part = unit.source, unit.part
    if isinstance(part, Block):
        return _block(part, unit, drop_path)
    if part is None:
        return ClassToken(state.width, std)
    if unit.role == "stem":
        return Stem(construct(part, in_channels=state.width, width=unit.target.width))
    if unit.role == "downsample":
        return Downsample(
            construct(part, in_width=state.width, width=unit.target.width, prefix_tokens=state.prefix), state.prefix
        )
    if unit.role == "head":
        return construct(part, width=state.width, classes=unit.target.width, prefix_tokens=state.prefix)
    if unit.role == "norm":
        return OnTokens(construct(part, width=state.width))
    return construct(part, width=state.width, grid=state.grid, prefix_tokens=state.prefix)


def _block(block: Block, unit: Unit, drop_path: float) -> nn.Module:
    dimensions = {
        "width": unit.source.width,
        "grid": unit.source.grid,
        "prefix_tokens": unit.source.prefix,
        "act": partial(construct, block.act) if block.act else nn.Identity,
    }
    position = construct(block.position, **dimensions) if block.position else Skip()
    if isinstance(block.position, Part) and block.position.entry.layout == "map":
        position = MapPosition(position)
    return BlockModule(
        position,
        _branch("mixer", block.mixer, block, dimensions, drop_path),
        _branch("ffn", block.ffn, block, dimensions, drop_path),
    )


def _branch(which: str, part: Part | None, block: Block, dimensions: dict[str, Any], drop_path: float) -> nn.Module:
    if part is None:
        return SkipBranch()
    width = dimensions["width"]
    body = construct(part, **dimensions)
    at = partial(_modifiers, block.modifiers)
    if which == "ffn":
        _modify_middle(part, body, block.modifiers)
    return Branch(
        body,
        norm=construct(block.norm, width=width) if block.norm else nn.Identity(),
        front=at(cast("At", f"{which}.front"), width),
        end=at(cast("At", f"{which}.end"), width),
        scale=LayerScale(width, block.layer_scale) if block.layer_scale else nn.Identity(),
        drop_path=DropPath(drop_path) if drop_path else nn.Identity(),
        call=CALLS[part.entry.layout, part.entry.side],
    )


def _modifiers(modifiers: Iterable[Modifier], at: At, width: int) -> nn.Module:
    """What stands at a position, in order; mostly nothing."""
    found = [construct(modifier.part, width=width) for modifier in modifiers if modifier.at == at]
    return nn.Sequential(*found) if found else nn.Identity()


def _modify_middle(ffn: Part, body: nn.Module, modifiers: tuple[Modifier, ...]) -> None:
    """Hang the modifiers of the hidden layer into an FFN."""
    chosen = [modifier for modifier in modifiers if modifier.at == "ffn.middle"]
    if not chosen:
        return
    if not hasattr(body, "middle"):
        node = chosen[0].part.node
        where = (node.mapping or {}).get("at", node)
        rule = f"the {ffn.entry.title} has no place for a modifier in its middle"
        raise SpecError([problem(where, rule, "at: ffn.end")])
    middle = _modifiers(chosen, "ffn.middle", cast("int", body.hidden_width))
    body.middle = MapMiddle(middle) if ffn.entry.layout == "map" else middle


def construct(part: Part, **dimensions: Any) -> nn.Module:
    """Call a part's constructor with the dimensions that it names and its options."""
    entry = part.entry
    try:
        module = entry.cls(**{name: dimensions[name] for name in entry.dimensions}, **dict(part.options))
    except OptionError as error:
        raise SpecError([at_option(part, error)]) from error
    except ArchspecError:
        raise
    except Exception as error:  # a block may fail in any way; what the user needs is its name and place
        raise PluginError(
            f"{part.node.place}: {part.node.path}: the {entry.title} cannot be built: {error!r}"
        ) from error
    return cast("nn.Module", module)


def check(plan: Plan) -> None:
    """Build every distinct unit on the meta device, so that each constructor can refuse; no memory, no weights.

    Raises SpecError with the problems of all units.
    """
    problems: list[Problem] = []
    first: dict[Unit, str] = {}
    for step in plan.steps():
        first.setdefault(step.unit, step.name)
    for unit, name in first.items():
        try:
            _check(unit)
        except SpecError as error:
            problems.extend(within(name, found) for found in error.problems)
    if problems:
        raise SpecError(in_order(problems))


@lru_cache(maxsize=REMEMBERED)
def _check(unit: Unit) -> None:
    """Raises SpecError; what did not raise is remembered. A unit with a cost on record was built before."""
    if unit_records.find(COST, unit) is None:
        meta_unit(unit)


@lru_cache(maxsize=256)  # long enough for the plan that is checked to be priced, too
def meta_unit(unit: Unit) -> nn.Module:
    """The module of a unit on the meta device, in evaluation. Raises as `build_unit` does."""
    with on_meta():
        return build_unit(unit).eval()
