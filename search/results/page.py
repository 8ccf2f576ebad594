"""A search on one HTML page: nothing in it comes from elsewhere, and the same record gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from xml.etree import ElementTree

import archspec
from archspec.drawing.style import FADED, FONT_FAMILY, INK, RULE, SVG, WASH

from ..ablation.result import AblationResult
from ..ablation.sheet import make_sheet
from ..session.folder import STUDY
from ..sheet import Sheet, shown_time
from .results import BECAME, SearchResults, heading, shown_value, tip
from .table import best_sheet, spec_names

XLINK = "http://www.w3.org/1999/xlink"
FAILURES = 20  # that are listed
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(?:[^\s/:;,'\"<>()]+/)+")  # the folders of an absolute path
STYLE = f"""
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 15px/1.5 {FONT_FAMILY}; color: {INK}; }}
h1, h2 {{ line-height: 1.2; }} h2 {{ margin-top: 2.2em; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid {RULE}; text-align: right; white-space: nowrap; }}
th {{ border-bottom-width: 2px; }} th.left, td.left {{ text-align: left; }}
figure {{ margin: 1em 0; }} figure svg {{ max-width: 100%; height: auto; }}
pre {{ background: {WASH}; padding: .8em; overflow-x: auto; }} code {{ background: {WASH}; padding: .1em .3em; }}
pre code {{ padding: 0; }} .notes {{ color: {FADED}; }}
"""


def make_page(
    results: SearchResults, pictures: Mapping[str, bytes | None], retrained: AblationResult | None = None
) -> str:
    """The page, as HTML that is well-formed XML, too. retrained: the best once more, at full length."""
    name = escape(results.search.name)
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{name}: a search</title><style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        *_summary(results),
        "<h2>The Pareto front</h2>" if len(results.search.objectives) > 1 else "<h2>The best</h2>",
        *_table(best_sheet(results)),
        "<p>Each is a whole spec in <code>best/</code>, which every command takes as it is.</p>" * bool(results.best),
        *_retrained(retrained),
        *_pictures(pictures),
        *_values(results),
        *_importances(results),
        *_failures(results),
        *_going_on(results, retrained is not None),
        *_study(results),
        *_environment(results),
        "</body></html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _summary(results: SearchResults) -> Iterator[str]:
    search = results.search
    if search.description:
        yield f"<p>{_text(search.description)}</p>"
    aims = " and ".join(f"{one.direction} {one.name}" for one in search.objectives)
    within = f", within {results.within}" if search.budgets else ""
    size = search.space.size()
    many = f"{size:,.0f}" if size < 1e15 else f"{size:.1e}"
    yield "<ul>"
    yield f"<li>To {_text(aims)}{_text(within)}.</li>"
    yield f"<li>{many} candidates in {len(search.space.parameters)} parameters over {_text(results.base.name)}.</li>"
    counts = [f"{results.became[key]:,} {words}" for key, words in BECAME.items() if results.became[key]]
    yield f"<li>{len(results.trials):,} proposals: {_text('; '.join(counts) or 'none yet')}.</li>"
    if results.seconds:
        yield f"<li>Evaluations took {shown_time(results.seconds)}, one after another.</li>"
    if results.best:
        yield f"<li>Best {_text(heading(search.primary.name))}: {_text(tip(results, results.best[0]))}.</li>"
    yield "</ul>"


def _table(sheet: Sheet) -> Iterator[str]:
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th{_left(left)}>{_text(text)}</th>" for text, left in zip(sheet.headings, sheet.left, strict=True))
    yield "</tr></thead><tbody>"
    for row in sheet.rows:
        fields = [f"<b>{_text(field.text)}</b>" if field.bold else _text(field.text) for field in row]
        cells = (f"<td{_left(left)}>{text}</td>" for text, left in zip(fields, sheet.left, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    yield f'<p class="notes">{_text(" ".join(sheet.notes))}</p>'


def _left(left: bool) -> str:
    return ' class="left"' if left else ""


def _plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column stands left."""
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th{_left(not index)}>{_text(text)}</th>" for index, text in enumerate(headings))
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td{_left(not at)}>{_text(text)}</td>" for at, text in enumerate(row)) + "</tr>"
    yield "</tbody></table></div>"


def _retrained(result: AblationResult | None) -> Iterator[str]:
    if result is not None:
        yield "<h2>Trained once more</h2>"
        yield from _table(make_sheet(result))


