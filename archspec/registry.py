"""The registry: every kind of part that a network is made of, by the name that YAML calls it.

A part is a class registered with `@register(kind, name)`. Its constructor says everything else, once:

- positional parameters are dimensions; archspec fills them in by name (`DIMENSIONS` lists what each kind may ask for);
- keyword-only parameters are the options of the YAML file, typed, with ranges and descriptions in `Annotated[...]`.

Validation, the JSON Schema, `archspec show` and the documentation are derived from that signature alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from archspec.errors import PluginError, UnknownName, nearest

Kind = Literal["stem", "downsample", "mixer", "ffn", "norm", "act", "position", "modifier", "head"]
Layout = Literal["tokens", "map"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What a constructor may take as a dimension, by kind, and what it will be given.
DIMENSIONS: dict[Kind, dict[str, str]] = {
    "stem": {"in_channels": "image channels", "width": "channels to give"},
    "downsample": {
        "in_width": "channels of the stage before",
        "width": "channels to give",
        "prefix_tokens": "class tokens in front of the map's tokens",
    },
    "mixer": {
        "width": "channels",
        "grid": "(height, width) in tokens at the spec's input size",
        "prefix_tokens": "class tokens in front of the map's tokens",
        "act": "factory of the stage's activation",
    },
    "ffn": {"width": "channels", "act": "factory of the stage's activation"},
    "norm": {"width": "channels"},
    "act": {},
    "position": {
        "width": "channels",
        "grid": "(height, width) in tokens at the spec's input size",
        "prefix_tokens": "class tokens in front of the map's tokens",
    },
    "modifier": {"width": "channels where it stands"},
    "head": {
        "width": "channels of the last stage",
        "classes": "number of classes",
        "prefix_tokens": "class tokens in front of the map's tokens",
    },
}
RESERVED = {"type", "at"}  # keys of a part in YAML that are archspec's own
_NAME = re.compile(r"[a-z][a-z0-9_]*")
ENTRY_POINT = "archspec.blocks"
OWN_PROVIDER = "archspec.blocks"

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """One registered part: its class, what it takes, and how archspec has to call it."""

    kind: Kind
    name: str
    cls: type
    layout: Layout
    prefix: bool
    per_block: bool
    side: bool
    tags: tuple[str, ...]
    dimensions: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", _dimensions(self))

    @cached_property
    def options(self) -> type[BaseModel]:
        """The options as a strict pydantic model: unknown keys and wrong types fail."""
        fields: dict[str, Any] = {}
        config = ConfigDict(
            extra="forbid",
            strict=True,
            frozen=True,
            allow_inf_nan=False,
            protected_namespaces=(),
            validate_default=True,
        )
        try:
            hints = typing.get_type_hints(self.cls.__init__, include_extras=True)  # type: ignore[misc]
            for parameter in _parameters(self.cls):
                if parameter.kind is parameter.KEYWORD_ONLY:
                    default = ... if parameter.default is parameter.empty else parameter.default
                    _check_type(self.title, parameter.name, hints[parameter.name])
                    fields[parameter.name] = (hints[parameter.name], default)
            model: type[BaseModel] = create_model(f"{self.kind}_{self.name}", __config__=config, **fields)
        except (PydanticSchemaGenerationError, NameError, TypeError) as error:
            raise PluginError(f"{self.title}: an option's type cannot be validated: {error}") from error
        _check_defaults(self.title, model)
        return model

    def needs(self, options: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
        """Names of the side information that it takes with these options."""
        return tuple(self.cls.needs(dict(options))) if hasattr(self.cls, "needs") else ()

    def provides(self, options: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
        """Names of the side information that it gives with these options."""
        return tuple(self.cls.provides(dict(options))) if hasattr(self.cls, "provides") else ()

    def default_options(self) -> list[tuple[str, Any]]:
        """The options that have a default."""
        return [(name, info.default) for name, info in self.options.model_fields.items() if not info.is_required()]

    @property
    def title(self) -> str:
        """Kind and name, for messages: `mixer 'attention'`."""
        return f"{self.kind} '{self.name}'"

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]


def _check_type(title: str, option: str, hint: Any) -> None:
    """Options are hashed and compared, so none can be a list or a dictionary."""
    origin = typing.get_origin(hint) or hint
    if origin in (list, set, dict):
        raise PluginError(f"{title}: the option '{option}' is a {origin.__name__}; a list of YAML is a tuple[..., ...]")
    for inner in typing.get_args(hint):
        if isinstance(inner, type) or typing.get_origin(inner):
            _check_type(title, option, inner)


def _check_defaults(title: str, model: type[BaseModel]) -> None:
    """A default must keep the rule of its own option."""
    try:
        model()
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] != "missing":
                raise PluginError(f"{title}: the default of '{detail['loc'][0]}': {detail['msg'].lower()}") from None


def _parameters(cls: type) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]


def _dimensions(entry: Entry) -> tuple[str, ...]:
    """The constructor's positional parameters, checked against what the kind may ask for."""
    names = []
    for parameter in _parameters(entry.cls):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"{entry.title}: {parameter} would hide misspelt options; name every option")
        if parameter.kind is parameter.KEYWORD_ONLY:
            _check_option(entry, parameter)
        elif parameter.name in DIMENSIONS[entry.kind]:
            names.append(parameter.name)
        else:
            allowed = ", ".join(DIMENSIONS[entry.kind]) or "none"
            raise PluginError(
                f"{entry.title}: '{parameter.name}' is no dimension of a {entry.kind} (there are: {allowed}); "
                "an option stands behind the * in the constructor"
            )
    return tuple(names)


