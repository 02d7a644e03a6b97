"""From values of single queries to the rows and contrasts of a report."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tfmm import exposure
from tfmm.figures import ALL, HEADLINE, MODEL, Contrast, Row
from tfmm.heldout import KINDS, Query
from tfmm.metrics import Floats, Interval, bootstrap, paired_difference, paired_ratio

REST = "other"
"""Slice of the queries of a sliced kind that name none."""

_Means = Mapping[str, float]


@dataclass(frozen=True)
class Label:
    """What a query was, once it was measured; see `heldout.Query`."""

    kind: str
    parts: tuple[str, ...]
    slice: str
    intent: str
    language: str
    shopper: str = ""

    @classmethod
    def of(cls, query: Query) -> Label:
        """The label of a query."""
        where = (query.slice, query.intent, query.language, query.shopper)
        return cls(query.kind, query.parts, *where)

    def slices(self) -> Iterator[tuple[str, str]]:
        """(dimension, name) of each slice across the kinds that the query belongs to.

        "holds" is what a query is made of; "language" the one that the dataset names, or else
        whether its words are Chinese; "shopper" whether the one behind a held-out event is new.
        """
        yield "holds", "+".join(dict.fromkeys(_modality(part) for part in self.parts))
        typed = {"chinese": "chinese", "text": "not chinese"}
        language = next((typed[part] for part in self.parts if part in typed), "")
        yield "language", self.language or language
        yield "shopper", self.shopper

    def groups(self) -> Iterator[str]:
        """Names under which the query is compared with others of its intent.

        Its kind, and the slice of it; for a mixture without one, what it is a mixture of. Speech
        is told apart by language where the dataset names it: it is compared with what is typed in
        the same language.
        """
        speaks = self.kind == "voice" and self.language
        name = f"voice {self.language}" if speaks else self.kind
        yield name
        if self.slice:
            yield f"{name}/{self.slice}"
        elif self.kind == "mixture":
            yield f"mixture {'+'.join(self.parts)}"

    def single(self) -> Iterator[str]:
        """The modality of a query that is no mixture, for comparison with mixtures."""
        if len(self.parts) == 1:
            yield _modality(self.parts[0])


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are estimated."""

    samples: int
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """Values of every query under every system; Q queries, M metrics.

    Attributes:
      labels: What each query was, [Q].
      metrics: Names of the metrics, [M]; they hold NDCG@10.
      values: Values by system, [Q, M]; rows of NaN where a system does not apply to the query.
      further: Names of metrics that need not apply to every query, [X].
      more: Their values by system, [Q, X]; NaN where one does not apply.
      tops: First `exposure.DEPTH` products of each query's rankings by system, [Q, draws, 10];
        -1 for none.
      products: N, size of the catalogue.
      parts: Values for parts of the catalogue, by (dimension, name) and system, [Q, M]: only
        products of the part count as relevant; rows of NaN where no relevant one belongs to it.
    """

    labels: Sequence[Label]
    metrics: Sequence[str]
    values: Mapping[str, Floats]
    further: Sequence[str] = ()
    more: Mapping[str, Floats] = field(default_factory=dict)
    tops: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    products: int = 0
    parts: Mapping[tuple[str, str], Mapping[str, Floats]] = field(default_factory=dict)

    def headline(self, system: str) -> Floats:
        """NDCG@10 of each query under a system, [Q]."""
        return self.values[system][:, list(self.metrics).index(HEADLINE)]


def rows(measured: Measured, bootstrapped: Bootstrap) -> tuple[Row, ...]:
    """One row for every kind, every slice of a kind, and every system that applies to it."""
    return tuple(_rows_of(measured, _groups(measured.labels), bootstrapped))


def slices(measured: Measured, bootstrapped: Bootstrap) -> tuple[Row, ...]:
    """One row for every slice across the kinds, and every system that applies to it.

    Parts of the catalogue first: a query belongs to each part that holds a product relevant to it,
    and is measured there on those products, ranked among all. A dimension in which all
    queries are alike would say nothing and is left out.
    """
    found: list[Row] = []
    everything = np.ones(len(measured.labels), np.bool_)
    for (dimension, name), values in measured.parts.items():
        part = Measured(measured.labels, measured.metrics, values)
        found += _rows_of(part, [(dimension, name, everything)], bootstrapped)
    return (*found, *_rows_of(measured, _slices(measured.labels), bootstrapped))


