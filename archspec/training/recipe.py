"""Recipes: how a network is trained, in the same language as specs. These frames are the whole grammar.

`none` switches a part off; what a recipe does not say stands here. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from archspec.errors import Problem, SpecError, in_order
from archspec.frames import Name, Size, Text, Version
from archspec.loading import RECIPES, load_tree, patched
from archspec.resolved import Dumper
from archspec.tree import Node, with_paths
from archspec.validation import Frame, read_frame
from archspec.yaml_reader import read_yaml

T = TypeVar("T")


def _off(value: Any) -> Any:
    """`none`, where a part may be left out."""
    return None if value == "none" else value


def _or_none(value: Any) -> Any:
    return "none" if value is None else list(value) if isinstance(value, tuple) else value


Optional = Annotated[T | None, BeforeValidator(_off), PlainSerializer(_or_none)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Range = tuple[Positive, Positive]


def _rates(value: Any) -> Any:
    """One rate, or a mapping of networks to rates as pairs in the order of the names."""
    value = _off(value)
    if isinstance(value, dict):
        for name, rate in value.items():
            if type(rate) not in (int, float) or not 0 <= rate < 1:
                raise ValueError(f"gives {name} {rate!r}, which is no rate from 0 up to but not including 1")
        return tuple(sorted((name, float(rate)) for name, rate in value.items()))
    if value is not None and (type(value) not in (int, float) or not 0 <= value < 1):
        raise ValueError("is no rate from 0 up to but not including 1, nor a mapping of networks to such rates")
    return value


def _as_mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, tuple) else _or_none(value)


class RecipeFrame(Frame):
    """A part of a recipe."""

    grammar: ClassVar[str] = "recipe"


class Optimizer(RecipeFrame):
    """What timm has, by timm's names."""

    called = "the optimizer"
    ADAPTIVE: ClassVar = ("adamw", "adam", "nadamw", "lamb", "lion")

    type: Annotated[Literal["adamw", "adam", "nadamw", "lamb", "lion", "sgd", "rmsprop"], Field()] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100, description="peak of the learning rate")]
    lr_batch: Annotated[
        Optional[Annotated[int, Field(ge=1)]],
        Field(description="global batch at which lr holds; lr grows in proportion to the batch. none: lr as it stands"),
    ] = None
    weight_decay: Annotated[float, Field(ge=0, le=10, description="not of biases, norms and tables")] = 0.05
    betas: Annotated[
        Optional[tuple[Share, Share]], Field(description="of adamw and its kin; their own unless said")
    ] = None
    eps: Annotated[
        Optional[Annotated[float, Field(gt=0, le=1)]], Field(description="the optimizer's own unless said")
    ] = None
    momentum: Annotated[Optional[Share], Field(description="of sgd and rmsprop; 0.9 unless said")] = None
    layer_decay: Annotated[
        Optional[Annotated[float, Field(gt=0, le=1)]],
        Field(description="factor of the rate from a layer to the one before"),
    ] = None

    @field_validator("betas", "momentum")
    @classmethod
    def _belongs(cls, value: Any, info: ValidationInfo) -> Any:
        chosen, of_adaptive = info.data.get("type"), info.field_name == "betas"
        if value is not None and (chosen in cls.ADAPTIVE) != of_adaptive:
            owners = ", ".join(cls.ADAPTIVE) if of_adaptive else "sgd, rmsprop"
            raise ValueError(f"is an option of {owners}, not of {chosen}")
        return value


class Schedule(RecipeFrame):
    """The learning rate over the run: a linear warm-up, then the curve, which counts from the first step."""

    called = "the schedule"

    type: Annotated[Literal["cosine", "linear", "constant"], Field(description="after the warm-up")] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0, le=10_000, description="part of `epochs`")] = 5.0
    warmup_lr: Annotated[float, Field(ge=0, le=100, description="of the first step; scaled as lr is")] = 1e-6
    min_lr: Annotated[float, Field(ge=0, le=100, description="at the end; scaled as lr is")] = 1e-5
    per: Annotated[Literal["step", "epoch"], Field(description="how often the rate changes")] = "step"


