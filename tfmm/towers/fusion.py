"""Fusion: the tokens of the modalities that are present -> one vector.

Every kind ignores absent modalities exactly: a token that is not there is replaced by zeros before
any arithmetic, so whatever stands in its place, NaN included, reaches neither the output nor a
gradient. A row without any modality becomes a learnt vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Fusion

_NEVER = -1e9
Places = Sequence[int] | None


class _Fusion(keras.layers.Layer):
    """What all kinds share: masking, and the learnt vector of a row that holds nothing."""

    def __init__(self, width: int, *, seed: int, name: str) -> None:
        super().__init__(name=name)
        self._width = width
        self._seed = seed
        self.nothing = self.add_weight(
            name="nothing", shape=[width], initializer=self._normal(1.0), trainable=True
        )

    def call(self, tokens: tf.Tensor, present: tf.Tensor, places: Places = None) -> tf.Tensor:
        """Joins tokens.

        Args:
          tokens: float32 `[B, M, W]`; anything at all where the modality is absent.
          present: float32 `[B, M]`, 1 where a row has the modality, else 0.
          places: Which modalities the M tokens are of, where the others can be in no row; the
            result is the same as with them.

        Returns:
          float32 `[B, W]`.
        """
        mask = present[..., tf.newaxis] > 0.5
        fused = self.fuse(tf.where(mask, tokens, tf.zeros_like(tokens)), present, places)
        anything = tf.reduce_max(present, axis=1, keepdims=True) > 0.5
        return tf.where(anything, fused, self.nothing)

    def fuse(self, tokens: tf.Tensor, present: tf.Tensor, places: Places) -> tf.Tensor:
        """`[B, M, W]` with zeros for what is absent, and `[B, M]`, to `[B, W]`."""
        raise NotImplementedError

    def _normal(self, stddev: float) -> keras.initializers.Initializer:
        self._seed += 1
        return keras.initializers.RandomNormal(stddev=stddev, seed=self._seed)

    def _dense(self, units: int, *, activation: str | None = None) -> keras.layers.Dense:
        self._seed += 1
        kernel = keras.initializers.GlorotUniform(seed=self._seed)
        return keras.layers.Dense(units, activation=activation, kernel_initializer=kernel)

    def _zero_dense(self, units: int) -> keras.layers.Dense:
        """A layer that starts at zero, so that the residual it ends starts as the identity."""
        return keras.layers.Dense(units, kernel_initializer="zeros")


class Weighted(_Fusion):
    """Softmax-weighted mean of the tokens present, then a small residual MLP.

    A modality's weight is a learnt logit plus a term that depends on its token, so that a blurred
    photo can count less than a clear one. The residual starts at zero: the vector of a mixture
    starts as the mean of the vectors of its parts.
    """

    def __init__(self, width: int, *, modalities: int, seed: int) -> None:
        super().__init__(width, seed=seed, name="weighted")
        self.logits = self.add_weight(name="logits", shape=[modalities], initializer="zeros")
        self.gate = self.add_weight(name="gate", shape=[modalities, width], initializer="zeros")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5)
        self.hidden = self._dense(width, activation="relu")
        self.residual = self._zero_dense(width)

    def fuse(  # noqa: D102 - see _Fusion
        self, tokens: tf.Tensor, present: tf.Tensor, places: Places
    ) -> tf.Tensor:
        content = tf.reduce_sum(tokens * _of(self.gate, places), axis=-1)
        content /= math.sqrt(self._width)
        weights = _masked_softmax(_of(self.logits, places) + content, present)
        mean = tf.reduce_sum(weights[..., tf.newaxis] * tokens, axis=1)
        return mean + self.residual(self.hidden(self.norm(mean)))


class Concat(_Fusion):
    """MLP over all tokens side by side, with a flag for each that is present."""

    def __init__(self, width: int, *, modalities: int, seed: int) -> None:
        super().__init__(width, seed=seed, name="concat")
        self._modalities, self._inputs = modalities, modalities * width
        self.hidden = self._dense(2 * width, activation="relu")
        self.mixed = self._dense(width)

    def fuse(  # noqa: D102 - see _Fusion
        self, tokens: tf.Tensor, present: tf.Tensor, places: Places
    ) -> tf.Tensor:
        tokens, present = _among_all(tokens, present, places, modalities=self._modalities)
        flat = tf.reshape(tokens, [-1, self._inputs])
        mean = _masked_mean(tokens, present)
        return mean + self.mixed(self.hidden(tf.concat([flat, present], axis=-1)))


class Attention(_Fusion):
    """One pre-norm transformer block over the modality tokens (Vaswani et al. 2017), masked."""

    def __init__(self, width: int, *, modalities: int, seed: int) -> None:
        super().__init__(width, seed=seed, name="attention")
        self.modality = self.add_weight(
            name="modality", shape=[modalities, width], initializer=self._normal(0.02)
        )
        self._heads = 4 if width % 4 == 0 else 1
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(2)]
        self.query, self.key, self.value = (self._dense(width) for _ in range(3))
        self.joined = self._zero_dense(width)
        self.hidden = self._dense(2 * width, activation="relu")
        self.residual = self._zero_dense(width)

    def fuse(  # noqa: D102 - see _Fusion
        self, tokens: tf.Tensor, present: tf.Tensor, places: Places
    ) -> tf.Tensor:
        # Dense layers are one product over rows, and a dozen operations over anything deeper.
        x = tf.reshape(tokens + _of(self.modality, places), [-1, self._width])
        mixed = self._mixed(self.norms[0](x), present)
        x += self.joined(tf.reshape(mixed, [-1, self._width]))
        x += self.residual(self.hidden(self.norms[1](x)))
        return _masked_mean(tf.reshape(x, [-1, *tokens.shape[1:]]), present)

    def _mixed(self, normed: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        if present.shape[1] == 1:  # a token alone attends to itself
            return self.value(normed)
        query, key, value = (
            self._split(dense(normed), present) for dense in (self.query, self.key, self.value)
        )
        scores = tf.einsum("bmhd,bnhd->bhmn", query, key) / math.sqrt(self._width // self._heads)
        weights = _masked_softmax(scores, present[:, tf.newaxis, tf.newaxis, :])
        return tf.einsum("bhmn,bnhd->bmhd", weights, value)

    def _split(self, x: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, present.shape[1], self._heads, self._width // self._heads])


class MlpFm(_Fusion):
    """MLP plus a factorisation machine's second-order term over the modality tokens.

    With tokens v_m as factors the pairwise term is `1/2 ((sum v_m)^2 - sum v_m^2)`, element by
    element (Rendle 2010, "Factorization Machines", lemma 3.1).
    """

    def __init__(self, width: int, *, modalities: int, seed: int) -> None:
        super().__init__(width, seed=seed, name="mlp_fm")
        self._modalities, self._inputs = modalities, modalities * width
        self.factors = self._dense(width)
        self.pairs = self._dense(width)
        self.hidden = self._dense(2 * width, activation="relu")
        self.mixed = self._dense(width)

    def fuse(  # noqa: D102 - see _Fusion
        self, tokens: tf.Tensor, present: tf.Tensor, places: Places
    ) -> tf.Tensor:
        tokens, present = _among_all(tokens, present, places, modalities=self._modalities)
        factors = self.factors(tokens) * present[..., tf.newaxis]
        total = tf.reduce_sum(factors, axis=1)
        pairwise = 0.5 * (tf.square(total) - tf.reduce_sum(tf.square(factors), axis=1))
        flat = tf.concat([tf.reshape(tokens, [-1, self._inputs]), present], axis=-1)
        first_order = _masked_mean(tokens, present)
        return first_order + self.pairs(pairwise) + self.mixed(self.hidden(flat))


def make_fusion(kind: Fusion, width: int, *, modalities: int, seed: int = 0) -> _Fusion:
    """The fusion layer of a recipe, for `modalities` tokens of `width`."""
    match kind:
        case "weighted":
            return Weighted(width, modalities=modalities, seed=seed)
        case "concat":
            return Concat(width, modalities=modalities, seed=seed)
        case "attention":
            return Attention(width, modalities=modalities, seed=seed)
        case "mlp_fm":
            return MlpFm(width, modalities=modalities, seed=seed)


def _of(weights: tf.Variable, places: Places) -> tf.Tensor:
    """The weights of some modalities, [M, ...]."""
    if places is None:
        return tf.convert_to_tensor(weights)
    return tf.gather(tf.convert_to_tensor(weights), tf.constant(places))


def _among_all(
    tokens: tf.Tensor, present: tf.Tensor, places: Places, *, modalities: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokens and presence with zeros for the modalities that they are not of."""
    if places is None:
        return tokens, present
    into = tf.one_hot(places, modalities)
    tokens = tf.transpose(tf.tensordot(tokens, into, [[1], [0]]), [0, 2, 1])
    return tokens, tf.linalg.matmul(present, into)


def _masked_softmax(scores: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis of what is present; exactly 0 elsewhere."""
    kept = tf.where(present > 0.5, scores, tf.fill(tf.shape(scores), _NEVER))
    return tf.nn.softmax(kept) * tf.cast(present > 0.5, tf.float32)


def _masked_mean(tokens: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Mean over axis 1 of what is present: `[B, M, W]`, `[B, M]` -> `[B, W]`."""
    total = tf.reduce_sum(tokens * present[..., tf.newaxis], axis=1)
    return total / tf.maximum(tf.reduce_sum(present, axis=1, keepdims=True), 1.0)
