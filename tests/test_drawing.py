"""Pictures: what they say, to scale and in place, read from the SVG files themselves."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import ImageFont
from typer.testing import CliRunner

from archspec.api import make_plan
from archspec.cli.app import app
from archspec.drawing.labels import Disc, place_labels
from archspec.drawing.plan_picture import draw_plan
from archspec.drawing.scatter import draw_scatter
from archspec.drawing.style import figure_style, save_svg, text_width, wrapped
from archspec.errors import UsageError
from archspec.loading import load_text, shipped

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")

Box = tuple[float, float, float, float]


@cache
def font(bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), 100)


def style_of(element: ElementTree.Element) -> dict[str, str]:
    """Attributes and CSS of an element, in one."""
    said = (part.split(":", 1) for part in element.get("style", "").split(";") if ":" in part)
    return {**element.attrib, **{key.strip(): value.strip() for key, value in said}}


def text_boxes(root: ElementTree.Element) -> list[tuple[str, Box]]:
    """Every text with its box, measured here with another library than the picture was laid out with."""
    boxes = []
    for element in root.iter(f"{SVG}text"):
        style, text = style_of(element), element.text or ""
        size = float(style["font-size"].removesuffix("px"))
        width = font(style.get("font-weight") in ("bold", "700")).getlength(text) * size / 100
        x, y = float(style["x"]), float(style["y"])
        left = x - {"start": 0, "middle": width / 2, "end": width}[style.get("text-anchor", "start")]
        box = (left, y - 0.76 * size, left + width, y + 0.24 * size)  # ascender and descender of the font
        if "rotate(-90" in style.get("transform", ""):  # around (x, y)
            box = (x - 0.76 * size, y - (box[2] - x), x + 0.24 * size, y - (box[0] - x))
        boxes.append((text, box))
    return boxes


def texts(root: ElementTree.Element) -> list[str]:
    return [text for text, _ in text_boxes(root)]


def check_layout(root: ElementTree.Element) -> None:
    """No text leaves the canvas, and no two texts meet."""
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    boxes = text_boxes(root)
    assert boxes
    for text, (left, top, right, bottom) in boxes:
        assert min(left, top, width - right, height - bottom) >= 0, text
    slack = 0.3
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a[2] <= b[0] + slack or b[2] <= a[0] + slack or a[3] <= b[1] + slack or b[3] <= a[1] + slack
        assert apart, f"{one!r} {a} meets {other!r} {b}"


def picture(spec: str, **options) -> ElementTree.Element:
    return ElementTree.fromstring(draw_plan(make_plan(spec, **options)))


def groups(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [group for group in root.iter(f"{SVG}g") if group.get("class") == kind]


def cells(group: ElementTree.Element) -> list[ElementTree.Element]:
    return [rect for rect in group.iter(f"{SVG}rect") if rect.get("class") == "cell"]


def swatches(root: ElementTree.Element) -> dict[str, str]:
    """The legend: the name beside each colour."""
    in_groups = {id(rect) for group in root.iter(f"{SVG}g") for rect in group.iter(f"{SVG}rect")}
    children = list(root)
    return {
        after.text or "": child.attrib["fill"]
        for child, after in pairwise(children)
        if child.get("class") == "cell" and id(child) not in in_groups and after.tag == f"{SVG}text"
    }


def invoke(*arguments: str | Path):
    return CliRunner().invoke(app, ["draw", *map(str, arguments)])


LONG = """
archspec: 1
name: a_network_that_somebody_generated_by_a_search_and_named_by_all_the_options_that_it_had_been_given.v2
input: {size: [64, 256]}
classes: 0
defaults: {ffn: {type: mlp, ratio: 4}, downsample: patch_merging}
stem: {type: patch, kernel: 4, norm: layer}
stages:
  - {width: 32, depth: 1, mixer: none, ffn: conv_mlp}
  - {width: 32, depth: 30, downsample: none, mixer: [window, coordinate_conv, ems, attention, mixed_attention, c_mhsa,
     fcvit, hybrid_scale, attention_lepe, token_mlp, none], blocks: {"25:": {ffn: conv_mlp}}}
  - width: 64
    depth: 9
    position: conditional
    mixer: {type: mixed_attention, heads: 8}
    blocks: {"3:6": {modifiers: [channel_attention, context_broadcast]}, 8: {modifiers: [context_broadcast]}}
  - {width: 64, depth: 2, class_token: true, downsample: none, position: learned, mixer: attention, ffn: none}
