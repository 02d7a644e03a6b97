"""What the encoders last gave for every product, kept between training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.towers.tower import Tower

Features = dict[str, tf.Tensor]


class Encodings(tf.Module):
    """What the encoders last gave for every product, so that any product costs the fusion only.

    Projections, fusion and head are as new as the step, and get gradients; encoders get none.

    Attributes:
      banks: Of each modality of the products, float32 [N + 1, W_enc]; the last row takes what
        belongs to no product.
    """

    def __init__(
        self,
        tower: Tower,
        products: int,
        present: Mapping[str, npt.NDArray[np.bool_]],
    ) -> None:
        super().__init__(name="encodings")
        self._tower = tower
        self._products = products
        self.banks = {
            name: tf.Variable(
                tf.zeros([products + 1, encoder.output_width]),
                trainable=False,
                aggregation=tf.VariableAggregation.NONE,
                name=f"{name}_encodings",
            )
            for name, encoder in tower.encoders.items()
        }
        self._present = {name: tf.constant(present[name].astype(np.float32)) for name in self.banks}

    def remember(
        self,
        product: Features,
        index: tf.Tensor,
        of_all_replicas: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        """Keeps the encodings of a batch whose rows are the first of `index`."""
        for name, variable in self.banks.items():
            row = product.get(f"{name}/row")
            if row is None or row.shape[0] == 0:
                continue
            whose = tf.where(row >= 0, tf.gather(index, tf.maximum(row, 0)), self._products)
            encoded = of_all_replicas(tf.stop_gradient(product[f"{name}/encoded"]))
            variable.scatter_update(tf.IndexedSlices(encoded, of_all_replicas(whose)))

    def vectors(self, index: tf.Tensor, from_log: Features) -> tf.Tensor:
        """Fused unit vectors of products, in a training step.

        Args:
          index: The products, int32 [K].
          from_log: What the tower reads of them that only the log knows, [K, ...] each.

        Returns:
          float32 [K, dim].
        """
        rows = tf.range(tf.shape(index)[0])
        features: Features = {"row": tf.ensure_shape(rows, index.shape), **from_log}
        for name, variable in self.banks.items():
            has = tf.gather(self._present[name], index) > 0.5
            features[f"{name}/row"] = tf.where(has, features["row"], -1)
            features[f"{name}/encoded"] = tf.gather(tf.convert_to_tensor(variable), index)
        return self._tower.joint(*self._tower.tokens(features, training=True))
