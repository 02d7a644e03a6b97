"""Asks an exported model for rankings, as a client of its server would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfmm.artifacts import LoadedModel
from tfmm.config import Config, Modality
from tfmm.heldout import Query

PARTS: tuple[Modality, ...] = ("text", "image", "audio", "history")


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
        inputs = self._inputs(queries, self.depth)
        answers = self.model.signatures["serving_default"](**inputs)["product_id"]
        return [
            self._counted(query, allowed(query, answer[:asked]), asked)
            for query, answer, asked in zip(queries, answers, inputs["k"], strict=True)
        ]

    def rank_deeply(self, queries: Sequence[Query], depth: int) -> list[list[str]]:
        """As `rank`, to another depth, which excluded products may make shorter."""
        inputs = self._inputs(queries, depth)
        answers = self.model.signatures["serving_default"](**inputs)["product_id"]
        return [
            allowed(query, answer[:asked])[:depth]
            for query, answer, asked in zip(queries, answers, inputs["k"], strict=True)
        ]

    def hits(self, queries: Sequence[Query], depth: int) -> list[list[tuple[str, float]]]:
        """Product ids and served scores for each query, best first, as many as `depth`."""
        inputs = self._inputs(queries, depth)
        answer = self.model.signatures["serving_default"](**inputs)
        found = []
        for row, (query, asked) in enumerate(zip(queries, inputs["k"], strict=True)):
            ids = answer["product_id"][row][:asked]
            kept = zip(ids, answer["score"][row], strict=False)
            scores = {_plain(product): float(score) for product, score in kept}
            found.append([(product, scores[product]) for product in allowed(query, ids)][:depth])
        return found

    def content(self, queries: Sequence[Query]) -> dict[str, Any]:
        """What queries hold, as inputs of a signature; what none of them holds is not sent."""
        read = self.config.history
        parts: dict[str, str] = {part: part for part in PARTS}
        parts |= {"history_event": "history_event"} if read.events else {}
        parts |= {"history_age_seconds": "history_age_s"} if read.ages else {}
        return {
            name: [getattr(query, part) for query in queries]
            for name, part in parts.items()
            if any(getattr(query, part) for query in queries)
        }

    def _inputs(self, queries: Sequence[Query], depth: int) -> dict[str, Any]:
        inputs = self.content(queries)
        width = self.config.catalogue.exclude_length
        if any(query.exclude for query in queries):
            inputs["exclude"] = [query.exclude[-width:] for query in queries]
        limit = self.config.catalogue.max_k
        beyond = [max(0, len(query.exclude) - width) for query in queries]
        inputs["k"] = [min(depth + more, limit) for more in beyond]
        return inputs

    def _counted(self, query: Query, kept: list[str], asked: int) -> list[str]:
        beyond = len(query.exclude) - self.config.catalogue.exclude_length
        self.cut_short += asked < self.depth + beyond and len(kept) < self.depth
        return kept[: self.depth]


def allowed(query: Query, answer: Sequence[str | bytes]) -> list[str]:
    """Product ids of an answer without padding and without what the query excludes."""
    excluded = {"", *query.exclude}
    return [item for item in map(_plain, answer) if item not in excluded]


def _plain(item: str | bytes) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def without(query: Query, modality: Modality) -> Query:
    """A query that lacks one of its parts; what it excludes stays."""
    match modality:
        case "text":
            return replace(query, text="")
        case "image":
            return replace(query, image=b"")
        case "audio":
            return replace(query, audio=b"")
        case "history":
            return replace(query, history=(), history_event=(), history_age_s=())
        case "id" | "popularity":
            return query  # products have it alone