head: {type: linear, pool: token}
"""


@pytest.mark.parametrize("name", [*shipped(), "long"])
def test_texts_stay_on_the_canvas_and_apart(name):
    plan = make_plan(load_text(LONG)) if name == "long" else make_plan(name)
    root = ElementTree.fromstring(draw_plan(plan))
    check_layout(root)
    assert root.get("role") == "img"
    assert root.get("aria-label") == plan.name
    assert "".join(texts(root)).startswith(plan.name)  # a long one is broken into lines
    for stage, blocks in zip(plan.stages, groups(root, "blocks"), strict=True):
        assert len(cells(blocks)) == len(stage.blocks)


def test_the_plan_of_nommer_t_is_told():
    """From the publication's table and the spec: widths, maps of 224 / 4 / 2 / 2 / 2, mixers, the token in stage 4."""
    root = picture("nommer_t")
    said = texts(root)
    for shape in ("96", "192", "384", "768", "56 × 56", "28 × 28", "14 × 14", "7 × 7", "3136", "784", "196", "49 + 1"):
        assert said.count(shape) == 1, shape
    for name in ("s_nommer", "attention", "class token joins", "patch", "linear", "learned", "stage 4", "stem", "head"):
        assert name in said
    assert said.count("conv_pool") == 3
    words = root.find(f"{SVG}desc").text
    assert "stages.2: 384 × 14 × 14, 196 tokens, 8 blocks of attention" in words
    assert "1000 classes" in words


def test_mixers_are_told_apart_by_colour_in_the_order_of_the_cycle():
    root = picture("sgformer_s")
    legend = swatches(root)
    assert set(legend) == {"hybrid_scale", "self_guided", "attention_lepe"}
    assert len(set(legend.values())) == 3
    third = [cell.attrib["fill"] for cell in cells(groups(root, "blocks")[2])]
    assert third == [legend["hybrid_scale"], legend["self_guided"]] * 8


def test_more_mixers_than_colours_differ_all_the_same():
    """Past the ninth a colour comes again, hollow: another rectangle lies on the cell."""
    root = ElementTree.fromstring(draw_plan(make_plan(load_text(LONG))))
    second = groups(root, "blocks")[1]
    shapes = list(second.iter(f"{SVG}rect"))
    looks = [
        (shape.attrib["fill"], index + 1 < len(shapes) and shapes[index + 1].get("class") != "cell")
        for index, shape in enumerate(shapes)
        if shape.get("class") == "cell"
    ]
    assert len(set(looks)) == 11
    assert looks[:11] == looks[11:22]


def test_modifiers_and_the_class_token_are_marked():
    """LONG, counted by hand: two modifiers in blocks 3 to 5 and one in block 8; the token joins in the last stage."""
    root = ElementTree.fromstring(draw_plan(make_plan(load_text(LONG))))
    third, last = groups(root, "blocks")[2:]
    assert len(list(third.iter(f"{SVG}circle"))) == 3  # channel_attention is met first: its mark is the dot
    assert len(list(third.iter(f"{SVG}rect"))) == 9 + 4  # and context_broadcast's the square
    assert len(list(last.iter(f"{SVG}circle"))) == 1
    assert {"with channel_attention", "with context_broadcast", "class token joins"} <= set(texts(root))


def test_maps_are_drawn_to_one_scale():
    root = picture("nommer_t", size=(256, 320))
    maps = [group.find(f"{SVG}rect") for group in groups(root, "map")]
    sizes = [(float(rect.attrib["height"]), float(rect.attrib["width"])) for rect in maps]
    for height, width in sizes:
        assert width / height == pytest.approx(320 / 256, rel=0.01)
    for (before, _), (after, _) in pairwise(sizes):
        assert before / after == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("name", ["nommer_t", "vit_tiny", "hybrid_guided_partial", "partialformer_b1"])
