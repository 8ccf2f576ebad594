"""`archspec count`: one table of many networks, other tools' counters beside ours, and why their totals differ."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import archspec
from archspec import loading
from archspec.count_reasons import explain, explain_published, itemize, remarks
from archspec.count_table import COLUMNS
from archspec.counters import WrittenOut, ask
from archspec.errors import ArchspecError

from .counted import SMALL, adds_up, invoke, rows, said

# vit_tiny at 224, by hand: 12 blocks of width 192 over 14 x 14 patches and a class token, in front of 1000 classes.
TOKENS, WIDTH, DEPTH = 14 * 14 + 1, 192, 12
ATTENTION = DEPTH * 2 * TOKENS**2 * WIDTH  # scores, and values
NORMS = (2 * DEPTH + 1) * TOKENS * WIDTH * 5
BIASES = 14 * 14 * WIDTH + DEPTH * TOKENS * WIDTH * (3 + 1 + 4 + 1) + 1000
MACS = 14 * 14 * 3 * 16 * 16 * WIDTH + DEPTH * TOKENS * 12 * WIDTH**2 + ATTENTION + WIDTH * 1000


class TestTheTable:
    def test_specs_sizes_and_batches_in_the_order_given(self, tmp_path: Path) -> None:
        file = tmp_path / "small.yaml"
        file.write_text(SMALL)
        found = rows(
            str(file),
            "vit_tiny",
            "--size",
            "32",
            "--size",
            "48x64",
            "--batch",
            "1",
            "--batch",
            "8",
            "--columns",
            "name,size,batch",
        )
        assert [(row["name"], row["size"], row["batch"]) for row in found] == [
            (name, size, batch) for name in ("small", "vit_tiny") for size in ([32, 32], [48, 64]) for batch in (1, 8)
        ]

    def test_figures_are_exact_and_of_one_image_but_activations_and_memory_of_the_batch(self) -> None:
        one, eight = rows("nommer_micro", "--batch", "1", "--batch", "8")
        assert (one["params"], one["params_trainable"]) == (115_588, 113_284)
        assert one["flops"] == 2 * one["macs"]
        same = ("params", "params_trainable", "macs", "flops", "ops")
        assert [eight[name] for name in same] == [one[name] for name in same]
        assert eight["activations"] == 8 * one["activations"] > 0
        assert eight["train_memory"] > one["train_memory"] > 4 * 4 * 113_284  # weights, gradients, two moments

    def test_set_patches_every_spec(self) -> None:
        plain, changed = rows("vit_tiny")[0], rows("vit_tiny", "--set", "stages[0].depth=11")[0]
        block = TOKENS * 12 * WIDTH**2 + 2 * TOKENS**2 * WIDTH
        assert plain["macs"] == MACS
        assert plain["macs"] - changed["macs"] == block

    def test_memory_is_counted_for_what_is_asked(self) -> None:
        def memory(*options: str) -> int:
            (row,) = rows("vit_tiny", "--batch", "16", *options)
            return int(row["train_memory"])

        weights = 4 * 5_717_416
        plain = memory()
        assert memory("--optimizer", "sgd") == plain - weights  # one moment, of momentum, in place of two
        assert memory("--ema") == pytest.approx(plain + weights, rel=1e-4)
        assert memory("--checkpointing") < 0.6 * plain
        assert memory("--precision", "bf16") < 0.8 * plain

    @pytest.mark.parametrize(("per", "count"), [("stage", 4), ("unit", 6)])
    def test_parts_add_up_to_the_whole(self, per: str, count: int, tmp_path: Path) -> None:
        file = tmp_path / "small.yaml"
        file.write_text(SMALL)
        columns = "unit,parts,params,params_share,macs,macs_share,ops,activations,train_memory,fvcore,torch"
        *parts, whole = rows(str(file), "--per", per, "--columns", columns, "--batch", "2")
        assert len(parts) == count
        assert (parts[0]["unit"], parts[-1]["unit"], whole["unit"]) == ("stem", "head", "total")
        for name in ("params", "macs", "ops", "activations", "fvcore", "torch"):
            assert sum(part[name] for part in parts) == whole[name] > 0, name
        for name in ("params_share", "macs_share"):
            assert sum(part[name] for part in parts) == pytest.approx(1) == whole[name]
        assert [part["train_memory"] for part in parts] == [None] * len(parts)  # only a network has a peak
        assert any("attention, mlp" in part["parts"] for part in parts)

    @pytest.mark.parametrize(("by", "order"), [("macs", "small micro tiny"), ("-macs", "tiny micro small")])
    def test_sorted(self, by: str, order: str, tmp_path: Path) -> None:
        file = tmp_path / "small.yaml"
        file.write_text(SMALL)
        names = {"small": str(file), "micro": "nommer_micro", "tiny": "vit_tiny"}
        found = rows(names["micro"], names["tiny"], names["small"], "--sort", by, "--columns", "name")
        assert found == [
            {"name": {"micro": "nommer_micro", "tiny": "vit_tiny"}.get(name, name)} for name in order.split()
        ]

    def test_parts_are_sorted_within_their_network(self) -> None:
        found = rows("vit_tiny", "nommer_micro", "--per", "stage", "--sort", "-params", "--columns", "name,unit,params")
        ends = [index for index, row in enumerate(found) if row["unit"] == "total"]
        assert [found[end]["name"] for end in ends] == ["vit_tiny", "nommer_micro"]
        for start, end in ((0, ends[0]), (ends[0] + 1, ends[1])):
            params = [row["params"] for row in found[start:end]]
            assert params == sorted(params, reverse=True)
            assert len(params) > 2


class TestFormats:
    def test_csv_says_the_same_as_json_exactly(self) -> None:
        arguments = ("vit_tiny", "vit_micro", "--batch", "3", "--columns", "name,size,batch,macs,train_memory")
        read = list(csv.DictReader(io.StringIO(invoke(*arguments, "--format", "csv").stdout)))
        assert read[0]["macs"] == str(MACS)
        assert read[0]["size"] == "224x224"
        wanted = [{**row, "size": "x".join(map(str, row["size"]))} for row in rows(*arguments)]
        assert read == [{name: str(value) for name, value in row.items()} for row in wanted]

    def test_markdown_is_a_table_with_as_many_cells_in_every_row(self) -> None:
        lines = invoke("vit_tiny", "nommer_micro", "--format", "markdown").stdout.splitlines()
        table = [line for line in lines if line.startswith("|")]
        assert len(table) == 2 + 2
        assert len({line.count("|") for line in table}) == 1
        assert "| 5.717M |" in table[2]
        assert "| 1.254G |" in table[2]

    def test_text_is_for_people(self) -> None:
        shown = invoke("vit_tiny", "--size", "32x48").stdout
        assert "32x48" in shown
        assert "MiB" in shown
        per = invoke("vit_tiny", "--per", "stage").stdout
        assert "12 x (attention, mlp)" in per
        assert "97.7%" in per

    def test_the_help_names_every_column(self) -> None:
        text = invoke("--help").stdout
        assert [name for name in COLUMNS if name not in text] == []


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("vit_tiny", "--columns", "name,mcas"), "did you mean 'macs'?"),
            (("vit_tiny", "--sort", "-parms"), "did you mean 'params'?"),
            (("vit_tiny", "--counter", "thop"), "there are fvcore and torch"),
            (("vit_tiny", "--unfused"), "--counter"),
            (("vit_tiny", "--json", "--format", "csv"), "contradict"),
            (("vit_tiny", "--batch", "0"), "--batch"),
            (("vit_tiny", "--size", "big"), "--size big"),
            (("vit_tiny", "--optimizer", "lion"), "adamw"),
            ((), "Missing argument"),
        ],
    )
    def test_is_said_and_gives_exit_code_2(self, arguments: tuple[str, ...], message: str) -> None:
        done = invoke(*arguments)
        code = done.exception.exit_code if isinstance(done.exception, ArchspecError) else done.exit_code
        assert code == 2
        assert message in f"{done.output} {done.exception}"

    def test_a_spec_that_is_wrong_does_not_keep_the_others_back(self) -> None:
        done = invoke("vit_tyni", "nommer_micro", "--json")
        assert done.exit_code == 2
        assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["nommer_micro"]
        assert "did you mean 'vit_tiny'?" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_nothing_heavy_is_loaded_for_the_help(self) -> None:
        script = (
            "import sys\nfrom typer.testing import CliRunner\nfrom archspec.cli.app import app\n"
            "assert CliRunner().invoke(app, ['count', '--help']).exit_code == 0\n"
            "print([m for m in ('torch', 'fvcore', 'rich.table') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestOtherTools:
    """Their figures for vit_tiny are known: 1.080, 1.258 and 2 x 1.254 G; the parts of them are derived by hand."""

    def test_fvcore_drops_fused_attention_and_counts_norms(self) -> None:
        seen, explanation = said("vit_tiny", "fvcore")
        assert seen.total == 1_079_579_328
        assert {reason.amount for reason in explanation.reasons} == {-ATTENTION, NORMS}
        assert explanation.unexplained == 0
        assert adds_up(explanation)
        attention = next(reason.why for reason in explanation.reasons if reason.amount < 0)
        assert attention.startswith("attention not seen")
        assert attention.endswith("stages.0.blocks.0-11")
        assert "layer norm" in next(reason.why for reason in explanation.reasons if reason.amount > 0)

    def test_fvcore_sees_attention_that_is_written_out(self) -> None:
        seen, explanation = said("vit_tiny", "fvcore", unfused=True)
        assert seen.total == 1_258_411_200 == MACS + NORMS
        assert [reason.amount for reason in explanation.reasons] == [NORMS]
        assert adds_up(explanation)

    @pytest.mark.parametrize(
        "mask", [None, torch.randn(5, 7), torch.ones(5, 7).tril().bool()], ids=["no", "float", "bool"]
    )
    def test_attention_written_out_is_the_same_attention(self, mask: Tensor | None) -> None:
        q, k, v = (torch.randn(2, 3, tokens, 8) for tokens in (5, 7, 7))
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
        with WrittenOut():
            written = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
        torch.testing.assert_close(written, fused)

    @pytest.mark.parametrize("unfused", [False, True])
    def test_torch_counts_two_for_a_mac(self, unfused: bool) -> None:
        seen, explanation = said("vit_tiny", "torch", unfused=unfused)
        assert seen.total == 2 * MACS
        assert [reason.amount for reason in explanation.reasons] == [MACS]
        assert adds_up(explanation)

    @pytest.mark.parametrize("tool", ["fvcore", "torch"])
    def test_a_batch_is_a_reason_of_its_own(self, tool: str) -> None:
        plan = archspec.make_plan(loading.load_text(SMALL))
        (one, _), (three, explanation) = said(plan, tool), said(plan, tool, 3)
        assert one.total
        assert three.total == 3 * one.total
        assert explanation.reasons[0].amount == 2 * archspec.count(plan).macs
        assert "batch" in explanation.reasons[0].why
        assert explanation.unexplained == 0
        assert adds_up(explanation)

    def test_products_without_a_formula_are_named(self) -> None:
        """Of fcvit's blocks torch has no formula for matrix by vector, of sgformer's fvcore none for baddbmm."""
        _, torch_s = said("fcvit_micro", "torch")
        _, fvcore_s = said("sgformer_micro", "fvcore", unfused=True)
        for explanation, operation in ((torch_s, "aten.mv"), (fvcore_s, "aten.baddbmm")):
            (unseen,) = (reason for reason in explanation.reasons if "not seen" in reason.why)
            assert unseen.amount < 0
            assert operation in unseen.why
            assert explanation.unexplained == 0
            assert adds_up(explanation)

    def test_what_no_reason_accounts_for_is_said_to_be_open(self) -> None:
        plan = archspec.make_plan(loading.load_text(SMALL))
        seen, _ = said(plan, "fvcore")
        more = {
            module: {**kinds, "linear": kinds["linear"] + 1000} if module in ("", "stages.1.blocks.0") else kinds
            for module, kinds in seen.counts.items()
        }
        explanation = explain(plan, replace(seen, counts=more))
        assert explanation.unexplained == 1000
        assert adds_up(explanation)
        (line,) = (line for line in explanation.lines() if "not explained" in line)
        assert "+1,000" in line
        assert line.endswith("in stages.1.blocks.0")

    def test_a_tool_that_fails_is_told_of_and_the_table_goes_on(self) -> None:
        """fvcore's formula for matrix products fails on a vector."""
        done = invoke("fcvit_micro", "--counter", "fvcore", "--explain", "--json")
        assert done.exit_code == 0
        (row,) = json.loads(done.stdout)["rows"]
        assert row["fvcore"] is None
        assert row["macs"] > 0
        assert "fvcore fails on fcvit_micro: IndexError" in done.stderr
        assert "-" in invoke("fcvit_micro", "--counter", "fvcore").stdout

    def test_a_batch_that_does_not_fit_is_not_run(self) -> None:
        seen = ask("torch", archspec.build(loading.load_text(SMALL)), 10**9)
        assert seen.total is None
        assert "GiB" in seen.failure

    @pytest.mark.slow
    def test_they_are_quiet_and_stand_beside_ours(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "archspec", "count", "nommer_micro", "--counter", "fvcore", "--counter", "torch"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.count("\n") == 1, done.stderr  # what is being counted, and no warnings
        assert "5.215M" in done.stdout
        assert "10.737M" in done.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name in loading.shipped() if "_micro" in name or name.endswith("_t")])
    @pytest.mark.parametrize("tool", ["fvcore", "torch"])
    def test_every_family_is_explained_to_the_last_mac(self, name: str, tool: str) -> None:
        _, explanation = said(name, tool)
        assert explanation.unexplained == 0
        assert explanation.failure or adds_up(explanation)


