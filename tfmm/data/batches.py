"""Training batches of static shape, as a tf.data pipeline that can start at any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import MEDIA, AugmentConfig, Config
from tfmm.data.augment import augment
from tfmm.data.negatives import Drawn, of_rows, purchase_share, purchased
from tfmm.data.pairs import Pairs
from tfmm.data.share import ALONE, Share
from tfmm.data.store import ROW, Arrays, FeatureStore
from tfmm.errors import TfmmError

_MIXED = 2.2
Rows = npt.NDArray[np.int64]
# AutoGraph has nothing to convert here, and cannot read `match`.
do_not_convert = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Stores:
    """Preprocessed features of everything that training reads.

    Attributes:
      products: Row = product index.
      queries: Row = `Pairs.query`.
      catalogue_queries: Row = product index * variants + variant.
      variants: Catalogue queries a product.
      changes: Words of mixed queries made from the catalogue; row = product index * C + variant.
      photographed: Product index of the photo of each row of `changes`, int32.
    """

    products: FeatureStore
    queries: FeatureStore
    catalogue_queries: FeatureStore
    variants: int
    changes: FeatureStore
    photographed: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Stream:
    """A source of pairs with the same modalities; `quota` of them are in every batch."""

    quota: int
    size: int
    modalities: tuple[str, ...]
    query_rows: Callable[[Rows, Rows], dict[str, tuple[FeatureStore, Rows]]]
    product: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    pairs: Pairs | None


class BatchPlan:
    """Says which pairs make up batch number e, for any e.

    Pairs are grouped by the modalities of their query and every batch holds the same number of
    each group, so shapes are static (XLA, TPU) and an encoder computes no row that lacks its
    modality. Each group is shuffled anew on every pass. The plan is a function of the seed and e
    alone: training that was interrupted continues with the batch it would have seen.

    Attributes:
      batch_size: Rows of a batch, B.
      batches_per_epoch: Batches in which the log is passed once.
    """

    def __init__(self, config: Config, pairs: Pairs, stores: Stores, *, batch_size: int) -> None:
        self.batch_size = batch_size
        self._config = config
        self._stores = stores
        self._streams = _streams(config, pairs, stores, batch_size)
        self._orders: dict[tuple[int, int], Rows] = {}
        task = config.train.purchase_task
        self._purchase_share = (
            purchase_share([(s.quota, s.pairs) for s in self._streams]) if task else 0.0
        )
        self._photo_rows = _photo_rows(self._streams, config.train.product_photo_share)
        logged = [stream for stream in self._streams if stream.pairs is not None]
        passed = logged or self._streams
        rows, quota = (sum(getattr(s, name) for s in passed) for name in ("size", "quota"))
        self.batches_per_epoch = max(1, -(-rows // quota))

    def batch(self, number: int) -> Arrays:
        """Batch `number` as one flat dict; see `dataset` for the names."""
        chosen = [self._draw(at, number) for at in range(len(self._streams))]
        products = np.concatenate(
            [stream.product[rows] for stream, (rows, _) in zip(self._streams, chosen, strict=True)]
        )
        weights = [s.weight[rows] for s, (rows, _) in zip(self._streams, chosen, strict=True)]
        flat: Arrays = {
            "product_index": products.astype(np.int32),
            "weight": np.concatenate(weights).astype(np.float32),
        }
        flat |= {f"query:{name}": value for name, value in self._query_features(chosen).items()}
        product_features = self._product_features(products.astype(np.int64), self._photo_rows)
        flat |= self._sampled(flat["query:history"], number)
        drawn = [Drawn(s.pairs, rows) for s, (rows, _) in zip(self._streams, chosen, strict=True)]
        random = np.random.default_rng([self._config.seed, len(self._streams) + 1, number])
        flat |= of_rows(drawn, self._config.train, random)
        if self._purchase_share:
            flat["purchase"] = purchased(drawn) / np.float32(self._purchase_share)
        return flat | {f"product:{name}": value for name, value in product_features.items()}

    def _sampled(self, history: npt.NDArray[np.int32], number: int) -> Arrays:
        """Uniform negatives of a batch, and places within its histories to foretell from."""
        train = self._config.train
        random = np.random.default_rng([self._config.seed, len(self._streams), number])
        share, made = self.batch_size / train.batch_size, {}
        if train.uniform_negatives:
            size = round(train.uniform_negatives * share)
            drawn = random.integers(self._stores.products.rows, size=size)
            made["negatives"] = drawn.astype(np.int32)
        if train.next_items:
            size = round(train.next_items * share)
            there = np.flatnonzero((history[:, :-1] > 0) & (history[:, 1:] > 0))
            chosen = np.zeros(size, np.int64)
            count = min(size, len(there))
            chosen[:count] = random.permutation(there)[:count]
            row, place = np.divmod(chosen, history.shape[1] - 1)
            made["next_at"] = (row * history.shape[1] + place).astype(np.int32)
            made["next_product"] = np.maximum(history[row, place + 1] - 1, 0).astype(np.int32)
            made["next_weight"] = (np.arange(size) < count).astype(np.float32)
        return made

    def sources(self) -> list[tuple[float, npt.NDArray[np.int64]]]:
        """Share of a batch and count of each product, [N], in every group of pairs."""
        products = self._stores.products.rows
        return [
            (stream.quota / self.batch_size, np.bincount(stream.product, minlength=products))
            for stream in self._streams
        ]

    def _draw(self, at: int, number: int) -> tuple[Rows, Rows]:
        """Rows of stream `at` in batch `number`, and the pass over the stream each belongs to."""
        stream = self._streams[at]
        positions = np.arange(number * stream.quota, (number + 1) * stream.quota)
        passes = positions // stream.size
        rows = np.array(
            [
                self._order(at, int(p))[position % stream.size]
                for p, position in zip(passes, positions, strict=True)
            ],
            dtype=np.int64,
        )
        return rows, passes

    def _order(self, at: int, number: int) -> Rows:
        if (at, number) not in self._orders:
            self._orders = {key: v for key, v in self._orders.items() if key[0] != at} | {
                key: v for key, v in self._orders.items() if key == (at, number - 1)
            }
            random = np.random.default_rng([self._config.seed, at, number])
            self._orders[at, number] = random.permutation(self._streams[at].size)
        return self._orders[at, number]

    def _query_features(self, chosen: list[tuple[Rows, Rows]]) -> Arrays:
        width = self._config.catalogue.history_length
        features: Arrays = {
            "row": np.arange(self.batch_size, dtype=np.int32),
            "history": np.zeros((self.batch_size, width), dtype=np.int32),
        }
        parts: dict[str, list[Arrays]] = {}
        start = 0
        for stream, (rows, passes) in zip(self._streams, chosen, strict=True):
            where = np.arange(start, start + stream.quota, dtype=np.int32)
            for modality, (store, entries) in stream.query_rows(rows, passes).items():
                part = store.gather(modality, entries)
                parts.setdefault(modality, []).append(part | {modality + ROW: where})
            if stream.pairs is not None:
                for name, values in stream.pairs.histories(rows).items():
                    blank = np.zeros((self.batch_size, width), values.dtype)
                    features.setdefault(name, blank)[where] = values
            start += stream.quota
        for modality, list_of_parts in parts.items():
            for name in list_of_parts[0]:
                if name != "row" and name.startswith(modality):
                    features[name] = np.concatenate([part[name] for part in list_of_parts])
        return features

    def _product_features(self, products: Rows, photo_rows: Rows) -> Arrays:
        everything = np.arange(len(products))
        features: Arrays = {"row": everything.astype(np.int32)}
        store = self._stores.products
        for modality in self._config.tower.product:
            if modality in store.modalities():
                rows = photo_rows if modality == "image" else everything
                present = store.has(modality)[products[rows]]
                features[modality + ROW] = np.where(present, rows, -1).astype(np.int32)
                features |= store.gather(modality, products[rows])
        return features


def dataset(
    plan: BatchPlan, config: AugmentConfig, share: Share = ALONE, *, start: int, stop: int
) -> tf.data.Dataset:
    """The batches of a share in steps `start` to `stop` - 1, augmented.

    Yields:
      {"query": packed features, "product": packed features, "product_index": int32 [B],
      "weight": float32 [B]}, and what the recipe adds; every shape is static.
    """
    example = plan.batch(share.batch(start * share.count))
    names = sorted(example)

    def assemble(number: Any) -> list[Any]:
        batch = plan.batch(int(number))
        return [batch[name] for name in names]

    def load(number: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(
            assemble, [number], [tf.as_dtype(example[name].dtype) for name in names]
        )
        for name, value in zip(names, values, strict=True):
            value.set_shape(example[name].shape)
        return _nested(dict(zip(names, values, strict=True)))

    def change(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {side: augment(batch[side], config) for side in ("query", "product")}

    positions = tf.data.Dataset.range(start * share.count, stop * share.count)
    batches = positions.map(
        do_not_convert(lambda position: load(share.batch(position))), num_parallel_calls=1
    )
    return batches.map(do_not_convert(change), num_parallel_calls=1).prefetch(2)


def _nested(flat: dict[str, tf.Tensor]) -> dict[str, Any]:
    nested: dict[str, Any] = {"query": {}, "product": {}}
    for name, value in flat.items():
        side, colon, feature = name.partition(":")
        if colon:
            nested[side][feature] = value
        else:
            nested[name] = value
    return nested


def _streams(config: Config, pairs: Pairs, stores: Stores, batch_size: int) -> list[_Stream]:
    usable = [m for m in MEDIA if m in config.tower.query]
    has_history = (pairs.history > 0).any(axis=1) & ("history" in config.tower.query)
    groups = _groups(pairs, stores.queries, usable, has_history)
    sides = _catalogue_sides(config, stores)
    share = config.train.catalogue_share if sides else 0.0
    for_catalogue = round(batch_size * share) if groups else batch_size * (share > 0)
    sides = sides[:for_catalogue]
    sizes = [len(rows) * _boost(config, modalities) for modalities, rows in groups]
    quotas = _quotas(sizes, batch_size - for_catalogue)
    mean_weight = float(pairs.weight.mean()) if len(pairs) else 1.0
    streams = [
        _log_stream(quota, modalities, pairs.take(rows), (stores.queries, mean_weight))
        for quota, (modalities, rows) in zip(quotas, groups, strict=True)
    ]
    # Mixed queries are the hardest.
    sizes = [1.0 if len(side) == 1 else _MIXED for side in sides]
    for quota, side in zip(_quotas(sizes, for_catalogue), sides, strict=True):
        is_mixed = len(side) > 1
        streams.append(
            _change_stream(quota, stores) if is_mixed else _catalogue_stream(quota, side, stores)
        )
    streams = [stream for stream in streams if stream.quota]
    if not streams:
        raise TfmmError(
            "training pairs: expected clicks, carts or purchases with a query or a history, or"
            " train.catalogue_share > 0 with product text or photos, found none of them"
        )
    return streams


def _photo_rows(streams: list[_Stream], share: float) -> Rows:
    """Rows of a batch whose product's photo is read."""
    rows: list[int] = []
    start = 0
    for stream in streams:
        count = stream.quota if "image" in stream.modalities else round(stream.quota * share)
        rows += range(start, start + count)
        start += stream.quota
    return np.array(rows, dtype=np.int64)


