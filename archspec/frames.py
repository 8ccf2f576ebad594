"""The keys of the language: which there are, of what type, in which range. Parts and nested mappings stay trees here.

These models, together with the constructors of the registered parts, are the whole grammar; the JSON Schema for editors
is made from the same two.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from archspec.quantities import parse_quantity
from archspec.tree import Node
from archspec.validation import Frame

MAX_WIDTH = 65_536
MAX_DEPTH = 1_000
MAX_STAGES = 64
MAX_BLOCKS = 4_000  # of all stages together
MAX_OVERRIDES = 256
MAX_MODIFIERS = 16  # of one block
MAX_SIZE = 16_384
REFERENCE = "archspec-reference"  # schema.py writes a $ref: pydantic refuses one that leads out of its own model
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def _refer(to: str, description: str, *, many: bool = False) -> WithJsonSchema:
    """A tree in the model, a reference to the definition of `to` (one, or a list) in the JSON Schema."""
    one = {REFERENCE: to}
    listed = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    return WithJsonSchema({**(listed if many else one), "description": description})


def _pair(value: Any) -> Any:
    """One side for both; whatever else is no pair of whole numbers is refused with an example."""
    if type(value) is int:
        return (value, value)
    if isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value):
        return value
    raise ValueError("is no size in pixels, such as 224 or [256, 320] (height, width)")


def _count(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError("is no quantity, such as 28M")
    return parse_quantity(value).text


def _version(value: Any) -> Any:
    if type(value) is not int or value != 1:
        raise ValueError("is no version of the language that this archspec reads; write archspec: 1")
    return value


def _name(value: Any) -> Any:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise ValueError("is no name: letters, digits, '_', '-' and '.', with a letter or digit first, at most 100")
    return value


_SIDE = {"type": "integer", "minimum": 1, "maximum": MAX_SIZE}
_SIDES = {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}
Side = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Size = Annotated[
    tuple[Side, Side],
    BeforeValidator(_pair),
    WithJsonSchema({"anyOf": [_SIDE, _SIDES], "description": "pixels: one side of a square, or [height, width]"}),
]
Count = Annotated[
    str,
    BeforeValidator(_count),
    WithJsonSchema(
        {"type": ["string", "number"], "description": "a quantity such as 22M, 5.4G or, in binary units, 4.6Mi"}
    ),
]
Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
Text = Annotated[str, Field(max_length=10_000)]
Version = Annotated[
    Literal[1], BeforeValidator(_version), WithJsonSchema({"const": 1, "description": "version of the language"})
]


class BlockFrame(Frame):
    """What a single block can say."""

    called = "a block"

    mixer: Annotated[
        Node | None, _refer("mixer", "token mixer; in a stage a list is cycled over the depth", many=True)
    ] = None
    ffn: Annotated[Node | None, _refer("ffn", "feed-forward network")] = None
    norm: Annotated[Node | None, _refer("norm", "norm in front of mixer and ffn; `layer` unless said")] = None
    act: Annotated[Node | None, _refer("act", "activation of ffn and mixer; `gelu` unless said")] = None
    position: Annotated[Node | None, _refer("position", "position encoding; `none` unless said")] = None
    modifiers: Annotated[Node | None, WithJsonSchema({REFERENCE: "modifiers"})] = None
    layer_scale: Annotated[
        float | None,
        Field(
            gt=0, le=10, description="initial value of a learned scale per channel on both branches; none unless said"
        ),
    ] = None


class DefaultsFrame(BlockFrame):
    """What a stage need not say."""

    called = "defaults"

    downsample: Annotated[Node | None, _refer("downsample", "between the stage before and this one")] = None
    norm_out: Annotated[Node | None, _refer("norm", "norm after the stage's last block; `none` unless said")] = None


class StageFrame(DefaultsFrame):
    """A stage: blocks of one width on one grid."""

    called = "a stage"

    width: Annotated[int, Field(ge=1, le=MAX_WIDTH, description="channels")]
    depth: Annotated[int, Field(ge=1, le=MAX_DEPTH, description="number of blocks")]
    class_token: Annotated[bool, Field(description="put a learned class token in front, from this stage on")] = False
    class_token_std: Annotated[float, Field(ge=0, le=10, description="deviation of its normal initial values")] = 0.02
    blocks: Annotated[Node | None, WithJsonSchema({REFERENCE: "blocks"})] = None


class InputFrame(Frame):
    """The image."""

    called = "input"

    channels: Annotated[int, Field(ge=1, le=1024, description="image channels")] = 3
    size: Size = (224, 224)


class PublishedFrame(Frame):
    """Figures as printed in a publication, beside which ours are shown."""

    called = "published"

    params: Count | None = None
    params_trainable: Count | None = None
    macs: Count | None = None
    ops: Count | None = None
    top1: Annotated[float | None, Field(ge=0, le=100, description="ImageNet top-1 accuracy, percent")] = None
    source: Text | None = None
    note: Text | None = None
    truncated: Annotated[
        tuple[Literal["params", "params_trainable", "macs", "ops"], ...],
        Field(description="figures that the publication shortens by cutting; it rounds the others"),
    ] = ()


class SpecFrame(Frame):
    """The whole file, once `extends` and `set` have been followed."""

    called = "a spec"

    archspec: Version
    name: Name
    description: Text = ""
    input: Annotated[Node | None, WithJsonSchema({REFERENCE: "input"})] = None
    classes: Annotated[int, Field(ge=0, le=10_000_000, description="classes of the head; 0 for features alone")] = 1000
    drop_path: Annotated[
        float, Field(ge=0, lt=1, description="stochastic depth: rate of the last block, growing linearly from 0")
    ] = 0.0
    conv_init: Annotated[
        Literal["torch", "fan_out"],
        Field(description="convolutions start as PyTorch does, or normal with variance 2 / fan-out"),
    ] = "torch"
    defaults: Annotated[Node | None, WithJsonSchema({REFERENCE: "defaults"})] = None
    stem: Annotated[Node, _refer("stem", "from the image to the first stage's tokens")]
    stages: Annotated[
        Node,
        WithJsonSchema({"type": "array", "items": {REFERENCE: "stage"}, "minItems": 1, "maxItems": MAX_STAGES}),
    ]
    head: Annotated[Node, _refer("head", "from the last stage to the classes; `none` for a backbone alone")]
    blocks: Annotated[Node | None, WithJsonSchema({REFERENCE: "blocks"})] = None
    published: Annotated[Node | None, WithJsonSchema({REFERENCE: "published"})] = None
