"""How fast candidates are proposed and priced, with no disk: `python benchmarks/search.py [STUDY] [--count N]`.

The target on two cores: 500 a second drawn at random, 100 a second by TPE. Units are counted before, as they are in a
search that has run for a while; `cold` is the first sample in this process.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from importlib import import_module

from archspec.loading import SEARCHES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="micro_digits")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--samplers", nargs="*", default=["random", "nsga2", "tpe"])
    arguments = parser.parse_args()
    study = import_module("archspec.search.study.search").load_search(SEARCHES.find(arguments.study))
    pricer = import_module("archspec.search.study.pricing").Pricer(study)
    reach = import_module("archspec.search.study.reach")
    for name in ("cold", "warm"):
        began = time.perf_counter()
        found = list(reach.drawn(pricer, arguments.count, name))
        rate(f"drawn and priced, {name}", len(found), time.perf_counter() - began)
    for sampler in arguments.samplers:
        propose(study, sampler, pricer, arguments.count)


def propose(study: object, sampler: str, pricer: object, count: int) -> None:
    """Ask, price and tell: what fits as complete with a made-up value, the rest as over budget."""
    from optuna.trial import TrialState

    sampling = import_module("archspec.search.samplers.sampling")
    chosen = replace(study, sampler=type(study.sampler)(type=sampler))
    view = sampling.View(chosen)
    fitting, began = 0, time.perf_counter()
    for number in range(count):
        _, patches = view.ask(number)
        price = pricer.price(patches)
        view.constrain(price.excess)
        fitting += price.fits
        values = [float(number % 17) for _ in chosen.objectives]
        view.tell(
            number,
            TrialState.COMPLETE if price.fits else TrialState.PRUNED,
            values if price.fits else None,
            evaluated=price.fits,
        )
    rate(f"proposed by {sampler} and priced", count, time.perf_counter() - began)
    print(f"    {100 * fitting / count:.0f} % of them fit")


def rate(what: str, count: int, seconds: float) -> None:
    print(f"{what}: {count / seconds:,.0f} a second")


if __name__ == "__main__":
    main()
