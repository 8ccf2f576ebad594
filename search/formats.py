"""Tables as people use them: in the terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

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


def as_csv(lines: Sequence[dict[str, Any]], headings: Sequence[str] = ()) -> str:
    """A line for each, by the keys of the first. headings: of a table without lines."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
