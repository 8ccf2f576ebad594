"""archspec: a language for vision backbones, and what they cost.

    import archspec

    plan = archspec.make_plan("nommer_t")          # no weights yet
    print(archspec.count(plan).macs)           # exact multiply-accumulates
    network = archspec.build(plan, seed=0)    # an ordinary torch.nn.Module

Importing archspec loads neither torch nor anything else that is heavy; the first call does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.api import build as build
    from archspec.api import count as count
    from archspec.api import make_plan as make_plan
    from archspec.counting import register_formula as register_formula
    from archspec.errors import ArchspecError as ArchspecError
    from archspec.errors import RunError as RunError
    from archspec.errors import SpecError as SpecError
    from archspec.errors import UserError as UserError
    from archspec.loading import load_spec as load_spec
    from archspec.registry import register as register
    from archspec.weights import load_pretrained as load_pretrained

__version__ = "0.1.0"

_HOMES = {
    "build": "archspec.api",
    "count": "archspec.api",
    "make_plan": "archspec.api",
    "load_pretrained": "archspec.weights",
    "load_spec": "archspec.loading",
    "register": "archspec.registry",
    "register_formula": "archspec.counting",
    "ArchspecError": "archspec.errors",
    "RunError": "archspec.errors",
    "SpecError": "archspec.errors",
    "UserError": "archspec.errors",
}
__all__ = [*_HOMES, "__version__"]  # the names are strings, in one list


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'archspec' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
