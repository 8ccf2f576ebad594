"""What every registered part must keep to, in a micro network around it. Registering a part enrols it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from archspec import api, registry
from archspec.cost import module_cost
from archspec.errors import SpecError
from archspec.loading import load_text
from archspec.network import Network
from archspec.registry import Entry
from archspec.resolved import to_yaml

SPEC = {
    "stem": "{type: patch, kernel: 4}",
    "norm": "layer",
    "act": "gelu",
    "mixer": "{type: attention, heads: 4}",
    "ffn": "{type: mlp, ratio: 2}",
    "position": "none",
    "modifiers": "none",
    "downsample": "{type: patch, kernel: 2}",
    "head": "{type: linear, pool: mean}",
}
TEMPLATE = """
archspec: 1
name: contract
input: {{channels: 3, size: [32, 48]}}
classes: 5
defaults: {{norm: {norm}, act: {act}, ffn: {ffn}, mixer: {mixer}, downsample: {downsample}, position: {position}}}
stem: {stem}
stages:
  - {{width: 32, depth: 2, modifiers: {modifiers}}}
  - {{width: 64, depth: 2}}
head: {head}
"""


def providers(entry: Entry) -> list[str]:
    """Mixers that give what this one needs."""
    needs = entry.needs(entry.default_options())
    mixers = [other for other in registry.entries() if other.kind == "mixer"]
    return [next(m.name for m in mixers if need in m.provides(m.default_options())) for need in needs]


def plan_around(entry: Entry, name: str | None = None):
    """A micro network that holds the part, with its default options."""
    say = dict(SPEC)
    written = name or entry.name
    if entry.kind == "mixer":
        say["mixer"] = f"[{', '.join([*providers(entry), written])}]"
    elif entry.kind == "modifier":
        say["modifiers"] = f"[{written}]"
    else:
        say[entry.kind] = written
    return api.make_plan(load_text(TEMPLATE.format(**say)))


@pytest.fixture(params=registry.entries(), ids=lambda entry: f"{entry.kind}-{entry.name}")
def entry(request) -> Entry:
    return request.param


@pytest.fixture
def network(entry: Entry) -> Network:
    return api.build(plan_around(entry), seed=1)


def images(network: nn.Module, count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_shape_and_every_parameter_gets_a_finite_gradient(network):
    network.train()
    torch.manual_seed(0)
    logits = network(images(network))
    assert logits.shape == (2, 5)
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_evaluation_is_deterministic_and_images_do_not_see_one_another(network):
    network.double()
    batch = images(network).double()
    with torch.inference_mode():
        both = network(batch)
        torch.testing.assert_close(network(batch), both, rtol=0, atol=0)
        torch.testing.assert_close(network(batch[1:]), both[1:], rtol=1e-9, atol=1e-9)


def test_state_dict_copy_and_file_give_the_same_network(entry, network):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = api.build(plan_around(entry), seed=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        expected = network(images(network))
        torch.testing.assert_close(other(images(network)), expected)
        torch.testing.assert_close(copy.deepcopy(network)(images(network)), expected)


def test_other_precisions_and_memory_formats(network):
    batch = images(network)
    with torch.inference_mode():
        expected = network(batch)
        channels_last = network.to(memory_format=torch.channels_last)(batch.to(memory_format=torch.channels_last))
        torch.testing.assert_close(channels_last, expected, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(batch).isfinite().all()
        assert network.double()(batch.double()).dtype == torch.float64


def test_the_sum_over_units_is_a_trace_of_the_whole(entry):
    plan = plan_around(entry)
    cost = api.count(plan)
    with torch.device("meta"):
        whole = Network(plan).eval()
        assert module_cost(whole, torch.empty(1, 3, 32, 48)) == cost


def test_written_out_in_full_it_is_the_same_plan(entry):
    plan = plan_around(entry)
    assert api.make_plan(load_text(to_yaml(plan.spec))) == plan


@pytest.mark.slow
def test_it_compiles_in_one_graph(network):
    batch = images(network)
    with torch.inference_mode():
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(batch), network(batch))


def test_a_head_count_that_does_not_divide_the_width_is_refused(entry):
    if "heads" not in entry.options.model_fields:
        return
    with pytest.raises(SpecError) as caught:
        plan_around(entry, f"{{type: {entry.name}, heads: 7}}")
    assert all("heads" in problem.path for problem in caught.value.problems)


def test_it_says_what_it_is(entry):
    assert entry.summary, "a class docstring is what `archspec list` shows"
    for name, info in entry.options.model_fields.items():
        assert info.description, f"the option {name} has no description"
