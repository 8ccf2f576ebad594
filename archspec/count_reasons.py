"""Why totals differ: ours item by item, and each reason for a difference with its amount.

Nothing here is assumed of a network: the amounts are what the tool counted and what ours traced in the same batch, and
what they leave open is said to be open.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from archspec import counting
from archspec.cost import Cost, plan_cost
from archspec.counters import ATTENTION, FunctionMode, Seen
from archspec.network import Network
from archspec.plan import Plan
from archspec.quantities import Rounding, parse_quantity
from archspec.shapes import on_meta

_WITH_BIAS = {F.linear: 2, **dict.fromkeys((F.conv1d, F.conv2d, F.conv_transpose2d), 2)}  # which argument it is
_BINARY = {"k": "Ki", "K": "Ki", "M": "Mi", "G": "Gi"}


@dataclass(frozen=True, slots=True)
class Items:
    """Our count of a batch. macs, other: by unit, then by operation, or `attention`; biases: additions of biases."""

    macs: Mapping[str, Mapping[str, int]]
    other: Mapping[str, Mapping[str, int]]
    biases: int

    def kind(self, kind: str) -> dict[str, int]:
        """The MACs of an operation, by unit, where there are any."""
        return {unit: kinds[kind] for unit, kinds in self.macs.items() if kinds.get(kind)}

    @property
    def total(self) -> int:
        """All MACs of the batch."""
        return sum(sum(kinds.values()) for kinds in self.macs.values())

    @property
    def other_total(self) -> int:
        """All that `ops` counts besides, of the batch."""
        return sum(sum(kinds.values()) for kinds in self.other.values())


class _Itemizer(counting.Counter):
    """Our own counter, writing down what it counts where."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = ""
        self.inside_attention = False
        self.items: dict[str, Counter[str]] = {}
        self.others: dict[str, Counter[str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        macs, other = self.macs, self.other_ops
        out = super().__torch_dispatch__(func, types, args, kwargs)
        packet = func.overloadpacket
        if packet in counting.MACS or packet in counting.OTHER_OPS:  # others were counted part by part
            kind = ATTENTION if self.inside_attention or "scaled_dot_product" in str(packet) else str(packet)
            self.items.setdefault(self.unit, Counter())[kind] += self.macs - macs
            self.others.setdefault(self.unit, Counter())[kind] += self.other_ops - other
        return out


class _Functions(FunctionMode):
    """Tells the counter what is attention, and counts biases, which operations hide in many ways."""

    def __init__(self, counter: _Itemizer) -> None:
        super().__init__()
        self.counter = counter
        self.biases = 0

    def attention(self, *args: Any, **kwargs: Any) -> Any:
        self.counter.inside_attention = True
        try:
            return super().attention(*args, **kwargs)
        finally:
            self.counter.inside_attention = False

    def other(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        place = _WITH_BIAS.get(func)
        if place is not None:
            bias = args[place] if len(args) > place else kwargs.get("bias")
            self.biases += 0 if bias is None else out.numel()
        return out


@lru_cache(maxsize=8)
def itemize(plan: Plan, batch: int = 1) -> Items:
    """Our count of a batch, item by item. Raises CountError for an operation without a formula."""
    with on_meta(), torch.no_grad():
        network, image = Network(plan).eval(), torch.empty(batch, plan.source.width, *plan.source.grid)
        with _Itemizer() as counter, _Functions(counter) as functions:
            for step in plan.steps():
                _enter(network.get_submodule(step.name), step.name, counter)
            network(image)
    return Items(counter.items, counter.others, functions.biases)


def _enter(module: nn.Module, name: str, counter: _Itemizer) -> None:
    """Say that what runs inside `module` belongs to the unit."""

    def unit(name: str) -> Any:
        def hook(*_: Any) -> None:
            counter.unit = name

        return hook

    module.register_forward_pre_hook(unit(name))
    module.register_forward_hook(unit(""))


@dataclass(frozen=True, slots=True)
class Reason:
    """A part of a difference: what it adds to ours on the way to the tool's figure, and why."""

    amount: int
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """ours + every reason + unexplained == theirs. ours: MACs of one image; theirs: the tool's figure for the batch."""

    tool: str
    batch: int
    ours: int
    theirs: int | None
    reasons: tuple[Reason, ...]
    unexplained: int
    where: str
    failure: str = ""

    def lines(self) -> Iterator[str]:
        """As sentences, with the amounts in a column."""
        if self.theirs is None:
            yield f"{self.tool} fails{_of(self.batch)}: {self.failure}"
            return
        difference = self.theirs - self.ours
        said = f"{self.tool} says {self.theirs:,}{_of(self.batch)}"
        yield f"{said}, {difference:+,}:" if difference else f"{said}, the same"
        for reason in self.reasons:
            yield f"  {reason.amount:+20,}  {reason.why}"
        if self.unexplained:
            yield f"  {self.unexplained:+20,}  not explained{self.where}"

    def as_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "counter": self.tool,
            "batch": self.batch,
            "counted": self.theirs,
            "reasons": [{"amount": reason.amount, "why": reason.why} for reason in self.reasons],
            "unexplained": self.unexplained,
            "failure": self.failure or None,
        }


def explain(plan: Plan, seen: Seen, batch: int = 1) -> Explanation:
    """Why a tool's figure for a batch is not our number of MACs for an image."""
    ours = plan_cost(plan).macs
    if seen.total is None:
        return Explanation(seen.tool, batch, ours, None, (), 0, "", seen.failure)
    items = itemize(plan, batch)
    reasons = [reason for reason in _reasons(ours, items, seen, batch) if reason.amount]
    unexplained = seen.total - ours - sum(reason.amount for reason in reasons)
    where = _in(unit for unit in items.macs if _open(items, seen, unit)) if unexplained else ""
    return Explanation(seen.tool, batch, ours, seen.total, tuple(reasons), unexplained, where)


def _reasons(ours: int, items: Items, seen: Seen, batch: int) -> Iterator[Reason]:
    yield Reason(items.total - ours, f"the batch: ours is for one image, theirs for {batch}")
    for kind in sorted({kind for kinds in items.macs.values() for kind in kinds} & seen.skipped):
        yield _unseen(kind, items.kind(kind), seen.tool)
    besides = {kind: count for kind, count in seen.counts.get("", {}).items() if kind not in seen.products}
    same = sum(besides.values()) == items.other_total
    for kind, count in sorted(besides.items(), key=lambda item: -item[1]):
        yield Reason(count, f"{kind.replace('_', ' ')} counted, {'as our `ops` do' if same else 'which is no MAC'}")
    per_image = (seen.total or 0) // seen.per_mac
    yield Reason((seen.total or 0) - per_image, f"{seen.tool} counts {seen.per_mac} for a MAC: flops")


def _unseen(kind: str, by_unit: Mapping[str, int], tool: str) -> Reason:
    what = "attention not seen" if kind == ATTENTION else f"products not seen: {tool} has no formula for {kind}"
    why = f": {tool} has no formula for the fused kernel" if kind == ATTENTION else ""
    return Reason(-sum(by_unit.values()), f"{what}{why}{_in(by_unit)}")


def _open(items: Items, seen: Seen, unit: str) -> bool:
    """Whether what is known does not account for a unit's figure."""
    counted = seen.counts.get(unit, {})
    besides = sum(count for kind, count in counted.items() if kind not in seen.products)
    known = sum(count for kind, count in items.macs[unit].items() if kind not in seen.skipped)
    return seen.of(unit) != seen.per_mac * known + besides


def _in(units: Iterable[str]) -> str:
    """`, in stem, stages.0.blocks.0-11, stages.1.blocks.1,3`: numbers that follow one another as a range."""
    found: dict[str, list[str]] = {}
    last = ("", -2)
    for unit in units:
        match = re.fullmatch(r"(.*\.)(\d+)", unit)
        name, number = (match[1], int(match[2])) if match else (unit or "the network itself", -1)
        numbers = found.setdefault(name, [])
        if last == (name, number - 1):
            numbers[-1] = f"{numbers[-1].split('-')[0]}-{number}"
        elif match:
            numbers.append(str(number))
        last = (name, number)
    names = [f"{name}{','.join(numbers)}" for name, numbers in found.items()]
    return f", in {', '.join(names)}" if names else ""


def _of(batch: int) -> str:
    return f" for {batch} images" if batch > 1 else ""


def remarks(plan: Plan) -> Iterator[str]:
    """What other figures of the same network mean: flops, ops, biases, binary units."""
    cost, items = plan_cost(plan), itemize(plan)
    yield f"flops, two for a MAC, are {cost.flops:,}; ops, with norms, pooling and sampling, are {cost.ops:,}"
    yield f"biases, which neither macs nor ops count, are {items.biases:,} additions"
    yield f"in binary units, as some papers print: {_binary(cost.macs)} MACs, {_binary(cost.params)} parameters"


def _binary(value: int) -> str:
    power = next((power for power in (3, 2, 1) if value >= 1024**power), 0)
    return f"{Decimal(value) / 1024**power:.3f}{('', 'Ki', 'Mi', 'Gi')[power]}"


def explain_published(plan: Plan) -> Iterator[str]:
    """Under which reading our figures print as the published ones, where there are any."""
    published, cost, items = plan.spec.published, plan_cost(plan), itemize(plan)
    if published is None:
        return
    for key, readings in _readings(cost, items).items():
        text = getattr(published, key)
        if text is not None:
            rounding: Rounding = "truncated" if key in published.truncated else "rounded"
            found = next(_agreeing(text, rounding, readings), "")
            told = f"is {found}" if found else _far(text, readings)
            yield f"the published {key}, {text}, {told}"


def _readings(cost: Cost, items: Items) -> dict[str, dict[str, int]]:
    """What a publication may mean by a figure; the plain reading first."""
    attention = sum(items.kind(ATTENTION).values())
    macs = {
        "macs": cost.macs,
        "ops": cost.ops,
        "macs + biases": cost.macs + items.biases,
        "ops + biases": cost.ops + items.biases,
        "flops": cost.flops,
        "macs without attention": cost.macs - attention,
        "ops without attention": cost.ops - attention,
    }
    params = {"params": cost.params, "params_trainable": cost.params_trainable}
    return {
        "macs": macs,
        "ops": {"ops": cost.ops, **macs},
        "params": params,
        "params_trainable": {"params_trainable": cost.params_trainable, **params},
    }


def _agreeing(text: str, rounding: Rounding, readings: Mapping[str, int]) -> Iterator[str]:
    """The readings that print as `text`: first as the spec says that it is meant, then cut or rounded, then binary."""
    unit = parse_quantity(text).unit
    written = {text: " in binary units" if unit.endswith("i") else ""}
    if unit in _BINARY:
        written[text.replace(unit, _BINARY[unit])] = " in binary units"
    other: Rounding = "truncated" if rounding == "rounded" else "rounded"
    for (said, note), how in product(written.items(), (rounding, other)):
        for name, value in readings.items():
            if parse_quantity(said).agrees(value, how):
                yield f"our {name}{note}, {how}"


def _far(text: str, readings: Mapping[str, int]) -> str:
    """`is none of ...`, and how far the plain reading is."""
    name, ours = next(iter(readings.items()))
    share = 100 * (Decimal(ours) / parse_quantity(text).value - 1)
    return f"is none of our {', '.join(readings)}, in decimal or binary units; our {name} differ by {share:+.2f} %"
