"""What a network still gets right when its images are disturbed, as in context broadcasting's paper.

Scratching Visual Transformer's Back with Uniform Attention (Hyeon-Woo et al. 2023), section 4.6: table 8 for occlusion
and the fast gradient sign method, on ImageNet; table 9 for noise and blur, there on the segmentation of ADE20K.

Differences:
- The paper states no strength of the attack. 1/255 and 8/255, both usual, are given.
- Noise and blur are applied to classification, to images at the network's input size.
- Noise is drawn five times as in the paper; the 95% interval is Student's, as the paper does not say which.
- ImageNet-A and shot noise, which are in the same tables, are not here. The one is a data set: evaluate on a tree with
  it as val/ and with a train/ that names all classes. Of the other the paper states no strength.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from archspec.evaluation.perturbations import add_noise, blur, fgsm, occlude_centre
from archspec.evaluation.scores import Tally
from archspec.training.data.base import Batch, Normalisation
from archspec.training.data.stream import seed_of

EPSILONS = (1, 8)  # of 255
NOISES = (5.0, 10.0)  # of 255; table 9
BLURS = (1.0, 2.0)  # pixels; table 9
DRAWS = 5  # of noise; table 9
STUDENT = 2.776  # 97.5% quantile of Student's distribution for DRAWS - 1 degrees of freedom

Network = Callable[[Tensor], Tensor]  # [B, C, H, W] -> [B, K]
Disturb = Callable[[Network, Tensor, Tensor], Tensor]  # network, images, labels -> images


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A way to disturb images; `draws` holds one function for each time that chance is asked."""

    name: str
    draws: tuple[Disturb, ...]


@dataclass(frozen=True, kw_only=True)
class Withstood:
    """The share of the images that is answered right, 0..1, under one condition."""

    name: str
    top1: float  # the mean of the draws
    interval: float | None  # half the width of its 95% interval; None where chance has no part
    draws: tuple[float, ...]


def conditions(constants: Normalisation, device: torch.device, *, seed: int = 0) -> list[Condition]:
    """All that the module's docstring lists. The noise is the same for the same seed, device and batches."""
    found = [Condition(name="occlusion", draws=(lambda _, images, __: occlude_centre(images),))]
    found += [_attack(step, constants) for step in EPSILONS]
    found += [_noise(sigma, constants, device, seed) for sigma in NOISES]
    return found + [_blur(sigma) for sigma in BLURS]


def _attack(step: int, constants: Normalisation) -> Condition:
    def attack(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        return fgsm(network, images, labels, step / 255, constants)

    return Condition(name=f"fgsm {step}/255", draws=(attack,))


def _blur(sigma: float) -> Condition:
    return Condition(name=f"blur {sigma:g}", draws=(lambda _, images, __: blur(images, sigma),))


def _noise(sigma: float, constants: Normalisation, device: torch.device, seed: int) -> Condition:
    def draw(number: int) -> Disturb:
        generator = torch.Generator(device).manual_seed(seed_of(seed, number))
        return lambda _, images, __: add_noise(images, sigma / 255, constants, generator)

    return Condition(name=f"noise {sigma:g}/255", draws=tuple(draw(number) for number in range(DRAWS)))


def withstand(
    network: nn.Module, batches: Iterator[Batch], chosen: Sequence[Condition], *, classes: int, device: torch.device
) -> list[Withstood]:
    """Evaluate the network, in evaluation mode, under every condition; each batch is read once."""
    tallies = [[Tally(classes) for _ in condition.draws] for condition in chosen]
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        for condition, row in zip(chosen, tallies, strict=True):
            for disturb, tally in zip(condition.draws, row, strict=True):
                disturbed = disturb(network, images, labels)
                with torch.inference_mode():
                    tally.add(network(disturbed), labels)
    return [_withstood(condition.name, row) for condition, row in zip(chosen, tallies, strict=True)]


def _withstood(name: str, tallies: Sequence[Tally]) -> Withstood:
    shares = tuple(tally.scores().top1 for tally in tallies)
    interval = STUDENT * statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else None
    return Withstood(name=name, top1=statistics.fmean(shares), interval=interval, draws=shares)