def contrasts(measured: Measured, bootstrapped: Bootstrap) -> tuple[Contrast, ...]:
    """Kinds compared on the intents they share; see `Contrast`.

    Several queries of one kind and intent count as their mean. What is said, shown or written in
    Chinese is compared with what is typed; a mixture with queries that hold one of its parts
    alone. "best single" is the part that does best on average over the mixture's own intents;
    "best single of each intent" takes the best one anew for every intent, which no system could
    know beforehand.
    """
    labels, values = measured.labels, measured.headline(MODEL)
    means = _means_by_intent(labels, values, Label.groups)
    singles = _means_by_intent(labels, values, Label.single)
    parts = _parts(labels)
    found = []
    for ours in sorted(means, key=lambda name: (KINDS.index(_kind_of(name)), name)):
        if ours.startswith("mixture ") and means[ours] == means["mixture"]:
            continue  # the only mixture there is
        if _kind_of(ours) == "mixture":
            own = {name: singles[name] for name in sorted(parts[ours] & singles.keys())}
            against = [*own.items(), *_best_singles(means[ours], own)]
        else:
            against = [(name, means[name]) for name in _typed_like(ours, sorted(means))]
        found += [_contrast((ours, means[ours]), theirs, bootstrapped) for theirs in against]
    return tuple(contrast for contrast in found if contrast.intents)


def _rows_of(
    measured: Measured,
    groups: Iterable[tuple[str, str, npt.NDArray[np.bool_]]],
    bootstrapped: Bootstrap,
) -> Iterator[Row]:
    for kind, name, members in groups:
        for system, values in measured.values.items():
            applies = members & ~np.isnan(values).any(axis=1)
            if applies.any():
                yield _row(measured, (kind, name, system), applies, bootstrapped)


def _slices(labels: Sequence[Label]) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    of_label = [dict(label.slices()) for label in labels]
    for dimension in dict.fromkeys(name for own in of_label for name in own):
        names = np.array([own[dimension] for own in of_label])
        distinct = sorted(set(names) - {""})
        if len(distinct) > 1:
            for name in distinct:
                yield dimension, name, names == name


def _groups(labels: Sequence[Label]) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    kinds = np.array([label.kind for label in labels])
    slices = np.array([label.slice for label in labels])
    if len(set(kinds)) > 1:
        yield ALL, "", np.ones(len(labels), np.bool_)
    for kind in KINDS:
        members = kinds == kind
        if members.any():
            yield kind, "", members
        names = sorted(set(slices[members]))
        if names != [""]:
            for name in names:
                yield kind, name or REST, members & (slices == name)


def _row(
    measured: Measured,
    place: tuple[str, str, str],
    members: npt.NDArray[np.bool_],
    bootstrapped: Bootstrap,
) -> Row:
    kind, name, system = place
    samples, seed = bootstrapped.samples, bootstrapped.seed
    values, names = measured.values[system][members], list(measured.metrics)
    if system in measured.more:
        more = measured.more[system][members]
        applies = ~np.isnan(more).all(axis=0)
        values = np.concatenate([values, more[:, applies]], axis=1)
        names += [metric for metric, kept in zip(measured.further, applies, strict=True) if kept]
    means, lows, highs = bootstrap(values, samples=samples, seed=seed)
    bounds = zip(names, means, lows, highs, strict=True)
    lead = None
    if system != MODEL:
        ours, theirs = measured.headline(MODEL)[members], measured.headline(system)[members]
        lead = paired_difference(ours, theirs, samples=samples, seed=seed)
    return Row(
        kind=kind,
        slice=name,
        system=system,
        queries=int(members.sum()),
        metrics={m: Interval(float(mean), float(a), float(b)) for m, mean, a, b in bounds}
        | _of_all_rankings(measured, system, members),
        lead=lead,
    )


