"""The tables and pictures of an ablation, from a result that is written by hand."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from scipy import stats
from typer.testing import CliRunner

from archspec.cli.app import app
from archspec.errors import UsageError

results = importlib.import_module("archspec.search.ablation.result")
sheets = importlib.import_module("archspec.search.ablation.sheet")
csv_tables = importlib.import_module("archspec.search.ablation.csv_tables")
formats = importlib.import_module("archspec.search.formats")
ablate = importlib.import_module("archspec.search.ablation.run")

NASTY = r"50% & #1_{x} ~^ \ <a|b> `q` “d” [0] $m$ *bold* 3×3 ≥ 2 — Δ"


def cell(seed, top1=None, **said):
    metrics = {} if top1 is None else {"top1": top1, "top5": 100.0, "loss": 1 - top1 / 100}
    return {"seed": seed, "key": f"{seed:064x}", "status": "done" if metrics else "failed", "metrics": metrics, **said}


def row(name, params, macs, *top1, **said):
    cells = [cell(seed, value, **({} if value else {"reason": "it blew up"})) for seed, value in enumerate(top1)]
    return {"name": name, "costs": {"params": params, "macs": macs}, "cells": cells, **said}


def study(*rows, **said):
    plain = {
        "name": "mine",
        "description": "what it is",
        "source": "someone et al. 2020",
        "reference": "base",
        "columns": ["params", "macs", "top1"],
        "seeds": [0, 1, 2],
        "recipe": "digits",
        "data": "digits",
        "rows": rows,
    }
    return results.AblationResult.model_validate({**plain, **said})


@pytest.fixture
def result():
    return study(
        row("base", 1_000_000, 2_000_000_000, 80.0, 81.0, 82.0, published={"params": "1M", "top1": 79.5}),
        row("wide", 1_500_000, 3_000_000_000, 81.0, 83.0, 85.0, note="twice as wide"),
        row(NASTY, 900_000, 2_000_000_000, 79.0, None, 80.0),
        row("again", 1_500_000, 3_000_000_000, 81.0, 83.0, 85.0, same_as="wide"),
        row("huge", 9_000_000, 9_000_000_000, over_budget=["macs 9.000G, more than 5G"]),
    )


def texts(result):
    return [[field.text for field in line] for line in sheets.make_sheet(result).rows]


def test_the_table_by_hand(result):
    """Differences of `wide` are 1, 2, 3: mean 2, interval 2 -+ 4.302653 / sqrt(3) = 2.4841; its p by Student's closed
    form, 1 - t / sqrt(2 + t^2), t = 2 sqrt(3). The nasty row's are -1 and -2: mean -1.5, one degree of freedom, the
    interval 12.7062 / 2 = 6.3531 to each side, p = 1 - 2 / pi atan(3). Holm: the smaller p twice."""
    base, wide, nasty, again, huge = texts(result)
    p_wide, p_nasty = 1 - 2 * math.sqrt(3) / math.sqrt(14), 1 - 2 / math.pi * math.atan(3)
    assert p_wide < p_nasty
    assert base == ["base", "1.000M", "2.000G", "81.00 ± 1.00", "", "", "params 1M, top-1 79.5"]
    change = "+2.00 [−0.48, +4.48]"
    assert wide[1:] == [
        "1.500M (+500.000k)",
        "3.000G (+1.000G)",
        "83.00 ± 2.00",
        change,
        f"{2 * p_wide:.3f}",
        "",
    ]
    deviation = math.sqrt(0.5)
    assert nasty[1:3] == ["900.000k (−100.000k)", "2.000G"]
    assert nasty[3] == f"79.50 ± {deviation:.2f} (2 of 3 seeds)"
    assert nasty[4:6] == ["−1.50 [−7.85, +4.85]", f"{max(p_nasty, 2 * p_wide):.3f}"]
    assert again[1:] == wide[1:]
    assert huge[3:] == ["over budget", "", "", ""]


def test_the_best_mean_alone_is_bold(result):
    bold = [[field.bold for field in line] for line in sheets.make_sheet(result).rows]
    assert [any(line) for line in bold] == [False, True, False, True, False]  # `again` is the same network
    loss = study(row("base", 1, 1, 80.0), row("b", 2, 2, 81.0), columns=["loss", "top1"], seeds=[0])
    assert [[field.bold for field in line] for line in sheets.make_sheet(loss).rows] == [
        [False] * 5,
        [False, True, False, True, False],  # the lowest loss, the highest accuracy
    ]


def test_the_notes_say_what_the_table_cannot(result):
    notes = "\n".join(sheets.make_sheet(result).notes)
    for said in (
        "seeds 0, 1, 2",
        "“base”",
        "for 2 rows",
        "wide: twice as wide",
        "again: the same network as “wide”",
        "seed 1: failed: it blew up",
        "huge: over budget and not trained: macs 9.000G, more than 5G",
        "Someone et al. 2020",
    ):
        assert said in notes


def test_one_seed_has_neither_deviation_nor_p():
    found = sheets.make_sheet(study(row("base", 1, 1, 80.0), row("b", 2, 2, 81.0), seeds=[0]))
    assert found.headings == ("", "params", "MACs", "top-1 %", "Δ top-1")
    assert [[field.text for field in line][3:] for line in found.rows] == [["80.00", ""], ["81.00", "+1.00"]]


def test_the_csv_holds_all_digits(result):
    lines = list(csv.DictReader(io.StringIO(csv_tables.rows_csv(result))))
    assert [line["row"] for line in lines] == ["base", "wide", NASTY, "again", "huge"]
    wide = lines[1]
    test = stats.ttest_rel([81, 83, 85], [80, 81, 82])
    assert float(wide["top1_p"]) == pytest.approx(test.pvalue)
    assert float(wide["top1_p_corrected"]) == pytest.approx(2 * test.pvalue)
    assert float(wide["top1_low"]) == pytest.approx(test.confidence_interval(0.95).low)
    assert (wide["params"], wide["params_difference"]) == ("1500000", "500000")
    assert (lines[0]["published_params"], lines[0]["published_top1"]) == ("1M", "79.5")
    cells = list(csv.DictReader(io.StringIO(csv_tables.cells_csv(result))))
    assert [(line["row"], line["seed"], line["top1"]) for line in cells[:2]] == [
        ("base", "0", "80.0"),
        ("base", "1", "81.0"),
    ]
    assert len(cells) == 12
    assert cells[7]["reason"] == "it blew up"


def unescaped(text):
    """What TeX prints, for what the writer may produce."""
    pairs = [
        (r"\textbackslash{}", "\0"),
        (r"\textasciitilde{}", "~"),
        (r"\textasciicircum{}", "^"),
        (r"\textasciigrave{}", "`"),
        (r"\textquotedbl{}", '"'),
        ("{[}", "["),
        ("{]}", "]"),
        ("``", "“"),
        ("''", "”"),
        ("---", "—"),
        ("$<$", "<"),
        ("$>$", ">"),
        ("$|$", "|"),
        (r"$\times$", "×"),
        (r"$\geq$", "≥"),
        (r"$\Delta$", "Δ"),
        (r"$\pm$", "±"),
        ("$-$", "−"),
        *((f"\\{c}", c) for c in "&%$#_{}"),
        ("\0", "\\"),
    ]
    for tex, character in pairs:
        text = text.replace(tex, character)
    return text


def test_latex_is_well_formed_and_says_the_same(result):
    text = formats.as_latex(sheets.make_sheet(result))
    body = text.split("\\toprule\n")[1].split("\n\\bottomrule")[0]
    lines = [line for line in body.split("\n") if line != r"\midrule"]
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
    expected = [list(sheets.make_sheet(result).headings), *texts(result)]
    assert len(lines) == len(expected)
    for line, fields in zip(lines, expected, strict=True):
        assert line.endswith(r" \\")
        found = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        assert not re.search(r'(?<!\\)[%#_]|[~^"<>|](?!\$)', line)
        assert len(found) == columns == len(fields)
        plain = [unescaped(re.sub(r"\\textbf\{(.*)\}", r"\1", one.strip())) for one in found]
        assert plain == [field.strip() for field in fields]
    opened = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    assert opened == [("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no TeX here")
def test_latex_compiles(result, tmp_path):
    (tmp_path / "table.tex").write_text(formats.as_latex(sheets.make_sheet(result)), encoding="utf-8")
    document = r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}"
    (tmp_path / "paper.tex").write_text(document + r"\begin{document}\input{table}\end{document}")
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_markdown_has_as_many_cells_in_every_line(result):
    lines = [line for line in formats.as_markdown(sheets.make_sheet(result)).split("\n") if line.startswith("|")]
    counts = {len(re.split(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 2 + 5
    assert counts == {7 + 2}
    assert "**83.00 ± 2.00**" in lines[3]
    assert r"\*bold\*" in lines[4]


def test_pictures_are_svg_that_name_every_row(result, tmp_path):
    ablate.write_report(result, tmp_path)
    for name, rows in (("cost.svg", ["base", "wide", "again"]), ("differences.svg", ["wide", "again"])):
        said = " ".join(ElementTree.parse(tmp_path / name).getroot().itertext())
        assert all(row in said for row in rows)
        assert "huge" not in said


def test_a_report_again_is_the_same_to_the_byte(result, tmp_path):
    ablate.write_report(result, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {
        *("results.json", "table.md", "table.tex", "table.csv", "cells.csv"),
        *("cost.svg", "differences.svg"),
    }
    for file in tmp_path.iterdir():
        if file.name != "results.json":
            file.unlink()
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert "83.00 ± 2.00" in done.stdout
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_report_is_printed_in_the_form_that_is_asked_for(result, tmp_path):
    ablate.write_report(result, tmp_path)
    for form, name in (("md", "table.md"), ("latex", "table.tex"), ("csv", "table.csv")):
        done = CliRunner().invoke(app, ["report", str(tmp_path), "--format", form])
        assert done.stdout == (tmp_path / name).read_text()
    assert json.loads(CliRunner().invoke(app, ["report", str(tmp_path), "--json"]).stdout)["name"] == "mine"


@pytest.mark.parametrize(
    ("text", "told"), [(None, "holds no study"), ("{", "cannot be read"), ("{}", "cannot be read")]
)
def test_a_folder_without_results_is_refused(tmp_path, text, told):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    exception = CliRunner().invoke(app, ["report", str(tmp_path)]).exception
    assert isinstance(exception, UsageError)
    assert told in str(exception)


def test_a_study_without_results_yet_has_tables_all_the_same(tmp_path):
    waiting = [{"seed": 0, "key": "0", "status": "waiting"}]
    rows = [{"name": name, "costs": {"params": 1, "macs": 1}, "cells": waiting} for name in ("base", "b")]
    files = ablate.write_report(study(*rows, seeds=[0]), tmp_path)
    assert {file.name for file in files} == {"results.json", "table.md", "table.tex", "table.csv", "cells.csv"}
    assert "not trained yet" in (tmp_path / "table.md").read_text()
