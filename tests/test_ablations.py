"""The papers' ablation tables as studies: every row costs what it should, and what a paper prints stands beside it.

Expected counts are those of the reference tables, which were derived apart from this code, or worked out by hand here.
Each is written to the digits that its source has, and must be met to the last of them.
"""

from __future__ import annotations

import importlib
import re
import time
from functools import cache

import pytest
from typer.testing import CliRunner

from archspec import api
from archspec.cli.app import app
from archspec.errors import SpecError
from archspec.loading import STUDIES, shipped_folder
from archspec.quantities import parse_quantity
from archspec.report import FIGURES

ablation = importlib.import_module("archspec.search.ablation.study")

PAPERS = sorted(name for name in STUDIES.shipped() if not name.startswith("micro_"))
MICRO = sorted(name for name in STUDIES.shipped() if name.startswith("micro_"))


@cache
def study(name):
    return ablation.load_ablation(STUDIES.find(name))


@cache
def costs(name):
    return {row.name: api.count(row.plan) for row in study(name).rows}


# What the reference tables say, by study: (parameters, figure that it is about, value) row by row; None where they are
# silent. FCViT in binary units, with norms, as its paper prints it.
REFERENCE = {
    "nommer_table4": ("ops", [None, None, None, None, ("22.898M", "5.486G")]),
    "fcvit_table2": (
        "ops",
        [("4.233Mi", "0.81Gi"), ("4.402Mi", "0.81Gi"), ("4.403Mi", "0.81Gi"), ("4.486Mi", "0.81Gi")],
    ),
    "fcvit_table8": ("ops", [("4.486Mi", "0.81Gi"), ("4.233Mi", "0.81Gi"), None, ("4.403Mi", "0.81Gi"), None]),
    "fcvit_table9": ("ops", [("4.563Mi", "0.846Gi"), ("4.815Mi", "0.88Gi"), ("4.815Mi", "0.94Gi"), None]),
    "fcvit_kernel": ("ops", [None, None, None, None, ("4.403Mi", "0.81Gi"), None]),
    "fcvit_groups": ("ops", [None, None, ("4.403Mi", "0.81Gi"), None, None]),
    "sgformer_table6": ("macs", [None, None, None]),
    "sgformer_table7": ("ops", [("22.545981M", "4.818G")] * 4),
    "cb_table1": (
        "macs",
        [
            ("22.0507M", "4.599G"),
            ("21.16M", None),
            ("22.05M", None),
            ("28.8M", None),
            ("22.0507M", "4.599G"),
            ("22.0553M", "4.599G"),  # all 12 blocks of 384 channels
        ],
    ),
    "cb_table2": (
        "macs",
        [
            pair
            for pair in zip(("5.7174M", "22.0507M", "86.5677M"), ("1.254G", "4.599G", "17.564G"), strict=True)
            for _ in range(3)
        ],
    ),
    "cb_table4": ("macs", [("22.0507M", "4.599G")] * 6),
    "cb_table5": (
        "macs",
        [
            ("5.7174M", "1.254G"),
            ("5.7174M", "1.254G"),
            ("5.7186M", "1.254G"),
            ("22.0507M", "4.599G"),
            ("22.0507M", "4.599G"),
            ("22.0530M", "4.599G"),
            ("86.5677M", "17.564G"),
            ("86.5677M", "17.564G"),
            ("86.5723M", "17.564G"),
        ],
    ),
    "cb_table11": ("macs", [("73.765M", "12.402G")] * 2 + [("18.528M", "3.777G")] * 2),
    "emsnet_table3_5": (
        "macs",
        [
            ("2.105M", "0.475G"),
            ("2.255M", "0.505G"),
            ("2.402M", "0.531G"),
            ("2.372M", "0.528G"),
            ("2.671M", "0.587G"),
            ("3.104M", "0.545G"),
            ("2.563M", "0.533G"),
        ],
    ),
    "emsnet_table3_7": ("macs", [("2.563M", "0.533G"), ("2.582M", "0.534G"), ("2.585M", "0.534G")]),
    "emsnet_table3_9": (
        "macs",
        [
            ("2.105M", "0.475G"),
            ("2.671M", "0.587G"),
            ("3.104M", "0.545G"),
            ("2.563M", "0.533G"),
            ("2.488M", "0.519G"),
            ("4.791M", "0.783G"),
        ],
    ),
    "mat_table4_2": (
        "ops",
        [("10.874M", "0.7836G"), ("10.852M", "0.7076G"), ("10.767M", "0.6662G"), ("9.767M", "0.5681G")],
    ),
    "mat_table4_9": (
        "ops",
        [
            ("5.699M", "0.4608G"),
            ("7.802M", "0.6592G"),
            ("10.767M", "0.6662G"),
            ("11.107M", "0.7037G"),
            ("10.892M", "0.6803G"),
            ("10.767M", "0.6662G"),
        ],
    ),
}


