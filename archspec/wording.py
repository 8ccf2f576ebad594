"""What pydantic found, said as archspec says it: the value, the rule it breaks, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from archspec.errors import nearest, shorten
from archspec.tree import Node
from archspec.yaml_reader import FLOAT

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "less than", "at least"),
    "greater_than": ("gt", "not more than", "more than"),
    "less_than_equal": ("le", "more than", "at most"),
    "less_than": ("lt", "not less than", "less than"),
}
_LENGTHS = ("too_long", "too_short", "string_too_long", "string_too_short")
_YES_AND_NO = {
    **dict.fromkeys(("yes", "on", "y", "True"), "true"),
    **dict.fromkeys(("no", "off", "n", "none"), "false"),
}


def explain(detail: ErrorDetails, node: Node) -> tuple[str, str]:
    """What is wrong with the value of `node`, and what to write; the second may be empty."""
    kind, context, shown = detail["type"], detail.get("ctx", {}), node.describe()
    if kind in _EXPECTED:
        expected = _EXPECTED[kind]
        rule = f"nothing stands where {expected} is expected" if node.value is None else f"{shown} is not {expected}"
        return rule, _as_meant(node, expected)
    if kind in _BOUNDS:
        key, is_wrong, remedy = _BOUNDS[kind]
        bound = f"{context[key]:g}" if isinstance(context[key], float) else str(context[key])
        return f"{shown} is {is_wrong} {bound}", f"{remedy} {bound}"
    if kind == "literal_error":
        return _choice(str(context["expected"]), node)
    if kind in _LENGTHS:
        return _length(context, node)
    message = detail["msg"].removeprefix("Value error, ")
    return (message if message.startswith(shown) else f"{shown} {message[:1].lower()}{message[1:]}"), ""


def unknown_key(key: str, what: str, known: Iterable[str], homes: Sequence[str]) -> tuple[str, str]:
    """The rule and the suggestion for a key that `what` does not have; `homes` are those that have it."""
    keys = sorted(known)
    belongs = f"it belongs to {' or '.join(homes)}" if homes else ""
    hint = nearest(key, keys, cutoff=0.8) or belongs or nearest(key, keys)
    known_ones = f"there are: {', '.join(keys)}" if keys else "it has no options"
    return f"'{shorten(key)}' is no key of {what}", hint or known_ones


def _choice(expected: str, node: Node) -> tuple[str, str]:
    """For a value that must be one of a few; `expected` reads `'mean' or 'token'`."""
    choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
    hint = nearest(node.value, choices) if isinstance(node.value, str) else ""
    return f"{node.describe()} is not {expected}", hint


def _length(context: Mapping[str, Any], node: Node) -> tuple[str, str]:
    length = f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
    if isinstance(node.value, str):
        return f"a text of {len(node.value)} characters", length
    return f"a list of {len(node.items or ())}", length


def _as_meant(node: Node, expected: str) -> str:
    """`write 8, without quotes`, `write 8`, `write true`, `write "5", in quotes`: the same value in the right type."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if expected == "text":
        return f'write "{value}", in quotes'
    if expected == "a list":
        return f"write [{value}]"
    if expected == "true or false" and value in _YES_AND_NO:
        return f"write {_YES_AND_NO[value]}"
    if not expected.endswith("number"):
        return ""
    if isinstance(value, str):
        plain = value.strip().replace("_", "")
        how = "" if "_" in value else ", without quotes"
        return f"write {plain}{how}" if FLOAT.fullmatch(plain) else ""
    return f"write {int(value)}" if float(value).is_integer() and abs(value) < 1e18 else ""
