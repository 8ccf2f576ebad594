"""YAML text as a tree of plain values, each with its file, line and column.

The tree is composed from parser events: no YAML constructor ever runs, and a hostile file is refused while it is read.
The dialect is YAML with the scalars of the 1.2 core schema and without its traps:

- Only plain `true`/`false`, `null`/`~`/nothing, decimal integers and floats (`1e-3`, `.5`, `1.`) are more than text;
  `no`, `on`, dates, `1:30` and `1_000` stay text, and `010` is ten.
- Refused: duplicate keys, tags, merge keys, keys that are no plain text, recursive aliases, infinities, control
  characters, several documents in one file, and whatever exceeds the limits below.
- An alias stands for a copy of what its anchor names, and counts in full against the limits.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from archspec.errors import Place, Problem, SpecError, UsageError, nearest, shorten
from archspec.tree import Node, Scalar, child_path, with_paths

MAX_BYTES = 2**20
MAX_NODES = 20_000  # of the tree with all aliases expanded
MAX_DEPTH = 64
MAX_KEY = 100  # characters; bounds the paths that the nodes carry, too
MAX_INTEGER = 10**18

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # what the parser counts as one
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_file(path: Path, shown: str | None = None) -> Node:
    """The mapping in a YAML file; `shown` is the file's name in messages."""
    file = str(path) if shown is None else shown
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{file}: cannot be read: {reason}") from None
    return read_yaml(_decode(data, file), file)


def read_yaml(text: str, file: str) -> Node:
    """The mapping that `text` holds; raises a SpecError with all problems, in the order of their places."""
    return _read(text, Place(file), mapping_only=True)


def parse_value(text: str, place_file: str, column: int = 1) -> Node:
    """Any YAML value, such as `8` or `{type: mat, heads: 8}`; `column` is where it starts in `place_file`."""
    return _read(text, Place(place_file, 1, column), mapping_only=False)


def _read(text: str, start: Place, *, mapping_only: bool) -> Node:
    bare = text.removeprefix("\ufeff")
    _check_text(bare, start)
    composer = _Composer(bare, start)
    node = composer.document()
    if mapping_only and node is not None and node.mapping is None:
        composer.refuse(node.place, "", f"the file must hold a mapping of keys to values, not {node.describe()}")
    if composer.problems or node is None:
        raise SpecError(sorted(composer.problems, key=_order))
    return with_paths(node)


def _order(problem: Problem) -> tuple[int, int]:
    return (problem.place.line, problem.place.column) if problem.place else (0, 0)


