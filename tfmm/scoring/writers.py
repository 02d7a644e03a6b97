"""The files of a batch of answers: Parquet, JSONL or TFRecord; each appears whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf

Format = Literal["parquet", "jsonl", "tfrecord"]
SUFFIX: Mapping[Format, str] = {
    "parquet": ".parquet",
    "jsonl": ".jsonl",
    "tfrecord": ".tfrecord.gz",
}
TEMPORARY = ".writing-"
"""How the names of files begin that a killed process leaves."""


class Writer(Protocol):
    """A file being written."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends rows."""

    def close(self) -> None:
        """Ends the file."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends without an error.

    Several processes may do so at the same time: the last one wins.
    """
    beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, form: Format, schema: pa.Schema) -> Iterator[Writer]:
    """A new file of answers; equal rows give equal bytes."""
    with appearing(path) as beside:
        writer = _open(beside, form, schema)
        try:
            yield writer
        finally:
            writer.close()


def _open(path: Path, form: Format, schema: pa.Schema) -> Writer:
    match form:
        case "parquet":
            return _Parquet(path, schema)
        case "jsonl":
            return _Lines(path)
        case "tfrecord":
            return _Examples(path, schema)


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pa.parquet.ParquetWriter(path, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            held = {name: value for name, value in row.items() if value is not None}
            self._file.write(json.dumps(held, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Examples:
    """One Example a row; each column of the hits is a list `hits/...` of its own, best first."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        self._writer = tf.io.TFRecordWriter(str(path), options)
        self._put = {field.name: _putter(field.type) for field in schema if field.name != "hits"}
        self._hit = {
            field.name: _putter(field.type) for field in schema.field("hits").type.value_type
        }

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            example = tf.train.Example()
            features = example.features.feature
            for name, put in self._put.items():
                if row[name] is not None:
                    put(features[name], [row[name]])
            for name, put in self._hit.items():
                put(features[f"hits/{name}"], [hit[name] for hit in row["hits"]])
            self._writer.write(example.SerializeToString(deterministic=True))

    def close(self) -> None:
        self._writer.close()


def _putter(kind: pa.DataType) -> Callable[[Any, list[Any]], None]:
    if pa.types.is_string(kind):
        return lambda feature, items: feature.bytes_list.value.extend([i.encode() for i in items])
    if pa.types.is_integer(kind):
        return lambda feature, items: feature.int64_list.value.extend(items)
    return lambda feature, items: feature.float_list.value.extend(items)
