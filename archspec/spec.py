"""A spec: one network, validated, with nothing left implicit. Made from a tree; raises all its problems at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from archspec.errors import Place, Problem, SpecError, in_order, nearest
from archspec.frames import (
    MAX_BLOCKS,
    MAX_MODIFIERS,
    MAX_OVERRIDES,
    MAX_STAGES,
    BlockFrame,
    DefaultsFrame,
    InputFrame,
    PublishedFrame,
    SpecFrame,
    StageFrame,
)
from archspec.hashing import HashedOnce
from archspec.layering import chosen_blocks, layered
from archspec.registry import KINDS, Kind
from archspec.tree import Node
from archspec.validation import Frame, Part, problem, read_frame, read_part

T = TypeVar("T")
F = TypeVar("F", bound=Frame)
Memory: TypeAlias = dict[Any, tuple[tuple[Node | None, ...], Any]]  # key -> the nodes it speaks of, what they give
At = Literal["ffn.front", "ffn.middle", "ffn.end", "mixer.front", "mixer.end"]
POSITIONS: tuple[At, ...] = get_args(At)
DEFAULT_AT: At = "ffn.end"
BLOCK_KEYS = tuple(BlockFrame.model_fields)
STAGE_KEYS = tuple(DefaultsFrame.model_fields)


@dataclass(frozen=True, slots=True)
class Modifier(HashedOnce):
    """A modifier and the position in the block where it stands."""

    part: Part
    at: At
    __hash__ = HashedOnce.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(HashedOnce):
    """One block: x + mixer(norm x), then x + ffn(norm x). None is a part that is left out."""

    mixer: Part | None
    ffn: Part | None
    norm: Part | None
    act: Part | None
    position: Part | None
    modifiers: tuple[Modifier, ...]
    layer_scale: float | None
    __hash__ = HashedOnce.__hash__

    @property
    def needs(self) -> tuple[str, ...]:
        """Side information that the mixer takes from an earlier one of its stage."""
        return self.mixer.entry.needs(self.mixer.options) if self.mixer else ()

    @property
    def provides(self) -> tuple[str, ...]:
        """Side information that the mixer hands to later ones of its stage."""
        return self.mixer.entry.provides(self.mixer.options) if self.mixer else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(HashedOnce):
    """Blocks of one width on one grid, and what stands before and after them."""

    width: int
    downsample: Part | None
    class_token: bool
    class_token_std: float
    position: Part | None
    blocks: tuple[Block, ...]
    norm_out: Part | None
    node: Node = field(compare=False, repr=False)
    __hash__ = HashedOnce.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A network, fully explicit. `size` is (height, width) in pixels."""

    name: str
    description: str
    channels: int
    size: tuple[int, int]
    classes: int
    drop_path: float
    conv_init: str
    stem: Part | None
    stages: tuple[Stage, ...]
    head: Part | None
    published: PublishedFrame | None
    node: Node = field(compare=False, repr=False)


def read_spec(tree: Node, memory: Memory | None = None) -> Spec:
    """Validate a tree whose `extends` and `set` have been followed. Raises SpecError with every problem.

    memory: from earlier readings of trees that share nodes with this one; what was right there is not read again.
    """
    reader = _Reader({} if memory is None else memory)
    spec = reader.spec(tree)
    if spec is None or reader.problems:
        raise SpecError(in_order(reader.problems), readable=reader.readable(spec))
    return spec