def _groups(
    pairs: Pairs, queries: FeatureStore, usable: Sequence[str], has_history: npt.NDArray[np.bool_]
) -> list[tuple[tuple[str, ...], Rows]]:
    """Pairs by the set of modalities that their query holds; pairs with nothing usable go."""
    code = np.zeros(len(pairs), dtype=np.int64)
    for bit, modality in enumerate(usable):
        has = queries.has(modality)
        if len(has):
            code += np.where(pairs.query >= 0, has[pairs.query], False).astype(np.int64) << bit
    code = np.where((code > 0) | has_history, code, -1)
    return [
        (
            tuple(m for bit, m in enumerate(usable) if value >> bit & 1),
            np.flatnonzero(code == value),
        )
        for value in sorted(set(code.tolist()) - {-1})
    ]


def _catalogue_sides(config: Config, stores: Stores) -> list[tuple[str, ...]]:
    """What can ask for a product: its words, its photo, and a change to another's photo."""
    have = stores.products.modalities()
    sides = [
        (m,)
        for m in ("text", "image")
        if m in config.tower.query and m in config.tower.product and m in have
    ]
    mixed = len(sides) == 2 and stores.changes.has("text").any()
    return [*sides, ("text", "image")] if mixed else list(sides)


def _boost(config: Config, modalities: tuple[str, ...]) -> float:
    return max((getattr(config.train.boost, m) for m in modalities), default=1.0)


