"""The two-tower retrieval model that TFRS trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfmm.config import TrainConfig
from tfmm.features.history import mean_history
from tfmm.towers.tower import Tower

Features = dict[str, tf.Tensor]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0
_OUT = -1e4


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
    ) -> None:
        super().__init__()
        self._config = config
        self.query_tower = query_tower
        self.product_tower = product_tower
        self.log_temperature = tf.Variable(
            np.log(config.temperature), dtype=tf.float32, name="log_temperature"
        )
        self.bank = tf.Variable(
            tf.zeros([len(sampling_probability), dim]),
            trainable=False,
            # Every replica writes the same rows into its own copy.
            aggregation=tf.VariableAggregation.NONE,
            name="bank",
        )
        # A softmax does not feel a common factor, but TFRS clips probabilities to 1e-6..1.
        self._probability = tf.constant(sampling_probability / sampling_probability.max())
        # The task needs AutoGraph; the rest of the step would only be traced more slowly by it.
        self._task = tf.function(tfrs.tasks.Retrieval(remove_accidental_hits=True))

    def embed_queries(self, features: Features, training: bool = False) -> tf.Tensor:
        """Unit vectors [B, D] of packed query features."""
        return self.query_tower(self._with_history(features), training=training)

    def embed_products(self, features: Features, training: bool = False) -> tf.Tensor:
        """Unit vectors [B, D] of packed product features."""
        return self.product_tower(features, training=training)

    def temperature(self) -> tf.Tensor:
        """The learnt softmax temperature."""
        return tf.clip_by_value(tf.exp(self.log_temperature), MIN_TEMPERATURE, MAX_TEMPERATURE)

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
            float32 [B]; B is the batch of one replica.
          training: Whether the towers are in training mode.

        Returns:
          This replica's part of the mean over the global batch, scalar.
        """
        index: tf.Tensor = inputs["product_index"]
        weight: tf.Tensor = inputs["weight"]
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context is not None else 1
        # `Retrieval` takes row i as query i's positive: this replica's rows go first.
        first = context.replica_id_in_sync_group * index.shape[0] if replicas > 1 else 0

        def of_all_replicas(rows: tf.Tensor) -> tf.Tensor:
            if replicas == 1:
                return rows
            return tf.roll(context.all_gather(rows, axis=0), -first, axis=0)

        index = of_all_replicas(index)
        asked = self._side(self.query_tower, self._with_history(inputs["query"]), training)
        told = self._side(self.product_tower, inputs["product"], training)
        products = of_all_replicas(told.whole)
        if training:
            self.bank.scatter_update(tf.IndexedSlices(tf.stop_gradient(products), index))
        queries = asked.whole / self.temperature()
        loss = self._softmax(queries, products, index, weight)
        for modality, part in told.alone.items():
            if modality not in asked.alone:
                continue
            # Products without the modality are no negatives: one more dimension takes them out.
            out = _OUT * (1.0 - part.has[:, tf.newaxis])
            loss += self._config.unimodal * self._softmax(
                tf.pad(queries, [[0, 0], [0, 1]], constant_values=1.0),
                of_all_replicas(tf.concat([part.vectors, out], axis=1)),
                index,
                weight * asked.asks_by(modality) * part.has,
            )
        return loss / tf.cast(tf.shape(weight)[0] * replicas, tf.float32)

    def _with_history(self, features: Features) -> Features:
        features = dict(features)
        history = features.pop("history")
        mean, present = mean_history(history, tf.convert_to_tensor(self.bank))
        return features | {"history/mean": mean, "history/present": present}

    def _softmax(
        self, queries: tf.Tensor, products: tf.Tensor, index: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor:
        """Sum of the weighted cross-entropies; row i of the products is query i's positive."""
        probability = tf.gather(self._probability, index) if self._config.log_q else None
        return self._task(
            queries,
            products,
            sample_weight=weight,
            candidate_sampling_probability=probability,
            candidate_ids=index,
            compute_metrics=False,
        )

    def _side(self, tower: Tower, features: Features, training: bool) -> _Side:
        tokens, present = tower.tokens(features, training)
        names = [name for name in tower.modalities if name != "history"]
        if not (training and self._config.unimodal):
            names = []
        alone: dict[str, _Alone] = {
            name: _Alone(
                tower.joint.alone(name, tokens, present),
                tf.reduce_max(tower.joint.only(name, present), axis=1),
            )
            for name in names
        }
        return _Side(tower.joint(tokens, present), alone)


@dataclass(frozen=True)
class _Alone:
    """One modality of a batch: vectors of it alone [B, dim], and who has it, [B] of 0 and 1."""

    vectors: tf.Tensor
    has: tf.Tensor


@dataclass(frozen=True)
class _Side:
    """A batch as one tower sees it: vectors of the whole rows [B, dim], and of each modality."""

    whole: tf.Tensor
    alone: dict[str, _Alone]

    def asks_by(self, modality: str) -> tf.Tensor:
        """Which rows a modality's softmax takes, [B] of 0 and 1.

        Words say what is wanted, also of a mixture. A photo does so where it stands alone: beside
        words it shows something else, which the words change.
        """
        own = self.alone[modality].has
        if modality == "text":
            return own
        count = tf.add_n([part.has for part in self.alone.values()])
        return own * tf.cast(count < 1.5, tf.float32)
