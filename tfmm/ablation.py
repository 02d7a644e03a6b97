"""What each modality is worth: the same test queries, with it and without it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm.bench import BATCH_SIZE, Bench, batches, text_columns
from tfmm.config import Modality
from tfmm.exposure import DEPTH
from tfmm.figures import ALL, HEADLINE, MODEL, Ablation
from tfmm.heldout import KINDS, Query
from tfmm.metrics import Floats, grade_rankings, measure, paired_difference
from tfmm.searcher import Searcher, allowed, without
from tfmm.summary import Bootstrap, Measured

METRICS = (HEADLINE, "recall@10")

Vectors = npt.NDArray[np.float32]
_Key = tuple[str, str]
_COMPLETE = ""


@dataclass(frozen=True)
class Ablated:
    """Outcome of the ablation; `notes` says what could not be left out."""

    rows: tuple[Ablation, ...]
    notes: tuple[str, ...]


def ablate(
    bench: Bench, measured: Measured, bootstrapped: Bootstrap, advance: Callable[[], None]
) -> Ablated:
    """Asks the test queries again with each modality left out.

    On the query's side the signature is sent fewer inputs; queries that hold nothing else are
    counted, not compared: they would ask nothing. On the product's side the catalogue is embedded
    by `embed_product` with one modality left out of every product, and ranked for the vectors of
    `embed_query` by an exact scan; so are the complete products, since an index may answer a little
    differently. The products of a history keep the vectors that the index holds.

    Args:
      bench: What was measured.
      measured: The complete queries' values, in the bench's order.
      bootstrapped: How intervals are estimated.
      advance: Told of every query.
    """
    products, notes = _product_vectors(bench)
    searcher = replace(bench.searcher, depth=DEPTH)
    values: defaultdict[_Key, list[Floats]] = defaultdict(list)
    for batch in batches(bench.queries(lambda reason: None, advance)):
        for modality in bench.config.tower.query:
            values["query", modality].append(_without_on_query(searcher, batch, modality))
        if products:
            asked = _embedded(searcher, batch)
            for left_out, vectors in products.items():
                answers = _ranked(bench, batch, asked @ vectors.T)
                values["product", left_out].append(_values(answers, batch))
    joined = {key: np.concatenate(parts) for key, parts in values.items()}
    columns = [list(measured.metrics).index(metric) for metric in METRICS]
    served = measured.values[MODEL][:, columns]
    rows = _rows(joined, served, measured, bootstrapped)
    return Ablated(tuple(rows), notes)


def _product_vectors(bench: Bench) -> tuple[dict[str, Vectors], tuple[str, ...]]:
    """Vectors of all products [N, D], complete and without each modality; notes instead."""
    signatures = bench.searcher.model.signatures
    missing = [name for name in ("embed_product", "embed_query") if name not in signatures]
    if missing:
        return {}, (f"products not ablated: the model has no signature {' and '.join(missing)}",)
    inputs = _inputs_by_modality(bench)
    if len(inputs) < 2:
        only = ", ".join(inputs) or "nothing"
        return {}, (f"products not ablated: the model reads {only} of them, nothing would be left",)
    found: defaultdict[str, list[Vectors]] = defaultdict(list)
    for rows in _products(bench):
        for modality in (_COMPLETE, *inputs):
            kept = {
                name: [row[name] for row in rows]
                for other, names in inputs.items()
                if other != modality
                for name in names
            }
            found[modality].append(signatures["embed_product"](**kept)["embedding"])
    return {modality: np.concatenate(parts) for modality, parts in found.items()}, ()


def _inputs_by_modality(bench: Bench) -> dict[str, list[str]]:
    """Inputs of `embed_product` by modality, of those that the dataset has."""
    there = bench.searcher.model.signatures["embed_product"].inputs
    columns = {
        "text": text_columns(bench.prepared, bench.config),
        "image": ["image"],
        "audio": ["audio"],
    }
    known = {
        modality: [name for name in columns.get(modality, []) if name in there]
        for modality, has in bench.catalogue.has.items()
        if has.any()
    }
    return {modality: names for modality, names in known.items() if names}


def _products(bench: Bench) -> Iterator[list[dict[str, Any]]]:
    """Yields products as inputs of `embed_product`: texts, the first photo, the first sound."""
    texts = text_columns(bench.prepared, bench.config)
    rows: list[dict[str, Any]] = []
    for row in bench.prepared.rows("products", [*texts, "images", "audio"]):
        first = {"image": row["images"], "audio": row["audio"]}
        texts_of_row = {name: row[name] for name in texts}
        rows.append(texts_of_row | {name: (items or [b""])[0] for name, items in first.items()})
        if len(rows) == BATCH_SIZE:
            yield rows
            rows = []
    if rows:
        yield rows


def _embedded(searcher: Searcher, batch: Sequence[Query]) -> Vectors:
    """Vectors of queries, [B, D]."""
    signature = searcher.model.signatures["embed_query"]
    vectors: Vectors = signature(**searcher.content(batch))["embedding"]
    return vectors


def _ranked(bench: Bench, batch: Sequence[Query], scores: Vectors) -> list[list[str]]:
    """The first products of each query by scores [B, N], without the excluded ones."""
    answers = []
    for query, row in zip(batch, scores, strict=True):
        wanted = min(len(row), DEPTH + len(query.exclude))
        best = np.argpartition(-row, wanted - 1)[:wanted]
        best = best[np.lexsort((best, -row[best]))]
        ids = [bench.catalogue.ids[product] for product in best]
        answers.append(allowed(query, ids)[:DEPTH])
    return answers


def _without_on_query(searcher: Searcher, batch: Sequence[Query], modality: Modality) -> Floats:
    """Values without a modality, [B, M]; NaN where there was none, infinite where nothing is left.

    A query whose other parts the model does not read has nothing left either.
    """
    values = np.full((len(batch), len(METRICS)), np.nan)
    holding = [at for at, query in enumerate(batch) if getattr(query, modality)]
    values[holding] = np.inf
    reduced = {at: without(batch[at], modality) for at in holding}
    asked = {at: query for at, query in reduced.items() if searcher.reads(query)}
    if asked:
        queries = list(asked.values())
        values[list(asked)] = _values(searcher.rank(queries), queries)
    return values


def _values(answers: Sequence[Sequence[str]], queries: Sequence[Query]) -> Floats:
    graded = grade_rankings(answers, [query.grades for query in queries], depth=DEPTH)
    return np.stack([measure(graded, metric) for metric in METRICS], axis=1)


def _rows(
    values: Mapping[_Key, Floats], served: Floats, measured: Measured, bootstrapped: Bootstrap
) -> Iterator[Ablation]:
    kinds = np.array([label.kind for label in measured.labels])
    for (side, modality), reduced in values.items():
        if modality == _COMPLETE:
            continue
        complete = served if side == "query" else values[side, _COMPLETE]
        is_compared, is_empty = np.isfinite(reduced[:, 0]), np.isinf(reduced[:, 0])
        for kind, members in _groups(kinds, is_compared).items():
            compared = members & is_compared
            columns = [part[compared] for part in (served, complete, reduced)]
            for at, metric in enumerate(METRICS):
                place = (side, modality, kind, metric)
                column = tuple(part[:, at] for part in columns)
                yield _row(place, int((members & is_empty).sum()), column, bootstrapped)


def _groups(kinds: npt.NDArray[Any], compared: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Which queries each row is about, [Q]: all, and each kind where several are compared."""
    there = [kind for kind in KINDS if (kinds == kind).any()]
    if len(there) == 1:
        return {there[0]: kinds == there[0]} if compared.any() else {}
    found = {kind: kinds == kind for kind in there if (compared & (kinds == kind)).any()}
    whole: dict[str, Any] = {ALL: np.ones(len(kinds), np.bool_)} if found else {}
    return {**whole, **{str(kind): rows for kind, rows in found.items() if len(found) > 1}}


def _row(
    place: tuple[str, str, str, str],
    nothing_left: int,
    values: tuple[Floats, ...],
    bootstrapped: Bootstrap,
) -> Ablation:
    served, complete, reduced = values
    samples, seed = bootstrapped.samples, bootstrapped.seed
    return Ablation(
        *place,
        queries=len(served),
        nothing_left=nothing_left,
        served=float(served.mean()),
        complete=float(complete.mean()),
        reduced=float(reduced.mean()),
        difference=paired_difference(reduced, complete, samples=samples, seed=seed),
    )
