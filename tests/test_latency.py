"""Latency: clocks, runs in turns, what is timed, and the command that does it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.counting import Counter
from archspec.errors import RunError, UsageError
from archspec.latency.fill import fill
from archspec.latency.measure import measure
from archspec.latency.peak import peak_of
from archspec.latency.predict import predict
from archspec.latency.runs import Chain, NetworkRun
from archspec.latency.setting import Setting, applied, setting_here
from archspec.latency.table import Table
from archspec.latency.timing import CpuClock, Effort, Interval, Span, clock_of, summary, take_turns
from archspec.plan import Plan

from .fake_clock import TWICE, Fake

MICRO = ["nommer_micro", "sgformer_micro", "vit_micro", "fcvit_micro"]  # side information, class tokens, maps


@pytest.fixture
def setting() -> Setting:
    return setting_here(device="cpu", threads=1)


@pytest.fixture
def vit() -> Plan:
    """Stem, class token, position, four equal blocks, norm, head: nine steps, six units."""
    return api.make_plan("vit_micro")


# ---- runs in turns


class Noted:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def run(self, clock: Any) -> list[Span]:
        self.log.append(self.name)
        return [Span(len(self.log))]


def test_subjects_take_turns_that_begin_with_a_run_that_is_not_timed():
    log: list[str] = []
    a, b = Noted("a", log), Noted("b", log)
    taken = take_turns([(a, Effort(repeats=4)), (b, Effort(repeats=2))], Fake(), rounds=2)
    assert "".join(log) == "aabb" + "aaa" + "bb" + "aaa" + "bb"
    seconds = [[span.seconds for run in runs for span in run] for runs in taken]
    assert seconds == [[6, 7, 11, 12], [9, 14]]


def test_how_often_follows_from_the_time_that_there_is():
    assert Effort(seconds=3.0).runs(0.1) == 30
    assert Effort(seconds=3.0).runs(2.0) == 10  # at least
    assert Effort(seconds=3.0).runs(1e-9) == 1000  # at most
    assert Effort(repeats=3).runs(2.0) == 3


def test_median_and_quartiles():
    assert summary([Span(value) for value in (5.0, 1.0, 4.0, 2.0, 3.0)]) == Interval(2.0, 3.0, 4.0)
    assert summary([Span(7.0)]) == Interval(7.0, 7.0, 7.0)


def test_runs_that_other_processes_interrupted_do_not_count_where_there_are_calm_ones():
    busy = [Span(90.0, 12), Span(80.0, 7), Span(2.0, 0), Span(1.0, 0), Span(3.0, 0), Span(99.0, 9)]
    assert summary(busy).median == 2.0
    steady = [Span(value, 3) for value in (1.0, 2.0, 3.0)]  # all alike: none is left out
    assert summary(steady).median == 2.0


def test_the_cpus_clock_tells_the_time_of_each_part():
    clock = CpuClock()
    clock.start()
    time.sleep(0.02)
    clock.lap()
    clock.lap()
    first, second = clock.spans()
    assert first.seconds >= 0.02 > second.seconds >= 0


# ---- what is timed


@pytest.mark.parametrize("name", MICRO)
def test_a_chain_runs_what_the_network_runs(name: str, setting: Setting):
    plan = api.make_plan(name)
    chain = Chain(plan, setting)
    with Counter() as counter:
        run = chain.run(Fake())
    assert counter.macs == api.count(plan).macs
    assert len(run) == len(list(plan.steps()))


def test_a_chain_hands_no_side_information_to_the_next_stage(setting: Setting):
    chain, taken = Chain(api.make_plan("sgformer_micro"), setting), []
    for block in (chain.network.stages[0].blocks[1], chain.network.stages[1].blocks[0]):
        block.register_forward_pre_hook(lambda module, args: taken.append(set(args[2])))
    chain.run(Fake())
    assert taken == [{"significance"}, set()]


@pytest.mark.parametrize("name", MICRO)
def test_a_chains_backward_passes_give_the_networks_gradients(
    name: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.optim.AdamW, "zero_grad", lambda self: None)  # keeps them where they can be seen
    plan, training = api.make_plan(name, sets=["drop_path=0"]), replace(setting, mode="train", batch=2)
    chain, whole = Chain(plan, training), NetworkRun(plan, training)
    before = {key: weight.clone() for key, weight in whole.network.named_parameters()}
    for timed in (chain, whole):
        torch.manual_seed(0)  # NomMer nominates at random in training
        timed.run(Fake())
    expected = dict(whole.network.named_parameters())
    for key, weight in chain.network.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, expected[key].grad, msg=key)
        assert torch.equal(weight, before[key]), "weights stay as they are, and with them the network's speed"


def test_a_training_units_time_is_forward_backward_and_update(setting: Setting, vit: Plan):
    spans = Chain(vit, replace(setting, mode="train", batch=2)).run(Fake())
    # Unit i of 9 is number i in the forward pass, 10 - i in the backward pass and i in the update.
    assert [span.seconds for span in spans] == pytest.approx([(10 + i) / 1000 for i in range(1, 10)])


def test_a_network_that_fails_is_named(setting: Setting, vit: Plan):
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not enough memory\nand a trace")

    run = NetworkRun(vit, setting)
    run.network.head = Fails()
    with pytest.raises(RunError, match=r"^vit_micro: .*not enough memory$"):
        run.run(Fake())


def test_threads_are_set_for_the_measurement_alone():
    before = torch.get_num_threads()
    with applied(setting_here(device="cpu", threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_device_that_is_not_here_is_the_users_mistake():
    with pytest.raises(UsageError, match="device: 'abacus'"):
        setting_here(device="abacus")
    with pytest.raises(UsageError, match="cpu and cuda"):
        setting_here(device="meta")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells")
def test_peak_memory_is_what_a_run_needs_at_its_peak(setting: Setting):
    peak = peak_of(setting)
    kept = torch.ones(2 << 20)  # 8 MiB
    torch.ones(16 << 20)  # 64 MiB, for a moment
    used = peak.bytes()
    assert used is not None
    assert used / 2**20 == pytest.approx(72, abs=4)
    del kept


# ---- the real clock, and the command


def test_networks_are_measured(setting: Setting, vit: Plan):
    larger = api.make_plan("vit_micro", size=128, sets=["stages[0].depth=8"])
    small, large = measure([vit, larger], setting, effort=Effort(repeats=5))
    for one in (small, large):
        assert 0 < one.seconds.low <= one.seconds.median <= one.seconds.high < 10
        assert one.runs == 5
    assert large.seconds.median > small.seconds.median
    assert [small.plan, large.plan] == [vit, larger]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)


def test_bench_fills_a_table_and_predicts_from_it(tmp_path: Path):
    path = str(tmp_path / "t.json")
    done = invoke("vit_micro", "--repeats", "2", "--threads", "1", "--per-unit", "--table", path, "--json")
    found = json.loads(done.stdout)
    assert (found["device"], found["threads"], found["mode"], found["batch"]) == ("cpu", 1, "eval", 1)
    (network,) = found["networks"]
    assert network["name"] == "vit_micro"
    assert network["macs"] == api.count("vit_micro").macs
    assert network["seconds"]["median"] > 0
    assert network["error"] == pytest.approx(network["predicted"]["median"] / network["seconds"]["median"] - 1)
    assert "6 units measured" in done.stderr

    again = json.loads(invoke("vit_micro", "--predict", "--table", path, "--json").stdout)["networks"][0]
    assert again["predicted"] == network["predicted"]
    assert again["seconds"] is None
    printed = invoke("vit_micro", "--predict", "--table", path).stdout
    assert f"{1000 * again['predicted']['median']:.3g} ms" in printed
    with pytest.raises(UsageError, match="vit_micro_cb"):
        invoke("vit_micro_cb", "--predict", "--table", path)
    with pytest.raises(UsageError, match="batch: 1, not 2"):
        invoke("vit_micro", "--predict", "--table", path, "--batch", "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--repeats", "2", "--seconds", "1"),
        ("--table", "t.json"),
        ("--predict", "--compile"),
        ("--predict", "--table", "absent.json"),
        ("--device", "abacus"),
    ],
)
def test_arguments_that_contradict(arguments: tuple[str, ...]):
    with pytest.raises(UsageError):
        invoke("vit_micro", *arguments)


@pytest.mark.slow
def test_compiled_networks_stand_beside_eager_ones():
    found = json.loads(invoke("vit_micro", "--repeats", "2", "--threads", "1", "--compile", "--json").stdout)
    assert [network["compiled"] for network in found["networks"]] == [False, True]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_on_a_gpu_events_tell_the_time(mode: Any, vit: Plan):
    setting = setting_here(device="cuda", mode=mode, batch=4)
    (one,) = measure([vit], setting, effort=TWICE)
    assert 0 < one.seconds.median < 10
    assert one.peak_memory is not None
    assert one.peak_memory > 4 * api.count(vit).params
    table = Table(setting=setting)
    fill(table, [vit], effort=TWICE)
    assert 0 < predict(vit, table).median < 10
    clock = clock_of(setting)
    clock.start()
    torch.cuda._sleep(10_000_000)  # ticks of the GPU
    clock.lap()
    assert clock.spans()[0].seconds > 0.001
