"""A network: an ordinary PyTorch module, made from a plan, with the surface that timm's users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archspec.errors import UsageError
from archspec.layout import Grid, to_map
from archspec.modules import Side, Skip, build_unit
from archspec.plan import Plan, StagePlan, State, Step


class Stage(nn.Module):
    """Downsampling, class token, position encoding, blocks, norm: tokens in, tokens and their grid out."""

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        made = {step.name.rsplit(".", 1)[-1]: _made(step) for step in plan.steps if step.unit.role != "block"}
        self.downsample = made.get("downsample", KeepGrid())
        self.class_token = made.get("class_token", Skip())
        self.position = made.get("position", Skip())
        self.blocks = nn.ModuleList(_made(step) for step in plan.blocks)
        self.norm: nn.Module = made.get("norm", Skip())
        self.grad_checkpointing = False

    def forward(self, x: Tensor, grid: Grid, taps: list[Tensor] | None = None) -> tuple[Tensor, Grid]:
        x, grid = self.downsample(x, grid)
        x = self.position(self.class_token(x, grid), grid)
        side: Side = {}
        for block in self.blocks:
            x, side = self.run(block, x, grid, side)
            if taps is not None:
                taps.append(x)
        return self.norm(x, grid), grid

    def run(self, block: nn.Module, x: Tensor, grid: Grid, side: Side) -> tuple[Tensor, Side]:
        """One block; with gradient checkpointing its activations are computed again in the backward pass."""
        if self.grad_checkpointing and self.training:
            return cast("tuple[Tensor, Side]", checkpoint(block, x, grid, side, use_reentrant=False))
        return cast("tuple[Tensor, Side]", block(x, grid, side))


class KeepGrid(nn.Module):
    """No downsampling."""

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        return x, grid


class Network(nn.Module):
    """The network of a plan.

    Weights are named by position: `stages.2.blocks.0.mixer.body.qkv.weight`. Initial values come from torch's global
    generator; `archspec.build` seeds it. `feature_info` lists the maps that `forward_intermediates` can give: one a
    stage, or, where there is but one stage, one a block.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.num_classes = plan.spec.classes
        self.num_features = self.head_hidden_size = plan.stages[-1].target.width
        self.stem = _made(plan.stem)
        self.stages = nn.ModuleList(Stage(stage) for stage in plan.stages)
        self.head = _made(plan.head) if plan.head else None
        self.feature_info = [_feature(plan, step_name, state) for step_name, state in _levels(plan)]
        self.level_prefix = [state.prefix for _, state in _levels(plan)]
        initialise(self, plan.conv_init)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, channels, height, width) -> logits (B, classes), or the last map (B, C, H, W) with `head: none`."""
        x, grid = self._tokens(image)
        return self._map(x, grid, -1) if self.head is None else self.forward_head(x)

    def forward_features(self, image: Tensor) -> Tensor:
        """Image (B, channels, height, width) -> the last stage's tokens (B, P + N, C)."""
        return self._tokens(image)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, P + N, C) -> logits (B, classes), or the pooled features before the classifier."""
        if self.head is None:
            raise UsageError("this network was specified with `head: none`")
        return cast("Tensor", cast("Any", self.head).features(x) if pre_logits else self.head(x))

    def _tokens(self, image: Tensor) -> tuple[Tensor, Grid]:
        x, grid = self.stem(image)
        for stage in self.stages:
            x, grid = stage(x, grid)
        return x, grid

    def _map(self, x: Tensor, grid: Grid, level: int) -> Tensor:
        """Tokens without the class tokens, as a map (B, C, H, W)."""
        return to_map(x[:, self.level_prefix[level] :], grid)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps (B, C, H, W) behind the stages, or behind the blocks of a single stage, as timm's models give them.

        indices: which of `feature_info`; a number n stands for the last n, None for all. norm: apply the norm behind a
        single stage to each block's map (a stage's norm is always part of it). stop_early: leave out the stages behind
        the last one asked for. intermediates_only: the maps alone, otherwise (last tokens, maps). Raises UsageError for
        an index that is not there, or another output format.
        """
        if output_fmt != "NCHW":
            raise UsageError(f"output_fmt {output_fmt!r}: the maps come as NCHW")
        chosen = self._chosen(indices)
        x, grid = self.stem(x)
        if len(self.stages) == 1:
            only, taps = cast("Stage", self.stages[0]), cast("list[Tensor]", [])
            x, grid = only(x, grid, taps)
            levels = [(only.norm(tap, grid) if norm else tap, grid) for tap in taps]
        else:
            levels = []
            for stage in self.stages[: max(chosen) + 1] if stop_early else self.stages:
                x, grid = stage(x, grid)
                levels.append((x, grid))
        maps = [self._map(*levels[level], level) for level in chosen]
        return maps if intermediates_only else (x, maps)

    def _chosen(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(self.level_prefix)
        wanted = range(count) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
        if not wanted or not all(-count <= index < count for index in wanted):
            raise UsageError(f"indices {indices}: there are {count} maps, see feature_info")
        return sorted({index % count for index in wanted})

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what stands behind the last map asked for, and the head; returns the indices that are left."""
        chosen = self._chosen(indices)
        kept = max(chosen) + 1
        if len(self.stages) > 1:
            self.stages = self.stages[:kept]
        else:
            self.stages[0].blocks = cast("nn.ModuleList", self.stages[0].blocks)[:kept]
            if prune_norm:
                self.stages[0].norm = Skip()
        if prune_head:
            self.head = None
        return chosen

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        if self.head is None:
            raise UsageError("this network was specified with `head: none`")
        return cast("nn.Module", self.head.classifier)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for another number of classes; 0 leaves the pooled features. The pooling stays."""
        if global_pool is not None:
            raise UsageError("the pooling belongs to the spec: --set head.pool=mean or token")
        old = self.get_classifier()
        width = old.in_features if isinstance(old, nn.Linear) else self.num_features
        weight = next(self.parameters())
        fresh = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        initialise(fresh, "torch")
        cast("nn.Module", self.head).classifier = fresh.to(weight.device, weight.dtype)
        self.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside blocks during training; compute them again in the backward pass."""
        for stage in self.stages:
            cast("Stage", stage).grad_checkpointing = enable

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone: class tokens, position and bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith((".token", ".embedding", "bias_table"))}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm groups parameters for layer-wise rates: stem, then block by block, or by stage."""
        entrance = r"(?:downsample|class_token|position)\."
        fine = [
            (rf"^stages\.(\d+)\.{entrance}", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)\.", None),
            (r"^stages\.(\d+)\.norm\.", (99999,)),  # timm's sign for "with the group before"
        ]
        return {"stem": rf"^stem\.|^stages\.0\.{entrance}", "blocks": r"^stages\.(\d+)\." if coarse else fine}


def _made(step: Step) -> nn.Module:
    return build_unit(step.unit, drop_path=step.drop_path, std=step.std)


def _levels(plan: Plan) -> list[tuple[str, State]]:
    """Name and state of each map that can be asked for: behind the stages, or behind the blocks of the only one."""
    if len(plan.stages) > 1:
        return [(stage.name, stage.target) for stage in plan.stages]
    return [(step.name, step.unit.target) for step in plan.stages[0].blocks]


def _feature(plan: Plan, name: str, state: State) -> dict[str, Any]:
    """What timm wants to know of a map: channels, pixels a position, module."""
    return {"num_chs": state.width, "reduction": round(plan.source.grid[0] / state.grid[0]), "module": name}


def initialise(network: nn.Module, conv_init: str) -> None:
    """Linears: normal, deviation 0.02, cut at 2 (zero bias). Convolutions: as PyTorch does, or `fan_out`."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and conv_init == "fan_out" and module.weight.requires_grad:
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