def _of_all_rankings(
    measured: Measured, system: str, members: npt.NDArray[np.bool_]
) -> dict[str, Interval]:
    """Coverage and Gini index; of a system that draws, the mean over its draws.

    Neither is a mean over queries, and a resample of queries shows fewer products than the queries
    do: a bootstrap would not bracket them, so they have no interval.
    """
    if system not in measured.tops:
        return {}
    draws = np.swapaxes(measured.tops[system][members], 0, 1)
    found = {
        exposure.COVERAGE: [exposure.coverage(tops, measured.products) for tops in draws],
        exposure.GINI: [exposure.gini(tops, measured.products) for tops in draws],
    }
    return {
        metric: Interval(float(np.mean(values)), np.nan, np.nan)
        for metric, values in found.items()
        if not np.isnan(values).any()
    }


def _means_by_intent(
    labels: Sequence[Label], values: Floats, groups: Callable[[Label], Iterator[str]]
) -> dict[str, _Means]:
    """Mean value of each intent, by group."""
    collected: defaultdict[str, defaultdict[str, list[float]]]
    collected = defaultdict(lambda: defaultdict(list))
    for label, value in zip(labels, values, strict=True):
        if label.intent:
            for name in groups(label):
                collected[name][label.intent].append(float(value))
    return {
        name: {intent: float(np.mean(items)) for intent, items in intents.items()}
        for name, intents in collected.items()
    }


def _parts(labels: Sequence[Label]) -> dict[str, set[str]]:
    """Modalities that the queries of each group hold."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        for name in label.groups():
            parts[name].update(_modality(part) for part in label.parts)
    return parts


def _modality(part: str) -> str:
    return "words" if part in ("text", "chinese") else part


def _kind_of(name: str) -> str:
    return re.split("[ /]", name, maxsplit=1)[0]


def _typed_like(name: str, names: Sequence[str]) -> list[str]:
    """Typed queries that a group of a single kind is held against, of those there are.

    A slice is held against the slice of the same name; where there is none, speech against each
    slice of what is typed, since one of them holds the very words.
    """
    whole, _, part = name.partition("/")
    found = []
    for typed in _typed_kinds(whole):
        slices = [other for other in names if other.startswith(f"{typed}/")]
        if f"{typed}/{part}" in slices:
            found.append(f"{typed}/{part}")
        elif part and slices and _kind_of(name) == "voice":
            found += slices
        elif typed in names:
            found.append(typed)
    return found


def _typed_kinds(whole: str) -> tuple[str, ...]:
    """Kinds of typed queries to compare with; for speech of a known language only its own."""
    match whole.partition(" "):
        case ("text", _, _):
            return ()
        case ("voice", _, ""):
            return "text", "chinese"
        case ("voice", _, language):
            is_mandarin = language.lower().startswith(("zh", "cmn"))
            return ("chinese",) if is_mandarin else ("text",)
        case _:
            return ("text",)


def _best_singles(mixture: _Means, singles: Mapping[str, _Means]) -> Iterator[tuple[str, _Means]]:
    """The best kind among those that share at least half of the intents, and the best of each."""

    def rank(name: str) -> tuple[bool, float]:
        common = [singles[name][intent] for intent in mixture.keys() & singles[name].keys()]
        return 2 * len(common) >= len(mixture), float(np.mean(common or [-1.0]))

    if singles:
        best = max(singles, key=rank)
        yield f"best single ({best})", singles[best]
        each: dict[str, float] = {}
        for single in singles.values():
            for intent, value in single.items():
                each[intent] = max(value, each.get(intent, 0.0))
        yield "best single of each intent", each


def _contrast(
    ours: tuple[str, _Means], theirs: tuple[str, _Means], bootstrapped: Bootstrap
) -> Contrast:
    common = sorted(ours[1].keys() & theirs[1].keys())
    a = np.array([ours[1][intent] for intent in common])
    b = np.array([theirs[1][intent] for intent in common])
    if not common:
        nothing = Interval(np.nan, np.nan, np.nan)
        return Contrast(ours[0], theirs[0], 0, np.nan, np.nan, nothing, nothing)
    samples, seed = bootstrapped.samples, bootstrapped.seed
    return Contrast(
        ours=ours[0],
        theirs=theirs[0],
        intents=len(common),
        ours_mean=float(a.mean()),
        theirs_mean=float(b.mean()),
        ratio=paired_ratio(a, b, samples=samples, seed=seed),
        difference=paired_difference(a, b, samples=samples, seed=seed),
    )