class Augment(RecipeFrame):
    """What happens to training images, in timm's terms, and the size that evaluation crops to."""

    called = "augment"

    crop_scale: Annotated[
        Optional[tuple[Share, Share]],
        Field(description="area of the random crop, as shares of the image's; none: resized whole, centre cropped"),
    ] = (0.08, 1.0)
    crop_ratio: Annotated[Range, Field(description="width / height of the random crop")] = (0.75, 1.3333)
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    flip: Annotated[Share, Field(description="probability of a horizontal flip")] = 0.5
    vertical_flip: Annotated[Share, Field(description="probability of a vertical flip")] = 0.0
    shift: Annotated[float, Field(ge=0, le=0.5, description="moves by up to that share of height and width")] = 0.0
    color_jitter: Annotated[
        float, Field(ge=0, le=1, description="of brightness, contrast, saturation; without effect beside a policy")
    ] = 0.0
    policy: Annotated[
        Optional[str], Field(description="timm's string, such as rand-m9-mstd0.5-inc1, augmix-m3-w3 or 3a")
    ] = None
    random_erasing: Annotated[Share, Field(description="probability of erasing a rectangle")] = 0.0
    erasing_mode: Literal["pixel", "const", "rand"] = "pixel"
    repeats: Annotated[int, Field(ge=1, le=16, description="repeated augmentation: views of an image in a batch")] = 1
    mixup: Annotated[float, Field(ge=0, le=100, description="alpha; 0 is off")] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=100, description="alpha; 0 is off")] = 0.0
    mix_prob: Annotated[Share, Field(description="probability of either")] = 1.0
    switch_prob: Annotated[Share, Field(description="probability of cutmix where both are on")] = 0.5
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    mix_off_epoch: Annotated[
        Optional[Annotated[int, Field(ge=1)]], Field(description="from this epoch (from 1) images are not mixed")
    ] = None
    crop_pct: Annotated[
        float, Field(gt=0, le=1, description="evaluation resizes to size / crop_pct, then crops the centre")
    ] = 0.875
    mean: Annotated[
        Optional[tuple[float, ...]], Field(description="a channel, of pixels in 0..1; the data set's own unless said")
    ] = None
    std: Annotated[Optional[tuple[Positive, ...]], Field(description="as mean")] = None

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, and labels with them."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_prob > 0


class Loss(RecipeFrame):
    """What is minimised."""

    called = "the loss"

    type: Annotated[Literal["cross_entropy", "bce"], Field(description="bce: binary cross entropy of each class")] = (
        "cross_entropy"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="probability spread over all classes")] = 0.1


class Ema(RecipeFrame):
    """An exponential moving average of the weights, evaluated beside them."""

    called = "ema"

    decay: Annotated[float, Field(gt=0, lt=1, description="a step")] = 0.9999
    warmup: Annotated[bool, Field(description="start with a smaller decay")] = False


