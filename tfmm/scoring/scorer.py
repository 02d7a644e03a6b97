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

from tfmm.artifacts import Answer, InputSpec, LoadedModel, load_model
from tfmm.contract import padded
from tfmm.errors import RecordError, TfmmError
from tfmm.records.tables import SourceRow, rows_of
from tfmm.scoring.hits import Products, as_text, hits_of, kept_of
from tfmm.scoring.media import MediaLoader
from tfmm.scoring.plain import Plain
from tfmm.scoring.rows import Asked, Checker, Reject, Row, inputs_of
from tfmm.scoring.takes import SIGNATURE, Kind, Takes

BATCH_ROWS = 512
# Decoded photos are a hundred times larger than words.
BATCH_MEDIA = 32
Known = npt.NDArray[np.bool_]
Batch = Sequence[Row | Reject] | Plain
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
    """A loaded model that answers rows in batches, which several threads may ask.

    Attributes:
      at_once: Batches that are best asked at the same time: what is done between two searches
        leaves a core idle otherwise.
    """

    def __init__(self, takes: Takes, asked: Asked, *, folder: Path = Path()) -> None:
        """Loads the model.

        Args:
          takes: What it takes.
          asked: What every row asks for.
          folder: What the paths of photos and sounds are relative to.

        Raises:
          TfmmError: It cannot be loaded, or does not number its products.
        """
        self.takes = takes
        self.checker = Checker(takes, asked)
        loaded = _loaded(takes)
        if SIGNATURE[takes.kind] not in loaded.numbered:
            raise TfmmError(
                f"{takes.version}: expected a model that numbers its products, found one that an"
                " older tfmm exported; export it again"
            )
        self._model = loaded.numbered[SIGNATURE[takes.kind]]
        self._products = Products(loaded.columns, takes.hit)
        self._media = MediaLoader(folder, takes.config.prepare)
        self.at_once = 1 if tf.config.threading.get_intra_op_parallelism_threads() == 1 else 2

    def score(self, rows: Batch) -> Scored:
        """Answers rows; those that cannot be are left out, with the reason.

        Text of the hits is coded, see `hits`.
        """
        if isinstance(rows, Plain):
            return self._scored_plain(rows)
        rejects = {place: row for place, row in enumerate(rows) if isinstance(row, Reject)}
        good = {place: row for place, row in enumerate(rows) if isinstance(row, Row)}
        for place, error in self._media.load(good).items():
            rejects[place] = _rejected(good.pop(place), error)
        if not good:
            empty = pa.RecordBatch.from_pylist([], self.takes.schema)
            return Scored(empty, np.zeros(0, np.int64), rejects)
        batch, known, cut_short = self._answers(list(good.values()))
        places = np.array(list(good))
        rejects |= {place: _unknown(good[place]) for place in places[~known].tolist()}
        return Scored(_those(batch, known), places[known], rejects, cut_short)

    def _scored_plain(self, rows: Plain) -> Scored:
        given = rows.blank.inputs | {"k": rows.blank.k}
        columns = {name: [value] for name, value in given.items()}
        answer = self._ask(columns | {rows.name: rows.values.to_pylist()})
        kept = kept_of(answer["product"], np.full(len(rows), rows.blank.k), {})
        batch, known = self._batch(rows.keys, answer, kept), self._known(answer, len(rows))
        places = np.arange(len(rows))
        rejects = {place: _unknown(rows.row(place)) for place in places[~known].tolist()}
        return Scored(_those(batch, known), places[known], rejects)

    def _answers(self, rows: Sequence[Row]) -> tuple[pa.RecordBatch, Known, int]:
        """Answers [B], whether the model has the product that is asked about, and `cut_short`."""
        catalogue = self.takes.config.catalogue
        given = [inputs_of(row, self.takes) for row in rows]
        names = dict.fromkeys(name for one in given for name in one)
        answer = self._ask({name: [one.get(name) for one in given] for name in names})
        wanted = np.array([row.k for row in rows])
        banned = {
            place: self._products.named(row.exclude, answer["product"][place])
            for place, row in enumerate(rows)
            if len(row.exclude) > catalogue.exclude_length
        }
        kept = kept_of(answer["product"], wanted, banned)
        beyond = np.array([row.wanted(catalogue.exclude_length) for row in rows])
        cut_short = (kept.sum(axis=1) < wanted) & (beyond > catalogue.max_k)
        keys = tuple(
            pa.array([row.keys[place] for row in rows], key.type)
            for place, key in enumerate(self.takes.keys)
        )
        batch = self._batch(keys, answer, kept)
        return batch, self._known(answer, len(rows)), int(cut_short.sum())

    def _ask(self, columns: Mapping[str, Sequence[Any]]) -> Answer:
        """Outputs [B, K] to inputs of B rows, or of 1 for all."""
        specs = self.takes.inputs
        given = {name: _tensor(name, column, specs[name]) for name, column in columns.items()}
        return {name: value.numpy() for name, value in self._model.tensors(**given).items()}

    def _batch(self, keys: Sequence[pa.Array], answer: Answer, kept: Known) -> pa.RecordBatch:
        hits = hits_of(answer, kept, self.takes.hit, self._products)
        return pa.RecordBatch.from_arrays([*keys, hits], [*self.takes.schema.names])

    def _known(self, answer: Answer, rows: int) -> Known:
        """Whether the model has the product of each row, bool [B]."""
        return answer["known"] if self.takes.kind == "similar" else np.ones(rows, np.bool_)


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
            yield _with_rejects(scorer.score(batch), takes.schema)


def _checked(checker: Checker, kind: Kind, sources: Iterable[SourceRow]) -> Iterator[Row | Reject]:
    check = checker.similar if kind == "similar" else checker.query
    for number, source in enumerate(sources):
        try:
            yield check(source, number)
        except RecordError as error:
            yield Reject("", number, error, checker.keys(source, number))


def _those(batch: pa.RecordBatch, which: Known) -> pa.RecordBatch:
    return batch if which.all() else batch.filter(pa.array(which))


def _unknown(row: Row) -> Reject:
    reason = f"expected a product of the model, received {row.keys[0]!r}"
    return _rejected(row, RecordError("product_id", reason))


def _rejected(row: Row, error: RecordError) -> Reject:
    return Reject(row.file, row.number, error, row.keys)


def _with_rejects(scored: Scored, schema: pa.Schema) -> pa.RecordBatch:
    """Answers, with the rows that could not be scored in their places."""
    rejects = sorted(scored.rejects.items())
    named = [dict(zip(schema.names, reject.keys, strict=False)) for _, reject in rejects]
    blank = pa.RecordBatch.from_pylist([dict.fromkeys(schema.names) | one for one in named], schema)
    reasons = [{"field": r.error.field, "reason": r.error.reason} for _, r in rejects]
    columns = [
        *pa.concat_batches([as_text(scored.batch, schema), blank]).columns,
        pa.array([None] * scored.batch.num_rows + reasons, REJECT.type),
    ]
    order = np.argsort(np.concatenate([scored.places, [place for place, _ in rejects]]))
    whole = pa.RecordBatch.from_arrays(columns, schema=schema.append(REJECT))
    return whole.take(pa.array(order))