def _decode(data: bytes, file: str) -> str:
    """The bytes as text, which must be UTF-8, with or without a byte order mark."""
    if len(data) > MAX_BYTES:
        _fail(Place(file), "the file is larger than 1 MiB")
    if data.startswith(_WIDE_MARKS):
        _fail(Place(file), "the file is UTF-16 or UTF-32", "save it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[line_start : error.start].decode("utf-8")) + 1
        place = Place(file, data.count(b"\n", 0, error.start) + 1, column)
        _fail(place, f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8", "save the file as UTF-8")


def _check_text(text: str, start: Place) -> None:
    if len(text) > MAX_BYTES:
        _fail(start, "the text is larger than 1 MiB")
    bad = _UNPRINTABLE.search(text)
    if bad is None:
        return
    _fail(_place_of(bad.start(), text, start), f"the control character {_code(bad[0])} is not allowed")


def _place_of(offset: int, text: str, start: Place) -> Place:
    breaks = list(_LINE_BREAK.finditer(text, 0, offset))
    column = offset - breaks[-1].end() + 1 if breaks else offset + start.column
    return Place(start.file, len(breaks) + 1, column)


def _fail(place: Place, rule: str, suggestion: str = "") -> NoReturn:
    raise SpecError([Problem(place=place, path="", rule=rule, suggestion=suggestion)])


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _is_plain(event: ScalarEvent) -> bool:
    return event.style in (None, "")


def _key_rule(event: ScalarEvent, key: str, twin: Node | None) -> tuple[str, str]:
    """The rule that a key breaks, with a suggestion; empty for a good key. `twin` is the same key's entry before it."""
    if event.anchor is not None:
        return f"the key '{shorten(key)}' cannot carry an anchor", ""
    if len(key) > MAX_KEY:
        return f"the key '{shorten(key)}' is longer than {MAX_KEY} characters", ""
    if _is_plain(event) and key == "<<":
        return "merge keys '<<' are not part of the language", "use extends"
    if _is_plain(event) and not key:
        return "a key is missing before the ':'", ""
    if twin is not None and twin.key_place is not None:
        return f"duplicate key '{key}', first in line {twin.key_place.line}", ""
    return "", ""


class _AbandonedError(Exception):
    """A problem after which the rest of the file cannot be read."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A composed subtree with its number of nodes and of nested collections, aliases expanded."""

    node: Node
    size: int = 1
    height: int = 0


class _Composer:
    """Composes the first document of a text from its events and collects the problems."""

    def __init__(self, text: str, start: Place) -> None:
        self.problems: list[Problem] = []
        self._text, self._start = text, start
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchor_places: dict[str, Place] = {}
        self._anchors: dict[str, _Part] = {}  # the finished ones: an alias to an open one is recursive
        self._size = 0

    def document(self) -> Node | None:
        """The root, or None when it could not be composed."""
        try:
            return self._document()
        except _AbandonedError:
            return None
        except yaml.MarkedYAMLError as error:
            # by offset, for libyaml counts one line more at the end of a text without a final line break
            offset = min(error.problem_mark.index, len(self._text)) if error.problem_mark else len(self._text)
            rule, suggestion = _explain(error, self._text[offset : offset + 1])
            self.refuse(_place_of(offset, self._text, self._start), "", rule, suggestion)
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # chr() in PyYAML's own parser raises the last two
            self.refuse(self._start, "", f"not valid YAML: {error}")
        return None

    def refuse(self, place: Place, path: str, rule: str, suggestion: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(place=place, path=path, rule=rule, suggestion=suggestion))

    def _document(self) -> Node | None:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), StreamEndEvent):
            self.refuse(self._start, "", "empty: there is no value")
            return None
        root = next(self._events)
        if isinstance(root, ScalarEvent) and _is_plain(root) and not root.value:
            self.refuse(self._start, "", "empty: there is no value")
        part = self._compose(root, 0, "")
        next(self._events)  # the end of the document
        after = next(self._events)
        if not isinstance(after, StreamEndEvent):
            rule = "a second document starts here; a file holds one"
            self.refuse(self._place(after.start_mark), "", rule, "put it into a file of its own")
        return part.node

    def _compose(self, event: NodeEvent, depth: int, path: str) -> _Part:
        """The subtree that starts with `event`, within `depth` open collections."""
        if isinstance(event, AliasEvent):
            return self._alias(event, depth, path)
        self._grow(1, event, path)
        self._check_properties(event, path)
        if isinstance(event, ScalarEvent):
            part = _Part(Node(self._scalar(event, path), self._place(event.start_mark)))
        else:
            self._check_depth(depth + 1, event, path)
            part = self._collection(event, depth + 1, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = part
        return part

    def _collection(self, start: NodeEvent, depth: int, path: str) -> _Part:
        value: tuple[Node, ...] | dict[str, Node]
        if isinstance(start, MappingStartEvent):
            value, parts = self._entries(depth, path)
        else:
            parts = self._items(depth, path)
            value = tuple(part.node for part in parts)
        size = 1 + sum(part.size for part in parts)
        height = 1 + max((part.height for part in parts), default=0)
        return _Part(Node(value, self._place(start.start_mark)), size, height)

    def _items(self, depth: int, path: str) -> list[_Part]:
        parts: list[_Part] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            parts.append(self._compose(event, depth, child_path(path, len(parts))))
        return parts

    def _entries(self, depth: int, path: str) -> tuple[dict[str, Node], list[_Part]]:
        entries: dict[str, Node] = {}
        parts: list[_Part] = []
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, entries, depth, path)
            part = self._compose(next(self._events), depth, path if key is None else child_path(path, key))
            parts.append(part)
            if key is not None:
                entries[key] = replace(part.node, key_place=self._place(event.start_mark))
        return entries, parts

    def _key(self, event: NodeEvent, entries: dict[str, Node], depth: int, path: str) -> str | None:
        """The key as text; None for one that is refused, and whose value is read all the same for its problems."""
        place = self._place(event.start_mark)
        if not isinstance(event, ScalarEvent):
            self.refuse(place, path, "a key must be a plain text, not a list, a mapping or an alias")
            self._compose(event, depth, path)
            return None
        self._check_properties(event, path)
        key = self._printable(event, path)
        rule, suggestion = _key_rule(event, key, entries.get(key))
        if rule:
            self.refuse(place, path, rule, suggestion)
        return None if rule else key

    def _alias(self, event: AliasEvent, depth: int, path: str) -> _Part:
        place, name = self._place(event.start_mark), str(event.anchor)
        if name in self._anchors:
            part = self._anchors[name]
            self._check_depth(depth + part.height, event, path)
            self._grow(part.size, event, path)
            return part
        if name in self._anchor_places:
            self.refuse(place, path, f"the alias '*{shorten(name)}' stands inside of what it names")
        else:
            self.refuse(
                place, path, f"the alias '*{shorten(name)}' has no anchor before it", nearest(name, self._anchors)
            )
        return _Part(Node(None, place))

    def _check_properties(self, event: NodeEvent, path: str) -> None:
        """Refuse a tag, and an anchor whose name is taken."""
        place = self._place(event.start_mark)
        if event.tag is not None:  # type: ignore[attr-defined]
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")  # type: ignore[attr-defined]
            self.refuse(place, path, f"the tag '{shorten(tag)}' is not allowed: tags are not part of the language")
        if event.anchor is None:
            return
        first = self._anchor_places.setdefault(event.anchor, place)
        if first is not place:
            rule = f"the anchor '&{shorten(event.anchor)}' is defined twice, first in line {first.line}"
            self.refuse(place, path, rule)

    def _check_depth(self, depth: int, event: NodeEvent, path: str) -> None:
        if depth > MAX_DEPTH:
            self._abandon(event, "", f"lists and mappings are nested deeper than {MAX_DEPTH}")

    def _grow(self, size: int, event: NodeEvent, path: str) -> None:
        self._size += size
        if self._size > MAX_NODES:
            self._abandon(event, path, f"more than {MAX_NODES} values, counting what aliases repeat")

    def _abandon(self, event: NodeEvent, path: str, rule: str) -> NoReturn:
        self.refuse(self._place(event.start_mark), path, rule)
        raise _AbandonedError

    def _scalar(self, event: ScalarEvent, path: str) -> Scalar:
        text = self._printable(event, path)
        if not _is_plain(event):
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _NOT_FINITE.fullmatch(text):
            self.refuse(self._place(event.start_mark), path, f"{text} is not a finite number")
        elif FLOAT.fullmatch(text):
            return self._number(text, event, path)
        return text

    def _number(self, text: str, event: ScalarEvent, path: str) -> int | float:
        # float() first: it takes any length, where int() refuses thousands of digits
        value = float(text)
        exact = int(text) if _INTEGER.fullmatch(text) and abs(value) <= MAX_INTEGER else value
        if not math.isfinite(value) or (_INTEGER.fullmatch(text) and abs(exact) > MAX_INTEGER):
            self.refuse(self._place(event.start_mark), path, f"the number {shorten(text)} is too large")
        return exact

    def _printable(self, event: ScalarEvent, path: str) -> str:
        """The text of a scalar; escapes may have put control characters into it."""
        bad = _UNPRINTABLE.search(event.value)
        if bad:
            rule = f"the text holds the control character {_code(bad[0])}"
            self.refuse(self._place(event.start_mark), path, rule)
        return str(event.value)

    def _place(self, mark: Any) -> Place:
        column = mark.column + (self._start.column if mark.line == 0 else 1)
        return Place(self._start.file, mark.line + 1, column)


