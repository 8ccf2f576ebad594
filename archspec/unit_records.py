"""Records of units, found by all that they depend on: the options, the shapes, and the code, summed up.

A record of other code is never found: neither of another version of archspec or torch, nor of a block that was edited.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import archspec
from archspec import records
from archspec.counting import formula_modules
from archspec.plan import Unit
from archspec.spec import Block
from archspec.validation import Part

# Where a Python keeps what is installed: its own, that of a user, of the system below a virtual environment, Debian's.
_PACKAGES = {"site-packages", "dist-packages"}
_LIBRARIES = (Path(sysconfig.get_path("stdlib")), Path(torch.__file__).parent.parent)


def find(what: str, unit: Unit) -> Any:
    """What was kept of a unit under that name, by this or another process; None without a record."""
    kept = records.shared()
    key = _key(what, unit, formula_modules()) if kept else None
    text = kept.get(key) if kept and key else None
    return None if text is None else json.loads(text)


def keep(what: str, unit: Unit, value: Any) -> None:
    """Keep plain data about a unit for later processes."""
    kept = records.shared()
    key = _key(what, unit, formula_modules()) if kept else None
    if kept and key:
        kept.put(key, json.dumps(value))


@lru_cache(maxsize=1000)
def _key(what: str, unit: Unit, formulas: tuple[str, ...]) -> str | None:
    """A text that is equal, in any process, exactly where `what` was worked out for an equal unit by equal code.

    None for a unit with a class from no file, as in a notebook: its code cannot be told from other code.
    """
    code = {_of_class(part.entry.cls, formulas) for part in parts(unit)}
    if None in code:
        return None
    text = "\n".join([what, _of_core(), *sorted(filter(None, code)), repr(unit)])
    return hashlib.sha256(text.encode()).hexdigest()


def parts(unit: Unit) -> list[Part]:
    """Every part in a unit."""
    block = unit.part
    if not isinstance(block, Block):
        return [block] if block else []
    own = (block.mixer, block.ffn, block.norm, block.act, block.position)
    return [part for part in (*own, *(modifier.part for modifier in block.modifiers)) if part]


@cache
def _of_core() -> str:
    """archspec's own version and code, and torch's version: what runs and counts is theirs."""
    code = [_of_file(file) for file in sorted(Path(__file__).parent.glob("*.py"))]
    return f"archspec {archspec.__version__} {' '.join(code)} torch {torch.__version__}"


@cache
def _of_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@lru_cache(maxsize=10_000)
def _of_class(cls: type, formulas: tuple[str, ...]) -> str | None:
    """The code of the class's module and of every module that it uses, directly or not; of installed ones the version.

    Formulas that were declared for operations belong to it: they may stand anywhere.
    """
    if not _file(sys.modules.get(cls.__module__)):
        return None
    own = cls.__module__.split(".")[0]
    code = {_code(module, own) for module in _reached({cls.__module__, *formulas}, own)}
    return f"{cls.__qualname__} {' '.join(sorted(code))}"


def _code(module: ModuleType, own: str) -> str:
    """A module's source; for a library, its version."""
    file = _file(module)
    if file and not _is_library(module, own):
        return _of_file(file)
    top = sys.modules.get(module.__name__.split(".")[0], module)
    return f"{top.__name__} {getattr(top, '__version__', '')}"


def _reached(names: set[str], own: str) -> list[ModuleType]:
    """Modules of these names, and those that they import; libraries are not entered."""
    found: dict[str, ModuleType] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if module is None or name in found or _is_core(name):
            continue
        found[name] = module
        file = _file(module)
        if file and not _is_library(module, own):
            package = module.__package__ or ""
            waiting.extend(_imported(ast.parse(file.read_bytes()), package))
    return list(found.values())


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The names of the modules that a source imports, and of what it takes from them, which may be modules, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            home = ".".join(filter(None, [above, node.module]))
            yield home
            yield from (f"{home}.{alias.name}" for alias in node.names)


def _is_core(name: str) -> bool:
    """Modules of the core are summed up on their own."""
    return name.split(".")[0] == "archspec" and not name.startswith("archspec.blocks")


def _is_library(module: ModuleType, own: str) -> bool:
    """Whether a module is installed, or built in, and no part of the block's own package."""
    if module.__name__.split(".")[0] == own:
        return False
    file = _file(module)
    return not file or not _PACKAGES.isdisjoint(file.parts) or any(file.is_relative_to(home) for home in _LIBRARIES)


def _file(module: ModuleType | None) -> Path | None:
    """The Python source of a module, where there is one."""
    name = getattr(module, "__file__", None)
    return Path(name) if name and name.endswith(".py") else None
