"""Training memory of the plan beside torch's MemTracker, which runs the whole network on fake tensors.

    python benchmarks/memory.py                       one network of each family, batch 8 and 32, fp32
    python benchmarks/memory.py vit_tiny --bf16 --checkpointing
    python benchmarks/memory.py --cuda                on a GPU: beside torch.cuda.max_memory_allocated

Two steps of AdamW with cross-entropy; the peak of both. MemTracker takes up to minutes a network.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from archspec import api
from archspec.memory import training_memory
from archspec.network import Network
from archspec.plan import Plan

NETWORKS = [
    "vit_tiny",
    "pit_base",
    "mixer_s16_cbs",
    "nommer_t",
    "sgformer_s",
    "fcvit_tiny",
    "emsnet_xxtiny",
    "mat_1",
    "partialformer_b0",
    "hybrid_nommer_sg_mat_cb",
]


def tracked(plan: Plan, batch: int, *, bf16: bool, checkpointing: bool) -> int:
    """The peak that MemTracker finds, in bytes."""
    with torch.device("meta"):
        network = Network(plan).train()
    network.set_grad_checkpointing(checkpointing)
    fixed_as_buffers(network)
    with FakeTensorMode():
        network._apply(lambda weight: torch.empty(weight.shape, dtype=weight.dtype, device="cpu"))
        optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
        images = torch.empty(batch, plan.source.width, *plan.source.grid)
        tracker = MemTracker()
        tracker.track_external(network, optimizer, images)
        with tracker:
            for _ in range(2):  # the second step has the optimizer's state from the start
                step(network, optimizer, images, "cpu", bf16=bf16)
                tracker.reset_mod_stats()
        return next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, device: str, *, bf16: bool
) -> None:
    """One training step."""
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        loss = F.cross_entropy(network(images).float(), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def fixed_as_buffers(network: nn.Module) -> None:
    """MemTracker cannot watch parameters that are not trained."""
    for module in network.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None and not weight.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, weight.data)


def allocated(plan: Plan, batch: int, *, bf16: bool, checkpointing: bool) -> int:
    """The peak of torch.cuda.max_memory_allocated, in bytes."""
    torch.cuda.empty_cache()
    network = api.build(plan).train().cuda()
    network.set_grad_checkpointing(checkpointing)
    images = torch.randn(batch, plan.source.width, *plan.source.grid, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW(network.parameters())
    for _ in range(2):
        step(network, optimizer, images, "cuda", bf16=bf16)
    return torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--cuda", action="store_true")
    options = parser.parse_args()
    measure = allocated if options.cuda else tracked
    print("| network | batch | plan, MB | measured, MB | difference | plan, s | measured, s |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        plan = api.make_plan(name)
        for batch in options.batch:
            start = time.perf_counter()
            ours = training_memory(
                plan,
                batch=batch,
                precision="bf16" if options.bf16 else "fp32",
                checkpointing=options.checkpointing,
                foreach=options.cuda,
            ).total
            middle = time.perf_counter()
            theirs = measure(plan, batch, bf16=options.bf16, checkpointing=options.checkpointing)
            end = time.perf_counter()
            print(
                f"| {name} | {batch} | {ours / 1e6:.2f} | {theirs / 1e6:.2f} | {100 * (ours / theirs - 1):+.2f} % "
                f"| {middle - start:.2f} | {end - middle:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
