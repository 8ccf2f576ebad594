"""Files of weights: reading them without running any code, and writing archspec's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from archspec.errors import UsageError
from archspec.files import write_whole
from archspec.layout import Grid
from archspec.network import Network
from archspec.resolved import fingerprint

NESTED = ("model", "state_dict", "model_ema", "model_state_dict")  # where checkpoints keep weights; the first counts
METADATA = "archspec"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, by its own names without `module.` and `_orig_mod.`, on the CPU.

    A .safetensors file, or one by `torch.save` that holds tensors and plain data; a state dict may stand under `model`,
    `state_dict`, `model_ema` or `model_state_dict`. Raises UsageError for any other file: no code in it is ever run.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such checkpoint")
    if path.suffix == ".safetensors":
        found = _read_safetensors(path)
    elif path.suffix in PICKLED:
        found = _state_dict(path, _unpickle(path))
    else:
        raise UsageError(f"{path}: a checkpoint ends in .safetensors, {', '.join(PICKLED)}")
    return _without_wrappers(path, found)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as safetensors: {error}") from error


def _unpickle(path: Path) -> Any:
    """What torch.load gives where it may not run anything."""
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it names {named[1]}, which is code" if named else "it holds more than weights, or is damaged"
        raise UsageError(
            f"{path}: refused: {what}; archspec runs no code from a checkpoint "
            "(save the state dict alone, with torch.save or as safetensors)"
        ) from error
    except Exception as error:  # a damaged file may fail in any way
        first = str(error).split("\n", 1)[0]
        raise UsageError(f"{path}: cannot be read: {type(error).__name__}: {first}") from error


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, wherever it keeps them."""
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in NESTED if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UsageError(f"{path}: holds no weights, neither bare nor under {', '.join(NESTED)}")
    return tensors


def _without_wrappers(path: Path, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of nn.DataParallel and torch.compile."""
    plain: dict[str, Tensor] = {}
    for name, value in found.items():
        short = re.sub(r"^(module\.)+", "", re.sub(r"(^|\.)_orig_mod\.", r"\1", name))
        if short in plain:
            raise UsageError(f"{path}: holds {short} twice, with and without a prefix")
        plain[short] = value
    return plain


def read_grids(path: Path) -> dict[str, Grid]:
    """The maps' sizes by stage, which a flat embedding does not tell; from the metadata of archspec's own files."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            grids = json.loads((file.metadata() or {}).get(METADATA, "{}")).get("grids", {})
        return {str(stage): (int(height), int(width)) for stage, (height, width) in grids.items()}
    except (SafetensorError, ValueError, TypeError, AttributeError):
        return {}  # damaged, or another program's: the tensors are read, and checked, all the same


def check_target(path: Path) -> None:
    """Raises UsageError, before any work is done, where weights cannot be saved under this name."""
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: weights are saved as .safetensors (try {path.with_suffix('.safetensors').name})")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder")


def save_weights(network: Network, path: Path) -> None:
    """Write a network's weights as safetensors, with the name and fingerprint of its spec, in one step.

    Raises UsageError where that cannot be; what stood there before is then left.
    """
    from safetensors.torch import save

    check_target(path)
    spec = replace(network.plan.spec, classes=network.num_classes)  # reset_classifier may have changed it
    about = {
        "spec": network.plan.name,
        "fingerprint": fingerprint(spec),
        "grids": {stage.name: stage.target.grid for stage in network.plan.stages},
    }
    metadata = {METADATA: json.dumps(about)}  # one entry: safetensors writes several in no fixed order
    try:
        write_whole(path, save(_own_tensors(network), metadata))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _own_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor once, under the first of its names: safetensors refuses memory that is shared."""
    found: dict[int, tuple[str, Tensor]] = {}
    tensors: Mapping[str, Tensor] = network.state_dict(keep_vars=True)
    for name, value in tensors.items():
        found.setdefault(id(value), (name, value))
    return {name: value.detach().cpu().contiguous() for name, value in found.values()}
