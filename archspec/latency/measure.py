"""Whole networks, measured: several take turns, each as it is and, if wanted, compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from archspec.latency.peak import peak_of
from archspec.latency.runs import NetworkRun, Reference
from archspec.latency.setting import Setting, applied
from archspec.latency.timing import TOGETHER, Clock, Effort, Interval, clock_of, summary, take_turns
from archspec.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One network in one setting. seconds: of one call with the setting's batch. peak_memory: bytes, weights included;
    None where nobody can tell."""

    plan: Plan
    compiled: bool
    seconds: Interval
    runs: int
    peak_memory: int | None


def measure(
    plans: Sequence[Plan],
    setting: Setting,
    *,
    compile: bool = False,
    effort: Effort = Effort(),  # noqa: B008  # frozen
    clock: Clock | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure each plan, in order; with `compile` each is measured a second time, compiled by torch.

    Raises RunError where a network does not run.
    """
    clock = clock or clock_of(setting)
    jobs = [(plan, compiled) for plan in plans for compiled in ([False, True] if compile else [False])]
    done: list[Measurement] = []
    with applied(setting):
        _load_libraries(setting, clock)
        for first in range(0, len(jobs), TOGETHER):
            done += _together(jobs[first : first + TOGETHER], setting, effort, clock, progress)
    return done


def _load_libraries(setting: Setting, clock: Clock) -> None:
    """What the first run and the first optimizer of a process load is no network's memory."""
    Reference(setting).run(clock)
    if setting.mode == "train":
        torch.optim.AdamW([torch.zeros(1)])


def _together(
    jobs: Sequence[tuple[Plan, bool]],
    setting: Setting,
    effort: Effort,
    clock: Clock,
    progress: Callable[[int, int], None] | None,
) -> list[Measurement]:
    if any(compiled for _, compiled in jobs):
        torch.compiler.reset()  # it keeps few versions of one function, and all networks share theirs
    subjects, peaks = [], []
    for plan, compiled in jobs:
        peak = peak_of(setting)
        subjects.append(NetworkRun(plan, setting, compiled=compiled))
        subjects[-1].run(clock)
        # To compile takes more of a process's memory than to run.
        peaks.append(None if compiled and not setting.is_cuda else peak.bytes())
    taken = take_turns([(subject, effort) for subject in subjects], clock, progress)
    return [
        Measurement(
            plan=plan,
            compiled=compiled,
            seconds=summary([run[0] for run in runs]),
            runs=len(runs),
            peak_memory=memory,
        )
        for (plan, compiled), runs, memory in zip(jobs, taken, peaks, strict=True)
    ]


def reference_now(setting: Setting, clock: Clock | None = None) -> Interval:
    """How long the fixed piece of work takes that tables keep the time of; it takes a second at most."""
    with applied(setting):
        (runs,) = take_turns([(Reference(setting), Reference.EFFORT)], clock or clock_of(setting))
    return summary([run[0] for run in runs])