def test_every_table_of_the_papers_is_there_and_has_a_micro_version():
    assert sorted(REFERENCE) == PAPERS
    assert sorted(f"micro_{name}" for name in PAPERS) == MICRO


@pytest.mark.parametrize("name", PAPERS)
def test_rows_cost_what_the_reference_says(name):
    figure, expected = REFERENCE[name]
    for (row, cost), said in zip(costs(name).items(), expected, strict=True):
        for key, text in zip(("params", figure), said or (), strict=False):
            assert text is None or parse_quantity(text).agrees(getattr(cost, key)), (row, key, getattr(cost, key), text)


# What the reference tables do not say, by hand: differences of parameters to another row, and of MACs.
def difference(name, row, other):
    ours, theirs = costs(name)[row], costs(name)[other]
    return ours.params_trainable - theirs.params_trainable, ours.macs - theirs.macs


def test_nommer_s_branches_by_hand():
    """Two blocks of 96 channels and two of 192: a CNN at half the width, 16 and 4 DCT frequencies in 8 groups."""
    widths = {96: 16, 192: 4}
    cnn = sum(2 * (2 * w * w // 2 + 9 * (w // 2) ** 2 + 2 * (w // 2 + w // 2 + w)) for w in widths)
    attention = {w: 3 * w * w + w * w + w for w in widths}
    around = sum(2 * (2 * kept * w * w // 8 + 2 * w) for w, kept in widths.items())  # convolutions and BatchNorm
    table = "nommer_table4"
    assert difference(table, "w/o Global", "w/o Global & CNN")[0] == cnn
    assert difference(table, "w/o Gumbel & DCT", "w/o Global")[0] == 2 * sum(attention.values())
    assert difference(table, "w/o Gumbel", "w/o Gumbel & DCT")[0] == around
    assert difference(table, "NomMer-T", "w/o Gumbel")[0] == sum(2 * (3 * w + 3) for w in widths)


# FCViT-Tiny: depth, width and side of the map, by stage; two rounds a block.
FCVIT = ((3, 32, 56), (3, 64, 28), (5, 160, 14), (2, 320, 7))
ROUNDS = 2 * sum(depth for depth, _, _ in FCVIT)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 13])
def test_fcvit_s_kernels_by_hand(kernel):
    taps = kernel**2 - 11**2
    params = 2 * sum(depth * width * taps for depth, width, _ in FCVIT)
    macs = 2 * sum(depth * width * taps * side**2 for depth, width, side in FCVIT)
    assert difference("fcvit_kernel", f"kernel {kernel}", "kernel 11") == (params, macs)


@pytest.mark.parametrize("groups", [1, 4, 16, 32])
def test_fcvit_s_groups_by_hand(groups):
    """A weight and a bias a group; the similarity is a product of all channels however they are grouped."""
    assert difference("fcvit_groups", f"groups {groups}", "groups 8") == (2 * ROUNDS * (groups - 8), 0)


def test_fcvit_s_components_by_hand():
    one_group = difference("fcvit_table8", "one group", "all components")
    assert one_group == (2 * ROUNDS * (1 - 8), 0)
    similarity = 2 * sum(depth * width * side**2 for depth, width, side in FCVIT)
    assert difference("fcvit_table8", "static context", "all components") == (-2 * ROUNDS * 8, -similarity)


def test_fcvit_s_self_attention_by_hand():
    """4 heads of 32 channels for each position on 49 means, in place of two rounds of context and convolution."""

    def round_of(w):
        narrow, context = max(16, w // 8), w // 8
        bottleneck = w * 2 * context + 2 * context + context * w + w
        return bottleneck + 2 * 8 + (121 * w + w) + (w * narrow + narrow) + (narrow * w + w)

    attention = {w: (w * 128 + 128) + (w * 256 + 256) + (128 * w + w) for _, w, _ in FCVIT}
    params = sum(depth * (attention[w] - 2 * round_of(w)) for depth, w, _ in FCVIT)
    assert difference("fcvit_table9", "self-attention on keys pooled to 7x7", "FCViT-Tiny")[0] == params


def test_sgformer_s_scales_by_hand():
    """Merging s x s tokens, a convolution and a LayerNorm, is all that the coarse scale has beyond the fine one."""
    stages = ((2, 64, 8), (4, 128, 4), (16, 256, 2))
    merging = sum(depth * (s * s * w * w + w + 2 * w) for depth, w, s in stages)
    hybrid = "hybrid scale (local and global)"
    assert difference("sgformer_table6", hybrid, "single scale (local)")[0] == merging
    assert difference("sgformer_table6", hybrid, "single scale (global)")[0] == 0


@pytest.mark.parametrize("network", ["vit_tiny", "vit_small", "vit_base"])
def test_the_networks_of_table_5_are_the_shipped_ones(network):
    title = {"vit_tiny": "ViT-Ti", "vit_small": "ViT-S", "vit_base": "ViT-B"}[network]
    plans = {row.name: row.plan for row in study("cb_table5").rows}
    for ending, row in (("", title), ("_cb", f"{title} + CB"), ("_cbs", f"{title} + CB_S")):
        assert [step.unit for step in plans[row].steps()] == [
            step.unit for step in api.make_plan(network + ending).steps()
        ]


def broadcasts(plan):
    """Where context broadcasting stands, block by block."""
    blocks = [step.unit.part for stage in plan.stages for step in stage.blocks]
    return [[modifier.at for modifier in block.modifiers] for block in blocks]


END, UPPER = [["ffn.end"]] * 12, [[]] * 6 + [["ffn.end"]] * 6
PLACES = {
    "cb_table1": [[[]] * 12] * 4 + [END, END],
    "cb_table2": [[[]] * 12, END, UPPER] * 3,
    "cb_table4": [
        [at] * 12 for at in ([], ["ffn.end"], ["mixer.end"], ["ffn.end", "mixer.end"], ["ffn.front"], ["ffn.middle"])
    ],
    "cb_table5": [[[]] * 12, UPPER, UPPER] * 3,
    "cb_table11": [[[]] * 13, [[]] * 6 + [["ffn.end"]] * 7, [[]] * 8, [[]] * 4 + [["ffn.end"]] * 4],
}


@pytest.mark.parametrize("name", PLACES)
def test_context_broadcasting_stands_where_the_paper_has_it(name):
    assert [broadcasts(row.plan) for row in study(name).rows] == PLACES[name]


# Published figures that ours do not print as; all others agree to the last printed digit.
DIFFERS = {
    "fcvit_table9": {
        "convolution 11x11, depths 3, 3, 7, 2": ["ops"],
        "self-attention on keys pooled to 7x7": ["params", "ops"],
    },
    "sgformer_table6": {
        "single scale (local)": ["params", "ops"],
        "single scale (global)": ["params", "ops"],
        "hybrid scale (local and global)": ["params", "ops"],
    },
    "sgformer_table7": {
        "manually defined (equal everywhere)": ["params", "ops"],
        "local": ["params", "ops"],
        "global": ["params", "ops"],
    },
    "emsnet_table3_5": {
        "baseline": ["params"],
        "+ whitening": ["params"],
        "+ PEi p = 2, coordinate convolution, propagation": ["params"],
        "+ PEi p = 4, coordinate convolution, propagation": ["params"],
        "+ gated aggregation": ["params"],
    },
    "emsnet_table3_7": {"1/2, 1/4, 1/4": ["params", "ops"], "1/4, 1/4, 1/2": ["ops"]},
    "emsnet_table3_9": {
        "baseline": ["params"],
        "static branch": ["params"],
        "without fusion": ["params"],
        "without channel splitting": ["params", "ops"],
    },
    "mat_table4_2": {"stages 1 to 4": ["ops"], "stages 2 to 4": ["ops"]},
    "mat_table4_9": {"patch embedding by a 3x3 convolution": ["ops"], "patch merging": ["ops"]},
}


def disagreeing(row, cost):
    """The published figures that ours do not print as."""
    return [
        key
        for key in FIGURES
        if row.published and (text := getattr(row.published, key)) is not None
        if not parse_quantity(text).agrees(
            getattr(cost, key), "truncated" if key in row.published.truncated else "rounded"
        )
    ]


@pytest.mark.parametrize("name", PAPERS)
def test_what_a_paper_prints_is_met_but_where_it_is_said(name):
    assert study(name).source
    found = {row.name: disagreeing(row, costs(name)[row.name]) for row in study(name).rows}
    assert {row: keys for row, keys in found.items() if keys} == DIFFERS.get(name, {})
    assert [row.name for row in study(name).rows if found[row.name] and not row.note] == []


PRINTED = {
    "nommer_table4": [81.4, 81.7, 82.0, 82.2, 82.6],
    "fcvit_table2": [72.8, 73.0, 73.5, 73.7],
    "fcvit_table8": [73.7, 72.8, 73.2, 73.5, 73.3],
    "fcvit_table9": [74.9, 74.6, 74.5, 74.7],
    "fcvit_kernel": [None] * 6,
    "fcvit_groups": [73.2, 73.4, 73.5, 73.3, 73.3],
    "sgformer_table6": [81.6, 82.0, 82.6],
    "sgformer_table7": [82.3, 82.9, 82.4, 83.2],
    "cb_table1": [79.9, 80.1, 80.3, 80.6, 80.8, 80.4],
    "cb_table2": [72.2, 73.2, 73.4, 79.9, 80.5, 80.8, 81.8, 82.0, 82.1],
    "cb_table4": [79.9, 80.5, 80.1, 80.1, 79.9, 80.5],
    "cb_table5": [72.2, 73.4, 73.5, 79.9, 80.8, 80.4, 81.8, 82.1, 82.1],
    "cb_table11": [82.0, 82.6, 74.3, 74.9],
    "emsnet_table3_5": [70.2, 70.5, 70.9, 71.1, 71.9, 72.7, 73.1],
    "emsnet_table3_7": [73.1, 73.2, 73.2],
    "emsnet_table3_9": [70.2, 71.9, 72.7, 73.1, 72.2, 74.3],
    "mat_table4_2": [78.9, 78.8, 79.0, 78.5],
    "mat_table4_9": [58.4, 76.9, 79.0, 78.7, 78.5, 79.0],
}


@pytest.mark.parametrize("name", PAPERS)
def test_accuracies_are_the_papers(name):
    assert [row.published.top1 if row.published else None for row in study(name).rows] == PRINTED[name]


# Micro versions: the same comparison, on digits.
@pytest.mark.parametrize("name", MICRO)
def test_micro_studies_are_ready_to_train(name):
    loaded = study(name)
    assert (loaded.recipe, loaded.data, loaded.seeds) == ("digits", "digits", (0, 1, 2))
    for row in loaded.rows:
        spec = row.plan.spec
        assert (spec.channels, spec.size, spec.classes) == (1, (32, 32), 10)
        assert api.count(row.plan).params < 400_000
        assert row.published is None


@pytest.mark.slow
def test_all_tables_are_counted_in_half_a_minute():
    started = time.process_time()
    printed = CliRunner().invoke(app, ["ablate", *PAPERS, *MICRO, "--count-only"])
    assert printed.exit_code == 0
    assert all(f"{name}:" in printed.stdout for name in (*PAPERS, *MICRO))
    assert time.process_time() - started < 30


def test_the_table_shows_costs_differences_and_the_publication():
    printed = CliRunner().invoke(app, ["ablate", "cb_table1", "--count-only"]).stdout
    assert "-887.040k" in printed  # 12 blocks that lose 384 * 192 + 192 weights each
    assert "22.051M" in printed
    assert "agrees" in printed


# The page.
PAGE = (shipped_folder() / "ablations" / "README.md").read_text(encoding="utf-8")


def blocks(mark, language="yaml"):
    found = re.finditer(r"(?:<!-- (.*?) -->\n\n?)?```(\w+)\n(.*?)```\n", PAGE, re.DOTALL)
    return [m[3] for m in found if m[2] == language and (m[1] or "") == mark]


def test_the_examples_of_the_page_load(tmp_path):
    file = tmp_path / "study.yaml"
    counts = []
    for text in blocks(""):
        file.write_text(text)
        counts.append(len(ablation.load_ablation(file).rows))
    assert counts == [2, 4, 9]
    kernels, (design,) = blocks("")[2], blocks("design of: kernels")
    for said, rows in (("design: one_at_a_time\n", 5), (design, 2)):
        file.write_text(kernels.replace("design: grid\n", said))
        assert len(ablation.load_ablation(file).rows) == rows


def test_the_messages_of_the_page_are_what_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,), (messages,) = blocks("wrong: my.yaml"), blocks("", "text")
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        ablation.load_ablation(file.relative_to(tmp_path))
    assert str(caught.value) + "\n" == messages
