"""Efficient multi-scale spatial interaction (EMS): convolutions and attentions at several scales, side by side.

B batch, C channels, H × W the map, c channels of a branch or a part, p step of pooling, k step of propagation.

Paper: Vo, dissertation on efficient vision networks (EMSNet), section 3.3, tables 3.5, 3.7 and 3.9, whose ablations are
options: `static` and `dynamic` say which operators there are, `scales` and `shares` how the static branch divides its
channels, `depthwise`, `gate`, `fusion` and `split` are their rows.

Differences:
- No code was released; where the text is silent or ambiguous this is one consistent reading, fitted to the published
  counts. It cannot meet the parameters of two rows of table 3.9: 2.49 M "without fusion", not 2.12 M, and 4.79 M
  "without channel splitting", not 4.45 M. Other rows agree within 1 %, all FLOPs (counted with norms) within 3 %.
- Which pooling goes with which share of table 3.7 is arbitrary but for the order of equation 3.4 (2, none, 4). So is
  how the pooled parts, widened by `expansion`, become narrow again: here in the propagation.
- The patch sizes 4 and 6 of the dynamic branch hold in the first stage; the counts fit pooling to at most 14×14 and
  10×10 in every stage. Where the propagation overshoots, the map is resized (bilinear), so that positions stay aligned;
  cropping, which has the same counts, would shift them.
- At other input sizes than the spec's, k stays and the dynamic branch pools to ceil(H/k).
- The 1×1 convolutions are linears over the channels: the same function, with a linear's initial values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.layout import Grid, to_map, to_tokens
from archspec.registry import register

from .attention import Attention
from .c_mhsa import ConvAttention, Pointwise
from .coordinate_conv import CoordinateConv, check_odd

Operator = Literal["c_mhsa", "global"]
ORDER: tuple[Operator, ...] = ("c_mhsa", "global")
Side = Annotated[int, Field(ge=1, le=256, description="largest side of the pooled map at the spec's input size")]


class Whitening(Pointwise):
    """1×1 convolution, less its mean over the channels: the mean is linear, so the weights' is taken off."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean(dim=0)
        return F.linear(x.permute(0, 2, 3, 1), centred).permute(0, 3, 1, 2)


