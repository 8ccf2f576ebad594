"""From a file or a shipped name to one tree: `extends` followed, `set` and the command line's patches applied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from archspec.errors import Place, Problem, SpecError, UsageError, in_order, nearest, shorten
from archspec.paths import Path as PatchPath
from archspec.paths import apply_patch, apply_patches, parse_assignment
from archspec.spec import Spec, read_spec
from archspec.tree import Node, overlay, with_paths
from archspec.validation import problem
from archspec.yaml_reader import read_file, read_yaml

NOT_INHERITED = ("name", "description", "source", "published", "extends", "set")  # they speak of what they stand in
SUFFIXES = (".yaml", ".yml")
MAX_FILES = 32  # that extend one another


def shipped_folder() -> Path:
    """The folder of the specs that come with archspec."""
    return Path(str(files("archspec.specs")))


@dataclass(frozen=True)
class Shelf:
    """Where the shipped files of one kind stand, what one is called, and which `archspec list` shows them."""

    noun: str
    folders: tuple[str, ...]
    listed: str

    def shipped(self) -> dict[str, Path]:
        """Every shipped file by name."""
        found = [path for folder in self.folders for path in sorted((shipped_folder() / folder).glob("*.yaml"))]
        return {path.stem: path for path in found}

    def find(self, name: str) -> Path:
        """The file behind a command's argument: a path, or a shipped name. Raises UsageError, naming the nearest."""
        path = Path(name)
        if path.suffix in SUFFIXES or _is_file(path):
            if not _is_file(path):
                hint = self.near_file(path)
                raise UsageError(f"{shorten(name)}: there is no such file" + (f" ({hint})" if hint else ""))
            return path
        known = self.shipped()
        if name not in known:
            hint = nearest(name, known) or f"`archspec list {self.listed}` shows what is shipped"
            raise UsageError(f"{shorten(name)}: neither a file nor a shipped {self.noun} ({hint})")
        return known[name]

    def near_file(self, path: Path) -> str:
        """For a file that is not there: what may be meant."""
        if path.stem in self.shipped():
            return f"without the suffix, '{path.stem}' is a shipped {self.noun}"
        try:
            return nearest(path.name, (file.name for file in path.parent.iterdir() if file.suffix in SUFFIXES))
        except (OSError, ValueError):
            return ""


NETWORKS = Shelf("network", ("", "micro", "hybrids"), "specs")
RECIPES = Shelf("recipe", ("recipes",), "recipes")
STUDIES = Shelf("study", ("ablations",), "studies")
SEARCHES = Shelf("search", ("searches",), "studies")


def shipped() -> dict[str, Path]:
    """Every shipped network by name."""
    return NETWORKS.shipped()


def find_spec(name: str) -> Path:
    """The file behind a command's SPEC argument: a path, or a shipped name such as `nommer_t`.

    Raises UsageError, naming the nearest shipped network.
    """
    return NETWORKS.find(name)


