"""Everything that one evaluation needs, opened once: the data, the model, the baselines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tfmm import heldout
from tfmm.artifacts import LoadedModel
from tfmm.baselines import Baselines
from tfmm.config import Config
from tfmm.heldout import Query
from tfmm.metrics import parse_metric
from tfmm.parts import Part, catalogue_parts
from tfmm.records.tfrecord import PreparedData
from tfmm.searcher import Searcher

BATCH_SIZE = 64


@dataclass(frozen=True)
class Catalogue:
    """The products of a dataset.

    Attributes:
      ids: Id of each product, [N].
      index: Index of each id.
      has: Whether each product has a modality that the product tower reads, [N], by modality.
    """

    ids: list[str]
    index: dict[str, int]
    has: Mapping[str, npt.NDArray[np.bool_]]

    @classmethod
    def read(cls, prepared: PreparedData, config: Config) -> Catalogue:
        """Reads ids, and what each product has."""
        texts = text_columns(prepared, config)
        columns = {"text": texts, "image": ["images"], "audio": ["audio"]}
        read = {name: columns[name] for name in config.tower.product if name in columns}
        ids: list[str] = []
        has: dict[str, list[bool]] = {name: [] for name in read}
        wanted = {"product_id", *itertools.chain.from_iterable(read.values())}
        for row in prepared.rows("products", sorted(wanted)):
            ids.append(row["product_id"])
            for name, fields in read.items():
                has[name].append(any(row[column] for column in fields))
        index = {product_id: number for number, product_id in enumerate(ids)}
        return cls(ids, index, {name: np.array(there, np.bool_) for name, there in has.items()})


@dataclass
class Bench:
    """What an evaluation measures with.

    Attributes:
      prepared: The dataset.
      catalogue: Its products.
      searcher: Asks the model.
      baselines: What a shop has without one.
      log: Positive events.
      counts: Training interactions of each product, [N].
      parts: Parts of the catalogue.
      metrics: Names of the ranking metrics.
      source: "judgments" or "events".
      grades: The judgments; empty on events.
      test_from_us: Where the test period starts.
    """

    prepared: PreparedData
    catalogue: Catalogue
    searcher: Searcher
    baselines: Baselines
    log: heldout.Log
    counts: npt.NDArray[np.int64]
    parts: tuple[Part, ...]
    metrics: tuple[str, ...]
    source: str
    grades: heldout.Grades
    test_from_us: int

    @classmethod
    def open(
        cls,
        model: LoadedModel,
        config: Config,
        prepared: PreparedData,
        *,
        metrics: tuple[str, ...],
        source: str,
    ) -> Bench:
        """Reads the log, the catalogue and the judgments."""
        catalogue = Catalogue.read(prepared, config)
        log = heldout.read_log(prepared, catalogue.index)
        split = model.manifest["split"]
        test_from_us = int(split["test_from_us"])
        training = log.before(int(split.get("validation_from_us", test_from_us)))
        counts = np.bincount(training.product, minlength=len(catalogue.ids))
        texts = partial(_texts, prepared, text_columns(prepared, config))
        past = log.before(test_from_us)
        return cls(
            prepared=prepared,
            catalogue=catalogue,
            searcher=Searcher(model, config, max(parse_metric(name)[1] for name in metrics)),
            baselines=Baselines(catalogue.index, texts, past, seed=config.seed),
            log=log,
            counts=counts,
            parts=catalogue_parts(counts, catalogue.has),
            metrics=metrics,
            source=source,
            grades=heldout.read_grades(prepared) if source == "judgments" else {},
            test_from_us=test_from_us,
        )

    @property
    def config(self) -> Config:
        """The model's recipe."""
        return self.searcher.config

    def queries(self, skip: Callable[[str], None], advance: Callable[[], None]) -> Iterator[Query]:
        """Yields the queries that can be measured, always in the same order.

        Args:
          skip: Told the reason for every query that cannot.
          advance: Told of every query.
        """
        for query in self._all_queries(skip):
            advance()
            if not any(grade > 0 for grade in query.grades.values()):
                skip("queries without a relevant product")
            elif query.kind == "empty":
                skip("queries that ask nothing")
            elif not self.searcher.reads(query):
                skip("queries of a modality that the model does not read")
            else:
                yield query

    def indices(self, answers: Sequence[Sequence[str]]) -> list[list[int]]:
        """Product indices of ids, -1 for what the dataset does not have."""
        index = self.catalogue.index
        return [[index.get(key, -1) for key in answer] for answer in answers]

    def judged(self, queries: Sequence[Query]) -> list[dict[int, float]]:
        """Grades of each query by product index."""
        index = self.catalogue.index
        return [{index[key]: grade for key, grade in query.grades.items()} for query in queries]

    def _all_queries(self, skip: Callable[[str], None]) -> Iterator[Query]:
        if self.source == "judgments":
            yield from heldout.judged_queries(self.prepared, self.grades)
            return
        start, end = self.test_from_us, heldout.END_OF_TIME_US
        users = heldout.user_queries(
            self.log,
            self.catalogue.ids,
            from_us=start,
            until_us=end,
            config=self.config.evaluate,
            history_length=self.config.catalogue.history_length,
        )
        for reason, count in users.left_out.items():
            for _ in range(count):
                skip(reason)
        yield from users.queries
        known = self.log.shoppers_before(start)
        yield from heldout.event_queries(self.prepared, from_us=start, until_us=end, known=known)


def batches(queries: Iterator[Query]) -> Iterator[list[Query]]:
    """Yields queries some at a time, as the model is asked."""
    while batch := list(itertools.islice(queries, BATCH_SIZE)):
        yield batch


def text_columns(prepared: PreparedData, config: Config) -> list[str]:
    """Columns that the product tower reads as text, of those that the dataset has."""
    schema = prepared.schema("products")
    return [name for name in config.catalogue.text if schema.get(name) == "text"]


def _texts(prepared: PreparedData, columns: Sequence[str]) -> Iterator[str]:
    for row in prepared.rows("products", columns):
        yield " ".join(row[name] for name in columns)
