"""Imports run one way, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import archspec

HOUSE = Path(archspec.__file__).parent.parent
SEARCH = HOUSE / "search"
LAYERS = ("results", "session", "samplers", "study", "space")  # each knows those that follow
BELOW = {**{name: set(LAYERS[LAYERS.index(name) + 1 :]) for name in LAYERS}, "ablation": {"jobs"}, "jobs": set()}
BELOW["results"] |= {"ablation", "jobs"}
BELOW["session"] |= {"jobs"}
CORE = sorted((HOUSE / "archspec").rglob("*.py"))
LIGHT = ("torch", "timm", "torchvision", "optuna", "ray", "sklearn", "fvcore", "pydantic", "typer", "rich", "yaml")


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_core_imports_neither_blocks_nor_search():
    for file in CORE:
        named = {
            name
            for name in imported(file)
            if name.startswith(("archspec.blocks", "archspec.search", "blocks", "search"))
        }
        assert not named, file


def test_nothing_in_search_points_back():
    folders = {folder.name for folder in SEARCH.iterdir() if (folder / "__init__.py").exists()}
    assert folders == BELOW.keys()
    for file in sorted(SEARCH.rglob("*.py")):
        relative = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        named = {
            (node.module or "").split(".")[0] for node in relative if node.level == (1 if file.parent == SEARCH else 2)
        }
        assert named & folders <= BELOW.get(file.parent.name, set()), file


def test_importing_archspec_loads_nothing_heavy():
    script = f"import sys, archspec; print([m for m in {LIGHT!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_loads_torch_but_not_timm():
    script = (
        "import sys, archspec; archspec.make_plan('vit_tiny');"
        "print([m for m in ('timm', 'torchvision', 'sklearn', 'fvcore', 'optuna', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_only_prices_candidates_loads_nothing_that_trains():
    script = (
        "import sys, archspec; from archspec.loading import SEARCHES;"
        "from archspec.search.session import run, driver; from archspec.search.study import describe, search;"
        "describe.describe(search.load_search(SEARCHES.find('micro_digits')));"
        "print([m for m in ('timm', 'torchvision', 'sklearn', 'ray', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_package_offers_is_there():
    for name in archspec.__all__:
        assert getattr(archspec, name)
