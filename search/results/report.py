"""Writes what a search has found into its folder: specs, tables, pictures, a page. Nothing is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from archspec.errors import UsageError
from archspec.files import write_whole

from ..ablation.result import RESULTS, AblationResult, read_result
from ..formats import as_latex, as_markdown
from .page import make_page
from .pictures import draw_all
from .results import TOP, SearchResults, read_results
from .table import best_csv, best_sheet, best_specs, spec_names, trials_csv

BEST, RETRAINED, PAGE = "best", "retrained", "report.html"
OURS = re.compile(r"\d+_trial\d+\.yaml")  # files in best/ that an earlier report may have left


def report_search(folder: Path, *, storage: str = "", top: int = TOP) -> SearchResults:
    """Make the results of a search's folder anew from its record; the same record gives the same bytes.

    storage: an Optuna URL, where the record is not the folder's journal. top: specs with one objective.
    Raises UsageError for a folder without a search, or that cannot be written.
    """
    results = read_results(folder, storage=storage, top=top)
    pictures = draw_all(results)
    sheet = best_sheet(results)
    files: dict[str, bytes | None] = {
        "table.md": as_markdown(sheet).encode(),
        "table.tex": as_latex(sheet).encode(),
        "table.csv": best_csv(results).encode(),
        "trials.csv": trials_csv(results).encode(),
        **pictures,
        PAGE: make_page(results, pictures, retrained_of(folder)).encode(),
    }
    specs = best_specs(results)
    try:
        for name, data in files.items():
            if data is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_whole(folder / name, data)
        for name, text in specs.items():
            write_whole(folder / BEST / name, text.encode())
        for file in (folder / BEST).glob("*.yaml"):
            if file.name not in specs and OURS.fullmatch(file.name):
                file.unlink()
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return results


def retrained_of(folder: Path) -> AblationResult | None:
    """The best once more at full length, as far as they are."""
    return read_result(folder / RETRAINED) if (folder / RETRAINED / RESULTS).exists() else None


def as_object(results: SearchResults) -> dict[str, Any]:
    """For --json."""
    specs = spec_names(results)
    return {
        "study": "search",
        "name": results.search.name,
        "objectives": {one.name: one.direction for one in results.search.objectives},
        "budgets": [str(budget) for budget in results.search.budgets],
        "proposals": dict(sorted(results.became.items())),
        "best": [
            {
                "trial": one.number,
                "spec": f"{BEST}/{file}",
                "objectives": dict(
                    zip((objective.name for objective in results.search.objectives), one.objectives, strict=True)
                ),
                "costs": dict(one.costs),
                "values": dict(one.values),
            }
            for one, file in zip(results.best, specs, strict=True)
        ],
        "importances": results.importances,
        "seconds": results.seconds,
    }
