"""`tfmm embeddings`: the vectors of a published model's products as a Parquet file."""

from __future__ import annotations

from pathlib import Path

from tfmm import artifacts
from tfmm.embeddings import write_embeddings
from tfmm.index.renewal import stored_vectors
from tfmm.turnover import Former


def embeddings(saved_model: Path, out: Path) -> int:
    """Writes the vector of every product, as the index holds it.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      out: The Parquet file: `product_id`, `embedding` (a fixed-size list of float32), and as
        metadata `tower_fingerprint`, `model` and `version`.

    Returns:
      The number of products.

    Raises:
      TfmmError: There is no version that tfmm exported.
    """
    former = Former(artifacts.latest_version(saved_model))
    about = {
        "tower_fingerprint": former.tower,
        "model": str(former.manifest["name"]),
        "version": former.version.name,
    }
    write_embeddings(out, former.ids, stored_vectors(former.index()), about=about)
    return len(former.ids)
