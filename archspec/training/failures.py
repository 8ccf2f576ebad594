"""What a failed run is told: where it stood, and what to try."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from archspec.errors import TrainingError
from archspec.plan import Plan
from archspec.training.distributed import Group
from archspec.training.recipe import Recipe
from archspec.training.snapshots import Position

SHARE = 0.9  # of the memory that is there: the prediction leaves out what the libraries take for themselves
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # of an allocation that failed
ONE_STATE = ("sgd", "lion")  # optimizers that keep one number a weight, the others two


def describe(at: Position | None) -> str:
    """Where a saved state stands."""
    return f"epoch {at[0]}, step {at[1]}" if at else "none"


def diverged(folder: Path, recipe: Recipe, epoch: int, step: int, steps: int, saved: Position | None) -> TrainingError:
    """For a loss, or a gradient, that is not finite at step `step` (from 1) of `steps`."""
    tries = [
        f"a lower optimizer.lr, now {recipe.optimizer.lr:g}",
        f"more schedule.warmup_epochs, now {recipe.schedule.warmup_epochs:g}",
    ]
    if recipe.clip is None:
        tries.append("clip: 1")
    if recipe.precision == "fp16":
        tries.append("precision: bf16")
    return TrainingError(
        f"epoch {epoch}, step {step} of {steps}: the loss or a gradient is not finite; the last finite state in "
        f"{folder}: {describe(saved)} (try {', or '.join(tries)}, in a new folder)"
    )


@contextmanager
def memory_explained(plan: Plan, recipe: Recipe, group: Group, batch: int) -> Iterator[None]:
    """Turns an allocation that fails inside into a TrainingError with what is needed, what is there and what would fit.

    batch: images of all processes at a step.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise TrainingError(_out_of_memory(plan, recipe, group, batch)) from error


def _out_of_memory(plan: Plan, recipe: Recipe, group: Group, batch: int) -> str:
    share = max(1, batch // group.world)
    part = -(-share // recipe.accumulate)
    needed, there = predicted(plan, recipe, part), available(group.device)
    return (
        f"out of memory on {group.device}: a step with {part} images at a time needs about {_size(needed)}, "
        f"there are {_size(there)} ({_remedy(plan, recipe, share, part, there)})"
    )


def _remedy(plan: Plan, recipe: Recipe, share: int, part: int, there: int) -> str:
    """The largest part of a process's share of the batch that fits; the batch itself stays as it is."""
    accumulate = 2 * recipe.accumulate
    while accumulate < 2 * share:
        smaller = max(1, share // accumulate)
        needed = predicted(plan, recipe, smaller)
        if smaller < part and needed < SHARE * there:
            return f"try --recipe-set accumulate={accumulate}: {smaller} images at a time need about {_size(needed)}"
        accumulate *= 2
    if not recipe.checkpointing:
        return "not even one image at a time is sure to fit: try --recipe-set checkpointing=true"
    return "not even one image at a time is sure to fit: try a smaller network or input size"


def predicted(plan: Plan, recipe: Recipe, images: int) -> int:
    """Bytes that a step with that many images at a time needs."""
    from archspec.memory import training_memory

    optimizer: Literal["adamw", "sgd"] = "sgd" if recipe.optimizer.type in ONE_STATE else "adamw"
    return training_memory(
        plan,
        batch=images,
        precision="fp32" if recipe.precision == "fp32" else "bf16",
        optimizer=optimizer,
        checkpointing=recipe.checkpointing,
        ema=recipe.ema is not None,
    ).total


def available(device: torch.device) -> int:
    """Bytes that this process can have in all: on a GPU what is free or its own, else the machine's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _size(amount: int) -> str:
    return f"{amount / 2**30:,.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:,.1f} MiB"
