"""archspec's networks in timm: `import archspec.timm`, then `timm.create_model("archspec_nommer_t", ...)`.

Every shipped network is there as `archspec_NAME`, and any spec file through `register(file)`. timm's arguments
`num_classes`, `in_chans`, `img_size` and `drop_path_rate` change the spec; `features_only`, `out_indices` work as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._builder import build_model_with_cfg
from timm.models._registry import register_model

from archspec import api, loading
from archspec.errors import UsageError
from archspec.network import Network
from archspec.plan import Plan

__all__: list[str] = []
PREFIX = "archspec_"
_ARGUMENTS = {
    "num_classes": "classes",
    "in_chans": "input.channels",
    "img_size": "input.size",
    "drop_path_rate": "drop_path",
}


def register(spec: str | Path, name: str | None = None) -> str:
    """Make a spec known to `timm.create_model`; returns the name there, `archspec_` and the file's unless given.

    Raises UsageError where there is no such spec.
    """
    path = loading.find_spec(str(spec))
    chosen = name or f"{PREFIX}{path.stem}"
    register_model(_entry(path, chosen))
    return chosen


def _entry(path: Path, name: str) -> Callable[..., Any]:
    """timm's kind of entry point: a function that makes the model."""

    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        if pretrained:
            raise UsageError(f"{name}: archspec ships no weights; archspec.load_pretrained reads a file of yours")
        for ignored in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # they speak of weights
            kwargs.pop(ignored, None)
        taken = {key: kwargs.pop(key) for key in _ARGUMENTS if key in kwargs}
        plan = _plan(path, **taken)
        features = {"feature_cls": "getter", "out_indices": None}  # all of them unless the caller says which
        return build_model_with_cfg(
            partial(_network, plan), name, False, pretrained_cfg=_config(plan), feature_cfg=features, **kwargs
        )

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"The network of {path.name}."
    return entry


def _plan(path: Path, **arguments: Any) -> Plan:
    """timm's arguments as patches of the spec."""
    sets = [f"{_ARGUMENTS[key]}={value}" for key, value in arguments.items() if value is not None and key != "img_size"]
    size = arguments.get("img_size")
    return api.make_plan(path, sets=sets, size=(size[0], size[1]) if isinstance(size, list | tuple) else size)


def _network(plan: Plan, *, num_classes: int = 0, in_chans: int = 0, img_size: Any = None) -> Network:
    """The network; timm repeats here what the plan says already, and any other argument is refused."""
    return Network(plan)


def _config(plan: Plan) -> dict[str, Any]:
    """What timm's data pipeline asks of a model: sizes and the usual ImageNet statistics."""
    return {
        "input_size": (plan.source.width, *plan.source.grid),
        "num_classes": plan.spec.classes,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "first_conv": "stem.body.conv",
        "classifier": "head.classifier",
    }


for _path in loading.shipped().values():
    register(_path)
