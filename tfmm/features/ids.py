"""Tables from product id to place, read from files that an exported model carries along."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.contract import LOG_IDS_FILE, PRODUCT_IDS_FILE
from tfmm.errors import TfmmError


class ProductIds(tf.Module):
    """Places of product ids in a list.

    The table reads a file in a temporary folder, which lives as long as this object;
    `tf.saved_model.save` copies it into the model's assets. A file, because a million ids would
    bloat a graph, and because a refresh rewrites it.

    Args:
      ids: The ids.
      file_name: What the file is called.

    Raises:
      TfmmError: An id is empty, repeated, or holds a line break.
    """

    def __init__(self, ids: Sequence[str], file_name: str = PRODUCT_IDS_FILE) -> None:
        super().__init__()
        _check(ids)
        self._folder = tempfile.mkdtemp(prefix="tfmm-ids-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = Path(self._folder) / file_name
        path.write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
        lines = tf.lookup.TextFileInitializer(
            str(path),
            key_dtype=tf.string,
            key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            value_dtype=tf.int64,
            value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self._table = tf.lookup.StaticHashTable(lines, default_value=-1)

    def lookup(self, product_id: tf.Tensor) -> tf.Tensor:
        """The place of each id, string [...], as int32 [...]; -1 where it is unknown."""
        return tf.cast(self._table.lookup(product_id), tf.int32)


class LoggedProducts(tf.Module):
    """What a training log says of products, for towers that know them by more than their content.

    Args:
      ids: Products of the log, at least one.
      rows: Their rows of the training catalogue + 1, int32 [L].
      features: Their `popularity_features`, float32 [L, F]; None where no tower reads them.
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        rows: npt.NDArray[np.int32],
        features: npt.NDArray[np.float32] | None,
    ) -> None:
        super().__init__(name="logged_products")
        self._ids = ProductIds(ids, LOG_IDS_FILE)
        # The first stands for products that the log does not know.
        self._rows = tf.Variable(np.pad(rows, (1, 0)), trainable=False, name="rows")
        self._features: tf.Variable | None = None
        if features is not None:
            padded = np.pad(features, [(1, 0), (0, 0)])
            self._features = tf.Variable(padded, trainable=False, name="features")

    def features(self, product_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a product tower reads of products, string [B]; zeros for unknown ones.

        Returns:
          "id" int32 [B], and "popularity" float32 [B, F] where there is any.
        """
        at = self._ids.lookup(product_id) + 1
        # The value, not the variable: see `index.exact.as_read`.
        made = {"id": tf.gather(tf.convert_to_tensor(self._rows), at)}
        if self._features is None:
            return made
        return made | {"popularity": tf.gather(tf.convert_to_tensor(self._features), at)}


def _check(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for product_id in ids:
        if product_id in seen:
            raise TfmmError(f"product_ids: expected each id once, received {product_id!r} again")
        seen.add(product_id)
        if not product_id or "\n" in product_id or "\r" in product_id:
            raise TfmmError(
                f"product_ids: expected ids without line breaks, received {product_id!r}"
            )
