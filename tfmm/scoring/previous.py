"""Answers of an earlier run, for the shoppers whose events have not changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tfmm.errors import TfmmError
from tfmm.records.tfrecord import shard_of
from tfmm.scoring.hits import as_text
from tfmm.scoring.plain import Plain
from tfmm.scoring.rows import Row
from tfmm.scoring.scorer import Batch, Scored, Scorer

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Earlier:
    """Answers of an earlier run, those of one block.

    Attributes:
      rows: The answers, in the form in which they are written.
      places: Where each shopper's is, by the key columns.
    """

    rows: pa.RecordBatch
    places: Mapping[tuple[Any, ...], int]

    @classmethod
    def read(cls, folder: Path, part: int) -> Earlier | None:
        """Those of a part of the log; None where nothing was laid down."""
        path = folder / _name(part)
        if not path.is_file():
            return None
        with pa.ipc.open_stream(path) as reader:
            table = reader.read_all()
        keys = [table[name].to_pylist() for name in table.column_names if name != "hits"]
        rows = table.combine_chunks().to_batches()
        whole = rows[0] if rows else pa.RecordBatch.from_pylist([], table.schema)
        return cls(whole, {key: place for place, key in enumerate(zip(*keys, strict=True))})

    def score(self, scorer: Scorer, rows: Batch) -> tuple[Scored, int]:
        """Answers rows, those with the same key from here; returns how many these are."""
        if isinstance(rows, Plain):
            rows = [rows.row(place) for place in range(len(rows))]
        known = {
            place: self.places[row.keys]
            for place, row in enumerate(rows)
            if isinstance(row, Row) and row.keys in self.places
        }
        new = [place for place in range(len(rows)) if place not in known]
        scored = scorer.score([rows[place] for place in new])
        places = np.array([*(new[n] for n in scored.places), *known], np.int64)
        carried = self.rows.take(pa.array(list(known.values()), pa.int64()))
        order = np.argsort(places)
        new_answers = as_text(scored.batch, self.rows.schema)
        batch = pa.concat_batches([new_answers, carried]).take(pa.array(order))
        rejects = {new[number]: reject for number, reject in scored.rejects.items()}
        return Scored(batch, places[order], rejects, scored.cut_short), len(known)


def lay_down(previous: Path, files: Sequence[str], folder: Path, *, parts: int) -> None:
    """Divides an earlier run's answers as the log has been divided.

    Raises:
      TfmmError: A file is missing or cannot be read.
    """
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    schema: pa.Schema | None = None
    try:
        for name in files:
            with pa.parquet.ParquetFile(previous / name) as file:
                schema = file.schema_arrow
                for batch in file.iter_batches(_BATCH_ROWS):
                    for part, rows in _divided(batch, parts).items():
                        if part not in writers:
                            writers[part] = pa.ipc.new_stream(str(folder / _name(part)), schema)
                        writers[part].write_batch(batch.take(pa.array(rows)))
    except (OSError, pa.ArrowException) as error:
        raise TfmmError(f"{previous}: expected a whole earlier result, found: {error}") from error
    finally:
        for writer in writers.values():
            writer.close()


def why_not(manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Why no answer of an earlier run can be carried over; "" if they can.

    Args:
      manifest: The earlier run's.
      wanted: What it would have to be now.
    """
    if manifest["model"]["digest"] != wanted["model"]["digest"]:
        return "the model or its catalogue has changed"
    for name, value in wanted.items():
        if manifest.get(name) != value and name != "model":
            return f"what is asked for has changed: {name}"
    return ""


def _divided(batch: pa.RecordBatch, parts: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    names = zip(batch["user_id"].to_pylist(), batch["session_id"].to_pylist(), strict=True)
    for row, (user_id, session_id) in enumerate(names):
        found.setdefault(shard_of(user_id or f"\0{session_id}", parts), []).append(row)
    return found


def _name(part: int) -> str:
    return f"previous-{part:05d}.arrow"
