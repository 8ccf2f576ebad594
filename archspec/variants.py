"""Patched versions of one network, as ablations and searches ask for them: what a patch does not reach is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from archspec.paths import Path, apply_patches
from archspec.plan import Plan, lay_out
from archspec.spec import Memory, Spec, read_spec
from archspec.tree import Node, with_paths

if TYPE_CHECKING:
    from archspec.cost import Cost

Patches = Iterable[tuple[Path, Node]]
REMEMBERED = 20_000  # frames, parts and stages that are kept, at about 1 kB each


class Variants:
    """Patched versions of a base tree, whose `extends` and `set` have been followed.

    Stages and parts that patches leave alone are read once; only what a patch reaches is read again. Equal units are
    checked and priced once in a process whatever network they stand in.
    """

    def __init__(self, base: Node) -> None:
        self.base = with_paths(base)
        self._memory: Memory = {}

    def tree(self, patches: Patches = ()) -> Node:
        """The patched tree. Raises SpecError where a path selects nothing."""
        return apply_patches(self.base, patches)

    def spec(self, patches: Patches = ()) -> Spec:
        """The patched spec. Raises SpecError with every problem."""
        if len(self._memory) > REMEMBERED:
            self._memory.clear()
        return read_spec(self.tree(patches), self._memory)

    def plan(self, patches: Patches = ()) -> Plan:
        """The patched plan, to which every constructor has agreed. Raises SpecError."""
        from archspec.modules import check

        plan = lay_out(self.spec(patches))
        check(plan)
        return plan

    def cost(self, patches: Patches = ()) -> Cost:
        """What the patched network costs. Raises SpecError, CountError."""
        from archspec.cost import spec_cost

        return spec_cost(self.spec(patches))
