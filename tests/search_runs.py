"""Searches small enough for tests: written to a file, read, and run without processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

search_study = import_module("archspec.search.study.search")
search_folder = import_module("archspec.search.session.folder")
search_run = import_module("archspec.search.session.run")
jobs = import_module("archspec.search.jobs.job")
performing = import_module("archspec.search.jobs.perform")
reading = import_module("archspec.search.session.reading")
store = import_module("archspec.search.jobs.store")

# One stage of plain attention: 16 widths, 12 depths, 3 numbers of heads, 4 expansions.
TOY: dict[str, str] = {
    "archspec": "1",
    "study": "search",
    "name": "toy",
    "base": "vit_micro",
    "space": """
  stages[0].width: {int: [16, 256], step: 16}
  stages[0].depth: {int: [1, 12]}
  stages[0].mixer.heads: [1, 2, 4]
  stages[0].ffn.ratio: {int: [1, 4]}""",
    "budgets": "{macs: <=20M}",
    "objectives": "{params: maximize}",
    "evaluation": "cost",
    "sampler": "random",
    "trials": "30",
}


def text(**changes: str | None) -> str:
    """A study's file: the toy with these keys in place of its own."""
    merged = {**TOY, **changes}
    return "\n".join(f"{key}: {value}" for key, value in merged.items() if value is not None) + "\n"


def read(folder: Path, **changes: str | None) -> Any:
    """The toy with changes, read from a file."""
    file = folder / "study_of_the_test.yaml"
    file.write_text(text(**changes), encoding="utf-8")
    return search_study.load_search(file)


def circumstances(folder: Path) -> Any:
    return jobs.Circumstances(
        store=store.Store(folder / "cells"), data_options={"workers": 0}, device="cpu", plugins=()
    )


def opened(search: Any, folder: Path, **options: Any) -> Any:
    """A session over a folder."""
    return search_run.opened(search, search_folder.SearchFolder(folder), circumstances(folder), **options)


def run(search: Any, folder: Path, evaluate: Callable[[Any], Any] | None = None, **options: Any) -> list[Any]:
    """Run a search to its end, one evaluation after the other; returns its trials."""
    evaluate = evaluate or performing.perform
    with opened(search, folder, **options) as session:
        while not session.done:
            job = session.next()
            if job is not None:
                session.finish(job, evaluate(job))
        return list(session.ledger.record.trials)


def of_kind(trials: list[Any], *kinds: str) -> list[Any]:
    return [trial for trial in trials if trial.user_attrs["kind"] in kinds]


def plans(trials: list[Any]) -> list[str]:
    """The plans that were evaluated, in order."""
    return [trial.user_attrs["plan"] for trial in of_kind(trials, "evaluated")]


def check_whole(trials: list[Any], count: int) -> None:
    """None lost, none double, none stuck."""
    evaluated = plans(trials)
    assert len(evaluated) == count
    assert [plan for plan, times in Counter(evaluated).items() if times > 1] == []
    assert [trial.number for trial in trials if not trial.state.is_finished()] == []
    assert [trial.number for trial in trials] == list(range(len(trials)))
