"""Memory from the plan: against torch's MemTracker on the whole network, and what follows by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

import archspec
from archspec.errors import UsageError
from archspec.loading import load_text
from archspec.memory import inference_memory, training_memory
from archspec.memory_trace import Storages
from archspec.network import Network
from archspec.plan import Plan


def tracked(plan: Plan, batch: int, *, training: bool = True, bf16: bool = False, checkpointing: bool = False) -> int:
    """The peak of two steps with AdamW, or of one forward pass, as MemTracker finds it."""
    with torch.device("meta"):
        network = Network(plan).train(training)
    network.set_grad_checkpointing(checkpointing)
    for module in network.modules():  # MemTracker cannot watch parameters that are not trained
        for name, weight in list(module._parameters.items()):
            if weight is not None and not weight.requires_grad:
                del module._parameters[name]
                module.register_buffer(name, weight.data)
    with FakeTensorMode():
        network._apply(lambda weight: torch.empty(weight.shape, dtype=weight.dtype, device="cpu"))
        optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
        images = torch.empty(batch, plan.source.width, *plan.source.grid)
        tracker = MemTracker()
        tracker.track_external(network, optimizer, images)
        with tracker, torch.set_grad_enabled(training):
            for _ in range(2 if training else 1):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits = network(images)
                    loss = F.cross_entropy(logits.float(), torch.zeros(batch, dtype=torch.long)) if training else None
                if loss is not None:
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                tracker.reset_mod_stats()
        return next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]


CASES = [
    ("vit_micro", 8, {}),
    ("mixer_micro", 32, {}),
    ("vit_micro", 1, {}),
    ("vit_micro", 32, {"checkpointing": True}),
    ("vit_micro", 32, {"bf16": True}),
    ("nommer_micro", 32, {}),
    ("pit_micro", 32, {"bf16": True}),
]


@pytest.mark.slow  # MemTracker takes seconds for a network; benchmarks/memory.py compares the large ones
@pytest.mark.parametrize(("name", "batch", "options"), CASES, ids=str)
def test_the_peak_of_a_training_step_is_what_memtracker_finds(name, batch, options):
    plan = archspec.make_plan(name)
    precision = "bf16" if options.get("bf16") else "fp32"
    ours = training_memory(plan, batch=batch, precision=precision, checkpointing="checkpointing" in options).total
    assert ours == pytest.approx(tracked(plan, batch, **options), rel=0.01)


@pytest.mark.slow
def test_the_peak_of_a_forward_pass_is_what_memtracker_finds():
    plan = archspec.make_plan("mixer_micro")
    assert inference_memory(plan, batch=32).total == pytest.approx(tracked(plan, 32, training=False), rel=0.01)


def test_attention_leaves_no_matrix_of_pairs():
    text = """
    archspec: 1
    name: long
    input: {channels: 1, size: 256}
    classes: 2
    stem: {type: patch, kernel: 4}
    stages: [{width: 16, depth: 1, mixer: {type: attention, heads: 1}, ffn: none}]
    head: {type: linear, pool: mean}
    """
    memory = training_memory(archspec.make_plan(load_text(text)))
    pairs = 4 * (64 * 64) ** 2
    assert memory.total < pairs / 10


def test_the_parts_by_hand():
    plan = archspec.make_plan("mixer_micro")
    params = 4 * archspec.count(plan).params
    plain = training_memory(plan, batch=8)
    assert plain.parameters == pytest.approx(params, rel=0.1)  # each parameter is rounded up to 512 bytes
    assert plain.optimizer == 2 * params
    assert training_memory(plan, batch=8, optimizer="sgd").total == plain.total - params
    assert training_memory(plan, batch=8, ema=True).total == plain.total + plain.parameters
    assert training_memory(plan, batch=8, checkpointing=True).total < plain.total
    assert training_memory(plan, batch=16).activations == pytest.approx(2 * plain.activations, rel=0.01)


def test_at_a_batch_of_one_the_optimizer_may_need_the_most():
    text = """
    archspec: 1
    name: wide
    input: {channels: 3, size: 32}
    classes: 2
    stem: {type: patch, kernel: 32}
    stages: [{width: 1024, depth: 1, mixer: none, ffn: {type: mlp, ratio: 4}}]
    head: {type: linear, pool: mean}
    """
    plan = archspec.make_plan(load_text(text))
    memory = training_memory(plan, batch=1)
    assert memory.gradients == 4 * archspec.count(plan).params
    assert memory.workspace == 2 * 4 * 1024 * 4096  # AdamW's square roots and their quotients, of the largest parameter


def test_storages_count_once_while_they_live():
    with Storages() as storages:
        a = torch.empty(100)
        b = a.view(10, 10)[2:]
        assert storages.live == 512
        c = torch.empty(200)
        assert storages.live == 512 + 1024
        del a, c
        assert storages.live == 512
        del b
    assert (storages.live, storages.peak) == (0, 1536)


def test_a_tensor_that_was_there_before_is_not_counted():
    weight = nn.Parameter(torch.empty(1000))
    with Storages() as storages:
        storages.ignore(weight)
        view = weight.view(10, 100)
        assert storages.live == 0
        del view


def test_what_cannot_be():
    plan = archspec.make_plan("mixer_micro")
    with pytest.raises(UsageError, match=r"adamm.*adamw"):
        training_memory(plan, optimizer="adamm")
    with pytest.raises(UsageError, match="batch 0"):
        training_memory(plan, batch=0)
