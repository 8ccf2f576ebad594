"""A plan: every unit of a network with its options, input and output shape. No weights, no torch: hashable, printable.

A spec says what; the plan says where each part stands and how large its input is. Networks and costs are made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from archspec import registry
from archspec.errors import OptionError, PluginError, Problem, SpecError, in_order
from archspec.hashing import HashedOnce
from archspec.layout import Grid
from archspec.spec import Block, Spec, Stage
from archspec.tree import Node, child_path
from archspec.validation import Part, problem

Role = Literal["stem", "downsample", "class_token", "position", "block", "norm", "head"]


@dataclass(frozen=True, slots=True)
class State(HashedOnce):
    """What flows between units: tokens (B, prefix + height * width, width); for the image, pixels and channels."""

    width: int
    grid: Grid
    prefix: int = 0
    __hash__ = HashedOnce.__hash__

    @property
    def tokens(self) -> int:
        """Number of tokens, class tokens included."""
        return self.prefix + self.grid[0] * self.grid[1]

    def __str__(self) -> str:
        height, width = self.grid
        return f"{self.width} x {height} x {width}" + (f" + {self.prefix}" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class Unit(HashedOnce):
    """The smallest thing with a cost of its own. Equal units cost the same, wherever they stand."""

    role: Role
    part: Part | Block | None
    source: State
    target: State
    __hash__ = HashedOnce.__hash__


@dataclass(frozen=True, slots=True)
class Step:
    """A unit at its place in the network; `name` is also where its weights are in the state dict."""

    name: str
    unit: Unit
    node: Node = field(compare=False, repr=False)
    drop_path: float = 0.0
    std: float = 0.02


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The steps of a stage, in order."""

    name: str
    steps: tuple[Step, ...]

    @property
    def blocks(self) -> tuple[Step, ...]:
        """The steps that are blocks."""
        return tuple(step for step in self.steps if step.unit.role == "block")

    @property
    def target(self) -> State:
        """What the stage gives."""
        return self.steps[-1].unit.target


@dataclass(frozen=True, slots=True)
class Plan:
    """A network, unit by unit."""

    name: str
    stem: Step
    stages: tuple[StagePlan, ...]
    head: Step | None
    conv_init: str
    spec: Spec = field(compare=False, repr=False)

    @property
    def source(self) -> State:
        """The image."""
        return self.stem.unit.source

    def steps(self) -> Iterator[Step]:
        """Every step, from image to classes."""
        yield self.stem
        for stage in self.stages:
            yield from stage.steps
        if self.head is not None:
            yield self.head


def lay_out(spec: Spec) -> Plan:
    """Follow the shapes through a spec. Raises SpecError where parts do not fit one another."""
    planner = _Planner(spec)
    plan = planner.plan()
    if plan is None or planner.problems:
        raise SpecError(in_order(planner.problems))
    return plan


