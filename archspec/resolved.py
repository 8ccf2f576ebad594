"""A spec written out in full: every default and every block explicit, as YAML that loads to the same plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from archspec.spec import Block, Modifier, Spec, Stage
from archspec.validation import Part
from archspec.yaml_reader import FLOAT


class Dumper(yaml.SafeDumper):
    """Quotes text that archspec would read as a number, such as 1e3, and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """True: of anything."""
        return True


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def to_yaml(spec: Spec) -> str:
    """The spec as YAML text."""
    return yaml.dump(to_plain(spec), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def to_plain(spec: Spec) -> dict[str, Any]:
    """The spec as plain data, in the order of the language's page."""
    plain: dict[str, Any] = {"archspec": 1, "name": spec.name}
    if spec.description:
        plain["description"] = spec.description
    plain |= {
        "input": {"channels": spec.channels, "size": list(spec.size)},
        "classes": spec.classes,
        "drop_path": spec.drop_path,
        "conv_init": spec.conv_init,
        "stem": _part(spec.stem),
        "stages": [_stage(index, stage) for index, stage in enumerate(spec.stages)],
        "head": _part(spec.head),
    }
    if spec.published:
        plain["published"] = spec.published.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return plain


def flat(plain: Any, path: str = "") -> dict[str, Any]:
    """Plain data as path -> scalar, for comparing two specs."""
    if isinstance(plain, Mapping) and plain:
        pairs = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in plain.items()]
    elif isinstance(plain, list) and plain and not all(isinstance(item, int | float | str) for item in plain):
        pairs = [flat(value, f"{path}[{index}]") for index, value in enumerate(plain)]
    else:
        return {path: plain}
    return {key: value for pair in pairs for key, value in pair.items()}


def _part(part: Part | None) -> Any:
    return part.plain() if part else "none"


def _modifier(modifier: Modifier) -> dict[str, Any]:
    options = modifier.part.plain()
    return {"type": options.pop("type"), "at": modifier.at, **options}


def _block(block: Block) -> dict[str, Any]:
    """Everything about a block but its mixer."""
    return {
        "ffn": _part(block.ffn),
        "norm": _part(block.norm),
        "act": _part(block.act),
        "position": _part(block.position),
        "modifiers": [_modifier(modifier) for modifier in block.modifiers],
        "layer_scale": block.layer_scale,
    }


def _stage(index: int, stage: Stage) -> dict[str, Any]:
    plain: dict[str, Any] = {"width": stage.width, "depth": len(stage.blocks)}
    if index:
        plain["downsample"] = _part(stage.downsample)
    if stage.class_token:
        plain |= {"class_token": True, "class_token_std": stage.class_token_std}
    blocks = [_block(block) for block in stage.blocks]
    first = {**blocks[0], "position": "none"} if stage.position else blocks[0]
    plain |= {"mixer": _cycle([block.mixer for block in stage.blocks]), **first}
    if stage.position:
        plain["position"] = _part(stage.position)  # stands in front of the blocks, which are then without
    plain["norm_out"] = _part(stage.norm_out)
    overrides = _overrides(first, blocks)
    return {**plain, "blocks": overrides} if overrides else plain


def _cycle(mixers: Sequence[Part | None]) -> Any:
    """One mixer, or the shortest list that gives them all when it is cycled."""
    period = next(p for p in range(1, len(mixers) + 1) if all(m == mixers[i % p] for i, m in enumerate(mixers)))
    cycle = [_part(mixer) for mixer in mixers[:period]]
    return cycle if period > 1 else cycle[0]


def _overrides(first: dict[str, Any], blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What differs from what the stage says for its first block, by runs of equal blocks."""
    found: dict[str, Any] = {}
    start = 0
    while start < len(blocks):
        stop = next((i for i in range(start, len(blocks)) if blocks[i] != blocks[start]), len(blocks))
        differs = {key: value for key, value in blocks[start].items() if value != first[key]}
        if differs:
            found[f"{start}:{stop}" if stop > start + 1 else str(start)] = differs
        start = stop
    return found


def fingerprint(spec: Spec) -> str:
    """The same for specs that describe the same network, whatever they are called; 16 hexadecimal digits."""
    plain = {key: value for key, value in to_plain(spec).items() if key not in ("name", "description", "published")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
