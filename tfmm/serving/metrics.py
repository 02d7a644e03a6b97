"""What the real server counts, under its names, and tfmm's own, as Prometheus text.

prometheus-client would add HELP lines, sort labels and count a bucket's own limit; dashboards made
for TensorFlow Serving expect neither, so that the text is written here.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tfmm.serving.insight import Catalogue, Queries

# The name of all models that requests make up: names from outside would fill the memory, and then
# keep a model that comes later from being counted.
_UNKNOWN = "(unknown)"
# Versions come and go, and a path of each is in the memory.
_MAX_SERIES = 1000
_LATENCY_LIMITS_US = tuple(10 * 1.8**power for power in range(33))
_COUNT_LIMITS = tuple(float(2**power) for power in range(15))


@dataclass
class _Counter:
    labels: Sequence[str]
    values: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, key: tuple[str, ...], amount: int = 1) -> None:
        if key in self.values or len(self.values) < _MAX_SERIES:
            self.values[key] = self.values.get(key, 0) + amount

    def lines(self, name: str) -> list[str]:
        series = [f"{name}{{{_pairs(self.labels, key)}}} {n}" for key, n in self.values.items()]
        return [f"# TYPE {name} counter", *series]


@dataclass
class _Histogram:
    labels: Sequence[str]
    limits: Sequence[float]
    buckets: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    sums: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, key: tuple[str, ...], value: float) -> None:
        if key not in self.buckets:
            if len(self.buckets) >= _MAX_SERIES:
                return
            self.buckets[key] = [0] * (len(self.limits) + 1)
            self.sums[key] = 0.0
        # A value at a limit belongs to the bucket above it.
        self.buckets[key][bisect_right(self.limits, value)] += 1
        self.sums[key] += value

    def lines(self, name: str) -> list[str]:
        lines = [f"# TYPE {name} histogram"]
        limits = [f"{limit:g}" for limit in self.limits] + ["+Inf"]
        for key, counts in self.buckets.items():
            pairs = _pairs(self.labels, key)
            total = 0
            for limit, count in zip(limits, counts, strict=True):
                total += count
                lines.append(f'{name}_bucket{{{pairs},le="{limit}"}} {total}')
            lines.append(f"{name}_sum{{{pairs}}} {self.sums[key]:g}")
            lines.append(f"{name}_count{{{pairs}}} {total}")
        return lines


class Metrics:
    """Counts of one server."""

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        """Begins at zero.

        Args:
          is_known: Whether a model of that name is or was served.
        """
        self._is_known = is_known
        self._lock = threading.Lock()
        self._requests = _Counter(("model_name", "status"))
        self._examples = _Counter(("model",))
        self._request_latency = _Histogram(("model_name", "API", "entrypoint"), _LATENCY_LIMITS_US)
        self._runtime_latency = _Histogram(("model_name", "API", "runtime"), _LATENCY_LIMITS_US)
        self._example_counts = _Histogram(("model",), _COUNT_LIMITS)
        self._warmup_latency = _Histogram(("model_path", "status"), _LATENCY_LIMITS_US)
        self._queries = _Counter(("model_name",))
        self._without_hit = _Counter(("model_name",))
        self._holding = _Counter(("model_name", "modality"))
        self._wanted = _Counter(("model_name",))
        self._filtered = _Counter(("model_name",))
        self._repeated = _Counter(("model_name",))
        self._catalogues: dict[tuple[str, ...], Catalogue] = {}

    def answered(self, model: str, status: str) -> None:
        """A request ended with a status, such as `OK` or `NOT_FOUND`."""
        if not self._is_known(model):
            model = _UNKNOWN
        with self._lock:
            self._requests.add((model, status))

    def took(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """A request that succeeded took so long, all in all."""
        with self._lock:
            self._request_latency.add((model, api, entrypoint), seconds * 1e6)

    def ran(self, model: str, api: str, seconds: float) -> None:
        """The session took so long for a request."""
        with self._lock:
            self._runtime_latency.add((model, api, "TF1"), seconds * 1e6)

    def received_examples(self, model: str, count: int) -> None:
        """A request held so many Examples."""
        with self._lock:
            self._example_counts.add((model,), count)
            self._examples.add((model,), count)

    def warmed_up(self, path: str, status: str, seconds: float) -> None:
        """The warm-up of a version folder took so long and ended so."""
        with self._lock:
            self._warmup_latency.add((path, status), seconds * 1e6)

    def searched(self, model: str, queries: Queries) -> None:
        """A call asked a tfmm model for products."""
        with self._lock:
            self._queries.add((model,), queries.rows)
            self._without_hit.add((model,), queries.without_hit)
            self._wanted.add((model,), queries.wanted)
            self._filtered.add((model,), queries.filtered)
            for modality, count in queries.holding.items():
                self._holding.add((model, modality), count)

    def repeated(self, model: str) -> None:
        """A call was answered with what an equal one was answered before."""
        with self._lock:
            self._repeated.add((model,))

    def loaded(self, model: str, version: int, catalogue: Catalogue) -> None:
        """A version of a tfmm model is in memory."""
        with self._lock:
            self._catalogues[model, str(version)] = catalogue

    def dropped(self, model: str, version: int) -> None:
        """A version is not in memory any more."""
        with self._lock:
            self._catalogues.pop((model, str(version)), None)

    def text(self) -> str:
        """All of it in Prometheus' text format, families in the order of their names."""
        families: dict[str, _Counter | _Histogram] = {
            "model_warmup_latency": self._warmup_latency,
            "request_count": self._requests,
            "request_example_count_total": self._examples,
            "request_example_counts": self._example_counts,
            "request_latency": self._request_latency,
            "runtime_latency": self._runtime_latency,
        }
        with self._lock:
            lines = [
                line
                for name, family in families.items()
                for line in family.lines(f":tensorflow:serving:{name}")
            ]
            lines += self._own_lines()
        return "\n".join(lines) + "\n"

    def _own_lines(self) -> list[str]:
        now = time.time()
        catalogues = self._catalogues.items()
        return [
            *_gauge("tfmm_catalogue_products", {key: c.products for key, c in catalogues}),
            *_gauge("tfmm_index_age_seconds", {key: now - c.created for key, c in catalogues}),
            *self._filtered.lines("tfmm_hits_filtered_out_total"),
            *self._repeated.lines("tfmm_replies_from_memory_total"),
            *self._wanted.lines("tfmm_hits_wanted_under_rules_total"),
            *self._queries.lines("tfmm_queries_total"),
            *self._holding.lines("tfmm_queries_with_modality_total"),
            *self._without_hit.lines("tfmm_queries_without_hit_total"),
        ]


def _gauge(name: str, values: Mapping[tuple[str, ...], float]) -> list[str]:
    labels = ("model_name", "version")
    series = [f"{name}{{{_pairs(labels, key)}}} {value:.10g}" for key, value in values.items()]
    return [f"# TYPE {name} gauge", *series]


def _pairs(labels: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(
        f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
