"""From prepared records to the feature stores of training, through the one Preprocessor."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import MEDIA, Config
from tfmm.data.batches import do_not_convert
from tfmm.data.catalogue_queries import catalogue_queries
from tfmm.data.changes import changes
from tfmm.data.examination import examination, inverse_propensity
from tfmm.data.pairs import COLUMNS, LogReader, Pairs, Query
from tfmm.data.store import FeatureStore
from tfmm.features.history import history_facts
from tfmm.features.preprocessor import Preprocessor
from tfmm.files import replacing, write_json
from tfmm.heldout import split_instants
from tfmm.records.tfrecord import PreparedData

VARIANTS = 8
CHANGES = 3
BATCH = 256
Encode = Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]
Advance = Callable[[int], None]


class StoreBuilder:
    """Builds, or finds already built, the stores of a run.

    Args:
      config: The recipe.
      prepared: What `tfmm prepare` wrote.
      preprocessor: The host half.
      folder: Where the stores are kept.
      encode_product: Replaces the raw features of frozen encoders by their outputs, so that an
        epoch costs the head only.
      encode_query: The same for queries.
    """

    def __init__(
        self,
        config: Config,
        prepared: PreparedData,
        *,
        preprocessor: Preprocessor,
        folder: Path,
        encode_product: Encode,
        encode_query: Encode,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._preprocessor = preprocessor
        self._folder = folder
        self._encode_product = encode_product
        self._encode_query = encode_query
        parts: list[Any] = [asdict(config.text), asdict(config.image), asdict(config.audio)]
        parts += [asdict(config.catalogue), list(config.tower.query), list(config.tower.product)]
        parts += [config.train.catalogue_share > 0]
        text = json.dumps([prepared.manifest["fingerprint"], parts, config.seed], sort_keys=True)
        self._stamp = hashlib.sha256(text.encode()).hexdigest()

    def products(self, advance: Advance) -> FeatureStore:
        """Features of every product, in catalogue order."""
        records = self._prepared.dataset("products").map(do_not_convert(self._raw_product))
        batches = records.batch(BATCH).map(
            do_not_convert(self._preprocessor.product), num_parallel_calls=tf.data.AUTOTUNE
        )
        return self._store("products", batches, advance)

    def catalogue_queries(self, advance: Advance) -> FeatureStore:
        """Features of `VARIANTS` word queries a product."""
        fields = self._config.catalogue.text
        products = list(self._prepared.rows("products", fields)) if self._words_ask() else []
        texts = catalogue_queries(products, fields, variants=VARIANTS, seed=self._config.seed)
        return self._store(
            "catalogue_queries", self._query_batches(Query(t, b"", b"") for t in texts), advance
        )

    def changes(
        self, products: FeatureStore, advance: Advance
    ) -> tuple[FeatureStore, npt.NDArray[np.int32]]:
        """Features of the words of `CHANGES` mixed queries a product, and what each photo shows."""
        path = self._folder / "photographed.npy"
        store = FeatureStore.open_if_current(self._folder / "changes", self._stamp)
        if store is not None and path.exists():
            return store, np.load(path)
        fields = self._config.catalogue.text
        has_photo = products.has("image").tolist()
        rows = (
            list(self._prepared.rows("products", fields))
            if self._words_ask() and any(has_photo)
            else []
        )
        found = []
        for change in changes(rows, fields, has_photo, variants=CHANGES, seed=self._config.seed):
            found.append(change)
            advance(1)
        photographed = np.array([change.photographed for change in found], dtype=np.int32)
        with replacing(path) as file:
            np.save(file, photographed)
        texts = (Query(change.text, b"", b"") for change in found)
        return self._store("changes", self._query_batches(texts), lambda rows: None), photographed

    def log(self, reader: LogReader, advance: Advance) -> tuple[FeatureStore, Pairs]:
        """Features of every distinct logged query, and the pairs that point at them."""
        events = self._prepared.rows("events", COLUMNS)
        path = self._folder / "pairs.npz"
        store = FeatureStore.open_if_current(self._folder / "queries", self._stamp)
        if store is not None and path.exists():
            with np.load(path) as saved:
                return store, Pairs(**{name: saved[name] for name in saved.files})
        # One pass over the log gives both, and a kill may leave the first without the second.
        path.unlink(missing_ok=True)
        shutil.rmtree(self._folder / "queries", ignore_errors=True)
        batches = self._query_batches(reader.queries(_counted(events, advance)))
        store = self._store("queries", batches, lambda rows: None)
        pairs = reader.pairs(
            history_length=self._config.catalogue.history_length,
            facts=bool(history_facts(self._config.history)),
        )
        pairs = self._unbiased(pairs, reader)
        with replacing(path) as file:
            np.savez(file, **vars(pairs))
        return store, pairs

    def _unbiased(self, pairs: Pairs, reader: LogReader) -> Pairs:
        """Pairs that count by the place where their product stood, if the recipe says so."""
        train = self._config.train
        if train.position_bias == "none" or reader.impressions is None or not len(pairs):
            return pairs
        validation_from_us, _ = split_instants(pairs.timestamp_us, self._config.split)
        theta = examination(reader.impressions.shown()[0], before_us=validation_from_us)
        write_json(self._folder / "examination.json", theta.round(4).tolist())
        weight = inverse_propensity(pairs.position, theta, most=train.max_position_weight)
        return replace(pairs, weight=pairs.weight * weight)

    def _words_ask(self) -> bool:
        """Whether batches hold queries made of products' words."""
        tower = self._config.tower
        asks = self._config.train.catalogue_share > 0
        return asks and "text" in tower.query and "text" in tower.product

    def _raw_product(self, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        raw = {name: record[name] for name in self._config.catalogue.text}
        return raw | {"image": _first(record["images"]), "audio": _first(record["audio"])}

    def _query_batches(self, queries: Iterable[Query]) -> tf.data.Dataset:
        spec = {name: tf.TensorSpec([], tf.string) for name in MEDIA}
        records = tf.data.Dataset.from_generator(
            lambda: (vars(query) for query in queries), output_signature=spec
        )
        return records.batch(BATCH).map(
            do_not_convert(self._preprocessor.query), num_parallel_calls=tf.data.AUTOTUNE
        )

    def _store(self, name: str, batches: tf.data.Dataset, advance: Advance) -> FeatureStore:
        found = FeatureStore.open_if_current(self._folder / name, self._stamp)
        if found is not None:
            return found
        encode = self._encode_product if name == "products" else self._encode_query
        encoded = (encode(batch) for batch in batches.as_numpy_iterator())
        return FeatureStore.write(self._folder / name, encoded, stamp=self._stamp, advance=advance)


def _first(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([values, [""]], 0)[0]


def _counted(events: Iterable[Mapping[str, Any]], advance: Advance) -> Iterator[Mapping[str, Any]]:
    for number, event in enumerate(events, start=1):
        if number % 1000 == 0:
            advance(1000)
        yield event
