"""How fast the shipped networks run, as multiply-accumulates a second relative to timm's vit_small in the same run.

    python benchmarks/speed.py [NAME ...] [--rounds 5] [--batch 8] [--threads 2] [--train]

A name may carry patches: 'nommer_t@stages[:2].mixer.dct=matmul'. Each round times every network once, timm's vit_small
before and after it; the ratio is taken within the round, so that a machine that slows down for a while slows both. The
median over the rounds is printed with its spread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from archspec import api
from archspec.plan import Plan

REFERENCE = "vit_small_patch16_224"
REFERENCE_MACS = 4_598_882_304
DEFAULT = ("nommer_t", "nommer_s", "sgformer_s", "fcvit_tiny", "fcvit_b12", "pit_base", "mixer_s16")


def plan(name: str) -> Plan:
    """A shipped network, patched by what follows each @."""
    spec, *sets = name.split("@")
    return api.make_plan(spec, sets=sets)


def evaluation(network: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    network.eval()

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def training(network: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    labels = torch.zeros(len(images), dtype=torch.long)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="time training steps in place of evaluation")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    mode = training if arguments.train else evaluation
    images = torch.randn(arguments.batch, 3, 224, 224)
    plans = {name: plan(name) for name in arguments.names}
    macs = {name: api.count(one).macs for name, one in plans.items()}
    runs = {name: mode(api.build(one), images) for name, one in plans.items()}
    reference = mode(timm.create_model(REFERENCE), images)
    for run in (reference, *runs.values()):
        run()  # warm up
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        before = seconds(reference)
        for name, run in runs.items():
            taken = seconds(run)
            after = seconds(reference)
            ratios[name].append(macs[name] / taken / (REFERENCE_MACS / ((before + after) / 2)))
            times[name].append(taken)
            before = after
    table = Table(
        title=f"{'training step' if arguments.train else 'evaluation'}, batch {arguments.batch}, "
        f"{arguments.threads} threads, float32, torch {torch.__version__}; relative to timm's vit_small"
    )
    for heading in ("network", "images/s", "GMACs/s", "relative", "spread"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name, values in ratios.items():
        rate = arguments.batch / statistics.median(times[name])
        table.add_row(
            name,
            f"{rate:.1f}",
            f"{rate * macs[name] / 1e9:.0f}",
            f"{statistics.median(values):.2f}",
            f"{min(values):.2f}..{max(values):.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
