"""`tfmm evaluate`: how good the exported model is, beside what a shop has without one."""

from __future__ import annotations

import itertools
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfmm import __version__, heldout, summary
from tfmm.artifacts import LoadedModel, load_model
from tfmm.baselines import SYSTEMS, Baselines, Rankings
from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.files import write_json
from tfmm.heldout import Query
from tfmm.metrics import NAMES, TOP1_BEST, Floats, grade_rankings, measure, parse_metric
from tfmm.records.tfrecord import PreparedData
from tfmm.report import MODEL, Report, Requirement, parse_requirement

BATCH_SIZE = 64

_PARTS = ("text", "image", "audio", "history")
_PACKAGES = ("tensorflow", "tensorflow-text", "scann", "numpy")


def evaluate(
    saved_model: Path,
    data: Path,
    *,
    on: str = "auto",
    require: Sequence[str] = (),
    json_path: Path | None = None,
    progress: bool = True,
) -> Report:
    """Measures an exported model on judged queries or on held-out events; prints the tables.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      data: A folder written by `tfmm prepare`.
      on: "judgments", "events" (those from the run's test instant on), or "auto": judgments where
        the dataset has them.
      require: Figures to reach, such as "recall@10=0.30" or "photo:recall@1=0.5".
      json_path: Where the figures go as JSON.
      progress: Whether progress is shown on stderr.

    Raises:
      TfmmError: The dataset has nothing to evaluate on, or a requirement cannot be read.
      RequirementMissedError: A requirement is not met; raised after everything is written.
    """
    started = time.monotonic()
    requirements = tuple(parse_requirement(text) for text in require)
    bench = _Bench.open(saved_model, data, requirements)
    source = _choose_source(on, bench.prepared)
    measured = bench.measure(source, Console(stderr=True, quiet=not progress))
    samples = summary.Bootstrap(bench.config.evaluate.bootstrap_samples)
    rows, contrasts = summary.rows(measured, samples), summary.contrasts(measured, samples)
    facts = bench.facts(source) | _cost(started)
    report = Report(facts, rows, contrasts, requirements)
    if json_path is not None:
        write_json(json_path, report.to_json())
    print(report.to_table())
    report.raise_if_missed()
    return report


def metric_names(
    ks: Sequence[int], requirements: Sequence[Requirement] = (), *, max_k: int
) -> tuple[str, ...]:
    """Every metric at every cut-off that the model can answer, 10 and the required ones included.

    Raises:
      TfmmError: 10 or a requirement is beyond the model's largest k.
    """
    needed = {10, *(parse_metric(requirement.metric)[1] for requirement in requirements)}
    if max(needed) > max_k:
        raise TfmmError(
            f"evaluate: expected cut-offs up to catalogue.max_k = {max_k}, received {max(needed)}"
        )
    cuts = sorted(needed | {k for k in ks if k <= max_k})
    return (*(f"{name}@{k}" for name in NAMES for k in cuts), TOP1_BEST)


@dataclass
class Searcher:
    """Asks the exported model for rankings.

    Attributes:
      model: The exported model.
      config: Its recipe.
      depth: Number of products wanted for each query.
      cut_short: Rankings that excluded products left shorter than wanted.
    """

    model: LoadedModel
    config: Config
    depth: int
    cut_short: int = 0

    def reads(self, query: Query) -> bool:
        """Whether the model reads at least one part of a query."""
        return any(getattr(query, part) for part in self.config.tower.query)

    def rank(self, queries: Sequence[Query]) -> list[list[str]]:
        """Product ids for each query, best first, without the excluded ones.

        The signature excludes as many as its input is wide. Where a query excludes more, the
        most recent ones go there, and as many more hits are asked for as remain to be taken out
        afterwards, so that the ranking is the exact one.
        """
        inputs = self._inputs(queries)
        answers = self.model.signatures["serving_default"](**inputs)["product_id"]
        return [
            self._without(query, answer, asked)
            for query, answer, asked in zip(queries, answers, inputs["k"], strict=True)
        ]

    def _inputs(self, queries: Sequence[Query]) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for part in _PARTS:
            if any(getattr(query, part) for query in queries):
                inputs[part] = [getattr(query, part) for query in queries]
        width = self.config.catalogue.exclude_length
        if any(query.exclude for query in queries):
            inputs["exclude"] = [query.exclude[-width:] for query in queries]
        limit = self.config.catalogue.max_k
        beyond = [max(0, len(query.exclude) - width) for query in queries]
        inputs["k"] = [min(self.depth + more, limit) for more in beyond]
        return inputs

    def _without(self, query: Query, answer: Sequence[str | bytes], asked: int) -> list[str]:
        excluded = {"", *query.exclude}
        ids = [item.decode() if isinstance(item, bytes) else str(item) for item in answer]
        kept = [item for item in ids[:asked] if item not in excluded]
        beyond = len(query.exclude) - self.config.catalogue.exclude_length
        self.cut_short += asked < self.depth + beyond and len(kept) < self.depth
        return kept[: self.depth]


