"""What samplers find on the digits, beside the hand-designed micro networks: whole searches, as a user runs them.

    python benchmarks/samplers.py [STUDY] [--samplers random tpe nsga2] [--seeds 0 1 2] [--jobs 2] [--out FOLDER]

Each search is one `archspec search` command in a process of its own; each hand-designed network within the budget is
one `archspec train` by the same recipe, epochs and seed as a candidate. Best: the accuracy of the best candidate within
budget. Hypervolume: the share of the rectangle from (no MACs, all right) to (the budget, none right) that candidates
dominate. Waiting: the share of the search's time in which a place waited for its next candidate; outside: the share of
the whole command's, from the shell's prompt to its next, starting and reporting included. About two minutes for each
search of 40 trials on two cores; what is in FOLDER already is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archspec import api
from archspec.loading import SEARCHES

HAND_DESIGNED = Path(__file__).parent.parent / "specs" / "micro"
HEADINGS = ("", "seed", "evaluated", "refused", "best %", "hypervolume", "a minute", "waiting %", "outside %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="micro_digits")
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe", "nsga2"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"))
    arguments = parser.parse_args()
    study = import_module("archspec.search.study.search").load_search(SEARCHES.find(arguments.study))
    table = Table(*HEADINGS)
    for sampler in arguments.samplers:
        rows = [searched(arguments, sampler, seed) for seed in arguments.seeds]
        for seed, row in zip(arguments.seeds, rows, strict=True):
            table.add_row(sampler, str(seed), *shown(row))
        table.add_row(sampler, "mean", *shown([statistics.mean(column) for column in zip(*rows, strict=True)]))
        table.add_section()
    for name, accuracy, macs in hand_designed(study, arguments.out):
        table.add_row(name, "", "", "", f"{100 * accuracy:.2f}", f"{volume([(macs, accuracy)], limit(study)):.3f}")
    Console(width=120).print(table)


def searched(arguments: argparse.Namespace, sampler: str, seed: int) -> list[float]:
    """A search's figures, in the order of the headings. What the command took and said is kept beside it."""
    folder = arguments.out / f"{arguments.study}_{sampler}_{seed}"
    kept = folder / "command.json"
    if not kept.exists():
        began = time.perf_counter()
        said = archspec(
            *("search", arguments.study, "--sampler", sampler, "--seed", seed),
            *("--trials", arguments.trials, "--jobs", arguments.jobs, "--out", folder, "--json"),
        )
        wall = time.perf_counter() - began
        kept.write_text(json.dumps({"wall": wall, "waiting": json.loads(said)["overhead"]}), encoding="utf-8")
    command = json.loads(kept.read_text(encoding="utf-8"))
    results = import_module("archspec.search.results.results").read_results(folder)
    points = [(one.costs["macs"], results.value(one, "accuracy")) for one in results.found]
    assert all(macs <= limit(results.search) for macs, _ in points)
    evaluated = [trial for trial in results.trials if trial.user_attrs["kind"] == "evaluated"]
    busy = sum((trial.datetime_complete - trial.datetime_start).total_seconds() for trial in evaluated)
    return [
        len(points),
        results.became["refused"],
        max(accuracy for _, accuracy in points),
        volume(points, limit(results.search)),
        60 * len(points) / command["wall"],
        command["waiting"],
        1 - busy / (arguments.jobs * command["wall"]),
    ]


def hand_designed(study: Any, out: Path) -> list[tuple[str, float, float]]:
    """Name, accuracy and MACs of the micro networks within the budget, trained as candidates are."""
    found = []
    for file in sorted(HAND_DESIGNED.glob("*.yaml")):
        macs = api.count(api.make_plan(file.stem)).macs
        if macs > limit(study):
            continue
        folder = out / file.stem
        if not (folder / "metrics.jsonl").exists():
            evaluation = study.evaluation
            archspec(
                *("train", file.stem, "--recipe", "digits", "--data", "digits", "--epochs", evaluation.recipe.epochs),
                *("--seed", evaluation.seed, "--out", folder),
            )
        last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        found.append((file.stem, json.loads(last)["accuracy"], macs))
    return found


def archspec(*words: object) -> str:
    """What a command writes to stdout."""
    command = [sys.executable, "-m", "archspec", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def limit(study: Any) -> float:
    """The most MACs that the study allows."""
    return float(next(budget.highest.value for budget in study.budgets if budget.measure == "macs"))


def volume(points: Sequence[tuple[float, float]], most: float) -> float:
    """The share of the rectangle, of (MACs, accuracy) up to `most` MACs and from no accuracy, that is dominated."""
    area, best = 0.0, 0.0
    ordered = sorted(points)
    for index, (macs, accuracy) in enumerate(ordered):
        best = max(best, accuracy)
        until = ordered[index + 1][0] if index + 1 < len(ordered) else most
        area += best * (until - macs)
    return area / most


def shown(row: Sequence[float]) -> list[str]:
    done, refused, best, dominated, pace, waiting, outside = row
    return [
        f"{done:.0f}",
        f"{refused:.0f}",
        f"{100 * best:.2f}",
        f"{dominated:.3f}",
        f"{pace:.1f}",
        f"{100 * waiting:.1f}",
        f"{100 * outside:.1f}",
    ]


if __name__ == "__main__":
    main()