def _check_option(entry: Entry, parameter: inspect.Parameter) -> None:
    if parameter.annotation is parameter.empty:
        raise PluginError(f"{entry.title}: the option '{parameter.name}' has no type")
    if parameter.name in RESERVED:
        raise PluginError(f"{entry.title}: the option name '{parameter.name}' is archspec's own")


_entries: dict[tuple[Kind, str], Entry] = {}
_loaded_plugins: set[str] = set()
_providers_loaded = False


def register(
    kind: Kind,
    name: str,
    *,
    layout: Layout = "tokens",
    prefix: bool | None = None,
    per_block: bool = False,
    side: bool = False,
    tags: Iterable[str] = (),
) -> Callable[[T], T]:
    """Class decorator: make a class known to YAML as `name`.

    layout: what `forward` takes and gives: "tokens" (B, N, C) or "map" (B, C, H, W). Stems and downsamplers always
        work on maps, norms, activations and modifiers on tokens, whatever is said here.
    prefix: whether it copes with class tokens in front of the map's tokens; by default "tokens" does, "map" does not.
    per_block: for a position encoding: it stands at the start of every block, not once before the stage.
    side: for a mixer that takes or gives side information, such as a significance map: `forward(x, side)` then gets a
        dictionary of what earlier mixers of the stage gave, name -> (B, N), and returns (y, side) with its own added.
        Under "input" it finds the branch's input (B, P + N, C) as it was before the norm.
        Static methods `needs(options)` and `provides(options)`, both optional, return the names for the given options.
    tags: words to find it by, such as "attention" or "convolution".
    Raises PluginError for a duplicate name or a constructor that breaks the rules at the top of this module.
    """
    if kind not in KINDS:
        hint = nearest(kind, KINDS) or f"there are: {', '.join(KINDS)}"
        raise PluginError(f"'{kind}' is no kind of part ({hint})")
    if not _NAME.fullmatch(name) or name == "none":
        raise PluginError(f"{kind} '{name}': a name is lower-case letters, digits and _, and not `none`")

    def decorate(cls: T) -> T:
        known = _entries.get((kind, name))
        if known is not None:
            raise PluginError(
                f"{known.title} is registered already, by {known.cls.__module__}.{known.cls.__qualname__}"
            )
        if kind in ("stem", "downsample") and not hasattr(cls, "output_grid"):
            raise PluginError(f"{kind} '{name}': a {kind} needs a static method output_grid(grid, options)")
        copes = layout == "tokens" if prefix is None else prefix
        _entries[kind, name] = Entry(kind, name, cls, layout, copes, per_block, side, tuple(tags))
        return cls

    return decorate


def find(kind: Kind, name: str) -> Entry:
    """The part of that name. Raises UnknownName, naming the nearest known one."""
    load_providers()
    entry = _entries.get((kind, name))
    if entry is None:
        known = names(kind)
        hint = nearest(name, known) or f"known: {', '.join(known)}"
        raise UnknownName(f"there is no {kind} '{name}' ({hint})")
    return entry


def names(kind: Kind) -> list[str]:
    """The names of a kind, sorted."""
    load_providers()
    return sorted(name for of, name in _entries if of == kind)


def entries() -> list[Entry]:
    """Every registered part, by kind and name."""
    load_providers()
    return sorted(_entries.values(), key=lambda entry: (KINDS.index(entry.kind), entry.name))


def load_providers() -> None:
    """Import archspec's own blocks, then those of other installed packages (entry points `archspec.blocks`)."""
    global _providers_loaded
    if _providers_loaded:
        return
    _providers_loaded = True
    importlib.import_module(OWN_PROVIDER)
    for point in importlib.metadata.entry_points(group=ENTRY_POINT):
        try:
            point.load()
        except Exception as error:  # a foreign package may fail in any way; its name is what the user needs
            reason = error if isinstance(error, PluginError) else repr(error)
            raise PluginError(f"the entry point '{point.name}' ({point.value}) cannot be loaded: {reason}") from error


def load_plugin(path: Path) -> None:
    """Run a user's own file of blocks; loading the same file twice does nothing.

    Raises PluginError when the file is missing or fails, with the line at fault.
    """
    resolved = path.resolve()
    if str(resolved) in _loaded_plugins:
        return
    if not resolved.is_file():
        raise PluginError(f"{path}: there is no such plugin file")
    load_providers()  # first, so that a name that is taken is refused at the plugin's line
    module_name = f"archspec_plugin_{len(_loaded_plugins)}_{resolved.stem}"
    spec = importlib.util.spec_from_file_location(module_name, resolved)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    before = dict(_entries)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may fail in any way
        _entries.clear()
        _entries.update(before)
        del sys.modules[module_name]
        kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
        raise PluginError(f"{path}{_line_at_fault(error, resolved)}: {kind}{error}") from error
    _loaded_plugins.add(str(resolved))


def _line_at_fault(error: BaseException, path: Path) -> str:
    """`:12` for the last line of `path` on the way to the error, or nothing."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