class _Reader:
    """Reads a tree and collects its problems."""

    def __init__(self, memory: Memory) -> None:
        self.problems: list[Problem] = []
        self._memory = memory
        self._defaults_at_fault = False  # then a stage's missing keys may be there, misspelt
        self._whole_stages = 0  # how many come before the first that could not be read
        self._parts: dict[tuple[Kind, int], tuple[Node, Part | None]] = {}

    def remembered(self, what: Hashable, nodes: tuple[Node | None, ...], read: Callable[[], T]) -> T:
        """What `read` makes of these nodes; the same nodes are read again only if they have a problem."""
        key = (what, *map(id, nodes))
        if key in self._memory:  # the nodes are kept beside it: an id is only good while its object lives
            return cast("T", self._memory[key][1])
        found = len(self.problems)
        value = read()
        if len(self.problems) == found:
            self._memory[key] = nodes, value
        return value

    def frame(self, model: type[F], node: Node | None) -> F | None:
        if node is None:
            return None
        return self.remembered(model, (node,), lambda: read_frame(model, node, self.problems))

    def spec(self, tree: Node) -> Spec | None:
        entries = tree.mapping or {}
        frame = read_frame(SpecFrame, tree, self.problems)
        defaults_node = entries.get("defaults")
        self._defaults_at_fault = bool(defaults_node) and self.frame(DefaultsFrame, defaults_node) is None
        image = self.frame(InputFrame, entries["input"]) if "input" in entries else InputFrame()
        published = self.frame(PublishedFrame, entries.get("published"))
        stem = self.part("stem", entries["stem"], required=True) if "stem" in entries else None
        head = self.part("head", entries["head"]) if "head" in entries else None
        stages = self.stages(entries.get("stages"), defaults_node, entries.get("blocks"))
        self.remembered("defaults", (defaults_node,), lambda: self.defaults(defaults_node))
        if image is None or stages is None:
            return None
        frame = frame or SpecFrame.model_construct(name="")  # the problems are known; what else was read may have more
        return Spec(
            name=frame.name,
            description=frame.description,
            channels=image.channels,
            size=image.size,
            classes=frame.classes,
            drop_path=frame.drop_path,
            conv_init=frame.conv_init,
            stem=stem,
            stages=stages,
            head=head,
            published=published,
            node=tree,
        )

    def readable(self, spec: Spec | None) -> Spec | None:
        """The stages in front of the first that could not be read, behind their stem."""
        if spec is None or spec.stem is None or not self._whole_stages:
            return None
        return replace(spec, stages=spec.stages[: self._whole_stages], head=None)

    def part(self, kind: Kind, node: Node, *, required: bool = False) -> Part | None:
        """A part; the same node is read once, so that a default at fault is reported once."""
        key = (kind, id(node))
        if key not in self._parts:
            found = len(self.problems)
            part = self.remembered(kind, (node,), lambda: read_part(kind, node, self.problems))
            if required and part is None and len(self.problems) == found:
                self.problems.append(problem(node, f"a network needs a {kind}"))
            self._parts[key] = (node, part)
        return self._parts[key][1]

    def defaults(self, node: Node | None) -> None:
        """Check what every stage says unless it says otherwise, even if all do; they may complete its options."""
        for key, said in (node.mapping or {} if node else {}).items():
            for kind in KINDS:
                if kind == key.removesuffix("_out"):
                    for one in self.cycle(said) if kind == "mixer" else (said,):
                        read_part(kind, one, self.problems, whole=False)
        self.modifiers((node.mapping or {}).get("modifiers") if node else None)

    def stages(self, node: Node | None, defaults: Node | None, blocks: Node | None) -> tuple[Stage, ...] | None:
        if node is None:
            return None
        if not node.items or len(node.items) > MAX_STAGES:
            found = node.describe() if node.items is None else f"a list of {len(node.items)}"
            self.problems.append(problem(node, f"{found} where a list of 1 to {MAX_STAGES} stages is expected"))
            return None
        frames = [self.frame(StageFrame, stage) for stage in node.items]
        total = sum(frame.depth for frame in frames if frame)
        if total > MAX_BLOCKS:
            self.problems.append(problem(node, f"{total} blocks in all stages together", f"at most {MAX_BLOCKS}"))
            return None
        everywhere = self.overrides(blocks, total) if all(frames) else []
        stages: list[Stage] = []
        first = 0
        for index, (stage, frame) in enumerate(zip(node.items, frames, strict=True)):
            if frame is None:
                continue
            self._whole_stages += len(stages) == index
            local = tuple((range(where.start - first, where.stop - first), over) for where, over in everywhere)
            read = partial(self.stage, index, stage, frame, defaults, local)
            overrides = tuple((where, id(over)) for where, over in local)
            stages.append(self.remembered((index, overrides), (stage, defaults, blocks), read))
            first += frame.depth
        return tuple(stages)

    def stage(
        self, index: int, node: Node, frame: StageFrame, defaults: Node | None, everywhere: Iterable[tuple[range, Node]]
    ) -> Stage:
        say = layered(defaults, node)
        chosen = [*everywhere, *self.overrides(frame.blocks, frame.depth)]
        position = self.optional("position", say)
        if index == 0 and "downsample" in (node.mapping or {}):
            self.optional("downsample", say, refuse="the stem comes before the first stage: it takes no downsample")
        if index > 0 and "downsample" not in say and not self._defaults_at_fault:
            self.problems.append(
                problem(
                    node, "this stage says no downsample, and defaults does not", "`downsample: none` keeps the grid"
                )
            )
        return Stage(
            width=frame.width,
            downsample=self.optional("downsample", say) if index > 0 else None,
            class_token=frame.class_token,
            class_token_std=frame.class_token_std,
            position=position if position and not position.entry.per_block else None,
            blocks=self.blocks(node, frame.depth, say, chosen),
            norm_out=self.optional("norm", say, key="norm_out"),
            node=node,
        )

    def optional(self, kind: Kind, say: Mapping[str, Node], *, key: str = "", refuse: str = "") -> Part | None:
        node = say.get(key or kind)
        part = self.part(kind, node) if node else None
        if node and part and refuse:
            self.problems.append(problem(node, refuse, key=True))
        return part

    def blocks(
        self, node: Node, depth: int, say: Mapping[str, Node], chosen: list[tuple[range, Node]]
    ) -> tuple[Block, ...]:
        """The stage's blocks; equal ones are read once."""
        for key in ("mixer", "ffn"):
            if key not in say:
                rule = f"this stage says no {key}, and defaults does not"
                if not self._defaults_at_fault:
                    self.problems.append(problem(node, rule, f"`{key}: none` leaves it out"))
                return ()
        cycle = self.cycle(say["mixer"])
        read: dict[tuple[int, ...], Block] = {}
        blocks = []
        for index in range(depth if cycle else 0):
            applied = tuple(i for i, (where, _) in enumerate(chosen) if index in where)
            key_of_block = (index % len(cycle), *applied)
            if key_of_block not in read:
                layers: Mapping[str, Node] = {**say, "mixer": cycle[index % len(cycle)]}
                for i in applied:
                    layers = layered(Node(layers, node.place), chosen[i][1])
                self.refuse_position(layers.get("position"), say.get("position"))
                read[key_of_block] = self.block(layers)
            blocks.append(read[key_of_block])
        for mixer in cycle[depth:]:
            self.part("mixer", mixer)  # the depth does not reach it; it must be right all the same
        return tuple(blocks)

    def refuse_position(self, node: Node | None, of_stage: Node | None) -> None:
        """For single blocks: what stands once in front of the stage is none of theirs."""
        part = self.part("position", node) if node and node is not of_stage else None
        if node and part and not part.entry.per_block:
            rule = f"the {part.entry.title} stands once in front of a stage, not in single blocks"
            self.problems.append(problem(node, rule, "say it in the stage"))

    def cycle(self, mixer: Node) -> tuple[Node, ...]:
        if mixer.items is None:
            return (mixer,)
        if not mixer.items:
            self.problems.append(problem(mixer, "an empty list of mixers", "`mixer: none` leaves it out"))
        return mixer.items

    def block(self, say: Mapping[str, Node]) -> Block:
        position = self.optional("position", say)
        scale = say.get("layer_scale")
        modifiers = self.modifiers(say.get("modifiers"))
        self.refuse_homeless(modifiers, [branch for branch in ("mixer", "ffn") if _is_none(say[branch])])
        return Block(
            mixer=self.part("mixer", say["mixer"]),
            ffn=self.part("ffn", say["ffn"]),
            norm=self.part("norm", say.get("norm", _LAYER)),
            act=self.part("act", say.get("act", _GELU)),
            position=position if position and position.entry.per_block else None,
            modifiers=modifiers,
            layer_scale=float(scale.value) if scale and isinstance(scale.value, int | float) else None,
        )

    def refuse_homeless(self, modifiers: Iterable[Modifier], absent: list[str]) -> None:
        """A modifier in a branch that is left out would do nothing, silently."""
        for modifier in modifiers:
            branch = modifier.at.split(".")[0]
            if branch in absent:
                rule = f"the {modifier.part.entry.title} stands at {modifier.at}, in a block without {branch}"
                self.problems.append(problem(modifier.part.node, rule, "say modifiers: none, or another at"))

    def modifiers(self, node: Node | None) -> tuple[Modifier, ...]:
        if node is None or node.value == "none":
            return ()
        if node.items is None:
            rule = f"{node.describe()} where a list of modifiers is expected"
            self.problems.append(problem(node, rule, f"write [{node.value}]" if isinstance(node.value, str) else ""))
            return ()
        if len(node.items) > MAX_MODIFIERS:
            self.problems.append(problem(node, f"{len(node.items)} modifiers in a block", f"at most {MAX_MODIFIERS}"))
            return ()
        found = [(self.part("modifier", item), self.at(item)) for item in node.items]
        return tuple(Modifier(part, at) for part, at in found if part and at)

    def at(self, node: Node) -> At | None:
        where = (node.mapping or {}).get("at")
        if where is None:
            return DEFAULT_AT
        for known in POSITIONS:
            if where.value == known:
                return known
        hint = nearest(str(where.value), POSITIONS)
        self.problems.append(problem(where, f"{where.describe()} is none of {', '.join(POSITIONS)}", hint))
        return None

    def overrides(self, node: Node | None, depth: int) -> list[tuple[range, Node]]:
        """`blocks: {"1:": {...}, -1: {...}}` as ranges of block indices with what is said for them."""
        if node is None:
            return []
        if node.mapping is None:
            self.problems.append(
                problem(node, f'{node.describe()} where a mapping such as {{"1:": {{...}}}} is expected')
            )
            return []
        if len(node.mapping) > MAX_OVERRIDES:
            self.problems.append(problem(node, f"{len(node.mapping)} indices and slices", f"at most {MAX_OVERRIDES}"))
            return []
        found = []
        for key, said in node.mapping.items():
            chosen = chosen_blocks(key, said, depth, self.problems)
            before = len(self.problems)
            frame = read_frame(BlockFrame, said, self.problems)
            if frame and frame.mixer and frame.mixer.items is not None:
                self.problems.append(
                    problem(frame.mixer, "a list of mixers where one is expected; only a stage cycles them")
                )
            if chosen and len(self.problems) == before:
                found.append((chosen, said))
        return found


def _is_none(node: Node) -> bool:
    said = node if node.mapping is None else node.mapping.get("type")
    return said is not None and said.value == "none"


_LAYER = Node("layer", Place("the language's own default"))
_GELU = Node("gelu", _LAYER.place)
