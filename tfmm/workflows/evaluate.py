"""`tfmm evaluate`: how good the exported model is, beside what a shop has without one."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfmm import __version__, report_html, summary
from tfmm.ablation import Ablated, ablate
from tfmm.artifacts import load_model
from tfmm.bench import Bench
from tfmm.config import config_from_dict
from tfmm.errors import TfmmError
from tfmm.figures import FURTHER
from tfmm.files import replacing, write_json
from tfmm.measuring import Measuring
from tfmm.metrics import NAMES, TOP1_BEST, parse_metric
from tfmm.records.tfrecord import PreparedData
from tfmm.report import Report, Requirement, parse_requirement
from tfmm.sheets import Sample, sheets

_PACKAGES = ("tensorflow", "tensorflow-text", "scann", "numpy")


@dataclass(frozen=True)
class Output:
    """Where an evaluation goes beside its tables on stdout.

    Attributes:
      json: A file for the figures as JSON, or None.
      html: A file for one page with tables, curves and pictures, or None.
      progress: Whether progress is shown on stderr.
    """

    json: Path | None = None
    html: Path | None = None
    progress: bool = True


def evaluate(
    saved_model: Path,
    data: Path,
    *,
    on: str = "auto",
    require: Sequence[str] = (),
    ablation: bool = False,
    output: Output = Output(),
) -> Report:
    """Measures an exported model on judged queries or on held-out events; prints the tables.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      data: A folder written by `tfmm prepare`.
      on: "judgments", "events" (those from the run's test instant on), or "auto": judgments where
        the dataset has them.
      require: Figures to reach, such as "recall@10=0.30", "photo:recall@1=0.5" or
        "product/cold:recall@100=0.1".
      ablation: Whether the queries are asked again with each modality left out.
      output: Files to write.

    Raises:
      TfmmError: The dataset has nothing to evaluate on, or a requirement cannot be read.
      RequirementMissedError: A requirement is not met; raised after everything is written.
    """
    started = time.monotonic()
    requirements = tuple(parse_requirement(text) for text in require)
    bench = _open(saved_model, data, on, requirements)
    console = Console(stderr=True, quiet=not output.progress)
    sample = Sample()
    figures = _measure(bench, sample, console, ablation=ablation)
    facts = {**figures.facts, **_cost(started)}
    report = replace(figures, facts=facts, requirements=requirements)
    if output.json is not None:
        write_json(output.json, report.to_json())
    if output.html is not None:
        page = report_html.page(report.to_json(), sheets(bench, sample))
        with replacing(output.html) as file:
            file.write(page.encode())
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
    ranked = [one.metric for one in requirements if one.metric not in FURTHER]
    needed = {10, *(parse_metric(metric)[1] for metric in ranked)}
    if max(needed) > max_k:
        raise TfmmError(
            f"evaluate: expected cut-offs up to catalogue.max_k = {max_k}, received {max(needed)}"
        )
    cuts = sorted(needed | {k for k in ks if k <= max_k})
    return (*(f"{name}@{k}" for name in NAMES for k in cuts), TOP1_BEST)


def _open(saved_model: Path, data: Path, on: str, requirements: Sequence[Requirement]) -> Bench:
    prepared = PreparedData(data)
    model = load_model(saved_model)
    if not {"config", "split"} <= model.manifest.keys():
        raise TfmmError(f"{saved_model}: expected a model that tfmm exported, found another one")
    config = config_from_dict(model.manifest["config"], where=f"{saved_model}: manifest")
    metrics = metric_names(config.evaluate.ks, requirements, max_k=config.catalogue.max_k)
    source = _choose_source(on, prepared)
    return Bench.open(model, config, prepared, metrics=metrics, source=source)


def _measure(bench: Bench, sample: Sample, console: Console, *, ablation: bool) -> Report:
    """Everything but the cost and the requirements."""
    left_out: Counter[str] = Counter()
    measuring = Measuring(bench, sample.offer)
    total = bench.prepared.count("queries") if bench.source == "judgments" else None
    samples = summary.Bootstrap(bench.config.evaluate.bootstrap_samples)
    with _bar(console) as bar:
        task = bar.add_task("evaluating", total=total)
        measured = measuring.run(lambda why: left_out.update([why]), lambda: bar.advance(task))
        if measured is None:
            why = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
            raise TfmmError(
                f"{bench.prepared.path}: expected queries to evaluate on, found none on"
                f" {bench.source} ({why or 'nothing held out'})"
            )
        ablated = Ablated((), ())
        if ablation:
            task = bar.add_task("ablation", total=len(measured.labels) + sum(left_out.values()))
            ablated = ablate(bench, measured, samples, lambda: bar.advance(task))
    facts = _facts(bench, left_out)
    facts |= {"pairs": measuring.separation.pool, "pairs_depth": measuring.deepest}
    facts["notes"] += ablated.notes
    return Report(
        facts,
        rows=summary.rows(measured, samples),
        contrasts=summary.contrasts(measured, samples),
        slices=summary.slices(measured, samples),
        curves=tuple(measuring.separation.curves()),
        ablations=ablated.rows,
    )


def _facts(bench: Bench, left_out: Mapping[str, int]) -> dict[str, Any]:
    """What was measured, on what, with what."""
    searcher, config = bench.searcher, bench.config
    model, manifest = searcher.model, searcher.model.manifest
    fingerprint = bench.prepared.manifest["fingerprint"]
    notes = []
    if manifest.get("data", {}).get("fingerprint") not in (None, fingerprint):
        notes.append("the dataset is not the one that the model was made from")
    max_k = config.catalogue.max_k
    if beyond := [str(k) for k in config.evaluate.ks if k > max_k]:
        notes.append(f"not measured beyond catalogue.max_k = {max_k}: {', '.join(beyond)}")
    if searcher.cut_short:
        notes.append(f"catalogue.max_k cut {searcher.cut_short} rankings short")
    return {
        "model": {"name": config.name, "version": Path(model.path).name},
        "dataset": {"source": bench.prepared.manifest["source"], "fingerprint": fingerprint},
        "on": bench.source,
        "test_from_us": bench.test_from_us,
        "products": len(bench.catalogue.ids),
        "parts": {f"{part.dimension}/{part.name}": int(part.members.sum()) for part in bench.parts},
        "left_out": dict(left_out),
        "notes": notes,
    }


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