class TestExplaining:
    def test_our_items_are_our_count(self) -> None:
        items, cost = itemize(archspec.make_plan("vit_tiny")), archspec.count("vit_tiny")
        assert (items.total, items.other_total) == (cost.macs, cost.other_ops) == (MACS, NORMS)
        assert sum(items.kind("attention").values()) == ATTENTION
        assert items.biases == BIASES
        without = archspec.make_plan("vit_tiny", sets=["stages[0].mixer.qkv_bias=false"])
        assert itemize(without).biases == BIASES - DEPTH * TOKENS * 3 * WIDTH

    def test_binary_units_and_what_neither_counts(self) -> None:
        text = "\n".join(remarks(archspec.make_plan("vit_tiny")))
        assert f"{BIASES:,}" in text
        assert f"{2 * MACS:,}" in text
        assert f"{MACS / 2**30:.3f}Gi" in text

    @pytest.mark.parametrize(
        ("figures", "reading"),
        [
            ("macs: 1.254G", "macs, rounded"),
            ("macs: 1.253G", "macs, truncated"),
            ("macs: 1.168G", "macs in binary units, rounded"),
            ("macs: 2.507G", "flops, rounded"),
            ("macs: 1.258G", "ops, rounded"),
            ("macs: 1.2578G", "macs + biases, rounded"),
            ("macs: 1.0749G", "macs without attention, rounded"),
            ("params: 5.45M", "params in binary units, rounded"),
            ("params: 9.9M", "none of our params"),
        ],
    )
    def test_a_published_figure_is_read_as_it_may_be_meant(self, figures: str, reading: str) -> None:
        text = f"archspec: 1\nname: mine\nextends: vit_tiny\npublished: {{{figures}}}\n"
        (line,) = explain_published(archspec.make_plan(loading.load_text(text)))
        assert reading in line

    def test_the_command_says_it_in_every_format(self) -> None:
        arguments = ("vit_tiny", "--counter", "fvcore", "--explain")
        done = {form: invoke(*arguments, "--format", form) for form in ("text", "json", "csv", "markdown")}
        assert f"{-ATTENTION:+,}" in done["text"].stdout
        assert f"{-ATTENTION:+,}" in done["markdown"].stdout
        assert f"{-ATTENTION:+,}" in done["csv"].stderr
        assert len(list(csv.reader(io.StringIO(done["csv"].stdout)))) == 2
        (of,) = json.loads(done["json"].stdout)["explanations"]
        (counter,) = of["counters"]
        assert of["macs"] + sum(reason["amount"] for reason in counter["reasons"]) == counter["counted"]
        assert counter["unexplained"] == 0

    def test_a_patched_network_is_not_held_against_the_publication(self) -> None:
        assert "published" in invoke("vit_tiny", "--explain").stdout
        assert "published" not in invoke("vit_tiny", "--explain", "--size", "32").stdout
