"""Vectors of products in a Parquet file that says which tower they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from tfmm.errors import TfmmError

ID, VECTOR = "product_id", "embedding"
TOWER = b"tower_fingerprint"
_NORM_WITHIN = 1e-3
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Vectors by product.

    Attributes:
      places: Row of each product id.
      vectors: float32 [N, D], of unit norm.
    """

    places: dict[str, int]
    vectors: Floats

    def __contains__(self, product: object) -> bool:
        return product in self.places

    def of(self, products: Sequence[str]) -> Floats:
        """Vectors [P, D] of products that are there."""
        return self.vectors[[self.places[product] for product in products]]


def none_of(dim: int) -> Embeddings:
    """Of no product."""
    return Embeddings({}, np.zeros((0, dim), np.float32))


def write_embeddings(
    path: Path, ids: Sequence[str], vectors: Floats, *, about: dict[str, str]
) -> None:
    """Writes a file.

    Args:
      path: The file.
      ids: Product ids.
      vectors: float32 [N, D].
      about: What the file's metadata say: `tower_fingerprint`, and more.
    """
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    columns = {
        ID: pa.array(ids, pa.string()),
        VECTOR: pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    pa.parquet.write_table(table, aside)
    aside.replace(path)


def read_embeddings(path: Path, *, tower: str, dim: int) -> Embeddings:
    """Reads a file.

    Args:
      path: The file.
      tower: The fingerprint of the tower that its vectors have to be of.
      dim: Numbers D of a vector.

    Raises:
      TfmmError: It cannot be read, is of another tower, or holds no unit vectors of that length.
    """
    try:
        table = pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise TfmmError(f"{path}: expected embeddings in Parquet, found: {reason}") from error
    said = (table.schema.metadata or {}).get(TOWER, b"").decode()
    if said != tower:
        other = f"those of {said[:12]}" if said else "none that say of which"
        raise TfmmError(
            f"{path}: expected embeddings of the model's own tower {tower[:12]}, found {other}"
        )
    vectors = _matrix(path, table, dim)
    ids = table[ID].to_pylist()
    if len(set(ids)) != len(ids) or None in ids:
        raise TfmmError(f"{path}: expected each product once, found some twice or without an id")
    return Embeddings({product: row for row, product in enumerate(ids)}, vectors)


def _matrix(path: Path, table: Any, dim: int) -> Floats:
    kind = table.schema.field(VECTOR).type if {ID, VECTOR} <= set(table.column_names) else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or kind.list_size != dim:
        raise TfmmError(
            f"{path}: expected columns {ID} and {VECTOR}, a fixed-size list of {dim}"
            f" float32, found {', '.join(map(str, table.schema.types))}"
        )
    flat = table[VECTOR].combine_chunks().flatten()
    vectors = np.asarray(flat, np.float32).reshape(-1, dim)
    if len(vectors) != len(table) or not _are_unit(vectors):
        raise TfmmError(f"{path}: expected a vector of unit norm for each product, found others")
    return vectors


def _are_unit(vectors: Floats) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=_NORM_WITHIN))
