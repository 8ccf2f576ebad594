"""Loading weights, archspec's own and released ones: matched tensor by tensor, all that are needed or none.

A source describes how a family of released checkpoints names its tensors: rules that turn its names into archspec's.
Sources stand in archspec.blocks.released, one file each, and register themselves:

    register_source("timm", rules=[(r"^cls_token$", "stages.0.class_token.token"), ...])

A module whose tensors depend on the input's size, such as a position embedding, may take those of another size. It has
a method `fit_weight(name, value, grid)`: the tensor that a checkpoint has for its parameter `name`, and the (height,
width) of the map that it was made for, where that is known. It gives the tensor at its own size with a note for the
report, empty where nothing was resized, or None where it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from archspec.checkpoints import read_checkpoint, read_grids
from archspec.errors import PluginError, UnknownName, UsageError, nearest
from archspec.network import Network, initialise
from archspec.registry import load_providers

CLASSIFIER = "head.classifier."
COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a family of checkpoints names its tensors.

    rules: (pattern, replacement) applied in order to every name, as `re.sub` does; `{last}` in a replacement stands for
        the index of the last stage.
    changes: (pattern, function) for tensors, found by archspec's names, that are laid out otherwise.
    skips: (pattern, reason) for tensors, found by archspec's names, that a network may well lack.
    """

    name: str
    rules: tuple[tuple[str, str], ...] = ()
    changes: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()
    skips: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str, last: int) -> str:
        """Archspec's name for one of the checkpoint's."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement.replace("{last}", str(last)), name)
        return name

    def change(self, name: str, value: Tensor) -> Tensor:
        """The tensor in archspec's layout; `name` is archspec's."""
        for pattern, function in self.changes:
            if re.search(pattern, name):
                value = function(value)
        return value

    def reason_to_skip(self, name: str) -> str | None:
        """Why a network may lack this tensor, or None where it must not; `name` is archspec's."""
        return next((reason for pattern, reason in self.skips if re.search(pattern, name)), None)


OWN = Source(name="archspec")
_sources: dict[str, Source] = {}


def register_source(
    name: str,
    *,
    rules: Iterable[tuple[str, str]],
    changes: Iterable[tuple[str, Callable[[Tensor], Tensor]]] = (),
    skips: Iterable[tuple[str, str]] = (),
) -> None:
    """Make a family of checkpoints known; `Source` says what the arguments are. Raises PluginError for a known name."""
    if name in _sources or name == OWN.name:
        raise PluginError(f"the source '{name}' of weights is registered already")
    _sources[name] = Source(name=name, rules=tuple(rules), changes=tuple(changes), skips=tuple(skips))


def sources() -> list[str]:
    """The names of the known sources, sorted."""
    load_providers()
    return sorted(_sources)


def find_source(name: str | None) -> Source:
    """The source of that name; None and "archspec" stand for archspec's own names. Raises UnknownName."""
    if name in (None, OWN.name):
        return OWN
    known = sources()
    if name not in _sources:
        hint = nearest(str(name), known) or f"known: {', '.join(known)}"
        raise UnknownName(f"there is no source of weights '{name}' ({hint})")
    return _sources[name]


@dataclass(frozen=True, slots=True)
class Finding:
    """One tensor, by archspec's name, and what there is to say about it."""

    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


@dataclass(kw_only=True)
class Report:
    """What became of every tensor of a network and of a checkpoint."""

    path: Path
    network: str
    loaded: list[str] = field(default_factory=list)
    resized: list[Finding] = field(default_factory=list)  # loaded, too
    reinitialised: list[Finding] = field(default_factory=list)
    skipped: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    unexpected: list[Finding] = field(default_factory=list)
    mismatched: list[Finding] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that is needed matched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def lines(self) -> Iterator[str]:
        """A line for each tensor that was not simply loaded."""
        for kind in ("resized", "reinitialised", "skipped", "missing", "unexpected", "mismatched"):
            yield from (f"  {kind}: {finding}" for finding in getattr(self, kind))

    def __str__(self) -> str:
        return "\n".join([f"{self.path} -> {self.network}: {len(self.loaded)} tensors loaded", *self.lines()])


def load_pretrained(
    network: Network, path: str | Path, *, source: str | None = None, classes: int | None = None
) -> Report:
    """Load a checkpoint into a network: all that is needed, or nothing.

    source: the family that the checkpoint's names come from, such as "timm"; None for archspec's own names.
    classes: the network's number of classes, given to say that the checkpoint's classifier may be another one; a
        classifier that does not fit is then initialised anew, from torch's global generator.
    Position embeddings and tables of relative positions of another size are resized; the report says so. Raises
    UsageError with every tensor that does not fit, before anything in the network has changed.
    """
    if classes is not None and classes != network.num_classes:
        raise UsageError(f"classes is {classes}, but the network has {network.num_classes}")
    matching = _Matching(network, Path(path), find_source(source), classes is not None)
    values, report = matching.run()
    if not report.complete:
        raise UsageError(_refusal(report))
    targets = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)
        if report.reinitialised:
            initialise(network.get_classifier(), network.plan.spec.conv_init)
    return report


