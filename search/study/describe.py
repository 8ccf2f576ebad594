"""What a search is up against, before anything is evaluated: its size, what fits, what candidates cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from archspec.quantities import humanize

from ..budgets import MEASURES, Measure
from .pricing import VALID, Pricer
from .reach import Priced, drawn, extreme
from .search import Search

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Description:
    """size: candidates of the space, maybe infinite. networks, fitting: shares of the sample. Quantiles of networks."""

    search: Search
    size: float
    sampled: int
    seconds: float
    networks: float
    fitting: float
    quantiles: dict[Measure, tuple[float, ...]]
    cheapest: Priced | None
    dearest: Priced | None


def describe(search: Search, samples: int = 1_000) -> Description:
    """Draw that many candidates and price them; climb to the cheapest and the dearest network."""
    pricer = Pricer(search, measures=False)
    began = time.monotonic()
    found = list(drawn(pricer, samples, search.seed))
    seconds = time.monotonic() - began
    measures = [measure for measure in MEASURES if measure in search.measures]
    main = next(iter(measures), None)
    return Description(
        search=search,
        size=search.space.size(),
        sampled=samples,
        seconds=seconds,
        networks=sum(one.price.excess[VALID] <= 0 for one in found) / samples,
        fitting=sum(one.price.fits for one in found) / samples,
        quantiles={measure: _quantiles(found, measure) for measure in measures},
        cheapest=extreme(pricer, found, main, 1) if main else None,
        dearest=extreme(pricer, found, main, -1) if main else None,
    )


def _quantiles(found: Sequence[Priced], measure: Measure) -> tuple[float, ...]:
    values = sorted(one.price.costs[measure] for one in found if measure in one.price.costs)
    return tuple(values[round(share * (len(values) - 1))] for share in QUANTILES) if values else ()


def described(found: Description) -> list[Table | str]:
    """For the terminal."""
    search = found.search
    size = f"{found.size:,.0f}" if math.isfinite(found.size) else "infinitely many"
    table = Table(title=escape(f"{search.name}: {search.description}" if search.description else search.name))
    for heading in ("cost", "budget", "least", "25 %", "median", "75 %", "most"):
        table.add_column(heading, justify="left" if heading in ("cost", "budget") else "right")
    budgets = {budget.measure: str(budget).partition(": ")[2] for budget in search.budgets}
    for measure, values in found.quantiles.items():
        table.add_row(measure, escape(budgets.get(measure, "")), *(shown(measure, value) for value in values))
    objectives = ", ".join(f"{one.direction} {one.name}" for one in search.objectives)
    lines: list[Table | str] = [
        table,
        f"{size} candidates in {len(search.space.parameters)} parameters; {objectives}; {search.sampler.type}",
        f"of {found.sampled:,} drawn at random in {found.seconds:.1f} s, {100 * found.networks:.1f} % are networks "
        f"that keep the constraints, {100 * found.fitting:.1f} % fit the budgets, too",
    ]
    for name, one in (("cheapest", found.cheapest), ("dearest", found.dearest)):
        if one:
            costs = ", ".join(f"{measure} {shown(measure, value)}" for measure, value in one.price.costs.items())
            lines.append(f"{name}: {costs}: " + ", ".join(f"{key}={value}" for key, value in one.values.items()))
    return lines


def shown(measure: str, value: float) -> str:
    """A cost for people."""
    if measure == "latency":
        return f"{1000 * value:.4g}ms"
    return humanize(int(value)) + ("B" if measure == "train_memory" else "")


def as_object(found: Description) -> dict[str, Any]:
    """For --json."""
    ends = {"cheapest": found.cheapest, "dearest": found.dearest}
    return {
        "name": found.search.name,
        "size": found.size if math.isfinite(found.size) else None,
        "sampled": found.sampled,
        "share_of_networks": found.networks,
        "share_that_fits": found.fitting,
        "quantiles": {measure: list(values) for measure, values in found.quantiles.items()},
        **{name: {"values": one.values, "costs": dict(one.price.costs)} for name, one in ends.items() if one},
    }
