"""A network: an ordinary PyTorch module, made from a plan."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from archspec.layout import Grid, to_map
from archspec.modules import Side, Skip, build_unit
from archspec.plan import Plan, StagePlan, Step


class Stage(nn.Module):
    """Downsampling, class token, position encoding, blocks, norm: tokens in, tokens and their grid out."""

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        made = {step.name.rsplit(".", 1)[-1]: _made(step) for step in plan.steps if step.unit.role != "block"}
        self.downsample = made.get("downsample", KeepGrid())
        self.class_token = made.get("class_token", Skip())
        self.position = made.get("position", Skip())
        self.blocks = nn.ModuleList(_made(step) for step in plan.blocks)
        self.norm = made.get("norm", Skip())

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        x, grid = self.downsample(x, grid)
        x = self.position(self.class_token(x, grid), grid)
        side: Side = {}
        for block in self.blocks:
            x, side = block(x, grid, side)
        return self.norm(x, grid), grid


class KeepGrid(nn.Module):
    """No downsampling."""

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        return x, grid


class Network(nn.Module):
    """The network of a plan.

    Weights are named by position: `stages.2.blocks.0.mixer.body.qkv.weight`. Initial values come from torch's global
    generator; `archspec.build` seeds it.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.num_classes = plan.spec.classes
        self.num_features = plan.stages[-1].target.width
        self.prefix_tokens = plan.stages[-1].target.prefix
        self.stem = _made(plan.stem)
        self.stages = nn.ModuleList(Stage(stage) for stage in plan.stages)
        self.head = _made(plan.head) if plan.head else None
        initialise(self, plan.spec.conv_init)

    def forward_features(self, image: Tensor) -> Tensor:
        """Image (B, channels, height, width) -> the last stage's tokens (B, P + N, C)."""
        return self._tokens(image)[0]

    def forward_head(self, x: Tensor) -> Tensor:
        """Tokens (B, P + N, C) -> logits (B, classes)."""
        if self.head is None:
            raise ValueError("this network was specified with `head: none`")
        return cast("Tensor", self.head(x))

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, channels, height, width) -> logits (B, classes), or the last map (B, C, H, W) with `head: none`."""
        x, grid = self._tokens(image)
        return to_map(x[:, self.prefix_tokens :], grid) if self.head is None else self.forward_head(x)

    def _tokens(self, image: Tensor) -> tuple[Tensor, Grid]:
        x, grid = self.stem(image)
        for stage in self.stages:
            x, grid = stage(x, grid)
        return x, grid

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone: class tokens, position and bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith((".token", ".embedding", "bias_table"))}


def _made(step: Step) -> nn.Module:
    return build_unit(step.unit, drop_path=step.drop_path, std=step.std)


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
