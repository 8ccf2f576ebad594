"""What tests of `archspec count` share: the command, a small network, and what other tools say."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

import archspec
from archspec.cli.app import app
from archspec.count_reasons import explain
from archspec.counters import Seen, ask

# A network of which every figure is small.
SMALL = """archspec: 1
name: small
input: {size: 32}
classes: 10
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 8}
stages:
  - {width: 32, depth: 2, mixer: {type: attention, heads: 2}}
  - {width: 64, depth: 1, mixer: {type: attention, heads: 2}}
head: linear
"""


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["count", *arguments])


def rows(*arguments: str) -> list[dict[str, Any]]:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["rows"]


def said(name: str | Any, tool: Any, batch: int = 1, *, unfused: bool = False) -> tuple[Seen, Any]:
    plan = archspec.make_plan(name) if isinstance(name, str) else name
    seen = ask(tool, archspec.build(plan), batch, unfused=unfused)
    return seen, explain(plan, seen, batch)


def adds_up(explanation: Any) -> bool:
    amounts = sum(reason.amount for reason in explanation.reasons)
    return explanation.ours + amounts + explanation.unexplained == explanation.theirs