def _refusal(report: Report) -> str:
    """Counts and a remedy first: the list may be long."""
    wrong = [*report.missing, *report.unexpected, *report.mismatched]
    hint = ""
    if not report.loaded:
        hint = f" (are its names another source's? known: {', '.join(sources())})"
    elif all(finding.name.startswith(CLASSIFIER) for finding in wrong):
        hint = (
            " (only the classifier differs: give the number of classes, in a command --classes N, to start a new one)"
        )
    counts = ", ".join(f"{len(getattr(report, kind))} {kind}" for kind in ("missing", "unexpected", "mismatched"))
    message = f"{report.path}: does not fit {report.network}, nothing was loaded: {counts}{hint}"
    return "\n".join([message, *report.lines()])


class _Matching:
    """Matches a checkpoint's tensors with a network's; changes neither."""

    def __init__(self, network: Network, path: Path, source: Source, new_classifier: bool) -> None:
        self.network = network
        self.source = source
        self.new_classifier = new_classifier
        self.targets: dict[str, Tensor] = network.state_dict(keep_vars=True)
        self.report = Report(path=path, network=network.plan.name)
        self.grids = read_grids(path) if source is OWN else {}
        self.values: dict[str, Tensor] = {}

    def run(self) -> tuple[dict[str, Tensor], Report]:
        for name, (theirs, value) in self.renamed().items():
            target = self.targets.get(name)
            if target is None:
                self.leave_out(name, theirs)
            else:
                self.take(name, theirs, value, target)
        self.check_missing()
        if self.new_classifier:
            self.replace_classifier()
        self.report.loaded = list(self.values)
        return self.values, self.report

    def renamed(self) -> dict[str, tuple[str, Tensor]]:
        """Archspec's name -> the checkpoint's name and its tensor."""
        found: dict[str, tuple[str, Tensor]] = {}
        last = len(self.network.stages) - 1
        for theirs, value in read_checkpoint(self.report.path).items():
            name = self.source.rename(theirs, last)
            if name in found:
                clash = f"stands for the same tensor as {found[name][0]}: {name}"
                self.report.unexpected.append(Finding(theirs, clash))
            else:
                found[name] = (theirs, value)
        return found

    def leave_out(self, name: str, theirs: str) -> None:
        """A tensor that the network lacks."""
        reason = self.source.reason_to_skip(name)
        if self.new_classifier and name.startswith(CLASSIFIER) and not self.classifier():
            reason = "this network has no classifier"
        origin = "" if theirs == name else f"{theirs} in the checkpoint"
        if reason is None:
            self.report.unexpected.append(Finding(name, origin))
        else:
            self.report.skipped.append(Finding(theirs, reason))

    def take(self, name: str, theirs: str, value: Tensor, target: Tensor) -> None:
        fitted, note = self.fitted(name, self.source.change(name, value), target)
        if fitted.shape != target.shape:
            origin = "" if theirs == name else f", {theirs}"
            shapes = f"{tuple(value.shape)} in the checkpoint{origin}; {tuple(target.shape)} here"
            self.report.mismatched.append(Finding(name, shapes))
        elif fitted.is_floating_point() != target.is_floating_point():
            self.report.mismatched.append(Finding(name, f"{value.dtype} in the checkpoint; {target.dtype} here"))
        else:
            self.values[name] = fitted
            if note:
                self.report.resized.append(Finding(name, note))

    def fitted(self, name: str, value: Tensor, target: Tensor) -> tuple[Tensor, str]:
        """The tensor at the size that the network needs, where its owner can make it so."""
        stage = ".".join(name.split(".")[:2])
        grid = self.grids.get(stage)
        owner, _, parameter = name.rpartition(".")
        fit = getattr(self.network.get_submodule(owner), "fit_weight", None)
        if fit is None or (value.shape == target.shape and grid is None):
            return value, ""
        made: tuple[Tensor, str] | None = fit(parameter, value, grid)
        return made or (value, "")

    def check_missing(self) -> None:
        """Every tensor must have come, be it under the name of one that it is shared with."""
        here = {id(self.targets[name]) for name in self.values}
        refused = {finding.name for finding in self.report.mismatched}
        for name, target in self.targets.items():
            if id(target) in here or name in refused:
                continue
            if name.endswith(COUNTER):
                self.report.skipped.append(Finding(name, "not in the checkpoint; no result depends on it"))
            else:
                self.report.missing.append(Finding(name))

    def replace_classifier(self) -> None:
        """Where a part of the classifier does not fit, none of it is taken."""
        report, names = self.report, self.classifier()
        bad = [finding for finding in (*report.missing, *report.mismatched) if finding.name in names]
        if not bad:
            return
        for name in names:
            self.values.pop(name, None)
        details = {finding.name: finding.detail or "not in the checkpoint" for finding in bad}
        report.reinitialised = [Finding(name, details.get(name, "with the rest of the classifier")) for name in names]
        report.missing = [finding for finding in report.missing if finding.name not in names]
        report.mismatched = [finding for finding in report.mismatched if finding.name not in names]

    def classifier(self) -> list[str]:
        return [name for name in self.targets if name.startswith(CLASSIFIER)]
