"""The Python interface: spec -> plan -> cost or network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archspec import loading
from archspec.errors import Problem, SpecError, UsageError, in_order
from archspec.plan import Plan, lay_out
from archspec.spec import Spec

if TYPE_CHECKING:
    from archspec.cost import Cost
    from archspec.network import Network


def make_plan(
    spec: Spec | str | Path,
    *,
    sets: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    allow_outside: bool = False,
) -> Plan:
    """The plan of a spec, a file or a shipped name; every constructor has agreed, no weight exists.

    sets: patches `PATH=VALUE`. size: another input size, in pixels. allow_outside: let `extends` leave the folder of
    the file. Raises SpecError with every problem.
    """
    from archspec.modules import check

    try:
        chosen = (
            spec
            if isinstance(spec, Spec)
            else loading.load_spec(spec, sets=sets, size=size, allow_outside=allow_outside)
        )
    except SpecError as error:
        raise SpecError(in_order([*error.problems, *_also_wrong(error.readable)])) from error
    laid_out = lay_out(chosen)
    check(laid_out)
    return laid_out


def _also_wrong(readable: object) -> tuple[Problem, ...]:
    """What constructors refuse in the part of a spec that could be read.

    What does not fit together there may follow from the problems that are known already, and is not told.
    """
    from archspec.modules import check

    if not isinstance(readable, Spec):
        return ()
    try:
        plan = lay_out(readable)
    except SpecError:
        return ()
    try:
        check(plan)
    except SpecError as error:
        return error.problems
    return ()


def count(of: Plan | Spec | str | Path) -> Cost:
    """Parameters and multiply-accumulates of a plan, exactly. Raises CountError for an operation without a formula."""
    from archspec.cost import plan_cost, spec_cost

    if isinstance(of, Spec):
        return spec_cost(of)
    return plan_cost(of if isinstance(of, Plan) else make_plan(of))


def build(of: Plan | Spec | str | Path, *, seed: int = 0) -> Network:
    """The network of a plan, a spec, a file or a shipped name; the same seed gives the same weights.

    Raises SpecError; UsageError when the weights would not fit in this machine's memory.
    """
    import torch

    from archspec.network import Network

    chosen = of if isinstance(of, Plan) else make_plan(of)
    _refuse_too_large(chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(chosen).eval()


def _refuse_too_large(chosen: Plan) -> None:
    """Before anything is allocated: a machine that swaps is worse than a sentence."""
    import os

    needed = 4 * count(chosen).params
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UsageError(
            f"{chosen.name}: the weights need {needed / 2**30:,.1f} GiB, "
            f"this machine has {available / 2**30:,.1f} GiB; --plan-only shows what it costs"
        )
