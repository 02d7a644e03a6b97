"""One pass over the queries: everybody is asked, and of the answers the values are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfmm import exposure, roc
from tfmm.baselines import SYSTEMS, Rankings
from tfmm.bench import Bench, batches
from tfmm.figures import HEADLINE, MODEL
from tfmm.heldout import Query
from tfmm.metrics import Floats, Graded, grade_rankings, measure
from tfmm.parts import restrict
from tfmm.separation import CATALOGUE, JUDGED, Separation
from tfmm.summary import Label, Measured

Indices = npt.NDArray[np.int64]
Watch = Callable[[Query, float], None]
Grades = Sequence[Mapping[int, float]]

_FURTHER = (*roc.NAMES, exposure.NOVELTY, exposure.POPULARITY)


class Measuring:
    """Values of every query under every system, gathered batch by batch.

    Args:
      bench: What is measured, and with what.
      watch: Told every query, and the model's headline metric for it.
    """

    def __init__(self, bench: Bench, watch: Watch = lambda query, value: None) -> None:
        self._bench = bench
        self._watch = watch
        self._labels: list[Label] = []
        self._values: defaultdict[str, list[Floats]] = defaultdict(list)
        self._exposed: defaultdict[str, list[Floats]] = defaultdict(list)
        self._tops: defaultdict[str, list[Indices]] = defaultdict(list)
        self._parts: defaultdict[tuple[str, str, str], list[Floats]] = defaultdict(list)
        pool = JUDGED if any(map(_has_both, bench.grades.values())) else CATALOGUE
        self.separation = Separation(pool, bench.catalogue.index)

    def run(self, skip: Callable[[str], None], advance: Callable[[], None]) -> Measured | None:
        """Measures all queries of the bench; None if there are none.

        Args:
          skip: Told the reason for every query that cannot be measured.
          advance: Told of every query.
        """
        for batch in batches(self._bench.queries(skip, advance)):
            self._labels += [Label.of(query) for query in batch]
            self._measure(batch)
        return self._measured() if self._labels else None

    def _measure(self, batch: Sequence[Query]) -> None:
        bench, depth = self._bench, self._bench.searcher.depth
        answers, deeper = self._ask(batch)
        baselines = [bench.baselines.rankings(q, self.deepest, draw_k=depth) for q in batch]
        grades = bench.judged(batch)
        for system in (MODEL, *SYSTEMS):
            if system == MODEL:
                draws: list[Rankings] = [[ranking] for ranking in bench.indices(answers)]
                firsts: Sequence[Sequence[int] | None] = bench.indices(deeper)
            else:
                draws = [ranked.get(system, []) for ranked in baselines]
                firsts = [own[0] if own else None for own in draws]
            for query, first in zip(batch, firsts, strict=True):
                self.separation.add(query, system, first)
            self._score(system, draws, grades)
        headline = self._values[MODEL][-1][:, bench.metrics.index(HEADLINE)]
        for query, value in zip(batch, headline, strict=True):
            self._watch(query, float(value))

    @property
    def deepest(self) -> int:
        """How far the model can be asked; ROC and precision-recall want all that it can say."""
        bench = self._bench
        most = min(len(bench.catalogue.ids), bench.config.catalogue.max_k)
        return max(bench.searcher.depth, most)

    def _ask(self, batch: Sequence[Query]) -> tuple[list[list[str]], list[list[str]]]:
        """The model's rankings as deep as the ranking metrics look, and as deep as they go.

        An approximate index searches harder when more is asked, so the two are asked one by one; an
        exact one gives the same products first. Where a query excludes more products than its
        input takes the shorter answer is asked by itself too, and counted when it falls short.
        """
        searcher, deepest = self._bench.searcher, self.deepest
        if deepest == searcher.depth or not any(map(self.separation.applies, batch)):
            answers = searcher.rank(batch)
            return answers, answers
        is_exact = searcher.model.manifest.get("index", {}).get("kind") == "exact"
        width = searcher.config.catalogue.exclude_length
        if is_exact and all(len(query.exclude) <= width for query in batch):
            deeper = searcher.rank_deeply(batch, deepest)
            return [ranking[: searcher.depth] for ranking in deeper], deeper
        return searcher.rank(batch), searcher.rank_deeply(batch, deepest)

    def _score(self, system: str, draws: Sequence[Rankings], grades: Grades) -> None:
        """Values of B queries, averaged over their draws; NaN where there are none."""
        depth = self._bench.searcher.depth
        owner = np.array([row for row, own in enumerate(draws) for _ in own], np.int64)
        flat = [ranking[:depth] for own in draws for ranking in own]
        judged = [grades[row] for row in owner]
        graded, ranked = grade_rankings(flat, judged, depth=depth), _padded(flat, depth)
        tops = ranked[:, : exposure.DEPTH]
        width = max((len(own) for own in draws), default=0)
        self._values[system].append(_averaged(self._metrics(graded), owner, len(draws)))
        self._exposed[system].append(_averaged(self._exposure(tops), owner, len(draws)))
        self._tops[system].append(_by_query(tops, owner, (len(draws), max(width, 1))))
        for part in self._bench.parts:
            restricted = restrict(graded, ranked, judged, part.members)
            values = self._metrics(restricted)
            values[restricted.relevant == 0] = np.nan
            averaged = _averaged(values, owner, len(draws))
            self._parts[part.dimension, part.name, system].append(averaged)

    def _metrics(self, graded: Graded) -> Floats:
        return np.stack([measure(graded, metric) for metric in self._bench.metrics], axis=1)

    def _exposure(self, tops: Indices) -> Floats:
        """Novelty and popularity of rankings, [R, 2]; NaN without a training log."""
        counts = self._bench.counts
        if not counts.any():
            return np.full((len(tops), 2), np.nan)
        values = exposure.self_information(counts), counts.astype(np.float64)
        return np.stack([exposure.mean_over_ranks(tops, value) for value in values], axis=1)

    def _measured(self) -> Measured:
        systems = (MODEL, *SYSTEMS)
        areas = {system: self.separation.areas(system) for system in systems}
        exposed = {system: np.concatenate(self._exposed[system]) for system in systems}
        return Measured(
            self._labels,
            self._bench.metrics,
            {system: np.concatenate(self._values[system]) for system in systems},
            further=_FURTHER,
            more={name: np.concatenate([areas[name], exposed[name]], axis=1) for name in systems},
            tops={system: _joined(self._tops[system]) for system in systems},
            products=len(self._bench.catalogue.ids),
            parts={
                (part.dimension, part.name): {
                    system: np.concatenate(self._parts[part.dimension, part.name, system])
                    for system in systems
                }
                for part in self._bench.parts
            },
        )


def _has_both(grades: Mapping[str, float]) -> bool:
    """Whether a query has products that were judged relevant and others that were not."""
    return max(grades.values(), default=0) > 0 >= min(grades.values(), default=1)


def _padded(rankings: Sequence[Sequence[int]], depth: int) -> Indices:
    """Rankings of different lengths, [R, depth]; -1 where one ended."""
    padded = np.full((len(rankings), depth), -1, np.int64)
    for row, ranking in enumerate(rankings):
        padded[row, : len(ranking)] = ranking
    return padded


def _averaged(values: Floats, owner: Indices, queries: int) -> Floats:
    totals = np.zeros((queries, values.shape[1]))
    np.add.at(totals, owner, values)
    count = np.bincount(owner, minlength=queries).astype(np.float64)[:, None]
    return np.divide(totals, count, out=np.full_like(totals, np.nan), where=count > 0)


def _by_query(tops: Indices, owner: Indices, shape: tuple[int, int]) -> Indices:
    """The rankings of each query, [Q, D, K] for shape (Q, D); -1 where it has fewer than D."""
    found = np.full((*shape, tops.shape[1]), -1, np.int64)
    draw = np.arange(len(owner)) - np.searchsorted(owner, owner)
    found[owner, draw] = tops
    return found


def _joined(tops: Sequence[Indices]) -> Indices:
    """Batches [B, D, K] one after another; D is the largest of theirs."""
    draws = max(batch.shape[1] for batch in tops)
    wide = [((0, 0), (0, draws - batch.shape[1]), (0, 0)) for batch in tops]
    return np.concatenate(
        [np.pad(batch, pad, constant_values=-1) for batch, pad in zip(tops, wide, strict=True)]
    )
