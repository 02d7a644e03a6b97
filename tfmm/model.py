"""The two-tower retrieval model that TFRS trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfmm._keras import keras
from tfmm.config import MEDIA, TrainConfig
from tfmm.features.history import history_items
from tfmm.margins import MarginLoss
from tfmm.sampling import SampledSoftmax, expected_counts
from tfmm.sides import Alone, Candidates, Own, Queries, Replicas, Scaled, Side
from tfmm.towers.encodings import Encodings
from tfmm.towers.tower import Tower

Features = dict[str, tf.Tensor]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0
_OUT = -1e4


@dataclass(frozen=True)
class ProductFacts:
    """What is known of the N products before training.

    Attributes:
      known: Which have a pair in the log, and so an id of their own, bool [N].
      present: Which have each modality, bool [N].
      popularity: What the training log says of them, float32 [N, F], where the tower reads it.
    """

    known: npt.NDArray[np.bool_]
    present: Mapping[str, npt.NDArray[np.bool_]]
    popularity: npt.NDArray[np.float32] | None = None


class TwoTower(tfrs.Model):
    """Query tower, product tower and a sampled softmax over the products of the batch.

    Losses see the fused vectors alone. The parts that `tower.late` adds are modalities on their
    own, which `train.unimodal` teaches, and in the whole loss the fusion would learn to make up
    for them.

    A shopper's history is the mean of its products' embeddings. They are read from `bank`, which
    holds the last embedding that training computed for each product, so that a history costs a
    gather and not a pass of the product tower. The exported model reads the same vectors from its
    index.

    Attributes:
      bank: Last fused vector of each product, float32 [N, dim], not trained by gradients.
    """

    def __init__(
        self,
        config: TrainConfig,
        query_tower: Tower,
        product_tower: Tower,
        *,
        dim: int,
        sampling_probability: npt.NDArray[np.float32],
        facts: ProductFacts | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self.query_tower = query_tower
        self.product_tower = product_tower
        self.log_temperature = tf.Variable(
            np.log(config.temperature), dtype=tf.float32, name="log_temperature"
        )
        if config.purchase_task:
            self.log_purchase_temperature = tf.Variable(
                np.log(config.temperature), dtype=tf.float32, name="log_purchase_temperature"
            )
        self.bank = tf.Variable(
            tf.zeros([len(sampling_probability), dim]),
            trainable=False,
            # Every replica writes the same rows into its own copy.
            aggregation=tf.VariableAggregation.NONE,
            name="bank",
        )
        products = len(sampling_probability)
        batch, uniform = config.batch_size, config.uniform_negatives
        self._counts = _log(expected_counts(sampling_probability, batch=batch, uniform=uniform))
        self._in_batch = _log(expected_counts(sampling_probability, batch=batch, uniform=0))
        facts = facts or ProductFacts(np.ones(products, np.bool_), {})
        self._known = tf.constant(
            np.where(facts.known, np.arange(1, products + 1), 0).astype(np.int32)
        )
        self._popularity = None if facts.popularity is None else tf.constant(facts.popularity)
        self.encodings: Encodings | None = None
        if config.uniform_negatives or config.next_items or config.hard_negatives:
            self.encodings = Encodings(product_tower, products, facts.present)

    def embed_queries(self, features: Features, training: bool = False) -> tf.Tensor:
        """Unit vectors [B, D] of packed query features."""
        return self.query_tower(self._with_history(features), training=training)

    def embed_products(self, features: Features, index: tf.Tensor) -> tf.Tensor:
        """Unit vectors [B, D] of packed features of products int32 [B]."""
        return self.product_tower(features | self._from_log(index))

    def temperature(self) -> tf.Tensor:
        """The learnt softmax temperature."""
        return _bounded(self.log_temperature)

    def compute_loss(
        self, inputs: dict[str, Features | tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """Weighted softmax cross-entropy over the products of the global batch.

        In training, each modality has a softmax of its own beside it (`train.unimodal`), between
        queries that hold it and products reduced to it. A product's vector follows its
        most telling modality: words and photos both describe it, words are learnt first, and a
        photo would have to find the words. The encoders run once, it costs the fusion only.

        Args:
          inputs: "query" and "product" packed features, "product_index" int32 [B], "weight"
            float32 [B], and what `data.batches` draws for the recipe; B is the batch of one
            replica.
          training: Whether the towers are in training mode.

        Returns:
          This replica's part of the mean over the global batch, scalar.
        """
        weight: tf.Tensor = inputs["weight"]
        replicas = Replicas()
        index = replicas.gather(inputs["product_index"])
        query = self._with_history(inputs["query"])
        asked = self._side(self.query_tower, query, training)
        told = self._told(inputs, index, replicas, training)
        products = replicas.gather(told.whole)
        if training:
            self.bank.scatter_update(tf.IndexedSlices(tf.stop_gradient(products), index))
        candidates = Candidates(products, index)
        if training and self.encodings is not None and self._config.uniform_negatives:
            negatives = replicas.gather(inputs["negatives"])
            drawn = self.encodings.vectors(negatives, self._from_log(negatives))
            candidates = candidates.joined(drawn, negatives)
        queries = Scaled(asked.whole, self.temperature())
        own = self._own(inputs, queries.logits()) if training else Own()
        loss = self._compared(queries, candidates, weight, self._counts, own)
        loss += self._alone((asked, told), index, weight, replicas, own)
        if training and self._config.purchase_task:
            bought = Scaled(asked.whole, _bounded(self.log_purchase_temperature))
            counts = weight * inputs["purchase"]
            loss += self._config.purchase_task * self._compared(
                bought, candidates, counts, self._counts, Own(own.others)
            )
        if training and self._config.symmetric:
            others = replicas.gather(own.others) if own.others is not None else None
            asks = Queries(replicas.gather(asked.whole), index, others)
            loss += self._config.symmetric * self._asked_back(told.whole, asks, weight)
        loss /= tf.cast(tf.shape(weight)[0] * replicas.count, tf.float32)
        if training and self.encodings is not None and self._config.next_items:
            following = inputs["next_product"]
            own = self.encodings.vectors(following, self._from_log(following))
            loss += self._next_items(query, inputs, own, candidates) / replicas.count
        return loss

    def _alone(
        self,
        sides: tuple[Side, Side],
        index: tf.Tensor,
        weight: tf.Tensor,
        replicas: Replicas,
        own: Own,
    ) -> tf.Tensor:
        """The losses of modalities on their own, 0 outside training."""
        (asked, told), loss = sides, 0.0
        marked = tf.pad(asked.whole, [[0, 0], [0, 1]], constant_values=1.0)
        queries = Scaled(marked, self.temperature())
        for modality in [name for name in told.alone if name in asked.alone]:
            alone = told.alone[modality]
            # Products without the modality are no negatives: one more dimension takes them out.
            out = _OUT * (1.0 - alone.has[:, tf.newaxis])
            vectors = replicas.gather(tf.concat([alone.vectors, out], axis=1))
            asks = weight * asked.asks_by(modality) * alone.has
            loss += self._config.unimodal * self._compared(
                queries, Candidates(vectors, index), asks, self._in_batch, Own(own.others)
            )
        return loss

    def _told(
        self,
        inputs: dict[str, Features | tf.Tensor],
        index: tf.Tensor,
        replicas: Replicas,
        training: bool,
    ) -> Side:
        """The products' side of a batch; their encodings are kept."""
        product = inputs["product"] | self._from_log(inputs["product_index"])
        if training and self.encodings is not None:
            product = self.product_tower.encoded(product, training)
            self.encodings.remember(product, index, replicas.gather)
        return self._side(self.product_tower, product, training)

    def _from_log(self, index: tf.Tensor) -> Features:
        """What the product tower reads of products int32 [B] that only the log knows."""
        # Rows of the id table; 0 for those without a pair.
        features = {"id": tf.gather(self._known, index)}
        if self._popularity is not None:
            features["popularity"] = tf.gather(self._popularity, index)
        return features

    def _next_items(
        self,
        query: Features,
        inputs: dict[str, Features | tf.Tensor],
        own: tf.Tensor,
        candidates: Candidates,
    ) -> tf.Tensor:
        """Mean cross-entropy of the next product at places within histories, scalar.

        Each history foretells its products from what stands before them, which makes many examples
        of one row (Kang and McAuley 2018). The products of the batch and the uniform negatives are
        the candidates, and each place's next product, whose vectors are `own`.
        """
        index: tf.Tensor = inputs["next_product"]
        vectors = self.query_tower.foretell(query, inputs["next_at"]) / self.temperature()
        positive = tf.reduce_sum(vectors * own, axis=1)
        others = tf.linalg.matmul(vectors, candidates.vectors, transpose_b=True)
        others -= self._log_counts(candidates, self._counts)
        others += _OUT * tf.cast(index[:, tf.newaxis] == candidates.index, tf.float32)
        logits = tf.concat([positive[:, tf.newaxis], others], axis=1)
        entropy = tf.reduce_logsumexp(logits, axis=1) - positive
        weight = inputs["next_weight"]
        return tf.reduce_sum(entropy * weight) / tf.cast(tf.shape(weight)[0], tf.float32)

    def _with_history(self, features: Features) -> Features:
        features = dict(features)
        history = features.pop("history")
        items, known = history_items(history, tf.convert_to_tensor(self.bank))
        return features | {"history/items": items, "history/known": known}

    def _own(self, inputs: dict[str, Features | tf.Tensor], queries: tf.Tensor) -> Own:
        """What the rows of a batch bring to their own softmax."""
        others = inputs["others"] if self._config.other_positives else None
        if self.encodings is None or not self._config.hard_negatives:
            return Own(others)
        hard: tf.Tensor = inputs["hard"]
        index = tf.reshape(tf.maximum(hard, 0), [-1])
        vectors = self.encodings.vectors(index, self._from_log(index))
        vectors = tf.reshape(vectors, [*hard.shape, vectors.shape[-1]])
        logits = tf.reduce_sum(queries[:, tf.newaxis] * vectors, axis=2)
        logits += math.log(self._config.hard_negative_weight)
        logits = tf.where(hard < 0, _OUT, logits)
        return Own(others, hard, tf.reduce_logsumexp(logits, axis=1))

    def _compared(
        self,
        queries: Scaled,
        candidates: Candidates,
        weight: tf.Tensor,
        counts: tf.Tensor,
        own: Own,
    ) -> tf.Tensor:
        """Sum of the weighted losses; candidate i is query i's positive."""
        log_counts = self._log_counts(candidates, counts)
        loss = self._loss(log_counts, queries.temperature, own.total)
        shared = own.shared(candidates.index)
        return _summed(loss, queries.logits(), candidates, weight, shared)

    def _loss(
        self, log_counts: tf.Tensor, temperature: tf.Tensor, own: tf.Tensor | None = None
    ) -> keras.losses.Loss:
        config = self._config
        if config.loss == "softmax":
            return SampledSoftmax(log_counts, positive=config.log_q_positive, own=own)
        semi_hard = config.loss == "triplet"
        return MarginLoss(config.margin, temperature, semi_hard=semi_hard)

    def _asked_back(self, products: tf.Tensor, queries: Queries, weight: tf.Tensor) -> tf.Tensor:
        """The other way round: which query asked for the product of each row, sum of losses."""
        index = queries.index[: products.shape[0]]
        even = tf.zeros_like(queries.index, tf.float32)
        asks = Scaled(products, self.temperature())
        loss, shared = self._loss(even, asks.temperature), queries.shared(index)
        return _summed(loss, asks.logits(), queries, weight, shared)

    def _log_counts(self, candidates: Candidates, counts: tf.Tensor) -> tf.Tensor:
        """How often each candidate was to be expected, its logarithm [C]."""
        logs = tf.gather(counts, candidates.index)
        return logs if self._config.log_q else tf.zeros_like(logs)

    def _side(self, tower: Tower, features: Features, training: bool) -> Side:
        tokens, present = tower.tokens(features, training)
        names = [name for name in tower.modalities if name in MEDIA]
        if not (training and self._config.unimodal):
            names = []
        alone: dict[str, Alone] = {
            name: Alone(
                tower.joint.alone(name, tokens, present),
                tf.reduce_max(tower.joint.only(name, present), axis=1),
            )
            for name in names
        }
        return Side(tower.joint(tokens, present), alone)


def _summed(
    loss: keras.losses.Loss,
    asks: tf.Tensor,
    candidates: Candidates,
    weight: tf.Tensor,
    mask: tf.Tensor | None,
) -> tf.Tensor:
    """Sum of the weighted losses of scaled vectors [B, dim]; candidate i is row i's positive."""
    # The task needs AutoGraph; the rest of the step would only be traced more slowly by it.
    task = tf.function(tfrs.tasks.Retrieval(loss, remove_accidental_hits=True))
    return task(
        asks,
        candidates.vectors,
        sample_weight=weight,
        candidate_ids=candidates.index,
        compute_metrics=False,
        score_mask=mask,
    )


def _bounded(log_temperature: tf.Variable) -> tf.Tensor:
    return tf.clip_by_value(tf.exp(log_temperature), MIN_TEMPERATURE, MAX_TEMPERATURE)


def _log(counts: npt.NDArray[np.float32]) -> tf.Tensor:
    return tf.constant(np.log(counts), tf.float32)
