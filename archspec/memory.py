"""How much memory training or inference needs, from the plan: each distinct unit is traced once and remembered.

A training step is followed event by event: forward through the units, backward through them, the optimizer. What lives
at the largest of these is the answer, so `gradients` are those that are there at that moment. Compared with torch's
MemTracker in tests/test_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from typing import Literal, TypeAlias

from archspec import unit_records
from archspec.cost import unit_cost
from archspec.errors import UsageError, nearest
from archspec.memory_trace import Precision, Trace, rounded, trace_inference, trace_training
from archspec.modules import REMEMBERED
from archspec.plan import Plan, Unit

Optimizer: TypeAlias = Literal["adamw", "sgd"]
STATES: dict[str, int] = {"adamw": 2, "sgd": 1}  # copies of the trained parameters; sgd is with momentum
BYTES = 4  # parameters, gradients and states are float32, under autocast too


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the moment when most of them are needed.

    parameters: with buffers. activations: the batch, and what the forward pass has left for the backward pass.
    workspace: what is needed at that moment and then no more.
    """

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """The peak, in bytes."""
        return sum(astuple(self))


@dataclass(frozen=True, slots=True)
class _Moment:
    gradients: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return self.gradients + self.activations + self.workspace


def training_memory(
    plan: Plan,
    *,
    batch: int = 1,
    precision: Precision = "fp32",
    optimizer: Optimizer = "adamw",
    checkpointing: bool = False,
    ema: bool = False,
    foreach: bool = False,
) -> Memory:
    """The peak of a training step with cross-entropy, after the first one, whose gradients were set to None.

    precision: fp32, or bf16 by autocast. checkpointing: blocks are computed again in the backward pass. foreach: the
    optimizer works on all parameters at once, as torch's do on a GPU unless told otherwise.
    Raises UsageError for an optimizer or a batch that cannot be.
    """
    if optimizer not in STATES:
        hint = nearest(optimizer, STATES) or f"there are: {', '.join(STATES)}"
        raise UsageError(f"optimizer {optimizer!r}: its memory is not known ({hint})")
    _check_batch(batch)
    traces: list[Trace] = []
    for step in plan.steps():
        half = bool(traces) and traces[-1].half
        again = checkpointing and step.unit.role == "block"
        traces.append(_training(step.unit, batch, precision, half, step.drop_path > 0, again))
    trained = [BYTES * unit_cost(step.unit).params_trainable for step in plan.steps()]
    image, fixed = _image(plan, batch), sum(trace.fixed for trace in traces)
    stepping = sum(trained) if foreach else max(trace.largest for trace in traces)
    moments = [*_moments(traces, trained, image), _Moment(sum(trained), image, 2 * stepping)]
    most = max(moments, key=lambda moment: moment.total)
    states = STATES[optimizer] * sum(trained)
    return Memory(fixed, most.gradients, states, fixed if ema else 0, most.activations, most.workspace)


def inference_memory(plan: Plan, *, batch: int = 1, precision: Precision = "fp32") -> Memory:
    """The peak of a forward pass without gradients. Raises UsageError for a batch that cannot be."""
    _check_batch(batch)
    head = [] if plan.head is None else [plan.head]
    fixed = most = handed = 0
    half = False
    for steps in ([plan.stem], *(stage.steps for stage in plan.stages), head):
        entering = handed  # whoever calls a stage holds what went into it until it is through
        for index, step in enumerate(steps):
            trace = _inference(step.unit, batch, precision, half)
            most = max(most, handed + trace.forward + (entering if index else 0))
            fixed, handed, half = fixed + trace.fixed, trace.output, trace.half
    return Memory(fixed, 0, 0, 0, _image(plan, batch), most)


def _moments(traces: list[Trace], trained: list[int], image: int) -> Iterator[_Moment]:
    """Each unit as it runs forward, on the output of the one before; then backward, from the last one."""
    left, handed, kept = image, 0, False
    behind = []  # what the forward pass has left when a unit's backward pass begins
    for trace in traces:
        yield _Moment(0, left, handed + trace.forward)
        left += trace.saved + (handed if trace.saves_input or kept else 0)
        behind.append(left)
        handed, kept = trace.output, trace.saves_output
    gradients = 0
    for trace, own, activations in zip(reversed(traces), reversed(trained), reversed(behind), strict=True):
        yield _Moment(gradients, activations, trace.backward - trace.saved)
        gradients += own


def _image(plan: Plan, batch: int) -> int:
    return rounded(BYTES * batch * plan.source.width * plan.source.tokens)


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise UsageError(f"batch {batch}: at least one image is needed")


@lru_cache(maxsize=REMEMBERED)
def _training(unit: Unit, batch: int, precision: Precision, half: bool, drop_path: bool, checkpointing: bool) -> Trace:
    options = {"half": half, "drop_path": drop_path, "checkpointing": checkpointing}
    find = partial(trace_training, unit, batch, precision, **options)
    return _remembered(f"training memory, {batch}, {precision}, {options}", unit, find)


@lru_cache(maxsize=REMEMBERED)
def _inference(unit: Unit, batch: int, precision: Precision, half: bool) -> Trace:
    find = partial(trace_inference, unit, batch, precision, half=half)
    return _remembered(f"inference memory, {batch}, {precision}, {half}", unit, find)


def _remembered(what: str, unit: Unit, find: Callable[[], Trace]) -> Trace:
    known = unit_records.find(what, unit)
    if known is not None:
        return Trace(*known)
    trace = find()
    unit_records.keep(what, unit, astuple(trace))
    return trace
