"""Training of the item-to-item model, when the towers are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import AffinityConfig
from tfmm.data.companions import Companions
from tfmm.data.store import FeatureStore, parts
from tfmm.errors import TfmmError
from tfmm.schedule import learning_rate
from tfmm.towers.affinity import Affinity
from tfmm.towers.tower import Tower

WARMUP_STEPS = 20
_OUT = -1e9
Report = Callable[[int, int, float], None]
Content = dict[str, npt.NDArray[np.float32]]


class AffinityTrainer:
    """Fits an `Affinity` to what shoppers took together, by a softmax over the catalogue.

    What a product's content gives is computed once, so that a step is a few products of matrices;
    a kill costs the whole of it, minutes. It runs on one device.

    Args:
      config: The recipe's section.
      tower: The trained product tower, which has the model.
      products: The catalogue's features, N products.
      from_log: What only the log knows of them, [N, ...].
      seed: Of the order, and of what is left out.

    Raises:
      TfmmError: No shopper took two products.
    """

    def __init__(
        self,
        config: AffinityConfig,
        tower: Tower,
        *,
        products: FeatureStore,
        from_log: Mapping[str, npt.NDArray[Any]],
        seed: int,
    ) -> None:
        assert tower.affinity is not None
        self._config = config
        self._model: Affinity = tower.affinity
        self._random = np.random.default_rng([seed, 971])
        self._rows = products.rows
        self._ids = tf.constant(from_log["id"], tf.int32)
        self._words = count_words(self._model, products)
        self._content = _tensors(_content(tower, self._model, products, from_log))

    def fit(self, examples: Companions, report: Report) -> None:
        """Trains to the end; `report` gets the step, their number and the loss."""
        if len(examples) == 0:
            raise TfmmError(
                "tower.late.history: expected shoppers with two products or more before the"
                " validation period, found none"
            )
        size = min(self._config.batch_size, len(examples))
        epoch = len(examples) // size
        steps = max(1, round(self._config.epochs * epoch))
        schedule = learning_rate(self._config.learning_rate, steps=steps, warmup_steps=WARMUP_STEPS)
        optimizer = keras.optimizers.Adam(schedule, jit_compile=False)
        optimizer.build(self._model.learnt)
        step = tf.function(self._step(optimizer), autograph=False, reduce_retracing=True)
        order = self._random.permutation(len(examples))
        for number in range(steps):
            at = number % epoch
            if at == 0 and number:
                order = self._random.permutation(len(examples))
            loss = step(self._batch(examples, order[at * size : (at + 1) * size]))
            report(number + 1, steps, float(loss))

    def _batch(self, examples: Companions, rows: npt.NDArray[Any]) -> dict[str, tf.Tensor]:
        """A step's products, and where in them its examples point.

        "table" [T] are the products: the candidates, of which there are `drawn`, and what the
        examples need beside them; "product" [B] and "history" [B, H] are places among them, -1
        for none; "distance" [B, H] is that of `Companions`; "taken" [K, 2] says which candidates
        are no negatives of which example.
        """
        product, history = examples.product[rows], examples.history[rows]
        drawn = min(self._config.candidates, self._rows)
        table = np.arange(self._rows)
        if drawn < self._rows:
            table = self._random.permutation(self._rows)[:drawn]
        place = np.full(self._rows + 1, -1)
        place[table] = np.arange(drawn)
        needed = np.unique(np.append(history, product))
        more = needed[(needed >= 0) & (place[needed] < 0)]
        place[more] = drawn + np.arange(len(more))
        table = np.append(table, more)
        taken = place[examples.taken[rows]]
        at = np.nonzero((taken >= 0) & (taken < drawn))
        batch = {"table": table, "product": place[product], "history": place[history]}
        batch |= {"distance": examples.distance[rows]}
        batch |= {"taken": np.stack([at[0], taken[at]], axis=1), "drawn": np.array(drawn)}
        made = {name: tf.constant(values, tf.int32) for name, values in batch.items()}
        if self._words is not None:
            made["words"] = self._words.of(table)
        return made

    def _step(
        self, optimizer: keras.optimizers.Optimizer
    ) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(self._model.learnt)
                entropy = tf.reduce_mean(self._entropy(batch))
                loss = entropy + self._config.id_penalty * self._model.penalty()
            gradients = tape.gradient(loss, self._model.learnt)
            optimizer.apply_gradients(zip(gradients, self._model.learnt, strict=True))
            return entropy

        return step

    def _entropy(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Cross-entropies `[B]` of the products among the candidates that were not taken."""
        model, history = self._model, batch["history"]
        table = batch["table"]
        content = {name: tf.gather(values, table) for name, values in self._content.items()}
        if "words" in batch:
            content["text"] = tf.sparse.sparse_dense_matmul(batch["words"], model.projection)
        old = tf.random.uniform(tf.shape(table)) >= self._config.new_share
        content["popularity"] *= tf.cast(old, tf.float32)[:, tf.newaxis]
        vectors, bias = model.vectors(content, tf.where(old, tf.gather(self._ids, table), 0))
        kept = tf.random.uniform(tf.shape(history)) >= self._config.history_dropout
        known = tf.cast(tf.logical_and(history >= 0, kept), tf.float32)
        asks = model.asks(tf.gather(vectors, tf.maximum(history, 0)), known, batch["distance"])
        own = tf.gather(vectors, batch["product"])
        positive = tf.reduce_sum(asks * own, axis=1) + tf.gather(bias, batch["product"])
        drawn = batch["drawn"]
        logits = tf.linalg.matmul(asks, vectors[:drawn], transpose_b=True) + bias[:drawn]
        # Each candidate stands for as many products as there are to one that is drawn.
        logits += tf.math.log(tf.cast(self._rows, tf.float32) / tf.cast(drawn, tf.float32))
        out = tf.fill([tf.shape(batch["taken"])[0]], _OUT)
        logits = tf.tensor_scatter_nd_add(logits, batch["taken"], out)
        return tf.math.softplus(tf.reduce_logsumexp(logits, axis=1) - positive)


