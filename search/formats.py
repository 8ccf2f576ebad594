"""Tables as people use them: in the terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from .ablation_result import AblationResult, RowOutcome
from .sheet import Field, Sheet


def as_table(sheet: Sheet) -> Table:
    """For the terminal; the notes stand under it."""
    table = Table(
        title=escape(sheet.title), title_justify="left", caption=escape("\n".join(sheet.notes)), caption_justify="left"
    )
    for heading, left in zip(sheet.headings, sheet.left, strict=True):
        table.add_column(escape(heading), justify="left" if left else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(f"[bold]{escape(field.text)}[/bold]" if field.bold else escape(field.text) for field in row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """A table that GitHub, pandoc and most others read, and its notes."""
    rule = ["---" if left else "---:" for left in sheet.left]
    lines = [[_markdown(heading) for heading in sheet.headings], rule]
    lines += [[_bold_markdown(field) for field in row] for row in sheet.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {_markdown(note)}" for note in sheet.notes)
    return f"**{_markdown(sheet.title)}**\n\n{body}\n\n{notes}\n"


def _bold_markdown(field: Field) -> str:
    return f"**{_markdown(field.text)}**" if field.bold else _markdown(field.text)


def _markdown(text: str) -> str:
    """Text that stays as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", re.sub(r"\s+", " ", text))


# What LaTeX takes for itself, and what its default fonts lack.
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "[": "{[}",  # after \\ it would begin an option
    "]": "{]}",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "µ": r"$\mu$",
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
}


def as_latex(sheet: Sheet) -> str:
    r"""A table environment; \usepackage{booktabs}, and \usepackage[T1]{fontenc} where names have quotes."""
    columns = "".join("l" if left else "r" for left in sheet.left)
    lines = [[_latex(heading) for heading in sheet.headings]]
    lines += [[_bold_latex(field) for field in row] for row in sheet.rows]
    head, *body = [" & ".join(line) + r" \\" for line in lines]
    notes = " ".join(map(_latex, sheet.notes))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(sheet.title)}. {notes}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:-]', '-', sheet.name)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _bold_latex(field: Field) -> str:
    return rf"\textbf{{{_latex(field.text)}}}" if field.bold else _latex(field.text)


def _latex(text: str) -> str:
    """Text that stays as it is."""
    return "".join(_LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))


def as_csv(result: AblationResult) -> str:
    """A line a row, with all digits: costs, their differences, each metric's statistics, and what was published."""
    published = [key for key in ("params", "params_trainable", "macs", "ops", "top1") if _any_published(result, key)]
    lines = []
    for row in result.rows:
        line: dict[str, Any] = {"row": row.name, "reference": int(row.name == result.reference)}
        line |= _cost_entries(result, row)
        for metric in result.metrics:
            line |= _metric_entries(result, row, metric)
        line |= {f"published_{key}": row.published.get(key) for key in published}
        line |= {"same_as": row.same_as, "over_budget": "; ".join(row.over_budget), "note": row.note}
        lines.append(line)
    return _csv(lines)


def _any_published(result: AblationResult, key: str) -> bool:
    return any(key in row.published for row in result.rows)


def _cost_entries(result: AblationResult, row: RowOutcome) -> dict[str, Any]:
    base = result.row(result.reference).costs
    entries: dict[str, Any] = {}
    for column in result.cost_columns:
        known = column in row.costs and column in base
        entries |= {
            column: row.costs.get(column),
            f"{column}_difference": row.costs[column] - base[column] if known else None,
        }
    return entries


def _metric_entries(result: AblationResult, row: RowOutcome, metric: str) -> dict[str, Any]:
    summary = result.summaries(metric).get(row.name)
    change = None if row.name == result.reference else result.differences(metric).get(row.name)
    said = asdict(summary) if summary else {}
    tested = asdict(change) if change else {}
    return {
        f"{metric}_mean": said.get("mean"),
        f"{metric}_std": said.get("deviation"),
        f"{metric}_seeds": said.get("count", 0),
        f"{metric}_difference": tested.get("mean"),
        **{f"{metric}_{name}": tested.get(name) for name in ("low", "high", "p", "p_corrected")},
    }


def cells_csv(result: AblationResult) -> str:
    """A line a cell: row, seed, how it came out, and where it stands in the store."""
    return _csv(
        [
            {
                "row": row.name,
                "seed": cell.seed,
                "status": cell.status,
                **{metric: cell.metrics.get(metric) for metric in ("top1", "top5", "loss", "best_top1", "best_epoch")},
                "key": cell.key,
                "reason": cell.reason,
            }
            for row in result.rows
            for cell in row.cells
        ]
    )


def _csv(lines: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
