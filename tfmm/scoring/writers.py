"""The files of a batch of answers: Parquet, JSONL or TFRecord; each appears whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf

from tfmm.scoring.hits import as_text, compacted

Format = Literal["parquet", "jsonl", "tfrecord"]
SUFFIX: Mapping[Format, str] = {
    "parquet": ".parquet",
    "jsonl": ".jsonl",
    "tfrecord": ".tfrecord.gz",
}
TEMPORARY = ".writing-"
"""How the names of files begin that a killed process leaves."""
_HITS_A_GROUP = 1 << 20
# A dictionary that is larger than a page is dropped otherwise, and its text written out.
_DICTIONARY_BYTES = 1 << 30


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
            return _Lines(path, schema)
        case "tfrecord":
            return _Examples(path, schema)


class _Parquet:
    """Rows are kept until they make a row group worth its own dictionaries of text.

    A group is written while the next one is made.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []
        self._hits = 0
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._held.append(batch)
        self._hits += len(batch.column("hits").values)
        if self._hits >= _HITS_A_GROUP:
            self._flush()

    def close(self) -> None:
        try:
            if self._held or self._writing is None:
                self._flush()
            self._wait()
        finally:
            self._pool.shutdown()
            if self._writer is not None:
                self._writer.close()

    def _flush(self) -> None:
        self._wait()
        held, self._held, self._hits = self._held, [], 0
        self._writing = self._pool.submit(self._write, held)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        table = compacted(batches, self._schema)
        if self._writer is None:
            text = [
                f"hits.list.element.{field.name}"
                for field in self._schema.field("hits").type.value_type
                if pa.types.is_string(field.type)
            ]
            # Scores differ and are no good in a dictionary; nobody asks for their extremes.
            self._writer = pa.parquet.ParquetWriter(
                self._path, table.schema, compression="snappy", store_schema=False,
                use_dictionary=text, dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_statistics=[key.name for key in self._schema if key.name != "hits"],
            )  # fmt: skip
        self._writer.write_table(table, row_group_size=max(1, len(table)))


class _Lines:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file, self._schema = path.open("w", encoding="utf-8"), schema

    def write(self, batch: pa.RecordBatch) -> None:
        for row in as_text(batch, self._schema).to_pylist():
            held = {name: value for name, value in row.items() if value is not None}
            self._file.write(json.dumps(held, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Examples:
    """One Example a row; each column of the hits is a list `hits/...` of its own, best first."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        self._writer, self._schema = tf.io.TFRecordWriter(str(path), options), schema
        self._put = {field.name: _putter(field.type) for field in schema if field.name != "hits"}
        self._hit = {
            field.name: _putter(field.type) for field in schema.field("hits").type.value_type
        }

    def write(self, batch: pa.RecordBatch) -> None:
        for row in as_text(batch, self._schema).to_pylist():
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