class Words:
    """The TF-IDF of all products, sparse: N rows, a column for each WordPiece.

    Args:
      bounds: Where the entries of each product begin and end, [N + 1].
      columns: WordPiece of each entry.
      weights: Its TF-IDF.
      vocabulary: Number of WordPieces.
    """

    def __init__(
        self,
        bounds: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        vocabulary: int,
    ) -> None:
        self._bounds, self._columns, self._weights = bounds, columns, weights
        self._vocabulary = vocabulary
        self._everything: tf.SparseTensor | None = None

    def of(self, rows: npt.NDArray[np.int64]) -> tf.SparseTensor:
        """The rows of some products; of all of them in their order they are made once."""
        if not np.array_equal(rows, np.arange(len(self._bounds) - 1)):
            return self._made(rows)
        if self._everything is None:
            self._everything = self._made(rows)
        return self._everything

    def _made(self, rows: npt.NDArray[np.int64]) -> tf.SparseTensor:
        counts = np.diff(self._bounds)[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = self._bounds[rows][row] + within
        indices = np.stack([row, self._columns[at]], axis=1)
        return tf.SparseTensor(indices, self._weights[at], [len(rows), self._vocabulary])


def count_words(model: Affinity, products: FeatureStore) -> Words | None:
    """The words of the catalogue, whose IDF the model takes from them; None where it reads none."""
    if "text" not in model.widths or "text/ids" not in products.arrays:
        return None
    ids = np.asarray(products.arrays["text/ids"])
    model.weigh_words(ids)
    weights = np.zeros(ids.shape, np.float32)
    for part in parts(len(ids)):
        weights[part] = model.word_weights(tf.constant(ids[part])).numpy()
    slots = products.slots["text"]
    there = np.where(slots >= 0, (ids > 0).sum(axis=1)[slots], 0)
    bounds = np.append(0, np.cumsum(there)).astype(np.int64)
    order = slots[slots >= 0]
    kept = ids[order] > 0
    return Words(
        bounds, ids[order][kept].astype(np.int64), weights[order][kept], model.idf.shape[0]
    )


def _content(
    tower: Tower, model: Affinity, products: FeatureStore, from_log: Mapping[str, npt.NDArray[Any]]
) -> Content:
    """What the model reads of every product beside words, [N, ...] each; centres the photos."""
    encode = tf.function(tower.encoded, autograph=False, reduce_retracing=True)
    encodings = []
    for part in parts(products.rows) if "image" in model.widths else []:
        features = encode(_tensors(products.packed(part)), False)
        if "image/encoded" in features:
            encodings.append(features["image/encoded"].numpy())
    photos = np.concatenate(encodings) if encodings else np.zeros((0, 1), np.float32)
    if len(photos):
        model.centre_photos(photos)
    made: dict[str, list[npt.NDArray[np.float32]]] = {}
    start = 0
    for part in parts(products.rows):
        given: dict[str, npt.NDArray[Any]] = {"row": np.arange(len(part), dtype=np.int32)}
        where = np.flatnonzero(products.has("image")[part]) if len(photos) else np.zeros(0, int)
        if len(where):
            given["image/row"] = where.astype(np.int32)
            given["image/encoded"] = photos[start : start + len(where)]
        start += len(where)
        given["popularity"] = from_log["popularity"][part]
        for name, value in model.content(_tensors(given)).items():
            made.setdefault(name, []).append(value.numpy())
    made.pop("text", None)
    return {name: np.concatenate(values) for name, values in made.items()}


def _tensors(features: Mapping[str, npt.NDArray[Any]]) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(value) for name, value in features.items()}
