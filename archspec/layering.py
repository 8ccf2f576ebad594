"""What is said for several blocks at once: defaults under what a stage says, and words for chosen blocks over it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from archspec.errors import Problem
from archspec.tree import Node, overlay
from archspec.validation import problem


def layered(lower: Node | None, upper: Node) -> Mapping[str, Node]:
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


def chosen_blocks(key: str, node: Node, depth: int, problems: list[Problem]) -> range | None:
    """The indices of blocks that `-1` or `"1:"` selects; None, with a problem, for none."""
    match = re.fullmatch(r"(-?\d{1,6})|(-?\d{1,6})?:(-?\d{1,6})?", key)
    if match is None:
        rule = f"'{key}' is no index or slice of blocks"
        problems.append(problem(node, rule, 'such as 0, -1, "1:" or "2:4"', key=True))
        return None
    if match[1]:
        start = int(match[1]) % depth if -depth <= int(match[1]) < depth else depth
        chosen = range(start, min(start + 1, depth))
    else:
        chosen = range(*slice(*(int(end) if end else None for end in match.group(2, 3))).indices(depth))
    if not chosen:
        problems.append(problem(node, f"'{key}' selects none of the {depth} blocks", key=True))
    return chosen or None
