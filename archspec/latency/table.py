"""A latency table: the times of units on one device in one setting, as a JSON file that people share.

    {"latency_table": 1,                                          the version of this format
     "setting": {"device": "cpu", "device_name": ..., "threads": 2, "mode": "eval", "batch": 1, "dtype": "float32",
                 "torch": ..., "archspec": ...},
     "reference": 0.0021,                                         seconds of a fixed piece of work, see runs.Reference
     "units": {"9f86d081884c7d65": {"unit": "block attention, mlp", "source": "192 x 14 x 14", "macs": 104000000,
                                    "runs": 50, "low": 0.0010, "median": 0.0011, "high": 0.0012}, ...}}

Times are seconds of one call with the setting's batch. A unit's key is the digest of all that its work depends on:
role, parts with every option, and the shapes of its input and output; in training also whether its branches are dropped
at random; and, for a block that is not archspec's own, its source.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from archspec.errors import UsageError
from archspec.files import write_whole
from archspec.latency.setting import Mode, Setting
from archspec.latency.timing import Interval
from archspec.plan import Step, Unit
from archspec.records import cache_folder
from archspec.unit_records import parts
from archspec.validation import Part, unfrozen

VERSION = 1
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One unit. `unit` and `source` tell people which; the key tells archspec."""

    unit: str
    source: str
    macs: int
    runs: int
    seconds: Interval


@dataclass(slots=True, kw_only=True)
class Table:
    """Units of one setting by their keys. reference: seconds; None before anything was measured."""

    setting: Setting
    reference: float | None = None
    units: dict[str, Entry] = field(default_factory=dict)

    def entry(self, step: Step) -> Entry | None:
        """What is known of a step's unit."""
        return self.units.get(unit_key(step, self.setting.mode))

    def add(self, found: Mapping[str, Entry], reference: float) -> None:
        """Add units that were measured while the reference took `reference` seconds; put their times on our scale."""
        scale = 1.0 if self.reference is None else self.reference / reference
        self.reference = self.reference or reference
        for key, entry in found.items():
            self.units[key] = replace(entry, seconds=entry.seconds.scaled(scale))


def unit_key(step: Step, mode: Mode) -> str:
    """The same in every process and on every machine; 16 hexadecimal digits."""
    return _key(step.unit, mode == "train" and step.drop_path > 0)


@lru_cache(maxsize=50_000)
def _key(unit: Unit, drops: bool) -> str:
    said = {
        "role": unit.role,
        "part": _plain(unit.part),
        "source": _plain(unit.source),
        "target": _plain(unit.target),
        "drop_path": drops,
        "code": [code for code in map(_foreign_code, parts(unit)) if code],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return {"kind": value.kind, **value.plain()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return unfrozen(value)


def _foreign_code(part: Part) -> str:
    """The digest of the source of a block that is not ours: the setting's version of archspec says nothing of it."""
    cls = part.entry.cls
    if cls.__module__.split(".")[0] == "archspec":
        return ""
    module = sys.modules.get(cls.__module__)
    try:
        source = inspect.getsource(module or cls)
    except (OSError, TypeError):  # it was typed at a prompt
        source = cls.__qualname__
    return hashlib.sha256(source.encode()).hexdigest()


def describe(unit: Unit) -> str:
    """`block attention, mlp`: the role and the parts that do the work."""
    named = [part.type for part in parts(unit) if part.kind in ("mixer", "ffn", "modifier") or part is unit.part]
    return f"{unit.role} {', '.join(named)}".strip()


def default_path(setting: Setting) -> Path:
    """Where the table of a setting is kept when nobody says where: in the user's cache folder."""
    where = f"{setting.device_name} {setting.threads}t {setting.mode} b{setting.batch}"
    name = f"{where} torch {setting.torch} archspec {setting.archspec}"
    return cache_folder() / "latency" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-').lower()}.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Setting(_Strict):
    device: str
    device_name: str
    threads: Annotated[int, Field(ge=1)]
    mode: Literal["eval", "train"]
    batch: Annotated[int, Field(ge=1)]
    dtype: Literal["float32"]
    torch: str
    archspec: str


class _Unit(_Strict):
    unit: str
    source: str
    macs: Annotated[int, Field(ge=0)]
    runs: Annotated[int, Field(ge=1)]
    low: Seconds
    median: Seconds
    high: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> _Unit:
        if not self.low <= self.median <= self.high:
            raise ValueError("low, median and high are not in order")
        return self


class _File(_Strict):
    latency_table: Literal[1]
    setting: _Setting
    reference: Seconds
    units: dict[str, _Unit]


def read_table(path: Path) -> Table:
    """The table in a file. Raises UsageError where there is none, or what is there is none, naming the place."""
    try:
        said = _File.model_validate(_parsed(path))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in detail["loc"])
        rule = detail["msg"].removeprefix("Value error, ").lower()
        raise UsageError(f"{path}: {where}: {rule}; this is no latency table as archspec writes it") from error
    units = {key: _entry(unit) for key, unit in said.units.items()}
    return Table(setting=Setting(**said.setting.model_dump()), reference=said.reference, units=units)


def _parsed(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such latency table (--per-unit makes it)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg.lower()}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a latency table: {type(error).__name__}") from error
    if not isinstance(value, dict) or "latency_table" not in value:
        raise UsageError(f"{path}: this is another program's file, no latency table")
    if value["latency_table"] != VERSION:
        raise UsageError(
            f"{path}: latency_table: {value['latency_table']} is a format that this archspec does not read"
        )
    return value


def _entry(unit: _Unit) -> Entry:
    seconds = Interval(unit.low, unit.median, unit.high)
    return Entry(unit=unit.unit, source=unit.source, macs=unit.macs, runs=unit.runs, seconds=seconds)


def write_table(path: Path, table: Table) -> None:
    """Write a table aside and put it in its place. Units that another process has added to the file meanwhile stay.

    Raises UsageError where the file cannot be written, or holds anything but a table of the same setting.
    """
    if path.exists():
        _take_in(table, path)
    assert table.reference is not None, "a table is written once something was measured"
    plain = {
        "latency_table": VERSION,
        "setting": asdict(table.setting),
        "reference": table.reference,
        "units": {key: _flat(entry) for key, entry in sorted(table.units.items())},
    }
    try:
        write_whole(path, (json.dumps(plain, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _take_in(table: Table, path: Path) -> None:
    there = read_table(path)
    refuse_other(path, there.setting, table.setting)
    new = {key: entry for key, entry in there.units.items() if key not in table.units}
    assert there.reference is not None, "a file always has one"
    table.add(new, there.reference)


def refuse_other(path: Path, there: Setting, wanted: Setting) -> None:
    """Raises UsageError where a file's setting is another one."""
    differences = there.differences(wanted)
    if differences:
        raise UsageError(f"{path}: a table of another setting ({'; '.join(differences)}); give another --table")


def _flat(entry: Entry) -> dict[str, Any]:
    plain = asdict(entry)
    seconds = plain.pop("seconds")
    return {**plain, **seconds}