@dataclass
class _Bench:
    """Everything that one evaluation needs, opened once."""

    prepared: PreparedData
    searcher: Searcher
    baselines: Baselines
    log: heldout.Log
    product_ids: list[str]
    metrics: tuple[str, ...]
    test_from_us: int
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, saved_model: Path, data: Path, requirements: Sequence[Requirement]) -> _Bench:
        prepared = PreparedData(data)
        model = load_model(saved_model)
        if not {"config", "split"} <= model.manifest.keys():
            raise TfmmError(
                f"{saved_model}: expected a model that tfmm exported, found another one"
            )
        config = config_from_dict(model.manifest["config"], where=f"{saved_model}: manifest")
        max_k = config.catalogue.max_k
        metrics = metric_names(config.evaluate.ks, requirements, max_k=max_k)
        depth = max(parse_metric(metric)[1] for metric in metrics)
        searcher = Searcher(model, config, depth)
        ids = [row["product_id"] for row in prepared.rows("products", ["product_id"])]
        index = {product_id: number for number, product_id in enumerate(ids)}
        log = heldout.read_log(prepared, index)
        test_from_us = int(model.manifest["split"]["test_from_us"])
        texts = _texts(prepared, config.catalogue.text)
        baselines = Baselines(index, texts, log.before(test_from_us), seed=config.seed)
        return cls(prepared, searcher, baselines, log, ids, metrics, test_from_us)

    @property
    def config(self) -> Config:
        return self.searcher.config

    def measure(self, source: str, console: Console) -> summary.Measured:
        """Asks everybody every query; keeps the values only."""
        labels: list[summary.Label] = []
        values: dict[str, list[Floats]] = {system: [] for system in (MODEL, *SYSTEMS)}
        total = self.prepared.count("queries") if source == "judgments" else None
        with _bar(console) as bar:
            task = bar.add_task("evaluating", total=total)
            queries = self._usable(self._queries(source), lambda: bar.advance(task))
            while batch := list(itertools.islice(queries, BATCH_SIZE)):
                labels += [summary.Label.of(query) for query in batch]
                for system, scored in self._score(batch).items():
                    values[system].append(scored)
        if not labels:
            why = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise TfmmError(
                f"{self.prepared.path}: expected queries to evaluate on, found none on {source}"
                f" ({why or 'nothing held out'})"
            )
        joined = {system: np.concatenate(parts) for system, parts in values.items()}
        return summary.Measured(labels, self.metrics, joined)

    def facts(self, source: str) -> dict[str, Any]:
        """What was measured, on what, with what."""
        model, manifest = self.searcher.model, self.searcher.model.manifest
        fingerprint = self.prepared.manifest["fingerprint"]
        notes = []
        if manifest.get("data", {}).get("fingerprint") not in (None, fingerprint):
            notes.append("the dataset is not the one that the model was made from")
        max_k = self.config.catalogue.max_k
        if beyond := [str(k) for k in self.config.evaluate.ks if k > max_k]:
            notes.append(f"not measured beyond catalogue.max_k = {max_k}: {', '.join(beyond)}")
        if self.searcher.cut_short:
            notes.append(f"catalogue.max_k cut {self.searcher.cut_short} rankings short")
        return {
            "model": {"name": self.config.name, "version": Path(model.path).name},
            "dataset": {"source": self.prepared.manifest["source"], "fingerprint": fingerprint},
            "on": source,
            "test_from_us": self.test_from_us,
            "products": len(self.product_ids),
            "left_out": dict(self.left_out),
            "notes": notes,
        }

    def _queries(self, source: str) -> Iterator[Query]:
        if source == "judgments":
            yield from heldout.judged_queries(self.prepared)
            return
        users = heldout.user_queries(
            self.log,
            self.product_ids,
            from_us=self.test_from_us,
            until_us=heldout.END_OF_TIME_US,
            config=self.config.evaluate,
            history_length=self.config.catalogue.history_length,
        )
        self.left_out.update(users.left_out)
        yield from users.queries
        yield from heldout.event_queries(
            self.prepared, from_us=self.test_from_us, until_us=heldout.END_OF_TIME_US
        )

    def _usable(self, queries: Iterator[Query], advance: Callable[[], None]) -> Iterator[Query]:
        for query in queries:
            advance()
            if not any(grade > 0 for grade in query.grades.values()):
                self.left_out["queries without a relevant product"] += 1
            elif query.kind == "empty":
                self.left_out["queries that ask nothing"] += 1
            elif not self.searcher.reads(query):
                self.left_out["queries of a modality that the model does not read"] += 1
            else:
                yield query

    def _score(self, batch: Sequence[Query]) -> dict[str, Floats]:
        """Values of a batch of B queries by system, [B, M]; NaN where one does not apply."""
        index, depth = self.baselines.index, self.searcher.depth
        grades = [{index[key]: grade for key, grade in query.grades.items()} for query in batch]
        answers = self.searcher.rank(batch)
        rankings: dict[str, list[Rankings]] = {
            MODEL: [[[index.get(key, -1) for key in answer]] for answer in answers]
        }
        ranked = [self.baselines.rankings(query, depth) for query in batch]
        for system in SYSTEMS:
            rankings[system] = [by_system.get(system, []) for by_system in ranked]
        return {system: self._values(draws, grades) for system, draws in rankings.items()}

    def _values(self, draws: Sequence[Rankings], grades: Sequence[Mapping[int, float]]) -> Floats:
        """Metrics of each query, [B, M], averaged over its draws; NaN where there are none."""
        owner = [row for row, rankings in enumerate(draws) for _ in rankings]
        flat = [ranking for rankings in draws for ranking in rankings]
        graded = grade_rankings(flat, [grades[row] for row in owner], depth=self.searcher.depth)
        scored = np.stack([measure(graded, metric) for metric in self.metrics], axis=1)
        totals = np.zeros((len(draws), len(self.metrics)))
        np.add.at(totals, owner, scored)
        count = np.bincount(owner, minlength=len(draws)).astype(np.float64)[:, None]
        return np.divide(totals, count, out=np.full_like(totals, np.nan), where=count > 0)


def _choose_source(on: str, prepared: PreparedData) -> str:
    has_judgments = prepared.count("queries") > 0 and prepared.count("judgments") > 0
    match on:
        case "auto":
            return "judgments" if has_judgments else "events"
        case "judgments" if not has_judgments:
            raise TfmmError(
                f"{prepared.path}: expected queries and judgments, the dataset has none"
            )
        case "judgments" | "events":
            return on
        case _:
            raise TfmmError(f"--on: expected auto, judgments or events, received {on!r}")


def _texts(prepared: PreparedData, columns: Sequence[str]) -> Iterator[str]:
    schema = prepared.schema("products")
    fields = [name for name in columns if schema.get(name) == "text"]
    for row in prepared.rows("products", fields):
        yield " ".join(row[name] for name in fields)


def _cost(started: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mib": round(peak / unit, 1),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {"tfmm": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
    }


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
