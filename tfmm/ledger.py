"""What a version keeps of its products beside the graph, for those that refresh it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from tfmm.errors import TfmmError

PRODUCTS = Path("assets.extra", "products.npz")
LOG = Path("assets.extra", "training_log.parquet")


@dataclass(frozen=True)
class Ledger:
    """One entry a product of the catalogue, in its order.

    Attributes:
      fingerprints: `content_fingerprints` of what its vector was made of, uint64 [N].
      popularity: What it counts in the training log, float32 [N]; 0 for new products.
    """

    fingerprints: npt.NDArray[np.uint64]
    popularity: npt.NDArray[np.float32]

    def write(self, version: Path) -> None:
        """Writes it beside a version's manifest."""
        path = version / PRODUCTS
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, fingerprints=self.fingerprints, popularity=self.popularity)


def read_ledger(version: Path) -> Ledger:
    """A version's ledger.

    Raises:
      TfmmError: It has none.
    """
    try:
        with np.load(version / PRODUCTS) as saved:
            return Ledger(saved["fingerprints"], saved["popularity"])
    except OSError as error:
        raise TfmmError(
            f"{version}: expected a version that can be refreshed, found one without {PRODUCTS},"
            " as older exports are; export it again"
        ) from error


def write_log(version: Path, counts: Mapping[str, float]) -> None:
    """Writes what each product counts in the training log, those aside that count nothing."""
    known = {product: count for product, count in counts.items() if count > 0}
    path = version / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "product_id": pa.array(list(known), pa.string()),
        "count": pa.array(list(known.values()), pa.float64()),
    }
    pa.parquet.write_table(pa.table(columns), path)


def logged_counts(version: Path, product_ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """What products count in a version's training log, [N]; 0 for those it does not know."""
    log = pa.parquet.read_table(version / LOG)
    at = pc.index_in(pa.array(product_ids, pa.string()), value_set=log["product_id"])
    return np.asarray(log["count"].take(at).fill_null(0.0), np.float32)
