"""The tree that every archspec file is read into: plain values, each with its place.

A node's value is a scalar, a tuple of nodes or a dictionary of nodes. Nodes are never changed: a patch makes a new tree
that shares what it does not touch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from archspec.errors import Place, shorten

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place; for a mapping's entry also the place of its key, and the path from the root."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    place: Place
    key_place: Place | None = None
    path: str = ""

    @property
    def mapping(self) -> Mapping[str, Node] | None:
        """The entries when this is a mapping, else None."""
        return self.value if isinstance(self.value, Mapping) else None

    @property
    def items(self) -> tuple[Node, ...] | None:
        """The items when this is a list, else None."""
        return self.value if isinstance(self.value, tuple) else None

    def plain(self) -> Any:
        """The value as ordinary dictionaries, lists and scalars."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value

    def describe(self) -> str:
        """The value for an error message: scalars as written, collections by their kind."""
        if isinstance(self.value, Mapping):
            return "a mapping"
        if isinstance(self.value, tuple):
            return "a list"
        if self.value is None:
            return "nothing"
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        return repr(shorten(self.value)) if isinstance(self.value, str) else str(self.value)


def from_plain(value: Any, place: Place) -> Node:
    """Plain data as a tree in which every node stands at `place`."""
    if isinstance(value, Mapping):
        return Node({str(key): replace(from_plain(item, place), key_place=place) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node(tuple(from_plain(item, place) for item in value), place)
    return Node(value, place)


def child_path(path: str, key: str | int) -> str:
    """The path of a child: `a.b`, `a[2]`, and `a["1:"]` for a key that is no plain name."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not key.replace("_", "a").replace("-", "a").isalnum() or key[:1].isdigit():
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def with_paths(node: Node, path: str = "") -> Node:
    """The same tree in which every node knows its path from the root."""
    value = node.value
    if isinstance(value, Mapping):
        value = {key: with_paths(item, child_path(path, key)) for key, item in value.items()}
    elif isinstance(value, tuple):
        value = tuple(with_paths(item, child_path(path, index)) for index, item in enumerate(value))
    return Node(value, node.place, node.key_place, path)


def overlay(lower: Node, upper: Node) -> Node:
    """`upper` amends `lower`: mappings merge entry by entry; scalars, lists and mappings that name a `type` replace.

    A short form below (`attention`) counts as its long form (`{type: attention}`), so `{heads: 8}` amends it.
    """
    over = upper.mapping
    if over is None or "type" in over:
        return upper
    under = lower.mapping
    if under is None:
        if not isinstance(lower.value, str):
            return upper
        under = {"type": Node(lower.value, lower.place, lower.key_place, child_path(lower.path, "type"))}
    merged = {**under, **{key: overlay(under[key], node) if key in under else node for key, node in over.items()}}
    return Node(merged, upper.place, upper.key_place, upper.path)
