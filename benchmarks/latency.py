"""Latency from a table of units, against measured networks: random hybrids, as Markdown.

    python benchmarks/latency.py [--networks 16] [--seed 0] [--device cpu] [--threads 2] [--batch 1]
                                    [--repeats 30] [--train] [--cpu-time]

The hybrids mix every registered mixer with stems, downsamplers, FFNs, positions, modifiers, norms and heads. No hybrid
is timed to predict itself: the stages of hybrids of one skeleton are dealt into other networks, their carriers, and a
hybrid's units are timed there, each at its place in a carrier. Carriers, hybrids and the reference take turns in one
run, so that a machine that slows down for a while slows all of them.

On a machine that others use meanwhile, --cpu-time counts the processor's time of a single thread in place of the
clock's.

Two fits on multiply-accumulates alone stand beside it: a straight line through the table's units, and the straight line
that fits the measured hybrids themselves best, which no fit that has not seen them can beat by much.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import yaml
from scipy.stats import kendalltau

from archspec import api, registry
from archspec.errors import SpecError
from archspec.latency.fill import record
from archspec.latency.predict import MacsFit, predict, predict_by_macs
from archspec.latency.runs import Chain, NetworkRun, Reference
from archspec.latency.setting import applied, setting_here
from archspec.latency.table import Table
from archspec.latency.timing import Effort, Interval, Span, clock_of, summary, take_turns
from archspec.loading import load_text
from archspec.plan import Plan

ROUNDS = 10
STAGES = 4
SKELETONS = [(128, 32), (160, 64), (192, 48), (224, 64)]  # pixels, width of the first stage
DEPTHS = [(1, 3), (1, 3), (2, 5), (1, 3)]
SMALL_MAPS = {"attention", "attention_lepe", "mixed_attention", "token_mlp"}  # each token with each: not on large maps
SCALES = [[8, 1], [4, 1], [2, 1], [1, 1]]
SHARES = [0.03125, 0.0625, 0.25, 0.5]
Plain = dict[str, Any]


def part(name: str, width: int, stage: int) -> Plain:
    """A mixer with options that fit its place; for what is not named here its own defaults stand."""
    heads = max(2, width // 64 * 2)
    options: Plain = {"heads": heads, "share": SHARES[stage]}
    if name == "hybrid_scale":
        options = {"heads": heads, "scales": SCALES[stage]}
    known = registry.find("mixer", name).options.model_fields
    return {"type": name, **{key: value for key, value in options.items() if key in known}}


def mixer(deck: list[str], width: int, stage: int) -> Any:
    """The next of the deck that may stand in this stage."""
    name = next(name for name in deck if stage > 1 or name not in SMALL_MAPS)
    deck.remove(name)
    chosen = part(name, width, stage)
    return [part("hybrid_scale", width, stage), chosen] if name == "self_guided" else chosen


def stage_of(dice: random.Random, deck: list[str], width: int, index: int) -> Plain:
    stage: Plain = {
        "width": width,
        "depth": dice.randint(*DEPTHS[index]),
        "mixer": mixer(deck, width, index),
        "ffn": {"type": dice.choice(registry.names("ffn")), "ratio": dice.choice([2, 3, 4])},
        "norm": dice.choice(["layer", "layer", "batch", {"type": "group", "groups": 1}]),
        "position": dice.choice(["none", "none", "conditional"]),
        "modifiers": [dice.choice(registry.names("modifier"))] if dice.random() < 0.2 else [],
    }
    if isinstance(stage["mixer"], list):
        stage["depth"] = max(len(stage["mixer"]), stage["depth"])
    if index:
        convolution = {"type": "patch", "kernel": 3, "stride": 2, "padding": 1, "norm": "batch"}
        stage["downsample"] = dice.choice([convolution, "bilinear", "conv_pool", "patch_merging", "separable"])
    return stage


def hybrid(dice: random.Random, deck: list[str], skeleton: tuple[int, int]) -> Plain:
    size, width = skeleton
    stem = dice.choice(
        [{"type": "patch", "kernel": 4, "norm": "layer"}, "conv2", {"type": "conv3", "strides": [2, 1, 2]}]
    )
    return {
        "archspec": 1,
        "name": "hybrid",
        "input": {"size": size},
        "stem": stem,
        "stages": [stage_of(dice, deck, width << index, index) for index in range(STAGES)],
        "head": dice.choice(registry.names("head")),
    }


def plan_of(spec: Plain, name: str) -> Plan:
    return api.make_plan(load_text(yaml.safe_dump({**spec, "name": name}, sort_keys=False)))


def draw(count: int, seed: int) -> list[list[Plain]]:
    """`count` hybrids, by skeleton. Mixers are dealt from a shuffled deck that has each of them equally often."""
    dice = random.Random(seed)
    deck: list[str] = []
    groups: list[list[Plain]] = [[] for _ in SKELETONS]
    drawn = 0
    while drawn < count:
        if len(deck) < 2 * len(registry.names("mixer")):
            deck += dice.sample(registry.names("mixer"), len(registry.names("mixer")))
        spec = hybrid(dice, deck, SKELETONS[drawn % len(SKELETONS)])
        try:
            plan_of(spec, "hybrid")
        except SpecError as error:
            print(f"not a network, and drawn again: {error}", file=sys.stderr)
            continue
        groups[drawn % len(SKELETONS)].append(spec)
        drawn += 1
    return groups


def carriers(group: Sequence[Plain]) -> list[Plain]:
    """As many networks of the same units: each stage comes from another hybrid of the group."""
    return [
        {**spec, "stages": [group[(at + stage) % len(group)]["stages"][stage] for stage in range(STAGES)]}
        for at, spec in enumerate(group)
    ]


def mixers_of(plan: Plan) -> str:
    """The mixers of each stage."""
    stages = [dict.fromkeys(step.unit.part.mixer.type for step in stage.blocks) for stage in plan.stages]
    return ", ".join("+".join(stage) for stage in stages)


def row(plan: Plan, measured: Interval, table: Table) -> str:
    predicted = predict(plan, table)
    by_macs = predict_by_macs(plan, table)
    inside = "yes" if predicted.low <= measured.median <= predicted.high else "no"
    cells = [
        plan.name,
        f"{plan.source.grid[0]}: {mixers_of(plan)}",
        f"{api.count(plan).macs / 1e9:.2f}",
        ms(predicted),
        inside,
        ms(measured),
        f"{100 * (predicted.median / measured.median - 1):+.1f}%",
        f"{100 * (by_macs / measured.median - 1):+.1f}%",
    ]
    return f"| {' | '.join(cells)} |"


def ms(seconds: Interval) -> str:
    return f"{1e3 * seconds.median:.1f} ({1e3 * seconds.low:.1f}..{1e3 * seconds.high:.1f})"


def score(name: str, predicted: Sequence[float], measured: Sequence[float]) -> str:
    errors = [abs(ours / truth - 1) for ours, truth in zip(predicted, measured, strict=True)]
    tau = kendalltau(predicted, measured).statistic
    return f"| {name} | {100 * statistics.mean(errors):.1f}% | {100 * max(errors):.1f}% | {tau:.3f} |"


def report(plans: Sequence[Plan], table: Table, measured: Sequence[Interval]) -> None:
    print("| network | size: mixers | GMACs | predicted, ms | inside | measured, ms | error | MACs fit |")
    print("|---|---|---:|---:|---|---:|---:|---:|")
    for plan, truth in zip(plans, measured, strict=True):
        print(row(plan, truth, table))
    medians = [truth.median for truth in measured]
    macs = [api.count(plan).macs for plan in plans]
    best_line = MacsFit.of(zip(macs, medians, strict=True))
    print("\n| predicted from | mean error | largest | Kendall's tau |\n|---|---:|---:|---:|")
    print(score("the table of units", [predict(plan, table).median for plan in plans], medians))
    print(score("MACs, a line through the units", [predict_by_macs(plan, table) for plan in plans], medians))
    print(score("MACs, the best line through these networks", [best_line.seconds(one) for one in macs], medians))


def say_progress(done: int, total: int) -> None:
    if done % (total // ROUNDS) == 0:
        print(f"{done} of {total} turns", file=sys.stderr)


class ProcessorClock:
    """The processor's time of this thread."""

    def start(self) -> None:
        self.marks = [time.thread_time()]

    def lap(self) -> None:
        self.marks.append(time.thread_time())

    def spans(self) -> list[Span]:
        return [Span(end - begin) for begin, end in pairwise(self.marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--train", action="store_true", help="time training steps in place of evaluation")
    parser.add_argument("--cpu-time", action="store_true", help="count the processor's time; goes with --threads 1")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time counts one thread: it goes with --threads 1")
    if arguments.networks < 2 * len(SKELETONS):
        parser.error(f"--networks: {2 * len(SKELETONS)} at least, or a carrier would be the hybrid itself")
    started = time.perf_counter()
    setting = setting_here(
        device=arguments.device,
        threads=arguments.threads,
        mode="train" if arguments.train else "eval",
        batch=arguments.batch,
    )
    groups = draw(arguments.networks, arguments.seed)
    specs = [spec for group in groups for spec in group]
    plans = [plan_of(spec, f"hybrid_{number}") for number, spec in enumerate(specs, start=1)]
    carrying = [
        plan_of(spec, f"carrier_{number}")
        for number, spec in enumerate(chain.from_iterable(map(carriers, groups)), start=1)
    ]
    effort = Effort(repeats=arguments.repeats)
    with applied(setting):
        chains = [Chain(plan, setting) for plan in carrying]
        networks = [NetworkRun(plan, setting) for plan in plans]
        reference, *runs = take_turns(
            [(Reference(setting), Reference.EFFORT), *((subject, effort) for subject in (*chains, *networks))],
            ProcessorClock() if arguments.cpu_time else clock_of(setting),
            say_progress,
            rounds=ROUNDS,
        )
    table = Table(setting=setting)
    record(table, list(zip(chains, runs, strict=False)), reference)
    measured = [summary([run[0] for run in taken]) for taken in runs[len(chains) :]]
    clock = "processor time" if arguments.cpu_time else "wall clock"
    print(f"{setting}; {clock}; seed {arguments.seed}; {len(table.units)} units\n")
    report(plans, table, measured)
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