def find_study(name: str) -> Path:
    """The file behind a command's STUDY argument: a path, or a shipped study. Raises UsageError, naming the nearest."""
    return STUDIES.find(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def load_spec(
    name: str | Path,
    *,
    sets: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    allow_outside: bool = False,
) -> Spec:
    """A validated spec.

    name: a file, or a shipped name. sets: patches `PATH=VALUE`, in order. size: another input size, in pixels.
    allow_outside: let `extends` leave the folder of the file.
    Raises SpecError with every problem, UsageError for a file that is not there.
    """
    tree = load_tree(find_spec(str(name)), allow_outside=allow_outside)
    return read_spec(with_paths(patched(tree, sets, size)))


def load_text(text: str, *, file: str = "<text>") -> Spec:
    """A validated spec from YAML text; it may extend shipped specs only."""
    root = _Root(shipped_folder(), outside=False)
    return read_spec(with_paths(_followed(read_yaml(text, file), None, root, ())))


def patched(
    tree: Node, sets: Sequence[str], size: int | tuple[int, int] | None = None, *, option: str = "--set"
) -> Node:
    """The tree with the command line's patches applied, in order; `option` is what gave them."""
    for text in sets:
        path, value = parse_assignment(text, option)
        _refuse_followed(path, value)
        tree = apply_patch(tree, path, value)
    if size is None:
        return tree
    place = Place(f"--size {size}")
    value = Node(size, place) if isinstance(size, int) else Node(tuple(Node(side, place) for side in size), place)
    return apply_patch(tree, PatchPath.parse("input.size"), value)


@dataclass(frozen=True)
class _Root:
    """The folder that `extends` must not leave, unless told otherwise, and the shelf of the names that it knows."""

    folder: Path
    outside: bool
    shelf: Shelf = NETWORKS

    def admits(self, path: Path) -> bool:
        return self.outside or path.resolve().is_relative_to(self.folder.resolve())


def load_tree(path: Path, *, allow_outside: bool = False, shelf: Shelf = NETWORKS) -> Node:
    """The tree of a file with `extends` and `set` applied; both keys are gone. Raises SpecError, UsageError."""
    inside = path.resolve().is_relative_to(shipped_folder().resolve())
    root = _Root(shipped_folder() if inside else path.parent, allow_outside, shelf)
    return _followed(read_file(path), path, root, (path.resolve(),))


def name_of(path: Path) -> str:
    """A file's name as the name of a network: `2 x.yaml` is 2_x."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-")[:100] or "network"


def base_tree(base: Node, path: Path, *, allow_outside: bool = False) -> Node:
    """The tree of the network that the study in `path` builds on. Raises SpecError, UsageError."""
    own = shipped_folder() if path.resolve().is_relative_to(shipped_folder().resolve()) else path.parent
    return _base(base, path, _Root(own, allow_outside), (path.resolve(),))


def _followed(tree: Node, path: Path | None, root: _Root, seen: tuple[Path, ...]) -> Node:
    """`tree` laid over what it extends, with its `set` applied; named like its file unless it says otherwise."""
    named = {} if path is None else {"name": Node(name_of(path), Place(str(path)))}
    own = {**named, **(tree.mapping or {})}
    extends, patches = own.pop("extends", None), own.pop("set", None)
    merged = replace(tree, value=own)
    if extends is not None:
        base = _base(extends, path, root, seen)
        kept = {key: node for key, node in (base.mapping or {}).items() if key not in NOT_INHERITED}
        merged = overlay(replace(base, value=kept), merged)
    return apply_set(merged, patches) if patches is not None else merged


def _base(extends: Node, path: Path | None, root: _Root, seen: tuple[Path, ...]) -> Node:
    """The tree of the file that `extends` names."""
    extends = replace(extends, path="extends")
    if not isinstance(extends.value, str):
        rule = f"{extends.describe()} where a file or a shipped {root.shelf.noun} is expected"
        raise SpecError([problem(extends, rule)])
    name = extends.value
    if Path(name).suffix in SUFFIXES:
        target = _file_base(extends, name, path, root)
    else:
        target, root = _shipped_base(extends, name, root.shelf), replace(root, folder=shipped_folder())
    if target.resolve() in seen:
        chain = " -> ".join(step.name for step in (*seen, target.resolve()))
        raise SpecError([problem(extends, f"extends goes in a circle: {chain}")])
    if len(seen) == MAX_FILES:
        raise SpecError([problem(extends, f"extends leads through more than {MAX_FILES} files")])
    return _followed(read_file(target), target, root, (*seen, target.resolve()))


def _file_base(extends: Node, name: str, path: Path | None, root: _Root) -> Path:
    if path is None:
        rule = f"'{shorten(name)}' is a file, and this text, in none itself, can extend shipped {root.shelf.noun}s only"
        raise SpecError([problem(extends, rule)])
    target = path.parent / name
    if not _is_file(target):
        raise SpecError([problem(extends, f"there is no file '{shorten(name)}'", root.shelf.near_file(target))])
    if not root.admits(target):
        rule = f"'{shorten(name)}' leaves the folder {root.folder}"
        raise SpecError([problem(extends, rule, "--allow-outside permits it")])
    return target


def _shipped_base(extends: Node, name: str, shelf: Shelf) -> Path:
    known = shelf.shipped()
    if name not in known:
        hint = nearest(name, known) or "a file's name ends in .yaml"
        raise SpecError([problem(extends, f"there is no shipped {shelf.noun} '{shorten(name)}'", hint)])
    return known[name]


def _refuse_followed(path: PatchPath, value: Node) -> None:
    if path.steps[0] in ("extends", "set"):
        rule = f"'{path.steps[0]}' is followed before patches are applied, so none can change it"
        raise SpecError([Problem(place=value.key_place, path=str(path), rule=rule, suggestion="write it in a file")])


def apply_set(tree: Node, patches: Node) -> Node:
    """`set:` patches in order; those at fault are reported together."""
    if patches.mapping is None:
        patches = replace(patches, path="set")
        raise SpecError([problem(patches, f"{patches.describe()} where a mapping of path: value is expected")])
    problems: list[Problem] = []
    parsed: list[tuple[PatchPath, Node]] = []
    for text, value in patches.mapping.items():
        try:
            path = PatchPath.parse(text, value.key_place)
            _refuse_followed(path, value)
            parsed.append((path, value))
        except SpecError as error:
            problems.extend(replace(found, path=found.path or "set") for found in error.problems)
    try:
        tree = apply_patches(tree, parsed)
    except SpecError as error:
        problems.extend(error.problems)
    if problems:
        raise SpecError(in_order(problems))
    return tree
