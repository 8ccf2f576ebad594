"""The folder of a run. Nothing in it is absolute: it can be moved, and the run goes on where it then stands.

spec.yaml, recipe.yaml   what is trained and how, written out in full
run.json                 seed, data, and fingerprints of the above; a folder without it holds no run
environment.json         versions and devices, one entry for every start
metrics.csv, .jsonl      a line an epoch; timing.csv: how long it took
tensorboard/             the same as events, where the package tensorboard is installed
last.safetensors         the weights after the last epoch; last_ema: their moving average
best.safetensors         the weights, or their moving average, that did best on the held-out images
checkpoints/             states from which the run goes on
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archspec import resolved
from archspec.errors import UsageError
from archspec.files import drop_leftovers, write_whole
from archspec.plan import Plan
from archspec.training.recipe import Recipe, load_recipe

SPEC, RECIPE, RUN, ENVIRONMENT = "spec.yaml", "recipe.yaml", "run.json", "environment.json"
CHECKPOINTS = "checkpoints"
FORMAT = 1  # of run.json and of the states
OURS = {SPEC, RECIPE, ENVIRONMENT, CHECKPOINTS}  # what may be there when a run was killed before its first line
SHOWN = 6
BUNDLED, NAMED, SHARDS = "digits", ("torch/", "hfds/"), "wds/"  # data that are no folder, and shards in one


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must be the same for a run to go on."""

    plan: Plan
    recipe: Recipe
    seed: int
    data: str  # the data's identity
    source: str  # where they came from: a name, or a path from the folder, which begins with a dot
    root: str | None = None  # likewise, of data sets with a name

    def plain(self) -> dict[str, Any]:
        """As run.json has it."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "data": self.data,
            "data_from": self.source,
            "data_root": self.root,
            "spec": resolved.fingerprint(self.plan.spec),
            "recipe": self.recipe.fingerprint(),
        }


def claim(folder: Path, identity: Identity) -> None:
    """Make the folder this run's own, or find that it is. Raises UsageError if it holds another run or other files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RUN).exists():
            _compare(folder, identity)
            return
        others = sorted(entry.name for entry in folder.iterdir() if entry.name not in OURS and entry.name[0] != ".")
        if others:
            raise UsageError(f"{folder}: holds other files, such as {others[0]} (try another folder)")
        write_whole(folder / SPEC, resolved.to_yaml(identity.plan.spec).encode())
        write_whole(folder / RECIPE, identity.recipe.to_yaml().encode())
        write_whole(folder / RUN, (json.dumps(identity.plain(), indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{folder}: cannot hold a run: {error.strerror} (try another folder)") from error


def read_run(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises UsageError for a folder without a run."""
    try:
        found = dict(json.loads((folder / RUN).read_text(encoding="utf-8")))
        if found["format"] != FORMAT or not {"seed", "data", "data_from", "spec", "recipe"} <= found.keys():
            raise ValueError("it is of another version of archspec")
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no run: there is no {RUN}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder}: holds no run: {RUN} cannot be read: {error}") from error
    return found


def _compare(folder: Path, identity: Identity) -> None:
    """Raises UsageError with what differs."""
    theirs, ours = read_run(folder), identity.plain()
    differ = []
    if theirs["spec"] != ours["spec"]:
        differ += _differences("", _there(folder / SPEC), resolved.to_plain(identity.plan.spec)) or ["the network"]
    if theirs["recipe"] != ours["recipe"]:
        found = load_recipe(folder / RECIPE).to_plain()
        differ += _differences("recipe ", found, identity.recipe.to_plain()) or ["the recipe"]
    differ += [
        f"{name} is {theirs[name]!r} there, {ours[name]!r} here"
        for name in ("seed", "data")
        if theirs[name] != ours[name]
    ]
    if differ:
        more = [f"and {len(differ) - SHOWN} more"] if len(differ) > SHOWN else []
        raise UsageError(f"{folder}: holds another run: {'; '.join(differ[:SHOWN] + more)} (try another folder)")


def _there(file: Path) -> dict[str, Any]:
    from archspec.loading import load_spec

    return resolved.to_plain(load_spec(file))


def _differences(prefix: str, theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    there, here = resolved.flat(theirs), resolved.flat(ours)
    keys = [key for key in {**there, **here} if key not in ("name", "description", "source")]
    return [
        f"{prefix}{key} is {there.get(key)} there, {here.get(key)} here"
        for key in keys
        if there.get(key) != here.get(key)
    ]


def as_seen_from(folder: Path, path: Path) -> str:
    """A path as run.json has it: from the folder, beginning with a dot."""
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"


def portable(folder: Path, source: str, *, rooted: bool) -> str:
    """What `open_data` opened, as run.json has it; `rooted`: paths within names count from a folder of their own."""
    if source == BUNDLED or source.startswith(NAMED):
        return source
    shards = source.startswith(SHARDS)
    if shards and rooted:
        return source
    path = as_seen_from(folder, Path(source.removeprefix(SHARDS)).expanduser())
    return f"{SHARDS}{path}" if shards else path


def found(folder: Path, source: str) -> str:
    """What `portable` wrote, for `open_data`."""
    if source.startswith(f"{SHARDS}."):
        return f"{SHARDS}{(folder / source.removeprefix(SHARDS)).resolve()}"
    return str(folder / source) if source.startswith(".") else source


def add_environment(folder: Path, environment: dict[str, Any]) -> None:
    """One more start. Raises OSError."""
    try:
        starts = list(json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        starts = []
    started = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **environment}
    write_whole(folder / ENVIRONMENT, (json.dumps([*starts, started], indent=2) + "\n").encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in this folder. Raises UsageError if one does; its death lets the folder go."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another process is training there (wait for it, or stop it)") from error
        except OSError:  # a file system without locks
            pass
        drop_leftovers(folder)
        yield
