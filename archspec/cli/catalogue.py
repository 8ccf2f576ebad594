"""Commands about what there is: list, show, schema, new."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.options import OutsideOption, PluginOption, SetOption, SizeOption, load_plugins, make_plan
from archspec.errors import UsageError, nearest

if TYPE_CHECKING:
    from archspec.registry import Entry


def list_(
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", help="mixer, ffn, ..., specs, recipes or studies; all when left out")
    ] = "",
    plugin: PluginOption = [],  # noqa: B006  # typer reads the default and never changes it
) -> None:
    """List the parts that networks are made of, the shipped networks, recipes that train them, and studies."""
    from archspec.registry import KINDS, entries

    load_plugins(plugin)
    kinds = (*KINDS, "specs", "recipes", "studies")
    if kind and kind not in kinds:
        hint = nearest(kind, kinds) or f"there are: {', '.join(kinds)}"
        raise UsageError(f"'{kind}' is no kind of part ({hint})")
    for known in KINDS:
        if kind in ("", known):
            rows = [(entry.name, entry.summary) for entry in entries() if entry.kind == known]
            _print_rows(known, rows)
    if kind in ("", "specs"):
        _print_rows("specs", _shipped_rows())
    if kind in ("", "recipes"):
        _print_rows("recipes", _recipe_rows())
    if kind in ("", "studies"):
        _print_rows("studies", _study_rows())


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    typer.echo(f"{title}:")
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        typer.echo(f"  {name:<{width}}  {summary}")


def _shipped_rows() -> list[tuple[str, str]]:
    from archspec.loading import load_spec, shipped

    return [(name, load_spec(name).description.strip().split("\n")[0]) for name in shipped()]


def _recipe_rows() -> list[tuple[str, str]]:
    from archspec.loading import RECIPES
    from archspec.training.recipe import load_recipe

    return [(name, load_recipe(name).description.strip().split("\n")[0]) for name in RECIPES.shipped()]


def _study_rows() -> list[tuple[str, str]]:
    from archspec.loading import SEARCHES, STUDIES
    from archspec.yaml_reader import read_file

    studies = STUDIES.shipped() | SEARCHES.shipped()
    described = ((name, (read_file(path).mapping or {}).get("description")) for name, path in studies.items())
    return [(name, str(node.value) if node else "") for name, node in described]


def show(
    spec_or_kind: Annotated[
        str, typer.Argument(metavar="SPEC|KIND", help="a network, or the kind of a part, or recipe")
    ],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="the part's or the recipe's name, after its kind")] = "",
    sets: SetOption = [],  # noqa: B006
    size: SizeOption = None,
    plugin: PluginOption = [],  # noqa: B006
    allow_outside: OutsideOption = False,
) -> None:
    """Show a spec or a recipe with everything written out (YAML that loads to the same), or a part with its options."""
    from archspec.registry import KINDS, find

    load_plugins(plugin)
    if spec_or_kind == "recipe":
        from archspec.training.recipe import load_recipe, recipe_schema

        if name:
            typer.echo(load_recipe(name, sets, allow_outside=allow_outside).to_yaml(), nl=False)
        else:
            _print_options(recipe_schema())
        return
    if name:
        kinds = [kind for kind in KINDS if kind == spec_or_kind]
        if not kinds:
            raise UsageError(
                f"'{spec_or_kind}' is no kind of part ({nearest(spec_or_kind, KINDS) or ', '.join(KINDS)})"
            )
        _print_part(find(kinds[0], name))
        return
    if spec_or_kind in KINDS:
        list_(spec_or_kind)
        return
    from archspec.resolved import to_yaml

    typer.echo(to_yaml(make_plan(spec_or_kind, sets, size, allow_outside).spec), nl=False)


def _print_part(entry: Entry) -> None:
    """Docstring and options, all from the class."""
    import inspect

    from archspec.schema import long_form

    module = inspect.getdoc(inspect.getmodule(entry.cls)) or ""
    typer.echo(f"{entry.title}\n\n{inspect.getdoc(entry.cls) or ''}\n\noptions:")
    schema = long_form(entry)
    options = {key: of for key, of in schema["properties"].items() if key != "type"}
    _print_options({**schema, "properties": options})
    if not options:
        typer.echo("  none")
    if module:
        typer.echo(f"\n{module}")


def _print_options(schema: dict[str, Any], indent: str = "  ") -> None:
    """A key with its type and default, and what it means, for every key of an object; objects in it further in."""
    for option, of in schema["properties"].items():
        if "properties" in of:
            typer.echo(f"{indent}{option}: {of.get('description', '')}".rstrip())
            _print_options(of, f"{indent}    ")
            continue
        default = "required" if option in schema.get("required", ()) else f"default {json.dumps(of.get('default'))}"
        typer.echo(f"{indent}{option}: {_type(of)}, {default}\n{indent}    {of.get('description', '')}".rstrip())


def _type(schema: dict[str, object]) -> str:
    """`integer 1..64`, `one of a, b`, `list of ...`."""
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        return " or ".join(_type(choice) for choice in choices)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return "one of " + ", ".join(str(value) for value in values) if isinstance(values, list) else str(values)
    items = schema.get("items")
    if isinstance(items, dict):
        return f"list of {_type(items)}"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    bounds = f" {'' if low is None else low}..{'' if high is None else high}" if (low, high) != (None, None) else ""
    return f"{schema.get('type', 'any')}{bounds}"


def schema(plugin: PluginOption = []) -> None:  # noqa: B006
    """Print the JSON Schema of the language, for editors; with --plugin, the user's own blocks are in it."""
    from archspec.schema import json_schema

    load_plugins(plugin)
    typer.echo(json.dumps(json_schema(), indent=1))


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the file to write, such as my_network.yaml")],
) -> None:
    """Write a commented starter spec that builds as it is."""
    from archspec.files import write_new
    from archspec.loading import SUFFIXES, name_of, shipped_folder

    if file.suffix not in SUFFIXES:
        raise UsageError(f"{file}: a spec's name ends in .yaml, such as my_network.yaml")
    if not file.parent.is_dir():
        raise UsageError(f"{file}: there is no folder {file.parent}")
    text = (shipped_folder() / "starter" / "starter.yaml").read_text(encoding="utf-8")
    write_new(file, re.sub("name: starter *", f"name: {name_of(file)}".ljust(34), text))
    typer.echo(f"{file} written; next: archspec build {shlex.quote(str(file))}", err=True)
