"""The two-tower retrieval model that TFRS trains."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfmm._keras import keras
from tfmm.config import TrainConfig
from tfmm.features.history import mean_history

Features = dict[str, tf.Tensor]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0


class TwoTower(tfrs.Model):
    """Query tower, product tower and a sampled softmax over the products of the batch.

    A shopper's history is the mean of its products' embeddings. They are read from `bank`, which
    holds the last embedding that training computed for each product, so that a history costs a
    gather and not a pass of the product tower. The exported model reads the same vectors from its
    index.

    Attributes:
      bank: Last embedding of each product, float32 [N, D], not trained by gradients.
    """

    def __init__(
        self,
        config: TrainConfig,
        query_tower: keras.layers.Layer,
        product_tower: keras.layers.Layer,
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
        self._probability = tf.constant(sampling_probability)
        # The task needs AutoGraph; the rest of the step would only be traced more slowly by it.
        self._task = tf.function(tfrs.tasks.Retrieval(remove_accidental_hits=True))

    def embed_queries(self, features: Features, training: bool = False) -> tf.Tensor:
        """Unit vectors [B, D] of packed query features."""
        features = dict(features)
        history = features.pop("history")
        mean, present = mean_history(history, tf.convert_to_tensor(self.bank))
        features |= {"history/mean": mean, "history/present": present}
        return self.query_tower(features, training=training)

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

        Args:
          inputs: "query" and "product" packed features, "product_index" int32 [B], "weight"
            float32 [B]; B is the batch of one replica.
          training: Whether the towers are in training mode.

        Returns:
          This replica's part of the mean over the global batch, scalar.
        """
        index = inputs["product_index"]
        candidates = self.embed_products(inputs["product"], training)
        queries = self.embed_queries(inputs["query"], training)
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context is not None else 1
        if replicas > 1:
            candidates = context.all_gather(candidates, axis=0)
            index = context.all_gather(index, axis=0)
        if training:
            self.bank.scatter_update(tf.IndexedSlices(tf.stop_gradient(candidates), index))
        if replicas > 1:
            # `Retrieval` takes row i as query i's positive: this replica's rows go first.
            first = context.replica_id_in_sync_group * queries.shape[0]
            candidates, index = (tf.roll(x, -first, axis=0) for x in (candidates, index))
        probability = tf.gather(self._probability, index) if self._config.log_q else None
        loss = self._task(
            queries / self.temperature(),
            candidates,
            sample_weight=inputs["weight"],
            candidate_sampling_probability=probability,
            candidate_ids=index,
            compute_metrics=False,
        )
        return loss / tf.cast(tf.shape(queries)[0] * replicas, tf.float32)