class _Planner:
    """Walks from the image to the classes and collects what does not fit."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.problems: list[Problem] = []
        depth = sum(len(stage.blocks) for stage in spec.stages)
        self.drop_path = [spec.drop_path * i / max(depth - 1, 1) for i in range(depth)]

    def plan(self) -> Plan | None:
        spec, first = self.spec, self.spec.stages[0]
        assert spec.stem is not None  # a spec without a stem is refused when it is read
        image = State(spec.channels, spec.size)
        state = self.reduced("stem", spec.stem, image, first.width)
        if state is None:
            return None
        stem = Step("stem", Unit("stem", spec.stem, image, state), spec.stem.node)
        stages = []
        for index, stage in enumerate(spec.stages):
            steps = self.stage(f"stages.{index}", stage, state)
            if steps is None:
                return None
            stages.append(StagePlan(f"stages.{index}", tuple(steps)))
            state = steps[-1].unit.target
        return Plan(spec.name, stem, tuple(stages), self.head(state), spec.conv_init, spec)

    def stage(self, name: str, stage: Stage, state: State) -> list[Step] | None:
        entered = self.entrance(name, stage, state)
        if entered is None:
            return None
        steps, state = entered
        given: set[str] = set()
        units: dict[Block, Unit] = {}
        for index, block in enumerate(stage.blocks):
            if block not in units:  # what is true of a block's first occurrence stays true of later ones
                self.check_prefix(name, block, state)
                self.check_side(name, block, given)
                given.update(block.provides)
                units[block] = Unit("block", block, state, state)
            steps.append(Step(f"{name}.blocks.{index}", units[block], stage.node, self.drop_path.pop(0)))
        if stage.norm_out:
            steps.append(Step(f"{name}.norm", Unit("norm", stage.norm_out, state, state), stage.norm_out.node))
        return steps

    def entrance(self, name: str, stage: Stage, state: State) -> tuple[list[Step], State] | None:
        """Downsampling, class token and position encoding, and the state behind them."""
        steps = []
        if stage.downsample:
            target = self.reduced(name, stage.downsample, state, stage.width)
            if target is None:
                return None
            unit = Unit("downsample", stage.downsample, state, target)
            steps.append(Step(f"{name}.downsample", unit, stage.downsample.node))
            state = target
        elif state.width != stage.width:
            rule = f"the width changes from {state.width} to {stage.width} without a downsample"
            node = (stage.node.mapping or {}).get("width", stage.node)
            self.problems.append(problem(node, rule, f"such as downsample: patch, or width: {state.width}"))
            return None
        if stage.class_token:
            if state.prefix:
                node = (stage.node.mapping or {}).get("class_token", stage.node)
                self.problems.append(problem(node, "there is a class token already, from a stage before"))
            target = State(state.width, state.grid, state.prefix + 1)
            unit = Unit("class_token", None, state, target)
            steps.append(Step(f"{name}.class_token", unit, stage.node, std=stage.class_token_std))
            state = target
        if stage.position:
            self.refuse_prefix(name, stage.position, state)
            steps.append(Step(f"{name}.position", Unit("position", stage.position, state, state), stage.position.node))
        return steps, state

    def head(self, state: State) -> Step | None:
        if self.spec.head is None:
            return None
        target = State(self.spec.classes, (1, 1))  # without classes the head gives its pooled features
        return Step("head", Unit("head", self.spec.head, state, target), self.spec.head.node)

    def reduced(self, name: str, part: Part, state: State, width: int) -> State | None:
        """The state behind a stem or downsample."""
        self.refuse_prefix(name, part, state)
        try:
            height, length = part.entry.cls.output_grid(state.grid, dict(part.options))  # type: ignore[attr-defined]
        except OptionError as error:
            self.problems.append(within(name, at_option(part, error)))
            return None
        except Exception as error:  # a block may fail in any way; what the user needs is its name and place
            where = f"{part.node.place}: {part.node.path}"
            raise PluginError(f"{where}: the {part.entry.title} cannot tell its output's grid: {error!r}") from error
        if min(height, length) < 1:
            before = f"{state.grid[0]}×{state.grid[1]}"
            lost = problem(part.node, f"nothing is left of the {before} map", "take a larger input")
            self.problems.append(within(name, lost))
            return None
        return State(width, (height, length), state.prefix)

    def check_prefix(self, name: str, block: Block, state: State) -> None:
        for part in (block.mixer, block.ffn, block.position):
            if part:
                self.refuse_prefix(name, part, state)

    def check_side(self, stage: str, block: Block, given: set[str]) -> None:
        """What the mixer needs must come from a mixer before it in the stage."""
        for name in block.needs:
            if name not in given and block.mixer:
                rule = f"the {block.mixer.entry.title} needs '{name}', which no mixer before it in this stage provides"
                self.problems.append(within(stage, problem(block.mixer.node, rule, _providers(name))))

    def refuse_prefix(self, name: str, part: Part, state: State) -> None:
        if state.prefix and not part.entry.prefix:
            rule = f"the {part.entry.title} has no place for the class token that is in front of the map"
            able = [entry.name for entry in registry.entries() if entry.kind == part.kind and entry.prefix]
            remedy = f"these have: {', '.join(able)}" if able else "class_token: false, and head pool: mean"
            self.problems.append(within(name, problem(part.node, rule, remedy)))


def within(step: str, problem: Problem) -> Problem:
    """The problem, naming the stage where it shows when it is written elsewhere, such as in `defaults`."""
    top, *index = step.split(".")[:2]
    where = f"{top}[{index[0]}]" if index else top
    return problem if problem.path.startswith(where) else replace(problem, rule=f"{problem.rule}, in {where}")


def _providers(name: str) -> str:
    """The mixers that provide it with the options they have by default."""
    found = [
        entry.name
        for entry in registry.entries()
        if entry.kind == "mixer" and name in entry.provides(entry.default_options())
    ]
    return f"{', '.join(found)} would" if found else ""


def at_option(part: Part, error: OptionError) -> Problem:
    """The problem at the place of the option that a block's constructor refuses."""
    node = part.option_node(error.option)
    path = child_path(part.node.path, error.option) if node is part.node else node.path
    return Problem(place=node.place, path=path, rule=f"{error.value} {error.rule}", suggestion=error.suggestion)