def _explain(error: yaml.MarkedYAMLError, character: str) -> tuple[str, str]:
    """A syntax error at `character` as a rule and a suggestion; libyaml and PyYAML's own parser word it differently."""
    problem = error.problem or "the text ends too early"
    line = f"in line {error.context_mark.line + 1}" if error.context_mark else "above"
    if "cannot start any token" in problem:
        if character == "\t":
            return "a tab cannot indent", "indent with spaces"
        return f"a value cannot start with {character!r}", "quote it"
    if "mapping values are not allowed" in problem:
        return "a ':' stands where no key can", "check the indentation, and quote a text that holds ': '"
    if "node content" in problem:
        return f"expected a value, found {repr(character) if character else 'the end'}", ""
    for bracket, kind in (("]", "list"), ("}", "mapping")):
        if f"',' or '{bracket}'" in problem:
            hint = "quote a key with brackets in it" if character == "[" and kind == "mapping" else ""
            return f"expected ',' or '{bracket}' for the {kind} that starts {line}", hint
    if "quoted scalar" in (error.context or "") and "end of stream" in problem:
        return f"the quoted text that starts {line} has no end", ""
    if error.context == "while parsing a block mapping":
        return f"not a key of the mapping that starts {line}", "check the indentation and the quotes"
    if error.context == "while parsing a block collection":
        return f"not an item of the list that starts {line}", "check the indentation"
    return f"not valid YAML: {problem}", ""
