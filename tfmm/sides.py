"""What the two sides of a training batch give to a loss."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Candidates:
    """Vectors [C, dim] of products int32 [C]."""

    vectors: tf.Tensor
    index: tf.Tensor

    def joined(self, vectors: tf.Tensor, index: tf.Tensor) -> Candidates:
        """These and others behind them."""
        return Candidates(
            tf.concat([self.vectors, vectors], axis=0), tf.concat([self.index, index], axis=0)
        )


@dataclass(frozen=True)
class Scaled:
    """One side's vectors, and what their cosines are divided by.

    Attributes:
      vectors: [B, D], unit vectors but for marks of what is left out.
      temperature: Scalar.
    """

    vectors: tf.Tensor
    temperature: tf.Tensor

    def logits(self) -> tf.Tensor:
        """What is multiplied by candidates, [B, D]."""
        return self.vectors / self.temperature


@dataclass(frozen=True)
class Own:
    """What each row of a batch adds to the candidates that all share, and takes out of them.

    Attributes:
      others: Products int32 [B, M] that are positives of the row's query too; -1 is padding.
      hard: Products int32 [B, H] that are negatives of this row for certain; -1 is padding.
      total: Log-sum-exp of their logits, [B].
    """

    others: tf.Tensor | None = None
    hard: tf.Tensor | None = None
    total: tf.Tensor | None = None

    def shared(self, index: tf.Tensor) -> tf.Tensor | None:
        """Which of the candidates int32 [C] stand in each row's softmax, bool [B, C]."""
        named = [products for products in (self.others, self.hard) if products is not None]
        if not named:
            return None
        products = tf.concat(named, axis=1)[:, :, tf.newaxis]
        return ~tf.reduce_any(products == index[tf.newaxis, tf.newaxis], axis=1)


@dataclass(frozen=True)
class Queries(Candidates):
    """Queries of all replicas as candidates, this one's first.

    Attributes:
      vectors: Their unit vectors [C, dim].
      index: The product that each led to, int32 [C].
      others: Further products that it led to, int32 [C, M]; -1 is padding.
    """

    others: tf.Tensor | None = None

    def shared(self, products: tf.Tensor) -> tf.Tensor | None:
        """Which queries stand in the softmax of each product int32 [B], bool [B, C]."""
        if self.others is None:
            return None
        return ~tf.reduce_any(
            self.others[tf.newaxis] == products[:, tf.newaxis, tf.newaxis], axis=2
        )


class Replicas:
    """The replicas that share a step.

    Attributes:
      count: How many there are.
    """

    def __init__(self) -> None:
        self._context = tf.distribute.get_replica_context()
        self.count = self._context.num_replicas_in_sync if self._context is not None else 1

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows of all replicas, this one's first: `Retrieval` takes row i as query i's positive."""
        if self.count == 1:
            return rows
        size = rows.shape[0]
        # An input of the step names no device, and where a worker has one replica only, TensorFlow
        # looks there for where the rows should go.
        everyone = self._context.all_gather(tf.identity(rows), axis=0)
        return tf.roll(everyone, -self._context.replica_id_in_sync_group * size, axis=0)


@dataclass(frozen=True)
class Alone:
    """One modality of a batch: vectors of it alone [B, dim], and who has it, [B] of 0 and 1."""

    vectors: tf.Tensor
    has: tf.Tensor


@dataclass(frozen=True)
class Side:
    """A batch as one tower sees it: vectors of the whole rows [B, dim], and of each modality."""

    whole: tf.Tensor
    alone: dict[str, Alone]

    def asks_by(self, modality: str) -> tf.Tensor:
        """Which rows a modality's softmax takes, [B] of 0 and 1.

        Words, typed or spoken, say what is wanted, also of a mixture. A photo does so where it
        stands alone: beside words it shows something else, which the words change.
        """
        own = self.alone[modality].has
        if modality == "text":
            return tf.maximum(own, self.alone["audio"].has) if "audio" in self.alone else own
        count = tf.add_n([part.has for part in self.alone.values()])
        return own * tf.cast(count < 1.5, tf.float32)
