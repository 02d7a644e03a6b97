"""Records in sharded, compressed TFRecord files, and the reader that everybody uses."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmm.errors import TfmmError
from tfmm.records.schema import Stored, default_of

FORMAT = 1
_COMPRESSION = "GZIP"
# Media hardly compress: level 1 writes four times as fast as zlib's default for the same size.
_COMPRESSION_LEVEL = 1
_READ_BATCH = 64


class PreparedData:
    """A folder that `tfmm prepare` wrote.

    Attributes:
      path: The folder.
      manifest: Its manifest: counts, schema, fingerprint.

    Raises:
      TfmmError: The folder holds no prepared dataset, or not all of it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for table in self.manifest["tables"]:
            for name in self.manifest["tables"][table]["files"]:
                if not (self.path / name).is_file():
                    raise TfmmError(f"{self.path}: expected {name}, which the manifest names")

    def count(self, table: str) -> int:
        """Records of a table; 0 when the dataset has no such table."""
        return int(self.manifest["tables"].get(table, {}).get("written", 0))

    def files(self, table: str) -> list[str]:
        """Paths of a table's shards, in record order."""
        names = self.manifest["tables"].get(table, {}).get("files", [])
        return [str(self.path / name) for name in names]

    def schema(self, table: str) -> dict[str, Stored]:
        """What each feature of a table holds."""
        return dict(self.manifest["schema"].get(table, {}))

    def dataset(self, table: str) -> tf.data.Dataset:
        """A table as a dataset of one dict a record, in record order.

        Text and media are string scalars, "texts" and "medias" string tensors [n], numbers float32
        or int64 scalars; what a record lacks has the value of `schema.default_of`.

        Raises:
          TfmmError: The dataset has no such table.
        """
        spec = {name: _parsing_spec(name, stored) for name, stored in self._known(table).items()}

        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            return tf.io.parse_single_example(serialized, spec)

        return self._serialized(table).map(parse, num_parallel_calls=tf.data.AUTOTUNE)

    def rows(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """A table as plain Python values, one dict a record, in record order.

        Args:
          table: The table.
          columns: The features wanted; None for all.

        Raises:
          TfmmError: The dataset has no such table, or the table no such feature.
        """
        schema = self._known(table)
        wanted = list(schema) if columns is None else list(columns)
        unknown = sorted(set(wanted) - set(schema))
        if unknown:
            raise TfmmError(
                f"{self.path}: {table}: expected columns among {', '.join(schema)},"
                f" received {unknown[0]}"
            )
        return self._decode(table, {name: schema[name] for name in wanted})

    def _decode(self, table: str, schema: Mapping[str, Stored]) -> Iterator[dict[str, Any]]:
        for batch in self._serialized(table).batch(_READ_BATCH).as_numpy_iterator():
            for serialized in batch:
                yield decode_record(serialized, schema)

    def _serialized(self, table: str) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(self.files(table), compression_type=_COMPRESSION)

    def _known(self, table: str) -> dict[str, Stored]:
        schema = self.schema(table)
        if not self.files(table):
            raise TfmmError(f"{self.path}: expected a table {table}, the dataset has none")
        return schema


class ShardFile:
    """One file of records; a context manager, or to be closed.

    Attributes:
      path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        options = tf.io.TFRecordOptions(
            compression_type=_COMPRESSION, compression_level=_COMPRESSION_LEVEL
        )
        self._writer = tf.io.TFRecordWriter(str(path), options)
        self._hash = hashlib.sha256()

    def write(self, serialized: bytes) -> None:
        """Appends one record."""
        self._writer.write(serialized)
        self._hash.update(len(serialized).to_bytes(8, "little"))
        self._hash.update(serialized)

    def digest(self) -> str:
        """SHA-256 of the records so far, in hexadecimal; it does not depend on the compression."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShardWriter:
    """Writes one table's records over a fixed number of shards.

    Use as a context manager. `digests` gives, once closed, one SHA-256 a shard over its records,
    which does not depend on the compression.
    """

    def __init__(self, folder: Path, table: str, *, shards: int) -> None:
        self.names = shard_names(table, shards)
        self._files = [ShardFile(folder / name) for name in self.names]

    def write(self, shard: int, serialized: bytes) -> None:
        """Appends one record to a shard."""
        self._files[shard].write(serialized)

    def digests(self) -> list[str]:
        """SHA-256 of each shard's records so far, in hexadecimal."""
        return [file.digest() for file in self._files]

    def close(self) -> None:
        """Ends the files."""
        for file in self._files:
            file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shard_names(table: str, shards: int) -> list[str]:
    """The names of a table's files, in record order."""
    return [f"{table}-{i:05d}-of-{shards:05d}.tfrecord.gz" for i in range(shards)]


def shard_of(key: str, shards: int) -> int:
    """The shard that everything of one shopper goes to, the same in every run."""
    return zlib.crc32(key.encode()) % shards


def encode_record(record: Mapping[str, Any], schema: Mapping[str, Stored]) -> bytes:
    """Serialises a record; equal records give equal bytes.

    Numbers are always written (their default where absent); empty text, media and lists are not.
    """
    example = tf.train.Example()
    features = example.features.feature
    for name, stored in schema.items():
        value = record.get(name)
        if value is None:
            value = default_of(name, stored)
        match stored:
            case "float":
                features[name].float_list.value.append(value)
            case "int":
                features[name].int64_list.value.append(value)
            case "text" if value:
                features[name].bytes_list.value.append(value.encode())
            case "media" if value:
                features[name].bytes_list.value.append(value)
            case "texts" if value:
                features[name].bytes_list.value.extend([item.encode() for item in value])
            case "medias" if value:
                features[name].bytes_list.value.extend(value)
    return bytes(example.SerializeToString(deterministic=True))


def decode_record(serialized: bytes, schema: Mapping[str, Stored]) -> dict[str, Any]:
    """Plain values of the features named in `schema`, defaults where the record has none."""
    features = tf.train.Example.FromString(serialized).features.feature
    return {
        name: _plain(features[name], name, stored) if name in features else default_of(name, stored)
        for name, stored in schema.items()
    }


def _plain(feature: Any, name: str, stored: Stored) -> Any:
    match stored:
        case "float":
            items: Any = feature.float_list.value
        case "int":
            items = feature.int64_list.value
        case "text" | "texts":
            items = [item.decode() for item in feature.bytes_list.value]
        case "media" | "medias":
            items = feature.bytes_list.value
    if stored in ("texts", "medias"):
        return list(items)
    return items[0] if items else default_of(name, stored)


def _parsing_spec(name: str, stored: Stored) -> Any:
    match stored:
        case "float":
            return tf.io.FixedLenFeature([], tf.float32, default_of(name, stored))
        case "int":
            return tf.io.FixedLenFeature([], tf.int64, default_of(name, stored))
        case "text" | "media":
            return tf.io.FixedLenFeature([], tf.string, "")
        case "texts" | "medias":
            return tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise TfmmError(
            f"{path}: expected a folder written by tfmm prepare, found no manifest.json"
        ) from error
    except ValueError as error:
        raise TfmmError(f"{path}/manifest.json: expected JSON, found: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise TfmmError(
            f"{path}/manifest.json: expected the manifest of a prepared dataset"
            f" in format {FORMAT}, found another one"
        )
    return manifest
