"""An evaluation as one HTML page that needs nothing else: tables, curves, picture sheets.

Figures come from the report's JSON, so that the page cannot say anything else. Whatever is not
`Markup` is escaped where it is put into the page.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tfmm import roc
from tfmm.charts import Axis, Points, colour, interval_bar, line_chart
from tfmm.exposure import COVERAGE, GINI, NOVELTY, POPULARITY
from tfmm.figures import ALL, HEADLINE, MODEL
from tfmm.heldout import Query
from tfmm.metrics import TOP1_BEST
from tfmm.page_style import CONTENT_SECURITY, STYLE
from tfmm.report_table import SHOWN_FURTHER, figure
from tfmm.sheets import Hit, Product, Sheet

Figures = Mapping[str, Any]
Row = Mapping[str, Any]

_MEANINGS = {
    "roc_auc": "how often a relevant product stands above an irrelevant one",
    "pr_auc": "average precision",
    COVERAGE: "share of the catalogue in any first ten",
    GINI: "0: all products shown alike, 1: one product only",
    NOVELTY: "mean self-information of the first ten, bits",
    POPULARITY: "mean training interactions of the first ten",
}
_COMPARED = ("recall@10", "recall@100", TOP1_BEST)
_LARGEST_SOUND = 400_000


class Markup(str):
    """Text that is HTML already."""


def page(figures: Figures, sheets: Sequence[Sheet]) -> str:
    """The whole page.

    Args:
      figures: The report as JSON values.
      sheets: Queries and their hits.
    """
    name = f"{figures['model']['name']} {figures['model']['version']}"
    sections = [
        _summary(figures, name),
        _kinds(figures),
        _curves(figures),
        _slices(figures),
        _exposure(figures),
        _ablations(figures),
        _contrasts(figures),
        _sheets(sheets),
        _everything(figures),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(name)}: evaluation</title><style>{STYLE}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _summary(figures: Figures, name: str) -> Markup:
    whole = _whole(figures)
    ours, best = whole[MODEL], _best_baseline(whole)
    tiles = [_tile(HEADLINE, _interval(ours["metrics"][HEADLINE]))]
    if best is not None:
        tiles.append(_tile(f"lead over {_named(best, ours)}", _interval(best["lead"], sign="+")))
    for metric in ("recall@10", "roc_auc", COVERAGE):
        if metric in ours["metrics"]:
            tiles.append(_tile(metric, figure(ours["metrics"][metric]["mean"], metric)))
    left_out = [f"left out: {count} {why}" for why, count in figures["left_out"].items()]
    where = (
        f"{ours['queries']} queries from {figures['on']} of {figures['dataset']['source']}, ranked"
        f" among {figures['products']} products; {figures['date']}. Brackets are 95% bootstrap"
        " intervals over queries."
    )
    missed = _list([f"not reached: {sentence}" for sentence in figures["missed"]], "missed")
    notes = _list([*figures["notes"], *left_out], "notes")
    heading = f"<h1>{escape(name)}</h1><p>{escape(where)}</p>"
    return Markup(f'{heading}{missed}<div class="tiles">{"".join(tiles)}</div>{notes}')


def _kinds(figures: Figures) -> Markup:
    caption = (
        "The dot is the model with its interval, the tick the best baseline: the one that the model"
        " is least ahead of on the queries that both answer, which the lead is about."
    )
    rows = [row for row in figures["rows"] if not row["slice"]]
    named = [row for row in figures["rows"] if row["slice"]]
    body = _comparison(rows) + (_folded("Their slices", _comparison(named)) if named else "")
    return _section("Kinds of queries", caption, Markup(body))


def _slices(figures: Figures) -> Markup:
    if not figures["slices"]:
        return Markup()
    parts = ", ".join(f"{name} {count}" for name, count in figures["parts"].items())
    caption = (
        "Across the kinds. For a part of the catalogue only its own products count as relevant,"
        " ranked among all: compare its recall, and with the baselines. Head: the most popular"
        " products that make up half of the training interactions; cold: products without any."
        f" Products: {parts}."
    )
    return _section("Slices", caption, _comparison(figures["slices"]))


def _comparison(rows: Sequence[Row]) -> Markup:
    """The model beside the best baseline of each group of queries."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["slice"]), {})[row["system"]] = row
    measured = next(iter(groups.values()))[MODEL]["metrics"] if groups else {}
    shown = [metric for metric in _COMPARED if metric in measured]
    headers = ["queries", "n", HEADLINE, "", *shown, "best baseline", "its ndcg@10", "lead"]
    body = []
    for (kind, name), systems in groups.items():
        ours, best = systems[MODEL], _best_baseline(systems)
        interval = ours["metrics"][HEADLINE]
        mark = best["metrics"][HEADLINE]["mean"] if best else None
        tick = mark if best and best["queries"] == ours["queries"] else None
        bar = interval_bar(interval["mean"], interval["low"], interval["high"], mark=tick)
        means = [figure(ours["metrics"][metric]["mean"], metric) for metric in shown]
        against = ["", "", ""]
        if best is not None and mark is not None:
            lead = _interval(best["lead"], sign="+")
            against = [_named(best, ours), figure(mark, HEADLINE), lead]
        where = f"{kind}/{name}" if name else kind
        body.append(
            [where, str(ours["queries"]), _interval(interval), Markup(bar), *means, *against]
        )
    return _table(headers, body)