class Recipe(RecipeFrame):
    """How a network is trained. Hashable; `to_yaml` reads back to the same."""

    called = "a recipe"

    archspec: Version
    name: Name
    description: Text = ""
    source: Annotated[Text, Field(description="where the settings are published")] = ""
    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over the training images")]
    batch: Annotated[int, Field(ge=1, le=1_000_000, description="images a step, over all processes")]
    accumulate: Annotated[
        int, Field(ge=1, le=10_000, description="parts in which a process computes its share of a batch")
    ] = 1
    size: Annotated[Optional[Size], Field(description="input in pixels; the spec's unless said")] = None
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    loss: Loss = Loss()
    drop_path: Annotated[
        Annotated[Any, BeforeValidator(_rates), PlainSerializer(_as_mapping)],
        Field(description="stochastic depth, one rate or a mapping of networks to rates; the spec's unless said"),
    ] = None
    ema: Annotated[Ema | None, Field(description="none: no moving average")] = None
    clip: Annotated[
        Optional[Annotated[float, Field(gt=0, le=1e6)]],
        Field(description="largest norm of the gradient of all weights"),
    ] = None
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Field(description="of autocast; fp16 scales the loss")] = (
        "fp32"
    )
    channels_last: Annotated[bool, Field(description="memory layout of the images and convolutions")] = False
    compile: Annotated[bool, Field(description="by torch.compile")] = False
    checkpointing: Annotated[bool, Field(description="compute activations again in the backward pass")] = False

    def lr_scale(self) -> float:
        """The factor by which the batch scales the three learning rates."""
        return self.batch / self.optimizer.lr_batch if self.optimizer.lr_batch else 1.0

    def drop_path_of(self, network: str, own: float) -> float:
        """The stochastic depth of a network, whose spec says `own`."""
        if isinstance(self.drop_path, tuple):
            return float(dict(self.drop_path).get(network, own))
        return own if self.drop_path is None else float(self.drop_path)

    def to_plain(self) -> dict[str, Any]:
        """Everything that the recipe says, defaults included, as plain data."""
        plain = self.model_dump(mode="python")
        plain["ema"] = plain["ema"] or "none"
        return {key: value for key, value in plain.items() if key not in ("description", "source") or value}

    def to_yaml(self) -> str:
        """The recipe written out in full, as YAML that loads to the same recipe."""
        return yaml.dump(self.to_plain(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)

    def fingerprint(self) -> str:
        """The same for recipes that train in the same way, whatever they are called; 16 hexadecimal digits."""
        plain = {key: value for key, value in self.to_plain().items() if key not in ("name", "description", "source")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, sections in their places."""
    schema = Recipe.model_json_schema()
    whole: dict[str, Any] = _in_place(schema, schema.pop("$defs"))
    return whole


def _in_place(schema: Any, sections: dict[str, Any]) -> Any:
    """References to sections as the sections themselves, and null as a recipe writes it."""
    if not isinstance(schema, dict):
        return schema
    told = {key: _in_place(of, sections) for key, of in schema.items() if key not in ("$ref", "anyOf")}
    if schema.get("type") == "null":
        return {"const": "none"}
    if "default" in told and told["default"] is None:
        told["default"] = "none"
    choices = [schema, *schema.get("anyOf", ())]
    names = [choice["$ref"].rpartition("/")[2] for choice in choices if "$ref" in choice]
    if names:
        told.pop("default", None)
        return {**_in_place(sections[names[0]], sections), **told}
    return {**told, "anyOf": [_in_place(of, sections) for of in schema["anyOf"]]} if "anyOf" in schema else told


def load_recipe(
    name: str | Path, sets: Sequence[str] = (), *, allow_outside: bool = False, option: str = "--set"
) -> Recipe:
    """The recipe in a file, or a shipped one such as `digits`, with patches `PATH=VALUE` applied in order.

    allow_outside: let `extends` leave the folder of the file. option: what gave the patches, for messages.
    Raises SpecError with every problem, UsageError for a name that is not known.
    """
    tree = load_tree(RECIPES.find(str(name)), allow_outside=allow_outside, shelf=RECIPES)
    return _read(patched(tree, sets, option=option))


def read_recipe(text: str, *, file: str = "<text>") -> Recipe:
    """The recipe that `Recipe.to_yaml` wrote, or any that extends nothing. Raises SpecError with every problem."""
    return _read(read_yaml(text, file))


def _read(tree: Node) -> Recipe:
    problems: list[Problem] = []
    recipe = read_frame(Recipe, with_paths(tree), problems)
    if recipe is None:
        raise SpecError(in_order(problems))
    return recipe
