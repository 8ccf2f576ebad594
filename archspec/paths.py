"""The path language: `stages[2].mixer.heads`, `stages[1:].depth`, `stages[*].mixer`, `stages[0].blocks["1:"].mixer`.

A path is a chain of steps. A name enters a mapping; a key that is no plain name stands in brackets and quotes. `[2]`
and `[-1]` select one item of a list, `[1:]` and `[:-1]` several, as in Python; `[*]` selects all items of a list or all
entries of a mapping. A patch is a path with a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

from archspec.errors import Place, Problem, SpecError, nearest
from archspec.tree import Node, child_path, with_paths
from archspec.yaml_reader import MAX_DEPTH, MAX_NODES, parse_value


@dataclass(frozen=True, slots=True)
class Span:
    """`[start:stop]`: the items from `start` up to but not including `stop`, each None where it is left out."""

    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        start, stop = ("" if bound is None else bound for bound in (self.start, self.stop))
        return f"[{start}:{stop}]"


@dataclass(frozen=True, slots=True)
class Every:
    """`[*]`: all items of a list, or all entries of a mapping."""

    def __str__(self) -> str:
        return "[*]"


Step: TypeAlias = str | int | Span | Every

_NAME = re.compile(r"[\w-]+")
_INDEX = re.compile(r"\[(-?[0-9]{1,9})\]")
_SPAN = re.compile(r"\[(-?[0-9]{1,9})?:(-?[0-9]{1,9})?\]")
_QUOTED = re.compile(r"""\[(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\]""", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# what stands before the `=` of an assignment: brackets and the quotes in them may hold one, too
_BEFORE_EQUALS = re.compile(r"""(?:[^\[=]|\[(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^]"'])*\])*""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path; its text is canonical and parses to the same path."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str, place: Place | None = None) -> Path:
        """The path that `text` writes; `place` is where the text starts, for the SpecError that a bad one raises."""
        steps: list[Step] = []
        at = 0
        while at < len(text) or not steps:
            if len(steps) == MAX_DEPTH:
                _refuse_text(text, at, place, f"more than {MAX_DEPTH} steps")
            step, at = _parse_step(text, at, place)
            steps.append(step)
        return cls(tuple(steps))

    def __str__(self) -> str:
        text = ""
        for step in self.steps:
            text += _step_text(step, first=not text)
        return text


def _parse_step(text: str, at: int, place: Place | None) -> tuple[Step, int]:
    """The step that starts at offset `at`, and where it ends."""
    if text.startswith("[", at):
        return _parse_bracket(text, at, place)
    if at:
        if not text.startswith(".", at):
            _refuse_text(text, at, place, f"expected '.' or '[' before {text[at]!r}")
        at += 1
    name = _NAME.match(text, at)
    if name is None:
        rule = f"{text[at]!r} cannot stand in a name" if at < len(text) else "expected a name"
        _refuse_text(text, at, place, rule)
    if name[0][0].isdigit():
        _refuse_text(
            text, at, place, "a name cannot start with a digit", f'write ["{name[0]}"] for a key, [2] for an item'
        )
    return name[0], name.end()


def _parse_bracket(text: str, at: int, place: Place | None) -> tuple[Step, int]:
    if text.startswith("[*]", at):
        return Every(), at + 3
    if match := _INDEX.match(text, at):
        return int(match[1]), match.end()
    if match := _SPAN.match(text, at):
        start, stop = (None if bound is None else int(bound) for bound in match.groups())
        return Span(start, stop), match.end()
    if match := _QUOTED.match(text, at):
        return _ESCAPE.sub(r"\1", match[1] if match[1] is not None else match[2]), match.end()
    rule = "expected an index, a slice, * or a quoted key in brackets"
    return _refuse_text(text, at, place, rule, 'as in [2], [1:], [*], ["1:"]')


def _refuse_text(text: str, at: int, place: Place | None, rule: str, suggestion: str = "") -> NoReturn:
    where = replace(place, column=place.column + at) if place else None
    rule = f"{rule} at character {at + 1} of the path"
    raise SpecError([Problem(place=where, path=text, rule=rule, suggestion=suggestion)])


def _step_text(step: Step, *, first: bool) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if not isinstance(step, str):
        return str(step)
    if _NAME.fullmatch(step) and not step[0].isdigit():
        return step if first else f".{step}"
    escaped = step.replace("\\", "\\\\").replace('"', '\\"')
    return f'["{escaped}"]'


def parse_assignment(text: str, option: str = "--set") -> tuple[Path, Node]:
    """The path and the value of `PATH=VALUE` from the command line; places count columns within `text`."""
    start = Place(f"{option} {text}")
    before = _BEFORE_EQUALS.match(text)
    end = before.end() if before else 0
    path = Path.parse(text[:end] if text.startswith("=", end) else text, start)
    if end == len(text):
        raise SpecError([Problem(place=start, path=str(path), rule="expected PATH=VALUE, found no '='")])
    place = replace(start, column=end + 2)
    if not text[end + 1 :].strip():
        rule = "there is no value after the '='"
        raise SpecError([Problem(place=place, path=str(path), rule=rule, suggestion="write null to remove a key")])
    return path, replace(parse_value(text[end + 1 :], place.file, place.column), key_place=start)


def match_paths(root: Node, path: Path) -> list[str]:
    """The concrete paths of the existing values that `path` selects, in the order of the tree; maybe none."""
    return [str(Path(steps)) for steps in _select(root, path.steps)]


def _select(node: Node, steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    if not steps:
        yield ()
        return
    for key, child in _children(node, steps[0]):
        for rest in _select(child, steps[1:]):
            yield (key, *rest)


def _children(node: Node, step: Step) -> list[tuple[str | int, Node]]:
    """The children that a step selects, with their concrete keys."""
    if node.mapping is not None and isinstance(step, str | Every):
        return [(key, child) for key, child in node.mapping.items() if step in (key, Every())]
    if node.items is not None and not isinstance(step, str):
        return [(index, node.items[index]) for index in _indices(step, len(node.items))]
    return []


def _indices(step: int | Span | Every, length: int) -> range:
    if isinstance(step, int):
        index = step + length if step < 0 else step
        return range(index, index + 1) if 0 <= index < length else range(0)
    return range(length)[step.start : step.stop] if isinstance(step, Span) else range(length)


def apply_patch(root: Node, path: Path, value: Node) -> Node:
    """A new tree with `value` set wherever `path` selects; what the patch does not touch is shared with `root`.

    Mappings that miss on the way are created, and a short form on the way becomes the long one: `mixer: attention`
    patched at `mixer.heads` becomes `{type: attention, heads: ...}`. A null value removes the key of a mapping.
    """
    return apply_patches(root, [(path, value)])


def apply_patches(root: Node, patches: Iterable[tuple[Path, Node]]) -> Node:
    """A new tree with all patches applied, in order; the SpecError has the problems of all of them."""
    problems: list[Problem] = []
    set_so_far = 0
    for path, value in patches:
        patch = _Patch(path, value, set_so_far)
        root = patch.apply(root, path.steps, "")
        problems.extend(patch.problems)
        set_so_far = patch.total
    if problems:
        raise SpecError(problems)
    return root


class _Patch:
    """Applies a value along a path and collects what goes wrong in any of the selected branches."""

    def __init__(self, path: Path, value: Node, set_so_far: int) -> None:
        self.problems: list[Problem] = []
        self.total = set_so_far  # how many values this patch and those before it have set
        self._path, self._value = path, value
        self._place = value.key_place or value.place
        self._removing = value.value is None
        self._size = _size(value)

    def apply(self, node: Node, steps: tuple[Step, ...], where: str) -> Node:
        """The patched form of `node`, which stands at the concrete path `where`."""
        if not steps:
            self.total += self._size
            if self.total > MAX_NODES:
                self._refuse(f"the patches set more than {MAX_NODES} values")
                raise SpecError(self.problems)
            return with_paths(self._value, where)
        step, rest = steps[0], steps[1:]
        if isinstance(step, str):
            return self._enter(node, step, rest, where)
        if isinstance(node.value, tuple):
            return self._apply_items(node, node.value, step, rest, where)
        if isinstance(step, Every) and node.mapping is not None:
            return self._apply_entries(node, node.mapping, rest, where)
        rule = f"{_called(where)} is {node.describe()}, so {_step_text(step, first=True)} selects none"
        self._refuse(rule, "its entries: " + ", ".join(list(node.mapping)[:8]) if node.mapping else "")
        return node

    def _apply_items(
        self, node: Node, items: tuple[Node, ...], step: int | Span | Every, rest: tuple[Step, ...], where: str
    ) -> Node:
        selected = _indices(step, len(items))
        if not selected:
            count = f"{len(items)} item" + "s" * (len(items) != 1)
            rule = f"{_called(where)} has {count}, so {_step_text(step, first=True)} selects none"
            self._refuse(rule)
        changed = list(items)
        for index in selected:
            changed[index] = self.apply(items[index], rest, child_path(where, index))
        return replace(node, value=tuple(changed))

    def _apply_entries(self, node: Node, entries: Mapping[str, Node], rest: tuple[Step, ...], where: str) -> Node:
        if not entries:
            self._refuse(f"{_called(where)} has no entries, so [*] selects none")
        if self._removing and not rest:
            return replace(node, value={})
        return replace(
            node, value={key: self.apply(child, rest, child_path(where, key)) for key, child in entries.items()}
        )

    def _enter(self, node: Node, key: str, rest: tuple[Step, ...], where: str) -> Node:
        """Patch the entry `key` of a mapping, or of what can become one."""
        entries = self._long_form(node, key, where)
        if entries is None:
            return node
        path = child_path(where, key)
        if key not in entries and (self._removing or (rest and not isinstance(rest[0], str))):
            self._refuse(f"there is no '{key}' in {_called(where)}", nearest(key, entries))
            return node
        if self._removing and not rest:
            return replace(node, value={name: child for name, child in entries.items() if name != key})
        child = entries.get(key, Node(None, self._place, self._place, path))
        return replace(node, value={**entries, key: self.apply(child, rest, path)})

    def _long_form(self, node: Node, key: str, where: str) -> dict[str, Node] | None:
        """The entries of a mapping, of a short form or of nothing; None, with a problem, for anything else."""
        if node.mapping is not None:
            return dict(node.mapping)
        if isinstance(node.value, str):
            return {"type": Node(node.value, node.place, node.place, child_path(where, "type"))}
        if node.value is None:
            return {}
        suggestion = f"write {where}[*]" if node.items is not None else ""
        self._refuse(f"{_called(where)} is {node.describe()}, which has no '{key}'", suggestion)
        return None

    def _refuse(self, rule: str, suggestion: str = "") -> None:
        self.problems.append(Problem(place=self._place, path=str(self._path), rule=rule, suggestion=suggestion))


def _size(node: Node) -> int:
    children = node.mapping.values() if node.mapping is not None else node.items or ()
    return 1 + sum(_size(child) for child in children)


def _called(where: str) -> str:
    return where or "the top level"
