"""A spec: one network, validated, with nothing left implicit. Made from a tree; raises all its problems at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

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
from archspec.registry import KINDS, Kind
from archspec.tree import Node, overlay
from archspec.validation import Part, problem, read_frame, read_part

At = Literal["ffn.front", "ffn.middle", "ffn.end", "mixer.front", "mixer.end"]
POSITIONS: tuple[At, ...] = get_args(At)
DEFAULT_AT: At = "ffn.end"
BLOCK_KEYS = tuple(BlockFrame.model_fields)
STAGE_KEYS = tuple(DefaultsFrame.model_fields)


@dataclass(frozen=True, slots=True)
class Modifier:
    """A modifier and the position in the block where it stands."""

    part: Part
    at: At


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block: x + mixer(norm x), then x + ffn(norm x). None is a part that is left out."""

    mixer: Part | None
    ffn: Part | None
    norm: Part | None
    act: Part | None
    position: Part | None
    modifiers: tuple[Modifier, ...]
    layer_scale: float | None

    @property
    def needs(self) -> tuple[str, ...]:
        """Side information that the mixer takes from an earlier one of its stage."""
        return self.mixer.entry.needs(self.mixer.options) if self.mixer else ()

    @property
    def provides(self) -> tuple[str, ...]:
        """Side information that the mixer hands to later ones of its stage."""
        return self.mixer.entry.provides(self.mixer.options) if self.mixer else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks of one width on one grid, and what stands before and after them."""

    width: int
    downsample: Part | None
    class_token: bool
    class_token_std: float
    position: Part | None
    blocks: tuple[Block, ...]
    norm_out: Part | None
    node: Node = field(compare=False, repr=False)


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


def read_spec(tree: Node) -> Spec:
    """Validate a tree whose `extends` and `set` have been followed. Raises SpecError with every problem."""
    reader = _Reader()
    spec = reader.spec(tree)
    if spec is None or reader.problems:
        raise SpecError(in_order(reader.problems), readable=reader.readable(spec))
    return spec


class _Reader:
    """Reads a tree and collects its problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._defaults_at_fault = False  # then a stage's missing keys may be there, misspelt
        self._whole_stages = 0  # how many come before the first that could not be read
        self._parts: dict[tuple[Kind, int], tuple[Node, Part | None]] = {}

    def spec(self, tree: Node) -> Spec | None:
        entries = tree.mapping or {}
        frame = read_frame(SpecFrame, tree, self.problems)
        defaults_node = entries.get("defaults")
        defaults = read_frame(DefaultsFrame, defaults_node, self.problems) if defaults_node else None
        self._defaults_at_fault = bool(defaults_node) and defaults is None
        input_node, published_node = entries.get("input"), entries.get("published")
        image = read_frame(InputFrame, input_node, self.problems) if input_node else InputFrame()
        published = read_frame(PublishedFrame, published_node, self.problems) if published_node else None
        stem = self.part("stem", entries["stem"], required=True) if "stem" in entries else None
        head = self.part("head", entries["head"]) if "head" in entries else None
        stages = self.stages(entries.get("stages"), defaults_node, entries.get("blocks"))
        self.defaults(defaults_node)
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
        if key not in self._parts:  # the node is kept beside its part: an id is only good while its object lives
            found = len(self.problems)
            part = read_part(kind, node, self.problems)
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
        frames = [read_frame(StageFrame, stage, self.problems) for stage in node.items]
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
            local = [(range(*(i - first for i in (chosen.start, chosen.stop))), over) for chosen, over in everywhere]
            stages.append(self.stage(index, stage, frame, defaults, local))
            first += frame.depth
        return tuple(stages)

    def stage(
        self, index: int, node: Node, frame: StageFrame, defaults: Node | None, everywhere: list[tuple[range, Node]]
    ) -> Stage:
        say = _layered(defaults, node)
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
                    layers = _layered(Node(layers, node.place), chosen[i][1])
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
            chosen = self.chosen(key, said, depth)
            before = len(self.problems)
            frame = read_frame(BlockFrame, said, self.problems)
            if frame and frame.mixer and frame.mixer.items is not None:
                self.problems.append(
                    problem(frame.mixer, "a list of mixers where one is expected; only a stage cycles them")
                )
            if chosen and len(self.problems) == before:
                found.append((chosen, said))
        return found

    def chosen(self, key: str, node: Node, depth: int) -> range | None:
        match = re.fullmatch(r"(-?\d{1,6})|(-?\d{1,6})?:(-?\d{1,6})?", key)
        if match is None:
            rule = f"'{key}' is no index or slice of blocks"
            self.problems.append(problem(node, rule, 'such as 0, -1, "1:" or "2:4"', key=True))
            return None
        if match[1]:
            start = int(match[1]) % depth if -depth <= int(match[1]) < depth else depth
            chosen = range(start, min(start + 1, depth))
        else:
            chosen = range(*slice(*(int(end) if end else None for end in match.group(2, 3))).indices(depth))
        if not chosen:
            self.problems.append(problem(node, f"'{key}' selects none of the {depth} blocks", key=True))
        return chosen or None


def _is_none(node: Node) -> bool:
    said = node if node.mapping is None else node.mapping.get("type")
    return said is not None and said.value == "none"


def _layered(lower: Node | None, upper: Node) -> Mapping[str, Node]:
    """What `upper` says over `lower`, key by key. A mapping over a list of mixers amends each of them."""
    say = dict(lower.mapping or {}) if lower else {}
    for key, node in (upper.mapping or {}).items():
        below = say.get(key)
        if below is None:
            say[key] = node
        elif below.items is not None and node.mapping is not None:
            say[key] = Node(tuple(overlay(item, node) for item in below.items), node.place, node.key_place, node.path)
        else:
            say[key] = overlay(below, node)
    return say


_LAYER = Node("layer", Place("the language's own default"))
_GELU = Node("gelu", _LAYER.place)
