"""A spec written out in full loads to the same network: for every shipped one, and for patched ones."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from archspec import registry
from archspec.errors import SpecError
from archspec.loading import load_spec, load_text, shipped
from archspec.plan import lay_out
from archspec.resolved import fingerprint, to_plain, to_yaml
from archspec.spec import Spec

BASE = """archspec: 1
name: net
input: {size: 32}
defaults: {norm: layer, ffn: {type: mlp, ratio: 2}, downsample: patch}
stem: {type: patch, kernel: 4}
stages:
  - {width: 16, depth: 2, mixer: {type: attention, heads: 2}}
  - {width: 32, depth: 4, mixer: {type: attention, heads: 4}}
head: linear
"""
PATCHES = [
    *("stages[0].depth=5", "stages[-1].depth=1", "stages[*].mixer=none", "stages[-1].mixer=[attention, none, window]"),
    *("stages[0].mixer=[none, attention]", "stages[*].ffn={type: mlp, ratio: 1.5}", "stages[0].ffn=none"),
    *(
        "stages[0].norm=none",
        "stages[-1].norm=batch",
        "stages[0].act=relu",
        "stages[0].act={type: gelu, approximate: tanh}",
    ),
    *(
        "stages[*].layer_scale=1e-6",
        "drop_path=0.25",
        "conv_init=fan_out",
        "classes=7",
        "head=none",
        "input.channels=4",
    ),
    *('blocks={"1:": {ffn: {bias: false}}}', 'blocks={0: {mixer: none}, "-2:": {mixer: window, layer_scale: 0.5}}'),
    *('blocks={":": {modifiers: [context_broadcast]}}', "blocks={-1: {modifiers: none, norm: none}}"),
    *('stages[0].blocks={0: {ffn: {ratio: 3}}, "1:": {act: silu}}', "stages[-1].blocks={0: {mixer: none, ffn: none}}"),
    *("stages[0].modifiers=[{type: context_broadcast, at: mixer.end}, {type: context_broadcast, scaled: true}]",),
    *("stages[0].position=none", "stages[0].position=learned", "stages[-1].position=sine", "stages[*].norm_out=layer"),
    *("stages[0].class_token=true", "stages[0].class_token_std=0.5", "name=n.1-x_2", 'description="no: 1e3"'),
]


class OfABlock(nn.Identity):
    """A position encoding that stands in each block."""

    def __init__(self) -> None:
        super().__init__()


def assert_same(spec: Spec, again: Spec) -> None:
    assert lay_out(again) == lay_out(spec)
    assert fingerprint(again) == fingerprint(spec)
    assert to_plain(again) == to_plain(spec)
    assert to_yaml(again) == to_yaml(spec)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_network_written_out_is_the_same(name: str) -> None:
    spec = load_spec(name)
    again = load_text(to_yaml(spec))
    assert_same(spec, again)
    assert (again.name, again.description) == (spec.name, spec.description)
    assert again.published == spec.published


def test_a_patched_network_written_out_is_the_same() -> None:
    rng, good = random.Random(0), 0
    for _ in range(300):
        try:
            spec = load_spec(rng.choice(list(shipped())), sets=rng.sample(PATCHES, rng.choice([1, 2, 4])))
            lay_out(spec)
        except SpecError:
            continue
        assert_same(spec, load_text(to_yaml(spec)))
        good += 1
    assert good > 60


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), max_size=40))
@settings(deadline=None, max_examples=60)
def test_any_text_comes_back(text: str) -> None:
    if "\ufeff" in text:
        return
    spec = load_spec("vit_tiny", sets=[f"description={quoted(text)}"])
    assert spec.description == text
    assert load_text(to_yaml(spec)).description == text


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'" if "\n" not in text else repr(text)


@pytest.mark.parametrize(
    "text", ["1e3", "010", ".5", "1.", "+7", "no", "null", "~", "true", "1_000", "12:30", "<<", "a\nb", "&a"]
)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    escaped = text.replace("\n", "\\n")
    spec = load_spec("vit_tiny", sets=[f'description="{escaped}"'])
    assert load_text(to_yaml(spec)).description == text


def test_positions_of_the_stage_and_of_single_blocks_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    per_block = "of_a_block"
    registry.load_providers()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("position", per_block, per_block=True)(OfABlock)
    once = ("depth: 4", f"depth: 4, position: learned, blocks: {{0: {{position: {per_block}}}}}")
    spec = load_text(BASE.replace(*once))
    stage = spec.stages[1]
    assert stage.position
    assert [block.position.type if block.position else "none" for block in stage.blocks] == [per_block, *["none"] * 3]
    assert_same(spec, load_text(to_yaml(spec)))
    every = load_text(BASE.replace("depth: 4", f"depth: 4, position: {per_block}, blocks: {{0: {{position: none}}}}"))
    assert [block.position is None for block in every.stages[1].blocks] == [True, False, False, False]
    assert_same(every, load_text(to_yaml(every)))


def test_the_fingerprint_is_of_the_network_and_not_of_its_names() -> None:
    spec = load_text(BASE)
    renamed = load_text(BASE.replace("name: net", "name: other\ndescription: d\npublished: {params: 5M}"))
    spelt_out = load_text(
        BASE.replace("norm: layer", "norm: {type: layer, eps: 0.00001}, act: gelu, layer_scale: null")
    )
    assert fingerprint(spec) == fingerprint(renamed) == fingerprint(spelt_out)
    for change in (
        ("ratio: 2", "ratio: 3"),
        ("kernel: 4", "kernel: 8"),
        ("size: 32", "size: 64"),
        ("heads: 4", "heads: 8"),
    ):
        assert fingerprint(load_text(BASE.replace(*change))) != fingerprint(spec)
    for more in ("drop_path: 0.1", "conv_init: fan_out", "classes: 10", "blocks: {0: {ffn: none}}"):
        assert fingerprint(load_text(BASE + more)) != fingerprint(spec)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_default_is_what_yaml_would_say(kind: registry.Kind) -> None:
    """An option left out and the same one written give equal parts: a ratio of 4 is not one thing and 4.0 another."""
    for entry in (entry for entry in registry.entries() if entry.kind == kind):
        required = {name for name, info in entry.options.model_fields.items() if info.is_required()}
        if required:
            continue
        left_out = entry.options()
        written = entry.options.model_validate(left_out.model_dump())
        assert repr(tuple(left_out)) == repr(tuple(written)), entry.title


@pytest.mark.slow
def test_show_then_diff_says_the_same_network(tmp_path: Path) -> None:
    shown = archspec("show", "pit_base_cb")
    (tmp_path / "f.yaml").write_text(shown, encoding="utf-8")
    assert archspec("diff", "pit_base_cb", str(tmp_path / "f.yaml")).startswith("the two are the same network\n")
    (tmp_path / "g.yaml").write_text(shown.replace("ratio: 4.0", "ratio: 3.0"), encoding="utf-8")
    assert "stages[0].ffn.ratio: 4.0 -> 3.0" in archspec("diff", "pit_base_cb", str(tmp_path / "g.yaml"))


def archspec(*arguments: str) -> str:
    command = [sys.executable, "-c", "from archspec.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
