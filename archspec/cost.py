"""What a plan costs: each distinct unit is built once on the meta device, traced once and remembered.

It is remembered in the process, and in a file for later ones (see records).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from archspec import unit_records
from archspec.counting import Counter, FusedAttention, formula_modules
from archspec.errors import ArchspecError, CountError, SpecError
from archspec.modules import COST, REMEMBERED, check, meta_unit
from archspec.plan import Plan, State, Step, Unit, lay_out
from archspec.shapes import on_meta
from archspec.spec import Block, Spec
from archspec.validation import problem


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image. params: all parameters; fixed_params: those that are not trained; the others: see counting."""

    params: int = 0
    fixed_params: int = 0
    macs: int = 0
    other_ops: int = 0
    activations: int = 0

    @property
    def params_trainable(self) -> int:
        """Parameters that training changes."""
        return self.params - self.fixed_params

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def ops(self) -> int:
        """Multiply-accumulates and what fvcore counts besides: norms, pooling, sampling."""
        return self.macs + self.other_ops

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def unit_cost(unit: Unit) -> Cost:
    """The cost of a unit. Raises CountError for an operation without a formula."""
    return _unit_cost(unit, formula_modules())


@lru_cache(maxsize=REMEMBERED)
def _unit_cost(unit: Unit, formulas: tuple[str, ...]) -> Cost:
    known = unit_records.find(COST, unit)
    if known is not None:
        return Cost(*known)
    with on_meta():
        cost = module_cost(meta_unit(unit), *_inputs(unit))
    unit_records.keep(COST, unit, astuple(cost))
    return cost


def module_cost(module: nn.Module, *inputs: Any) -> Cost:
    """The cost of one call of a module, without gradients. Raises CountError for an operation without a formula."""
    with torch.no_grad(), Counter() as counter, FusedAttention(counter):
        module(*inputs)
    return Cost(*count_params(module), counter.macs, counter.other_ops, counter.activations)


def count_params(module: nn.Module) -> tuple[int, int]:
    """(all, fixed) parameters, shared ones once."""
    params = list(module.parameters())
    return sum(p.numel() for p in params), sum(p.numel() for p in params if not p.requires_grad)


def _inputs(unit: Unit) -> tuple[Any, ...]:
    state = unit.source
    if unit.role == "stem":
        return (torch.empty(1, state.width, *state.grid),)
    tokens = torch.empty(1, state.tokens, state.width)
    if unit.role == "head":
        return (tokens,)
    if isinstance(unit.part, Block):
        height, width = state.grid
        return tokens, state.grid, {name: torch.empty(1, height * width) for name in unit.part.needs}
    return tokens, state.grid


def total(steps: Iterable[Step]) -> Cost:
    """The sum over steps. Raises CountError naming the unit at fault."""
    return _sum([step_cost(step) for step in steps])


def _sum(costs: Sequence[Cost]) -> Cost:
    return Cost(
        sum(cost.params for cost in costs),
        sum(cost.fixed_params for cost in costs),
        sum(cost.macs for cost in costs),
        sum(cost.other_ops for cost in costs),
        sum(cost.activations for cost in costs),
    )


def step_cost(step: Step) -> Cost:
    """The cost of a step. Raises CountError naming it; SpecError where it does not run on its input."""
    try:
        return unit_cost(step.unit)
    except CountError as error:
        raise CountError(f"{step.name}: {error}") from error
    except ArchspecError:
        raise
    except Exception as error:  # a block may fail in any way; what the user needs is its name and place
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        rule = f"{step.name} fails on its input, {step.unit.source}: {reason}"
        raise SpecError([problem(step.node, rule)]) from error


def plan_cost(plan: Plan) -> Cost:
    """What the whole network costs, exactly."""
    return total(plan.steps())


def spec_cost(spec: Spec) -> Cost:
    """What the network of a spec costs. Stages that were priced before, behind the same state, are not laid out again.

    Raises SpecError where parts do not fit one another, or a constructor refuses.
    """
    known = _known(spec)
    return known if known is not None else _worked_out(spec)


def _known(spec: Spec) -> Cost | None:
    """The sum over stem, stages and head where all of them were priced before."""
    formulas = formula_modules()
    found = [_priced.get((formulas, spec.stem, spec.channels, spec.size, spec.stages[0].width))]
    for stage in spec.stages:
        if found[-1] is None:
            return None
        found.append(_priced.get((formulas, stage, stage is spec.stages[0], found[-1][0])))
    if found[-1] is not None:
        found.append(_priced.get((formulas, spec.head, spec.classes, found[-1][0])))
    return None if found[-1] is None else _sum([entry[1] for entry in found if entry])


def _worked_out(spec: Spec) -> Cost:
    plan = lay_out(spec)
    check(plan)
    if len(_priced) > REMEMBERED:
        _priced.clear()
    formulas, state = formula_modules(), plan.stem.unit.target
    _priced[formulas, spec.stem, spec.channels, spec.size, spec.stages[0].width] = state, step_cost(plan.stem)
    for stage, laid_out in zip(spec.stages, plan.stages, strict=True):
        before, state = state, laid_out.target
        _priced[formulas, stage, stage is spec.stages[0], before] = state, total(laid_out.steps)
    _priced[formulas, spec.head, spec.classes, state] = state, step_cost(plan.head) if plan.head else Cost()
    return plan_cost(plan)


# What is known of stem, stages and head, by what it depends on: the state behind it, and its cost.
_priced: dict[tuple[Any, ...], tuple[State, Cost]] = {}
