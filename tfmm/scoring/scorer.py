"""The core that every runner shares: Arrow record batches in, Arrow record batches out.

It asks the exported model by its signatures, as a server does, and knows nothing of what made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from tfmm.artifacts import InputSpec, LoadedModel, load_model
from tfmm.contract import padded
from tfmm.errors import RecordError
from tfmm.records.tables import SourceRow, rows_of
from tfmm.scoring.hits import hits_of
from tfmm.scoring.media import MediaLoader
from tfmm.scoring.rows import Asked, Checker, Reject, Row, inputs_of
from tfmm.scoring.takes import SIGNATURE, Kind, Takes

BATCH_ROWS = 256
# Decoded photos are a hundred times larger than words.
BATCH_MEDIA = 32
Known = npt.NDArray[np.bool_]
REJECT = pa.field("reject", pa.struct([("field", pa.string()), ("reason", pa.string())]))


@dataclass(frozen=True)
class Scored:
    """The answers to some rows.

    Attributes:
      batch: One row for each that could be scored, in their order.
      places: Which of the rows they are, rising.
      rejects: The others, by place.
      cut_short: Answers that exclude so many products that `catalogue.max_k` left too few hits.
    """

    batch: pa.RecordBatch
    places: npt.NDArray[np.int64]
    rejects: Mapping[int, Reject]
    cut_short: int = 0


class Scorer:
    """A loaded model that answers rows in batches."""

    def __init__(self, takes: Takes, asked: Asked, *, folder: Path = Path()) -> None:
        """Loads the model.

        Args:
          takes: What it takes.
          asked: What every row asks for.
          folder: What the paths of photos and sounds are relative to.
        """
        self.takes = takes
        self.checker = Checker(takes, asked)
        self._signature = _loaded(takes).signatures[SIGNATURE[takes.kind]]
        self._media = MediaLoader(folder, takes.config.prepare)

    def score(self, rows: Sequence[Row | Reject]) -> Scored:
        """Answers rows; those that cannot be are left out, with the reason."""
        rejects = {place: row for place, row in enumerate(rows) if isinstance(row, Reject)}
        good = {place: row for place, row in enumerate(rows) if isinstance(row, Row)}
        for place, error in self._media.load(good).items():
            rejects[place] = _rejected(good.pop(place), error)
        if not good:
            empty = pa.RecordBatch.from_pylist([], self.takes.schema)
            return Scored(empty, np.zeros(0, np.int64), rejects)
        batch, known, cut_short = self._answers(list(good.values()))
        places = np.array(list(good))
        for place in places[~known].tolist():
            row = good[place]
            reason = f"expected a product of the model, received {row.keys[0]!r}"
            rejects[place] = _rejected(row, RecordError("product_id", reason))
        kept = batch if known.all() else batch.filter(pa.array(known))
        return Scored(kept, places[known], rejects, cut_short)

    def _answers(self, rows: Sequence[Row]) -> tuple[pa.RecordBatch, Known, int]:
        """Answers [B], whether the model has the product that is asked about, and `cut_short`."""
        catalogue = self.takes.config.catalogue
        answer = self._ask([inputs_of(row, self.takes) for row in rows])
        known = self._known(answer, rows)
        answer = {name: value[: len(rows)] for name, value in answer.items()}
        hits = hits_of(answer, rows, self.takes.hit, excluded=catalogue.exclude_length)
        counts = hits.value_lengths().to_numpy()
        cut_short = sum(
            count < row.k and row.wanted(catalogue.exclude_length) > catalogue.max_k
            for count, row in zip(counts, rows, strict=True)
        )
        keys = [
            pa.array([row.keys[place] for row in rows], key.type)
            for place, key in enumerate(self.takes.keys)
        ]
        batch = pa.RecordBatch.from_arrays([*keys, hits], schema=self.takes.schema)
        return batch, known, int(cut_short)

    def _ask(self, given: Sequence[Mapping[str, Any]]) -> dict[str, tf.Tensor]:
        """Outputs [B, K]; of kind similar [B + 1, K], the last for a product that is not there."""
        if self.takes.kind == "similar":
            given = [*given, {**given[-1], "product_id": ""}]
        names = dict.fromkeys(name for one in given for name in one)
        columns = {name: [one.get(name) for one in given] for name in names}
        specs = self.takes.inputs
        return self._signature.tensors(
            **{name: _tensor(name, column, specs[name]) for name, column in columns.items()}
        )

    def _known(self, answer: Mapping[str, tf.Tensor], rows: Sequence[Row]) -> Known:
        """Whether the model has the product of each row, bool [B].

        It answers a product that it has not like any other that it has not.
        """
        if self.takes.kind != "similar":
            return np.ones(len(rows), np.bool_)
        scores = answer["score"].numpy()
        same = (scores[:-1] == scores[-1]).all(axis=1)
        for number in np.flatnonzero(same):
            ids = answer["product_id"]
            same[number] = bool(tf.reduce_all(ids[number] == ids[-1]))
        return ~same


def batched(rows: Iterable[Row | Reject]) -> Iterator[list[Row | Reject]]:
    """Yields rows as many at a time as the model is asked, the same for the same rows."""
    batch: list[Row | Reject] = []
    media = 0
    for row in rows:
        more = len(row.media()) if isinstance(row, Row) else 0
        more += isinstance(row, Row) and any(
            isinstance(row.inputs.get(name), bytes) for name in ("image", "audio")
        )
        if len(batch) == BATCH_ROWS or (batch and media + more > BATCH_MEDIA):
            yield batch
            batch, media = [], 0
        batch.append(row)
        media += more
    if batch:
        yield batch


def _tensor(name: str, column: Sequence[Any], spec: InputSpec) -> tf.Tensor:
    """An input [B] or [B, width]; None is what the signature takes for it when it is not sent."""
    blank = "" if spec.default is None else spec.default.flat[0]
    if len(spec.shape) == 2 and spec.shape[1] is not None:
        width = spec.shape[1]
        table: list[Any] = [padded(name, one or (), width, blank) for one in column]
    else:
        table = [blank if one is None else one for one in column]
    return tf.constant(table, dtype=spec.dtype)


_LOADED: dict[tuple[Path, str], LoadedModel] = {}


def _loaded(takes: Takes) -> LoadedModel:
    """The model, loaded once a process: engines call for it again for every piece of the work."""
    key = (takes.version, takes.identity["digest"])
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = load_model(takes.version)
    return _LOADED[key]


def set_threads(threads: int) -> None:
    """Bounds TensorFlow's threads, if it has not started yet; 0 leaves it one a core."""
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