def _quotas(sizes: list[float], total: int) -> list[int]:
    """Shares `total` rows out by size, at least one to each while there are enough."""
    if not sizes or total <= 0:
        return [0] * len(sizes)
    if total < len(sizes):
        raise TfmmError(
            f"train.batch_size: expected at least {len(sizes)} rows of a replica's batch for"
            f" {len(sizes)} kinds of query, received {total}"
        )
    exact = np.array(sizes) / sum(sizes) * (total - len(sizes))
    quotas = exact.astype(np.int64) + 1
    for at in np.argsort(exact.astype(np.int64) - exact, kind="stable")[: total - quotas.sum()]:
        quotas[at] += 1
    return [int(quota) for quota in quotas]


def _log_stream(
    quota: int,
    modalities: tuple[str, ...],
    pairs: Pairs,
    scale: tuple[FeatureStore, float],
) -> _Stream:
    store, mean_weight = scale

    def query_rows(rows: Rows, passes: Rows) -> dict[str, tuple[FeatureStore, Rows]]:
        return dict.fromkeys(modalities, (store, pairs.query[rows]))

    return _Stream(
        quota,
        len(pairs),
        modalities,
        query_rows,
        pairs.product,
        pairs.weight / mean_weight,
        pairs,
    )


def _catalogue_stream(quota: int, modalities: tuple[str, ...], stores: Stores) -> _Stream:
    """A product's own words or its own photo ask for it."""
    present = np.flatnonzero(np.all([stores.products.has(m) for m in modalities], axis=0))

    def query_rows(rows: Rows, passes: Rows) -> dict[str, tuple[FeatureStore, Rows]]:
        products = present[rows]
        variants = products * stores.variants + passes % stores.variants
        sources = {
            "text": (stores.catalogue_queries, variants),
            "image": (stores.products, products),
        }
        return {modality: sources[modality] for modality in modalities}

    return _unlogged(quota, modalities, query_rows, present)


def _change_stream(quota: int, stores: Stores) -> _Stream:
    """Another product's photo and the words that tell the difference ask for a product."""
    present = np.flatnonzero(stores.changes.has("text"))
    a_product = stores.changes.rows // stores.products.rows

    def query_rows(rows: Rows, passes: Rows) -> dict[str, tuple[FeatureStore, Rows]]:
        chosen = present[rows]
        photographed = stores.photographed[chosen].astype(np.int64)
        return {"text": (stores.changes, chosen), "image": (stores.products, photographed)}

    return _unlogged(quota, ("text", "image"), query_rows, present // a_product)


def _unlogged(
    quota: int,
    modalities: tuple[str, ...],
    query_rows: Callable[[Rows, Rows], dict[str, tuple[FeatureStore, Rows]]],
    product: Rows,
) -> _Stream:
    weight = np.ones(len(product), dtype=np.float32)
    return _Stream(
        quota, len(product), modalities, query_rows, product.astype(np.int32), weight, None
    )
