"""What may happen to an image, as context broadcasting's paper tests it (section 4.6, tables 8 and 9).

Images are normalised; strengths are on the scale of their pixels, which
run from 0 to 1, so that a strength that the paper gives on 0..255 is divided by 255.
Shapes: B images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.training.data.base import Normalisation

REACH = 4.0  # a Gaussian is cut off at this many standard deviations


def occlude_centre(images: Tensor) -> Tensor:
    """Zeros in the middle half of the height and of the width: 112x112 of 224x224 (section 4.6).

    Zeros of what the network takes, which is the mean colour.
    """
    H, W = images.shape[-2:]
    height, width = H // 2, W // 2
    top, left = (H - height) // 2, (W - width) // 2
    occluded = images.clone()
    occluded[..., top : top + height, left : left + width] = 0
    return occluded


def add_noise(images: Tensor, sigma: float, constants: Normalisation, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation `sigma`, from a generator of the images' device; pixels stay in 0..1."""
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return _clipped(images + noise * sigma / _column(constants.std, images), constants)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Convolved with a Gaussian of `sigma` pixels, cut off at four of them; the border pixels are repeated."""
    reach = math.floor(REACH * sigma + 0.5)
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    B, C, H, W = images.shape
    planes = F.pad(images.reshape(B * C, 1, H, W), (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return planes.view(B, C, H, W)


def fgsm(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: float, constants: Normalisation
) -> Tensor:
    """Every pixel moved by `epsilon` in the direction that raises the cross entropy of its image; it stays in 0..1.

    The fast gradient sign method: Goodfellow, Shlens and Szegedy 2015, Explaining and Harnessing Adversarial Examples,
    section 4. `network`: [B, C, H, W] -> logits [B, K], in evaluation mode.
    """
    with torch.enable_grad():
        attacked = images.detach().requires_grad_()
        loss = F.cross_entropy(network(attacked).float(), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, attacked)
    return _clipped(images + slope.sign() * epsilon / _column(constants.std, images), constants)


def _clipped(images: Tensor, constants: Normalisation) -> Tensor:
    """Normalised pixels kept between black and white."""
    mean, std = _column(constants.mean, images), _column(constants.std, images)
    return images.clamp(-mean / std, (1 - mean) / std)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A number a channel, [C, 1, 1]."""
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1)
