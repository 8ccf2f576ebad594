"""Which network is evaluated, with which weights, on what: from the folder of a run, or from a file and a spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archspec import api
from archspec.checkpoints import PICKLED
from archspec.errors import UsageError
from archspec.network import Network
from archspec.plan import Plan
from archspec.training import folder as folders
from archspec.training.keeper import BEST, LAST, LAST_EMA
from archspec.training.recipe import Recipe, load_recipe
from archspec.weights import load_pretrained

Which = Literal["ema", "last", "best"]
FILES: dict[Which, str] = {"ema": LAST_EMA, "last": LAST, "best": BEST}
CHOICES: dict[Which, str] = {
    "ema": "the moving average after the last epoch",
    "last": "those after the last epoch",
    "best": "those that did best while they were tested, perhaps on these very images",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated."""

    plan: Plan
    recipe: Recipe | None  # None: nothing is known of how the images were prepared
    weights: Path
    told: str  # which weights these are, for the user
    data: str | Path | None = None  # what the run was tested on
    root: Path | None = None  # where that stands, if it is a data set with a name

    def network(self) -> Network:
        """With the weights, in evaluation mode. Raises UsageError with every tensor that does not fit."""
        network = api.build(self.plan)
        load_pretrained(network, self.weights)
        return network.eval()


def find_subject(
    target: Path,
    *,
    which: Which | None = None,
    spec: str | None = None,
    recipe: str | None = None,
    sets: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    allow_outside: bool = False,
) -> Subject:
    """What a path stands for: a run's folder, or a file of weights with the spec of its network.

    which: of a run's weights; unless said, the moving average where the run kept one, else those after the last epoch.
    recipe: how the images of bare weights are prepared. Raises SpecError; UsageError for what does not go together.
    """
    if target.is_dir():
        if spec or recipe:
            raise UsageError(f"{target}: a run's folder has its own spec and recipe (leave out --spec and --recipe)")
        return _of_run(target, which, sets, size)
    if not target.is_file() and target.suffix not in (".safetensors", *PICKLED):
        raise UsageError(f"{target}: neither the folder of a run nor a file of weights")
    if which:
        raise UsageError(f"{target}: --which chooses among a run's weights, and this is one file")
    if spec is None:
        raise UsageError(f"{target}: weights alone do not say which network they are of (try --spec SPEC)")
    plan = api.make_plan(spec, sets=sets, size=size, allow_outside=allow_outside)
    chosen = load_recipe(recipe, allow_outside=allow_outside) if recipe else None
    return Subject(plan=plan, recipe=chosen, weights=target, told=str(target))


def _of_run(folder: Path, which: Which | None, sets: Sequence[str], size: int | tuple[int, int] | None) -> Subject:
    known = folders.read_run(folder)
    file = _weights(folder, which)
    root = known.get("data_root")
    return Subject(
        plan=api.make_plan(folder / folders.SPEC, sets=sets, size=size),
        recipe=load_recipe(folder / folders.RECIPE),
        weights=folder / FILES[file],
        told=f"{folder / FILES[file]}: {CHOICES[file]}",
        data=folders.found(folder, str(known["data_from"])),
        root=Path(folders.found(folder, str(root))) if root else None,
    )


def _weights(folder: Path, which: Which | None) -> Which:
    order: tuple[Which, ...] = (which,) if which else ("ema", "last")
    for choice in order:
        if (folder / FILES[choice]).is_file():
            return choice
    there = [choice for choice, file in FILES.items() if (folder / file).is_file()]
    hint = f"there are: {', '.join(there)}" if there else "its first epoch is not done"
    raise UsageError(f"{folder}: has no weights {FILES[order[-1]]} ({hint})")
