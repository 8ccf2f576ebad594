"""In which numbers and which memory layout a run computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What a recipe says about them, on a device."""

    device: torch.device
    name: str = "fp32"  # or bf16, fp16
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """The context for forward passes."""
        return torch.autocast(self.device.type, TYPES[self.name]) if self.name in TYPES else nullcontext()

    def place(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] on the device, in the layout."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return images.to(self.device, non_blocking=True, memory_format=layout)

    def place_network(self, network: nn.Module) -> None:
        """The network's weights likewise."""
        network.to(self.device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)

    def scaler(self) -> torch.amp.GradScaler:
        """Of the loss, so that small gradients survive fp16; does nothing for the others."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")