class CoarseConv(nn.Module):
    """A part of the static branch: max pooling p×p, a coordinate convolution on wider channels, and back to size."""

    def __init__(self, width: int, pool: int, expansion: int, kernel: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(pool, ceil_mode=True)
        self.embed = Pointwise(width, expansion * width)
        self.mix = CoordinateConv(expansion * width, kernel=kernel)
        self.spread = nn.ConvTranspose2d(expansion * width, width, pool, stride=pool, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        y = self.spread(self.mix(self.embed(self.pool(x))))  # (B, c, p*ceil(H/p), p*ceil(W/p))
        return y[:, :, : x.shape[2], : x.shape[3]]


class Gate(nn.Module):
    """sigmoid(fused parts) times a projection of the branch's input."""

    def __init__(self, width: int, fusion: bool) -> None:
        super().__init__()
        self.fuse = Pointwise(width, width) if fusion else nn.Identity()
        self.project = Pointwise(width, width)

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        return self.project(x) * self.fuse(parts).sigmoid()


class NoGate(nn.Module):
    """The parts as they are."""

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        return parts


class Joined(nn.Module):
    """Branches that all see all channels, their outputs side by side."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Summed(Joined):
    """Branches that all see all channels, their outputs added up."""

    def forward(self, x: Tensor) -> Tensor:
        return reduce(torch.add, [branch(x) for branch in self.branches])


class Split(Joined):
    """Branches that each see a share of the channels, their outputs side by side."""

    def __init__(self, branches: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__(branches)
        self.widths = tuple(widths)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split(self.widths, dim=1)
        return torch.cat([branch(piece) for branch, piece in zip(self.branches, pieces, strict=True)], dim=1)


class StaticBranch(nn.Module):
    """Whitening, depthwise convolution, parts at several scales, and the gate."""

    def __init__(self, width: int, kernel: int | None, parts: nn.Module, gate: bool, fusion: bool) -> None:
        super().__init__()
        self.whiten = Whitening(width, width)
        self.depthwise: nn.Module = nn.Identity()
        if kernel is not None:
            self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.parts = parts
        self.gate = Gate(width, fusion) if gate else NoGate()

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        return self.gate(x, self.parts(self.depthwise(self.whiten(x))))


class GlobalAttention(nn.Module):
    """Self-attention between all positions of a map, without biases."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads, qkv_bias=False, proj_bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.attention(to_tokens(x)), (x.shape[2], x.shape[3]))


OPERATORS: dict[Operator, Callable[..., nn.Module]] = {"c_mhsa": ConvAttention, "global": GlobalAttention}


class Sparse(nn.Module):
    """An operator of the dynamic branch, between mean pooling and propagation."""

    def __init__(self, width: int, name: Operator, grid: Grid, side: int, head_width: int) -> None:
        super().__init__()
        divides("head_width", head_width, "the operator's width", width)
        self.grid = grid
        self.side = side
        step = (math.ceil(grid[0] / min(grid[0], side)), math.ceil(grid[1] / min(grid[1], side)))
        self.embed = Pointwise(width, width)
        self.operator = OPERATORS[name](width, heads=width // head_width)
        self.spread = nn.ConvTranspose2d(width, width, step, stride=step, groups=width, bias=False)

    def pooled(self, size: int, axis: int) -> int:
        """What a side of the map is pooled to."""
        return min(size, self.side) if size == self.grid[axis] else -(-size // self.spread.stride[axis])

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        size = x.shape[2:]
        y = F.adaptive_avg_pool2d(x, (self.pooled(size[0], 0), self.pooled(size[1], 1)))
        y = self.spread(self.operator(self.embed(y)))
        return y if y.shape[2:] == size else F.interpolate(y, size=size, mode="bilinear")


class DynamicBranch(nn.Module):
    """The attentions, each on a coarser map, and their fusion."""

    def __init__(self, width: int, share: int, operators: Sequence[nn.Module], fusion: bool) -> None:
        super().__init__()
        widths = [share] * len(operators)
        if not fusion and sum(widths) != width:
            raise OptionError("fusion", fusion, "leaves twice the width where nothing is split", "fuse, or split")
        self.operators = Split(operators, widths) if sum(widths) == width else Joined(operators)
        self.fuse = Pointwise(sum(widths), width) if fusion and len(operators) > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, H, W)."""
        return self.fuse(self.operators(x))


@register("mixer", "ems", layout="map", tags=("attention", "convolution", "local", "global"))
class EMS(nn.Module):
    """Convolutions and attentions at several scales, each on its share of the channels (EMSNet)."""

    def __init__(
        self,
        width: int,
        grid: Grid,
        act: Callable[[], nn.Module],
        *,
        static: Annotated[bool, Field(description="the branch of convolutions")] = True,
        depthwise: Annotated[bool, Field(description="its depthwise convolution after the whitening")] = True,
        kernel: Annotated[int, Field(ge=1, le=63, description="kernel of that convolution, odd")] = 7,
        scales: Annotated[
            tuple[Annotated[int, Field(ge=1, le=64)], ...],
            Field(min_length=1, max_length=8, description="pooling of each of its parts; 1 hands a part on as it is"),
        ] = (2, 1, 4),
        shares: Annotated[
            tuple[Annotated[int, Field(ge=1, le=64)], ...],
            Field(min_length=1, max_length=8, description="the parts' shares of its channels, as proportions"),
        ] = (1, 2, 1),
        expansion: Annotated[int, Field(ge=1, le=16, description="times as many channels in its pooled parts")] = 2,
        coordinate_kernel: Annotated[int, Field(ge=1, le=63, description="kernel in its pooled parts, odd")] = 7,
        gate: Annotated[bool, Field(description="whether its parts gate a projection of its input")] = True,
        dynamic: Annotated[
            tuple[Operator, ...], Field(max_length=2, description="operators of the branch of attentions, in order")
        ] = ORDER,
        c_mhsa_side: Side = 14,
        global_side: Side = 10,
        head_width: Annotated[int, Field(ge=1, le=1024, description="channels of a head, in both attentions")] = 4,
        fusion: Annotated[
            bool, Field(description="1×1 convolutions of the parts that gate, and of the two attentions")
        ] = True,
        split: Annotated[bool, Field(description="shares of the channels; else all see all of them")] = True,
    ) -> None:
        super().__init__()
        _check_order(dynamic)
        branches: list[nn.Module] = []
        narrow = _share(width, static + bool(dynamic), split)
        if static:
            check_odd("kernel", kernel)
            check_odd("coordinate_kernel", coordinate_kernel)
            parts = _parts(narrow, scales, shares, expansion, coordinate_kernel)
            branches.append(StaticBranch(narrow, kernel if depthwise else None, parts, gate, fusion))
        if dynamic:
            sides = {"c_mhsa": c_mhsa_side, "global": global_side}
            share = _share(narrow, len(dynamic), split)
            operators = [Sparse(share, name, grid, sides[name], head_width) for name in dynamic]
            branches.append(DynamicBranch(narrow, share, operators, fusion))
        self.front = Pointwise(width, width)
        self.act = act()
        self.branches = _beside(branches, narrow, split)
        self.proj = Pointwise(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.proj(self.branches(self.act(self.front(x))))


def _beside(branches: Sequence[nn.Module], width: int, split: bool) -> nn.Module:
    if len(branches) < 2:
        return branches[0] if branches else nn.Identity()
    return Split(branches, [width] * len(branches)) if split else Summed(branches)


def _share(width: int, count: int, split: bool) -> int:
    """Channels of each of `count` branches."""
    if not split or count < 2:
        return width
    if width % count:
        raise OptionError("split", split, f"cannot divide {width} channels by {count}", f"{width + 1} could be divided")
    return width // count


def _parts(width: int, scales: Sequence[int], shares: Sequence[int], expansion: int, kernel: int) -> nn.Module:
    """The parts of the static branch, each with its share of the channels."""
    if len(shares) != len(scales):
        raise OptionError("shares", list(shares), f"are {len(shares)} for {len(scales)} scales", "one for each scale")
    whole = sum(shares)
    if width % whole:
        rule = f"are {whole} in all, which does not divide the {width} channels of the branch"
        raise OptionError("shares", list(shares), rule, f"{whole * max(1, round(width / whole))} could be divided")
    widths = [share * width // whole for share in shares]
    return Split([_part(*sizes, expansion, kernel) for sizes in zip(widths, scales, strict=True)], widths)


def _part(width: int, pool: int, expansion: int, kernel: int) -> nn.Module:
    return nn.Identity() if pool == 1 else CoarseConv(width, pool, expansion, kernel)


def _check_order(dynamic: tuple[Operator, ...]) -> None:
    """One spelling for each choice, so that equal networks have equal specs."""
    ordered = tuple(name for name in ORDER if name in dynamic)
    if dynamic != ordered:
        rule = f"is not in the order {', '.join(ORDER)}, each at most once"
        raise OptionError("dynamic", list(dynamic), rule, f"try [{', '.join(ordered)}]")