def _pictures(pictures: Mapping[str, bytes | None]) -> Iterator[str]:
    drawn = {name: data for name, data in pictures.items() if data is not None}
    if drawn:
        yield "<h2>Pictures</h2>"
    for index, data in enumerate(drawn.values()):
        yield f"<figure>{_inline(data, f'p{index}-')}</figure>"


def _inline(data: bytes, prefix: str) -> str:
    """A picture as part of the page: ids are the page's, so each picture's get a prefix; styles stay inside."""
    root = ElementTree.fromstring(data)
    for parent in list(root.iter()):
        for style in parent.findall(f"{{{SVG}}}style"):
            parent.remove(style)  # matplotlib's speaks of every element of the page
    root.set("stroke-linejoin", "round")  # what it said
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, prefix + value)
            elif key.removeprefix(f"{{{XLINK}}}") == "href" and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            else:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
    return ElementTree.tostring(root, encoding="unicode")


def _values(results: SearchResults) -> Iterator[str]:
    """What the best have chosen, a column each."""
    shown = results.best[:10]
    names = list(dict.fromkeys(name for one in shown for name in one.values))
    if not names:
        return
    yield f"<h2>What the best {'have' if len(shown) > 1 else 'has'} chosen</h2>"
    primary = results.search.primary.name
    rows = [
        [heading(primary), *(shown_value(primary, one.objectives[0]) for one in shown)],
        *([name, *(str(one.values.get(name, "–")) for one in shown)] for name in names),
    ]
    yield from _plain_table(["trial", *(str(one.number) for one in shown)], rows)


def _importances(results: SearchResults) -> Iterator[str]:
    shares = {name: found for name, found in results.importances.items() if found}
    if not shares:
        return
    yield "<h2>What mattered</h2>"
    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    rows = [[name, *(f"{100 * found.get(name, 0.0):.1f} %" for found in shares.values())] for name in names]
    yield from _plain_table(["parameter", *shares], rows)
    yield (
        '<p class="notes">PED-ANOVA: how far a parameter’s values among the best candidates differ from those among '
        "all, as shares of the sum. A parameter that comes with another’s choice is compared where it is there. "
        "Of what was hardly tried, it knows little.</p>"
    )


def _failures(results: SearchResults) -> Iterator[str]:
    if results.failures:
        yield f"<h2>What failed</h2><p>{len(results.failures)} of the evaluations.</p><ul>"
        for number, reason in results.failures[:FAILURES]:
            yield f"<li>trial {number}: {_text(reason)}</li>"
        yield "</ul>"


def _going_on(results: SearchResults, retrained: bool) -> Iterator[str]:
    search = results.search
    first = next(iter(spec_names(results)), "")
    lines = [(f"archspec search --resume . --trials {2 * search.trials}", "go on, to so many evaluated in all")]
    if first:
        lines.append((f"archspec build best/{first}", "what it is and costs"))
        if not retrained:
            lines.append(("archspec retrain . --seeds 0,1,2", "the best at full length, beside the base"))
        lines.append((f"archspec train best/{first} --recipe RECIPE --data DATA", "one of them, your way"))
    lines.append(("archspec report .", "this page again, from the record"))
    lines.append(("optuna-dashboard journal.log", "every trial, if you have Optuna’s dashboard"))
    yield "<h2>How to go on</h2><p>In this folder:</p><pre><code>"
    longest = max(len(command) for command, _ in lines)
    yield "\n".join(_text(f"{command:{longest}}  # {what}") for command, what in lines)
    yield "</code></pre>"


def _study(results: SearchResults) -> Iterator[str]:
    text = (results.folder.path / STUDY).read_text(encoding="utf-8")
    yield f"<h2>The study</h2><details><summary>{STUDY}</summary><pre><code>{_text(text)}</code></pre></details>"


def _environment(results: SearchResults) -> Iterator[str]:
    if not results.environments:
        return
    last = results.environments[-1]
    flat = [(key, value) for key, value in last.items() if not isinstance(value, dict)]
    packages = [pair for value in last.values() if isinstance(value, dict) for pair in value.items()]
    starts = len(results.environments)
    yield f"<h2>Environment</h2><p>{'Of the one start' if starts == 1 else f'Of the last of {starts} starts'}:</p>"
    known = [(key, value) for key, value in (*flat, *packages) if value is not None]
    yield from _plain_table(["", ""], [[str(key), str(value)] for key, value in known])
    yield f'<p class="notes">This page was written by archspec {archspec.__version__}.</p>'


def _text(text: str) -> str:
    """Text as HTML; of an absolute path, which says nothing on another machine, its last name."""
    return escape(ABSOLUTE.sub("", text))