def _curves(figures: Figures) -> Markup:
    whole = _whole(figures)
    charts = [_recall_chart(whole)]
    curves = {c["system"]: c for c in figures["curves"] if c["kind"] == ALL}
    if curves:
        grid = roc.GRID.tolist()
        rates = {name: list(zip(grid, c["roc"], strict=True)) for name, c in curves.items()}
        charts.append(line_chart("ROC", Axis("false positive rate"), "true positive rate", rates))
        precise = {name: list(zip(grid, c["precision"], strict=True)) for name, c in curves.items()}
        axis = Axis("recall")
        charts.append(line_chart("precision and recall", axis, "precision", precise))
    against = {
        "judged": "products judged irrelevant",
        "catalogue": "the rest of the catalogue, since nothing is judged irrelevant",
    }[figures["pairs"]]
    caption = (
        f"Means of the queries' own curves, relevant products against {against}; straight where a"
        f" ranking ends, after {figures['pairs_depth']} products at most. A system is drawn over"
        " the queries that it answers: bm25 those with words,"
        " item_knn and text_knn histories."
    )
    legend = "".join(
        f'<span><i style="background:{colour(system)}"></i>{escape(system)}</span>'
        for system in whole
    )
    body = f'<div class="legend">{legend}</div><div class="charts">{"".join(charts)}</div>'
    return _section("Curves", caption, Markup(body))


def _recall_chart(whole: Mapping[str, Row]) -> str:
    ks = sorted(int(m.removeprefix("recall@")) for m in whole[MODEL]["metrics"] if "recall@" in m)
    lines: dict[str, Points] = {
        system: [(k, row["metrics"][f"recall@{k}"]["mean"]) for k in ks]
        for system, row in whole.items()
    }
    return line_chart("recall@k", Axis("k", tuple(map(float, ks)), is_log=True), "recall", lines)


def _exposure(figures: Figures) -> Markup:
    whole = _whole(figures)
    kinds = [r for r in figures["rows"] if not r["slice"] and r["system"] == MODEL]
    rows = [*whole.values(), *(row for row in kinds if row["kind"] != whole[MODEL]["kind"])]
    shown = [metric for metric in SHOWN_FURTHER if any(metric in row["metrics"] for row in rows)]
    if not shown:
        return Markup()
    body = []
    for row in rows:
        found = [row["metrics"].get(metric) for metric in shown]
        cells = [figure(one["mean"], m) if one else "" for one, m in zip(found, shown, strict=True)]
        body.append([row["kind"], row["system"], str(row["queries"]), *cells])
    meanings = "; ".join(f"{metric}: {_MEANINGS[metric]}" for metric in shown)
    caption = f"{meanings}. Coverage grows with the number of queries: compare within a group."
    return _section(
        "Judged pairs, and what is shown", caption, _table(["queries", "system", "n", *shown], body)
    )


def _ablations(figures: Figures) -> Markup:
    if not figures["ablations"]:
        return Markup()
    headers = ["side", "without", "queries", "metric", "n", "nothing left"]
    headers += ["served", "complete", "reduced", "difference"]
    tables: dict[bool, list[list[str]]] = {True: [], False: []}
    for row in figures["ablations"]:
        place = [row[name] for name in ("side", "without", "kind", "metric")]
        counts = [str(row[name]) for name in ("queries", "nothing_left")]
        means = [figure(row[name], row["metric"]) for name in ("served", "complete", "reduced")]
        cells = [*place, *counts, *means, _interval(row["difference"], sign="+")]
        tables[row["metric"] == HEADLINE].append(cells)
    caption = (
        "The same queries with one modality left out of the query, or of every product; the"
        " difference is paired. Queries that held nothing else are not compared."
    )
    more = _folded("By other metrics", _table(headers, tables[False]))
    return _section("Ablation", caption, Markup(_table(headers, tables[True]) + more))


def _contrasts(figures: Figures) -> Markup:
    if not figures["contrasts"]:
        return Markup()
    headers = ["queries", "against", "intents", "ours", "theirs", "ratio", "difference"]
    body = [
        [
            row["ours"], row["theirs"], str(row["intents"]),
            figure(row["ours_mean"], HEADLINE), figure(row["theirs_mean"], HEADLINE),
            _interval(row["ratio"]), _interval(row["difference"], sign="+"),
        ]
        for row in figures["contrasts"]
    ]  # fmt: skip
    return _folded("Same intent asked in two ways", _table(headers, body))


def _sheets(sheets: Sequence[Sheet]) -> Markup:
    if not sheets:
        return Markup()
    caption = (
        "Queries of each kind drawn by a hash of their id, not chosen, and one more that found"
        " nothing, where there is one. A tick marks a relevant hit."
    )
    kinds: dict[str, list[str]] = {}
    for sheet in sheets:
        kinds.setdefault(sheet.query.kind, []).append(_sheet(sheet))
    body = "".join(f"<h3>{escape(kind)}</h3>{''.join(own)}" for kind, own in kinds.items())
    return _section("Queries and their hits", caption, Markup(body))


