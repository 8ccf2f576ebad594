"""Shipped networks that stand for all of their make: of those with the same parts, the cheapest."""

from __future__ import annotations

from functools import cache

from archspec import api
from archspec.loading import shipped
from archspec.spec import Block
from archspec.validation import Part


@cache
def smallest_of_each_make(*, micro: bool = True) -> list[str]:
    """Names, sorted. micro: micro networks count as well.

    Hybrids are of no make of their own, and context broadcasting is the same on every host: ViT-Ti stands for all.
    """
    made: dict[frozenset[str], tuple[int, str]] = {}
    for name in shipped():
        elsewhere = name.startswith("hybrid_") or ("_cb" in name and not name.startswith("vit_"))
        if not elsewhere and (micro or "_micro" not in name):
            plan = api.make_plan(name)
            parts = frozenset(type for step in plan.steps() for type in part_names(step.unit.part))
            made[parts] = min(made.get(parts, (2**62, "")), (api.count(plan).macs, name))
    return sorted(name for _, name in made.values())


def part_names(part: Part | Block | None) -> list[str]:
    """The types of the parts of a unit."""
    if isinstance(part, Block):
        modifiers = [modifier.part for modifier in part.modifiers]
        return [each.type for each in (part.mixer, part.ffn, part.norm, part.position, *modifiers) if each]
    return [part.type] if part else []
