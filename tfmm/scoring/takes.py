"""What an exported model takes of a row, and what it gives back: read of its files, not loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import tensorflow as tf

from tfmm.artifacts import (
    InputSpec,
    identity_of,
    latest_version,
    output_types,
    read_manifest,
    signature_specs,
)
from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError

Kind = Literal["queries", "shoppers", "similar"]
SIGNATURE: Mapping[Kind, str] = {
    "queries": "serving_default",
    "shoppers": "serving_default",
    "similar": "similar",
}
_KEYS: Mapping[Kind, tuple[pa.Field, ...]] = {
    "queries": (pa.field("row", pa.int64()), pa.field("query_id", pa.string())),
    "shoppers": tuple(pa.field(n, pa.string()) for n in ("user_id", "session_id", "log")),
    "similar": (pa.field("product_id", pa.string()),),
}
_NO_FILTERS = frozenset(
    {"text", "image", "audio", "history", "history_event", "history_age_seconds", "hour", "place"}
    | {"product_id", "exclude", "k"}
)


@dataclass(frozen=True)
class Takes:
    """What a signature takes and gives.

    Attributes:
      kind: What rows are.
      version: The model's version folder.
      identity: Its names and its digest.
      config: Its recipe.
      inputs: The signature's inputs.
      fields: Columns of a hit beside its rank, product and score, as Arrow types.
    """

    kind: Kind
    version: Path
    identity: Mapping[str, str]
    config: Config
    inputs: Mapping[str, InputSpec]
    fields: Mapping[str, pa.DataType]

    @classmethod
    def of(cls, saved_model: Path, kind: Kind, fields: Sequence[str] | None = None) -> Takes:
        """Reads the manifest and the signatures of a model.

        Args:
          saved_model: A version folder, or a model's folder (its newest version).
          kind: What rows are.
          fields: Columns of the hits that are wanted; None for all that the model declares.

        Raises:
          TfmmError: It is no model that tfmm exported, or does not return such a column.
        """
        version = latest_version(saved_model)
        manifest = read_manifest(version)
        signature = SIGNATURE[kind]
        specs, outputs = signature_specs(version), output_types(version)
        if "config" not in manifest or signature not in specs:
            raise TfmmError(
                f"{saved_model}: expected a model that tfmm exported, found another one"
            )
        given = {name: _arrow(dtype) for name, dtype in outputs[signature].items()}
        known = {name: given[name] for name in given if name not in ("product_id", "score")}
        for name in fields or ():
            if name not in known:
                raise TfmmError(
                    f"--fields: expected columns among {', '.join(known) or '(none)'},"
                    f" received {name}"
                )
        return cls(
            kind,
            version,
            identity_of(version),
            config_from_dict(manifest["config"], where=f"{saved_model}: manifest"),
            specs[signature],
            known if fields is None else {name: known[name] for name in fields},
        )

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the rules that rows may carry."""
        return tuple(sorted(name for name in self.inputs if name not in _NO_FILTERS))

    @property
    def keys(self) -> tuple[pa.Field, ...]:
        """What says which row an answer belongs to."""
        return _KEYS[self.kind]

    @property
    def hit(self) -> pa.StructType:
        """One hit."""
        fixed = {"rank": pa.int32(), "product_id": pa.string(), "score": pa.float32()}
        types = {**fixed, **self.fields}
        return pa.struct([pa.field(name, kind, nullable=False) for name, kind in types.items()])

    @property
    def schema(self) -> pa.Schema:
        """What is written: the keys of a row and its hits, best first."""
        return pa.schema([*self.keys, pa.field("hits", hits_type(self.hit))])


def hits_type(hit: pa.StructType) -> pa.ListType:
    """The hits of a row, as Parquet gives them back."""
    return pa.list_(pa.field("element", hit, nullable=False))


def _arrow(dtype: tf.DType) -> pa.DataType:
    return pa.string() if dtype == tf.string else pa.from_numpy_dtype(dtype.as_numpy_dtype)