@dataclass
class Scoring:
    """The core for an engine that hands record batches to a function, such as Spark's mapInArrow.

    It may be pickled; the model is loaded where it is first called, once a process.

    Attributes:
      saved_model: The model's folder, as it is called where this runs.
      kind: "queries" or "similar".
      asked: What every row asks for.
      fields: Columns of the hits; None for all that the model declares.
      folder: What the paths of photos and sounds are relative to.
      threads: Threads of TensorFlow; 0 for one a core. Several processes on one machine must share
        its cores.
    """

    saved_model: str
    kind: Kind = "queries"
    asked: Asked = field(default_factory=Asked)
    fields: tuple[str, ...] | None = None
    folder: str = "."
    threads: int = 0

    def schema(self) -> pa.Schema:
        """What comes out: the columns of the files, and `reject`, null where there are hits."""
        return Takes.of(Path(self.saved_model), self.kind, self.fields).schema.append(REJECT)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Answers every row of the batches, in their order.

        A query's `row` is its number among the rows of this call.

        Raises:
          TfmmError: The model is none, or does not take what every row asks for.
        """
        set_threads(self.threads)
        takes = Takes.of(Path(self.saved_model), self.kind, self.fields)
        scorer = Scorer(takes, self.asked, folder=Path(self.folder))
        sources = (SourceRow(0, values) for batch in batches for values in rows_of(batch))
        for batch in batched(_checked(scorer.checker, self.kind, sources)):
            yield _with_rejects(scorer.score(batch))


def _checked(checker: Checker, kind: Kind, sources: Iterable[SourceRow]) -> Iterator[Row | Reject]:
    check = checker.similar if kind == "similar" else checker.query
    for number, source in enumerate(sources):
        try:
            yield check(source, number)
        except RecordError as error:
            yield Reject("", number, error, checker.keys(source, number))


def _rejected(row: Row, error: RecordError) -> Reject:
    return Reject(row.file, row.number, error, row.keys)


def _with_rejects(scored: Scored) -> pa.RecordBatch:
    """Answers, with the rows that could not be scored in their places."""
    schema, rejects = scored.batch.schema, sorted(scored.rejects.items())
    named = [dict(zip(schema.names, reject.keys, strict=False)) for _, reject in rejects]
    blank = pa.RecordBatch.from_pylist([dict.fromkeys(schema.names) | one for one in named], schema)
    reasons = [{"field": r.error.field, "reason": r.error.reason} for _, r in rejects]
    columns = [
        *pa.concat_batches([scored.batch, blank]).columns,
        pa.array([None] * scored.batch.num_rows + reasons, REJECT.type),
    ]
    order = np.argsort(np.concatenate([scored.places, [place for place, _ in rejects]]))
    whole = pa.RecordBatch.from_arrays(columns, schema=schema.append(REJECT))
    return whole.take(pa.array(order))
