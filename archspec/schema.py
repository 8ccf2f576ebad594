"""The JSON Schema (2020-12) of the language, for editors: from the frames and the registered constructors alone."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from archspec import registry
from archspec.frames import REFERENCE, BlockFrame, DefaultsFrame, InputFrame, PublishedFrame, SpecFrame, StageFrame
from archspec.registry import KINDS, RESERVED, Entry, Kind
from archspec.spec import DEFAULT_AT, POSITIONS


def json_schema() -> dict[str, Any]:
    """The schema of a spec file, with every part that is registered now (plugins included)."""
    spec = _object(SpecFrame)
    spec["properties"] |= {
        "extends": {"type": "string", "description": "a shipped network, or a file below this one's folder"},
        "set": {"type": "object", "description": "patches, path: value, applied in order after `extends`"},
    }
    needed = [key for key in spec.pop("required") if key != "name"]  # without a name the file's counts
    spec["anyOf"] = [{"required": ["extends"]}, {"required": needed}]
    definitions: dict[str, Any] = {kind: _kind(kind) for kind in KINDS}
    frames: dict[str, type[BaseModel]] = {
        "input": InputFrame,
        "published": PublishedFrame,
        "defaults": DefaultsFrame,
        "block": BlockFrame,
    }
    definitions |= {name: _object(model) for name, model in frames.items()}
    definitions["stage"] = _object(StageFrame)
    definitions["blocks"] = {
        "type": "object",
        "description": 'what chosen blocks say otherwise, by index or slice: {"1:": {...}}',
        "patternProperties": {r"^(-?\d+|(-?\d+)?:(-?\d+)?)$": {"$ref": "#/$defs/block"}},
        "additionalProperties": False,
    }
    definitions["modifiers"] = {
        "description": "what else stands in the block",
        "anyOf": [{"const": "none"}, {"type": "array", "items": {"$ref": "#/$defs/modifier"}}],
    }
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "archspec network"}
    return {**title, **spec, "$defs": definitions}


def _object(model: type[BaseModel]) -> dict[str, Any]:
    """A frame or a set of options as an object schema without pydantic's titles."""
    schema = model.model_json_schema()
    properties = {name: _linked(_untitled(of)) for name, of in schema.get("properties", {}).items()}
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if schema.get("required"):
        made["required"] = schema["required"]
    return made


def _linked(schema: Any) -> Any:
    """With every reference as JSON Schema writes it."""
    if isinstance(schema, list):
        return [_linked(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        ("$ref" if key == REFERENCE else key): f"#/$defs/{of}" if key == REFERENCE else _linked(of)
        for key, of in schema.items()
    }


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title" and not (key == "default" and value is None)}


def _kind(kind: Kind) -> dict[str, Any]:
    """Short form or long form; a mapping without a type amends what is said elsewhere."""
    entries = [entry for entry in registry.entries() if entry.kind == kind]
    short = {"enum": [*(entry.name for entry in entries), "none"], "description": f"short form of a {kind}"}
    amend = {"type": "object", "not": {"required": ["type"]}, "description": f"amends the {kind} said elsewhere"}
    return {"anyOf": [short, *(long_form(entry) for entry in entries), amend]}


def long_form(entry: Entry) -> dict[str, Any]:
    """A part with its options as an object schema."""
    schema = _object(entry.options)
    assert not RESERVED & set(schema["properties"])
    own: dict[str, Any] = {"type": {"const": entry.name}}
    if entry.kind == "modifier":
        own["at"] = {"enum": list(POSITIONS), "default": DEFAULT_AT, "description": "where in the block it stands"}
    schema["properties"] = {**own, **schema["properties"]}
    schema["required"] = ["type", *schema.get("required", [])]
    return {"description": entry.summary, **schema}
