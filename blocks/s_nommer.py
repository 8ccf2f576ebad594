"""S-NomMer: at each position, a nominator picks one of three contexts: convolution, window or global attention.

B batch, C channels, H × W the map, N block of the DCT, l = ceil(N/2) kept frequencies per axis, K candidates.

Paper: NomMer, sections 3.2.1-3.2.3 and table 4, https://arxiv.org/abs/2111.12994. Table 4's ablations are options:
`candidates` leaves contexts out, `global_context: pool` replaces the DCT, `nominator: sum` the nominator.

Differences:
- The order of the candidates is CNN, local, global, as released; the paper's example has local first.
- The second 1×1 convolution restores the l×l kept coefficients, as released, not N×N ones, and both convolutions have
  groups.
- The paper does not pin the pooled global context down. Here: max pooling N×N, the same attention, bilinear back to
  size.
- `nominator: softmax` is an extra: a soft mixture in place of the hard choice.
- `dct: matmul` gives the same values without the released checkpoints' fixed kernels.
- Sizes that the window or the block does not divide are padded, see the `window` mixer and blocks/dct.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archspec.checks import divides
from archspec.errors import OptionError
from archspec.layout import to_map, to_tokens
from archspec.registry import register

from .attention import Attention
from .dct import BlockDct, Form, InverseBlockDct
from .window_attention import WindowAttention

Candidate = Literal["cnn", "local", "global"]
ORDER: tuple[Candidate, ...] = ("cnn", "local", "global")


class Bottleneck(nn.Module):
    """The CNN candidate: 1×1 to width/expansion, 3×3, 1×1 back, each with batch norm, and a residual."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        divides("cnn_expansion", expansion, "the width", width)
        narrow = width // expansion
        self.conv1 = nn.Conv2d(width, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(x + self.bn3(self.conv3(y)))


class FrequencyAttention(nn.Module):
    """The global candidate (CGCA): attention between blocks, on the low frequencies of each."""

    def __init__(self, width: int, heads: int, block: int, groups: int, form: Form) -> None:
        super().__init__()
        divides("groups", groups, "the width", width)
        kept = math.ceil(block / 2)
        coefficients = kept * kept * width
        self.dct = BlockDct(width, block, kept, form)
        self.reduce = nn.Conv2d(coefficients, width, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.attention = Attention(width, heads=heads, qkv_bias=False)
        self.expand = nn.Conv2d(width, coefficients, 1, groups=groups, bias=False)
        self.inverse = InverseBlockDct(width, block, kept, form)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = self.norm(self.reduce(self.dct(x)))  # (B, C, H/N, W/N)
        y = to_map(self.attention(to_tokens(y)), y.shape[2:])
        return self.inverse(self.expand(y), x.shape[2:])


class PooledAttention(nn.Module):
    """The global candidate without a DCT: attention between the blocks' maxima."""

    def __init__(self, width: int, heads: int, block: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(block, ceil_mode=True)
        self.attention = Attention(width, heads=heads, qkv_bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = self.pool(x)  # (B, C, ceil(H/N), ceil(W/N))
        y = to_map(self.attention(to_tokens(y)), y.shape[2:])
        return F.interpolate(y, size=x.shape[2:], mode="bilinear")


class HardChoice(nn.Module):
    """Scores -> one-hot weights: a straight-through Gumbel softmax in training, the arg max in evaluation."""

    def forward(self, scores: Tensor) -> Tensor:
        """(..., K) -> (..., K)."""
        if self.training:
            # In half precision the noise can underflow to log(0).
            exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
            return F.gumbel_softmax(exact, tau=1, hard=True, dim=-1).to(scores.dtype)
        return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)


class Sum(nn.Module):
    """The candidates' sum; of one candidate, itself."""

    def forward(self, candidates: Sequence[Tensor]) -> Tensor:
        """K times (B, C, H, W) -> (B, C, H, W)."""
        return reduce(torch.add, candidates)


class Nominator(nn.Module):
    """Weighs the candidates at each position, by a linear score of their sum."""

    def __init__(self, width: int, count: int, choice: nn.Module) -> None:
        super().__init__()
        self.score = nn.Linear(width, count)
        self.choice = choice

    def nominate(self, candidates: Sequence[Tensor]) -> Tensor:
        """K times (B, C, H, W) -> the nomination map (B, H, W, K), each position summing to 1."""
        return self.choice(self.score(reduce(torch.add, candidates).permute(0, 2, 3, 1)))

    def forward(self, candidates: Sequence[Tensor]) -> Tensor:
        """K times (B, C, H, W) -> (B, C, H, W)."""
        weights = self.nominate(candidates)[:, None].unbind(-1)  # K times (B, 1, H, W)
        mixed = candidates[0] * weights[0]
        for candidate, weight in zip(candidates[1:], weights[1:], strict=True):
            mixed = torch.addcmul(mixed, candidate, weight)
        return mixed


@register("mixer", "s_nommer", layout="map", tags=("attention", "convolution", "local", "global"))
class SNomMer(nn.Module):
    """Nominates, at each position, a convolution's, a window attention's or a global attention's output."""

    def __init__(
        self,
        width: int,
        *,
        heads: Annotated[int, Field(ge=1, le=1024, description="heads of both attentions; divides the width")] = 2,
        window: Annotated[int, Field(ge=1, le=64, description="side of a local window, in tokens")] = 7,
        block: Annotated[int, Field(ge=2, le=32, description="side of a DCT or pooling block, in tokens")] = 8,
        cnn_expansion: Annotated[int, Field(ge=1, le=64, description="width over the CNN's width inside")] = 2,
        groups: Annotated[int, Field(ge=1, le=1024, description="groups of the 1×1 convolutions by the DCT")] = 8,
        candidates: Annotated[
            tuple[Candidate, ...], Field(min_length=1, max_length=3, description="contexts to choose from, in order")
        ] = ORDER,
        global_context: Annotated[
            Literal["dct", "pool"], Field(description="what the global attention sees of a block")
        ] = "dct",
        nominator: Annotated[
            Literal["gumbel", "softmax", "sum"], Field(description="hard choice, soft choice, or the plain sum")
        ] = "gumbel",
        dct: Annotated[
            Form, Field(description="DCT by fixed kernels, as released, or by matrix products of the same values")
        ] = "conv",
    ) -> None:
        super().__init__()
        _check_order(candidates)
        build: dict[str, Callable[[], nn.Module]] = {
            "cnn": partial(Bottleneck, width, cnn_expansion),
            "local": partial(WindowAttention, width, heads=heads, window=window),
            "dct": partial(FrequencyAttention, width, heads, block, groups, dct),
            "pool": partial(PooledAttention, width, heads, block),
        }
        build["global"] = build[global_context]
        # "global" alone is a keyword, which no exported graph could name.
        self.candidates = nn.ModuleDict({f"{name}_context": build[name]() for name in candidates})
        choice = HardChoice() if nominator == "gumbel" else nn.Softmax(-1)
        plain = nominator == "sum" or len(candidates) == 1
        self.nominator = Sum() if plain else Nominator(width, len(candidates), choice)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.nominator([candidate(x) for candidate in self.candidates.values()])


def _check_order(candidates: tuple[Candidate, ...]) -> None:
    """One spelling for each choice, so that equal networks have equal specs."""
    ordered = tuple(name for name in ORDER if name in candidates)
    if candidates != ordered:
        rule = f"is not in the order {', '.join(ORDER)}, each at most once"
        raise OptionError("candidates", list(candidates), rule, f"try [{', '.join(ordered)}]")