def _sheet(sheet: Sheet) -> str:
    facts = [sheet.query.slice, "found nothing in ten" if sheet.is_miss else ""]
    value = ", ".join([*filter(None, facts), f"{HEADLINE} {sheet.headline:.2f}"])
    hits = "".join(_hit(hit) for hit in sheet.hits)
    asked = _asked(sheet.query, sheet.photo, sheet.history)
    return (
        f'<div class="sheet"><div class="query">{asked}<small>{escape(value)}</small></div>{hits}'
        "</div>"
    )


def _asked(query: Query, photo: bytes, history: Sequence[Product]) -> str:
    parts = [f"<b>{escape(query.text)}</b>"] if query.text else []
    if query.image:
        parts.append(_picture(photo, "photo"))
    if query.audio:
        parts.append(_sound(query.audio))
    if history:
        pictures = "".join(_picture(item.photo, item.title) for item in history)
        parts.append(f'<div class="past">{pictures}</div><small>looked at before</small>')
    return "".join(parts)


def _hit(hit: Hit) -> str:
    mark = f"✓ grade {hit.grade:g}" if hit.grade > 0 else "not relevant"
    kind = "hit relevant" if hit.grade > 0 else "hit"
    return (
        f'<figure class="{kind}">{_picture(hit.product.photo, hit.product.title)}'
        f"<figcaption>{escape(hit.product.title)}<small>{hit.score:.3f}, {mark}</small>"
        "</figcaption></figure>"
    )


def _picture(content: bytes, title: str) -> str:
    if not content:
        return f'<span class="blank" title="{escape(title)}">no photo</span>'
    data = base64.b64encode(content).decode()
    return (
        f'<img alt="{escape(title)}" title="{escape(title)}" src="data:image/jpeg;base64,{data}">'
    )


def _sound(content: bytes) -> str:
    """A player; longer sounds would make the page heavy."""
    if len(content) > _LARGEST_SOUND:
        return "<i>spoken</i>"
    data = base64.b64encode(content).decode()
    return f'<audio controls preload="none" src="data:audio/wav;base64,{data}"></audio>'


def _everything(figures: Figures) -> Markup:
    """All ranking metrics of all rows, and what was measured with."""
    rows = [*figures["rows"], *figures["slices"]]
    names = dict.fromkeys(metric for row in rows for metric in row["metrics"])
    body = []
    for row in rows:
        where = f"{row['kind']}/{row['slice']}" if row["slice"] else row["kind"]
        found = [row["metrics"].get(metric) for metric in names]
        cells = [figure(one["mean"], m) if one else "" for one, m in zip(found, names, strict=True)]
        body.append([where, row["system"], str(row["queries"]), *cells])
    table = _table(["queries", "system", "n", *names], body)
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    machine = figures["machine"]
    cost = (
        f"{versions}; {machine['cores']} cores, {figures['seconds']:.0f} s, peak memory"
        f" {figures['peak_memory_mib']:.0f} MiB; data {figures['dataset']['fingerprint'][:12]}"
    )
    return Markup(_folded("Every figure", table) + f"<footer>{escape(cost)}</footer>")


def _whole(figures: Figures) -> dict[str, Row]:
    """Rows by system over all queries: those of the only kind where there is one."""
    rows = [row for row in figures["rows"] if not row["slice"]]
    return {row["system"]: row for row in rows if row["kind"] == rows[0]["kind"]}


def _best_baseline(systems: Mapping[str, Row]) -> Row | None:
    """The baseline that the model is the least ahead of, on the queries that both answer."""
    others = [row for system, row in systems.items() if system != MODEL]
    return min(others, key=lambda row: row["lead"]["mean"], default=None)


def _named(best: Row, ours: Row) -> str:
    """A baseline by name, with its queries where it does not answer all of them."""
    is_partial = best["queries"] < ours["queries"]
    return f"{best['system']} (on {best['queries']})" if is_partial else str(best["system"])


def _section(title: str, caption: str, body: Markup) -> Markup:
    return Markup(f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>{body}</section>")


def _folded(title: str, body: Markup) -> Markup:
    return Markup(f"<details><summary>{escape(title)}</summary>{body}</details>")


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    head = "".join(f"<th>{escape(name)}</th>" for name in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Markup(f'<div class="wide">{table}</div>')


def _tile(name: str, value: str) -> str:
    return f"<div><small>{escape(name)}</small><b>{escape(value)}</b></div>"


def _list(items: Sequence[str], kind: str) -> str:
    inside = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<ul class="{kind}">{inside}</ul>' if items else ""


def _interval(interval: Mapping[str, float | None], *, sign: str = "") -> str:
    mean, low, high = (
        math.nan if interval[name] is None else float(interval[name] or 0.0)
        for name in ("mean", "low", "high")
    )
    return f"{mean:{sign}.4f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _safe(cell: str) -> str:
    return cell if isinstance(cell, Markup) else escape(cell)
