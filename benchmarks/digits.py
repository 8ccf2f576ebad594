"""How well the micro networks learn the bundled digits: a table over seeds, in Markdown.

    python benchmarks/digits.py [NAME ...] [--recipe digits] [--recipe-set PATH=VALUE ...] [--seeds 0 1 2]

Without names every network in specs/micro/ is trained. Accuracies are those of the weights after the last epoch, on the
held-out fifth of the digits, in percent; the deviation is the sample's, over the seeds. Seconds are one thread's
processor time for a whole run, so that other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from archspec import api
from archspec.loading import shipped_folder
from archspec.plan import Plan
from archspec.training import Recipe, load_recipe, run

HEADINGS = ("network", "params", "MACs", "accuracy", "lowest", "seconds")


def learn(plan: Plan, recipe: Recipe, seed: int) -> tuple[float, float]:
    """One run: the accuracy in percent, and how many seconds it took."""
    quiet = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        result = run(plan, recipe, "digits", Path(folder), seed=seed, device="cpu", console=quiet)
    return 100 * result.last.accuracy, time.process_time() - started


def row(name: str, recipe: Recipe, seeds: list[int]) -> tuple[str, ...]:
    plan = api.make_plan(name)
    cost = api.count(plan)
    accuracies, times = [], []
    for seed in seeds:
        accuracy, seconds = learn(plan, recipe, seed)
        print(f"{name}, seed {seed}: {accuracy:.2f} % in {seconds:.0f} s", file=sys.stderr, flush=True)
        accuracies.append(accuracy)
        times.append(seconds)
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(seeds) > 1 else ""
    return (
        name,
        f"{cost.params / 1e3:.1f}k",
        f"{cost.macs / 1e6:.2f}M",
        f"{statistics.mean(accuracies):.2f}{spread}",
        f"{min(accuracies):.2f}",
        f"{statistics.mean(times):.0f}",
    )


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--recipe-set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(arguments.recipe, arguments.recipe_set)
    names = arguments.names or sorted(file.stem for file in (shipped_folder() / "micro").glob("*.yaml"))
    rows = [row(name, recipe, arguments.seeds) for name in names]
    print(line(HEADINGS))
    print(line(("---", *["---:"] * (len(HEADINGS) - 1))))
    print("\n".join(map(line, rows)))


if __name__ == "__main__":
    main()