def test_bars_are_as_long_as_the_shares(name):
    """Parameters as the built network has them; MACs as `build --json` says."""
    import torch

    from archspec.network import Network

    root, plan = picture(name), make_plan(name)
    with torch.device("meta"):
        network = Network(plan)
    parts = [network.stem, *network.stages, network.head]
    params = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    told = json.loads(CliRunner().invoke(app, ["build", name, "--json", "--plan-only"]).stdout)
    drawn = {
        kind: [
            float(rect.attrib["height"])
            for group in groups(root, "bars")
            for rect in group
            if rect.get("class") == kind
        ]
        for kind in ("macs", "params")
    }
    longest = max(drawn["macs"] + drawn["params"])
    shares = {"params": [count / sum(params) for count in params]}
    shares["macs"] = [stage["macs"] / told["macs"] for stage in told["stages"]]
    most = max(shares["macs"] + shares["params"])
    assert drawn["params"] == pytest.approx([longest * share / most for share in shares["params"]], abs=0.5)
    assert drawn["macs"][1:-1] == pytest.approx([longest * share / most for share in shares["macs"]], abs=0.5)
    percents = [f"{100 * share:.0f}%" for share in shares["macs"] + shares["params"] if share > 0.1]
    assert set(percents) <= set(texts(root))


def test_a_stage_of_many_blocks_stays_readable():
    root = picture("vit_tiny", sets=["stages[0].depth=300"])
    check_layout(root)
    drawn = cells(groups(root, "blocks")[0])
    assert len(drawn) == 300
    places = {(cell.attrib["x"], cell.attrib["y"]) for cell in drawn}
    assert len(places) == 300
    assert len({y for _, y in places}) <= 9


def point_of(root: ElementTree.Element, name: str) -> tuple[float, float, float]:
    """x, y and radius of a network's disc."""
    for group in root.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        if title is not None and (title.text or "").startswith(f"{name}:"):
            use, path = next(group.iter(f"{SVG}use")), next(group.iter(f"{SVG}path"))
            assert use.attrib[HREF] == f"#{path.attrib['id']}"
            numbers = [float(number) for number in re.findall(r"-?[0-9.]+", path.attrib["d"])]
            return float(use.attrib["x"]), float(use.attrib["y"]), max(numbers)
    raise AssertionError(name)


@pytest.fixture(scope="module")
def all_shipped():
    return [make_plan(name) for name in shipped()]


@pytest.mark.parametrize("log", [True, False])
def test_the_scatter_names_every_published_network(all_shipped, log):
    scatter = draw_scatter(all_shipped, log=log)
    root = ElementTree.fromstring(scatter.svg)
    check_layout(root)
    published = {plan.name for plan in all_shipped if plan.spec.published and plan.spec.published.top1}
    assert published <= set(texts(root))
    assert not scatter.not_named
    assert set(scatter.not_drawn) == {plan.name for plan in all_shipped} - published
    assert {"vit", "nommer", "fcvit", "published ImageNet top-1 (%)"} <= set(texts(root))


@pytest.mark.parametrize(("log", "scale"), [(True, math.log), (False, float)])
def test_points_stand_where_their_figures_say(log, scale):
    """MACs from the tables of the publications, to their three digits; top-1 as printed there; area for parameters."""
    names = ["vit_tiny", "vit_small", "vit_base"]
    root = ElementTree.fromstring(draw_scatter([make_plan(name) for name in names], log=log).svg)
    (x0, y0, r0), (x1, y1, r1), (x2, y2, r2) = (point_of(root, name) for name in names)
    macs, top1 = [1.254e9, 4.599e9, 17.56e9], [72.2, 79.9, 81.8]
    ratio = (scale(macs[1]) - scale(macs[0])) / (scale(macs[2]) - scale(macs[0]))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(ratio, rel=0.005)
    assert (y0 - y1) / (y0 - y2) == pytest.approx((top1[1] - top1[0]) / (top1[2] - top1[0]), rel=1e-3)
    assert (r2 / r1) ** 2 == pytest.approx(86.57 / 22.05, rel=0.005)
    assert (r1 / r0) ** 2 == pytest.approx(22.05 / 5.717, rel=0.005)


def test_names_meet_neither_one_another_nor_points():
    """Any number of points, checked pair by pair; a name that finds no room is not there."""
    dice = random.Random(0)
    for count in (1, 12, 60):
        discs = [Disc(dice.uniform(0, 400), dice.uniform(0, 300), dice.uniform(1, 9)) for _ in range(count)]
        sizes = [(dice.uniform(20, 90), 8.0) for _ in discs]
        spots = place_labels(discs, sizes, (0, 0, 400, 300))
        assert sum(spot is None for spot in spots) <= count // 10
        boxes = [spot.box for spot in spots if spot]
        for left, bottom, right, top in boxes:
            assert min(left, bottom, 400 - right, 300 - top) >= 0
            for disc in discs:
                across = max(left - disc.x, disc.x - right, 0)
                up = max(bottom - disc.y, disc.y - top, 0)
                assert math.hypot(across, up) >= disc.radius
        for a, b in combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_name_that_finds_no_room_is_left_out():
    assert place_labels([Disc(5, 5, 2)], [(50.0, 8.0)], (0, 0, 10, 10)) == [None]


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_in_every_process():
    script = (
        "import hashlib; from archspec.api import make_plan; from archspec.drawing.plan_picture import draw_plan\n"
        "from archspec.drawing.scatter import draw_scatter\n"
        "plans = [make_plan(name) for name in ('vit_tiny', 'vit_tiny_cb', 'nommer_t', 'vit_small')]\n"
        "print(hashlib.sha256(draw_plan(plans[2]) + draw_scatter(plans).svg).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "20000")
    }
    assert len(digests) == 1


def test_a_saved_figure_has_names_and_no_date_whatever_the_users_settings(tmp_path):
    from matplotlib.figure import Figure

    def saved(name: str) -> bytes:
        with figure_style():
            figure = Figure(figsize=(3, 2))
            figure.add_subplot().plot([1, 2], [3, 4], gid="line")
            figure.text(0.5, 0.95, "costs $5 & $6")
        save_svg(figure, tmp_path / name, title="A line", about="It rises.", tips={"line": "from 3 to 4"})
        return (tmp_path / name).read_bytes()

    plain = saved("a.svg")
    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9, "svg.hashsalt": None}):
        assert saved("b.svg") == plain
    root = ElementTree.fromstring(plain)
    assert root.find(f"{SVG}title").text == root.get("aria-label") == "A line"
    assert root.find(f"{SVG}desc").text == "It rises."
    assert root.find(f"{SVG}metadata") is None
    assert "costs $5 & $6" in texts(root)
    line = next(group for group in root.iter(f"{SVG}g") if group.get("id") == "line")
    assert line.find(f"{SVG}title").text == "from 3 to 4"


def test_widths_of_texts_are_those_of_the_font():
    for text in ("96 × 56 × 56", "context_broadcast", "nommer_t: 22.9M"):
        for bold in (False, True):
            assert text_width(text, 10, bold=bold) == pytest.approx(font(bold).getlength(text) / 10, rel=0.02)


def test_long_texts_are_broken_and_nothing_is_lost():
    text = "one_two-three four " + "x" * 90
    lines = wrapped(text, 80, 10)
    assert all(text_width(line, 10) <= 80 for line in lines)
    assert "".join(lines) == text.replace(" ", "")
    assert wrapped("", 80, 10) == [""]


def test_draw_writes_a_plan_or_a_scatter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("nommer_micro").exit_code == 0
    assert ElementTree.parse("nommer_micro.svg").getroot().get("aria-label") == "nommer_micro"
    done = invoke("vit_tiny", "nommer_t", "nommer_micro", "--size", "256", "--title", 'a <b> & "c"', "-o", "some/x.svg")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "nommer_micro" in done.stderr  # it has no published top-1
    assert "--size" in done.stderr  # and the others' belong to another size
    root = ElementTree.parse("some/x.svg").getroot()
    assert 'a <b> & "c"' in texts(root)
    assert any("256 × 256" in text for text in texts(root))
    assert "nommer_micro" not in texts(root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nommer_micro", "-o", "x.png"), "try x.svg"),
        (("nommer_micro", "-o", "folder.svg"), "is a folder"),
        (("nommer_micro", "-o", "file/x.svg"), "cannot be written"),
        (("vit_tyni", "-o", "x.svg"), "did you mean 'vit_tiny'?"),
        (("vit_tiny", "nommer_tt", "-o", "x.svg"), "did you mean 'nommer_t'?"),
        (("nommer_micro", "hybrid_guided_partial", "-o", "x.svg"), "published top-1"),
        (("vit_tiny", "--scale", "log", "-o", "x.svg"), "--scale"),
        (("vit_tiny", "--title", "a\x01", "-o", "x.svg"), "--title"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("folder.svg").mkdir()
    Path("file").write_text("")
    done = invoke(*arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert not list(tmp_path.rglob("x.*"))
