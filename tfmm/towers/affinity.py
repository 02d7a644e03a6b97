"""Which products go with which: a factored item-to-item model beside the towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config, affinity_widths
from tfmm.features.popularity import popularity_width

LARGEST_BIAS = 8.0
# Adam changes all variables by about as much a step; these have further to go.
_ID_STEP = 5.0
_BIAS_STEP = 10.0
_FIRST_SCALE = 8.0
_FIRST_IMAGE = 0.3
# Places within which one product leads to another.
_NEAR = 3
Features = Mapping[str, tf.Tensor]


class Affinity(keras.layers.Layer):
    """Item-to-item factors over content and ids, with a bias for popularity.

    A product is one unit vector: its words, a projection of their TF-IDF that starts at random, and
    so as a nearest-neighbour search; its photo's encoding; numbers of its own. A history is the sum
    of its products' vectors, divided by a power of their number (Kabbur, Ning and Karypis, "FISM:
    factored item similarity models", KDD 2013), each weighted by how many places lie between it and
    what is asked for. A matrix over the ids of those near it says what follows what (as in Rendle,
    Freudenthaler and Schmidt-Thieme, "Factorizing personalized Markov chains", WWW 2010). The
    scalar product of the two and the product's bias are the logarithm of how likely it comes next,
    up to a constant. The bias of a product with a past is read from that; of a new one it is what
    products of such words and photos came to.

    The towers' gradients never reach it, nor its own the towers: it is learnt when they are done,
    and its variables are no trainable ones of theirs.

    Attributes:
      widths: Numbers of each part of a product's vector, by modality.
      dim: Their sum.
      learnt: What training changes.
    """

    def __init__(
        self, config: Config, *, image_width: int, vocabulary_size: int, products: int
    ) -> None:
        super().__init__(name="affinity")
        self.widths = affinity_widths(config)
        self.dim = sum(self.widths.values())
        self._length = config.catalogue.history_length
        self._length_power = config.affinity.length_power
        self._new_boost = config.affinity.new_boost
        self._seed = config.seed * 1000 + 970
        self.learnt: list[tf.Variable] = []
        if "text" in self.widths:
            width = self.widths["text"]
            self.idf = self._fixed("idf", tf.ones([vocabulary_size]))
            start = self._normal([vocabulary_size, width], width**-0.5)
            self.projection = self._learnt("projection", start)
        if "image" in self.widths:
            self.image_mean = self._fixed("image_mean", tf.zeros([image_width]))
            self.image_spread = self._fixed("image_spread", tf.ones([image_width]))
            shape = (image_width, self.widths["image"])
            start = keras.initializers.Orthogonal(seed=self._seed)(shape)
            self.photo = self._learnt("photo", start)
            self.photo_gain = self._learnt("photo_gain", tf.constant(_FIRST_IMAGE))
        if "id" in self.widths:
            start = self._normal([products + 1, self.widths["id"]], 0.02 / _ID_STEP)
            self.ids = self._learnt("ids", start)
            self.follows = self._learnt("follows", tf.zeros([self.widths["id"]] * 2))
            self.id_places = self._learnt("id_places", tf.zeros([self._length]))
        # Of a product before what is asked for, and of one after it, which only training sees.
        self.places = self._learnt("places", tf.zeros([2, self._length]))
        self.log_scale = self._learnt("log_scale", tf.math.log(_FIRST_SCALE))
        features = popularity_width(config.tower.popularity_days)
        self.bias = self._learnt("bias", tf.zeros([features]))
        self.prior = self._learnt("prior", tf.zeros([self.dim]))
        self.prior_level = self._learnt("prior_level", tf.constant(0.0))

    def weigh_words(self, ids: npt.NDArray[np.int32]) -> None:
        """Sets how much each WordPiece says, from those of all products, int32 [N, L]."""
        seen = np.zeros(self.idf.shape[0], np.int64)
        for start in range(0, len(ids), 4096):
            part = np.sort(np.asarray(ids[start : start + 4096]), axis=1)
            first = np.diff(part, axis=1, prepend=-1) != 0
            seen += np.bincount(part[first], minlength=len(seen))[: len(seen)]
        self.idf.assign(np.log((len(ids) + 1) / (seen + 1)).astype(np.float32))

    def centre_photos(self, encoded: npt.NDArray[np.float32]) -> None:
        """Takes photos' encodings `[C, W_enc]` apart from what they have in common."""
        self.image_mean.assign(encoded.mean(axis=0))
        self.image_spread.assign(encoded.std(axis=0) + 1e-6)

    def content(self, features: Features) -> dict[str, tf.Tensor]:
        """What the model reads of products.

        Args:
          features: "row" int32 [B]; where products have words "text/row" int32 [C] and "text/ids"
            int32 [C, L]; where they have a photo "image/row" and "image/encoded" float32
            [C, W_enc]; where the log knows them "popularity" float32 [B, F].

        Returns:
          "text" float32 [B, W_text], the projected words, and "image" [B, W_enc], of unit norm, as
          far as the model reads them, zeros for products without; and "popularity" [B, F]. All but
          "text" is the same throughout training.
        """
        rows = tf.shape(features["row"])[0]
        made = {}
        if "text" in self.widths:
            made["text"] = _spread(features, "text", rows, self.projection.shape[1], self._bags)
        if "image" in self.widths:
            width = self.image_mean.shape[0]
            made["image"] = _spread(features, "image", rows, width, self._standardised)
        blank = tf.zeros([rows, self.bias.shape[0]])
        made["popularity"] = features.get("popularity", blank)
        return made

    def vectors(self, content: Features, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Products as the model compares them.

        Args:
          content: What `content` gives.
          ids: Rows of the id table, int32 [B]; 0 for none.

        Returns:
          Unit vectors [B, dim], and biases [B] within ±`LARGEST_BIAS`.
        """
        parts = []
        if "text" in self.widths:
            parts.append(content["text"])
        if "image" in self.widths:
            parts.append(self.photo_gain * tf.linalg.matmul(content["image"], self.photo))
        if "id" in self.widths:
            known = tf.cast(ids > 0, tf.float32)
            parts.append(_ID_STEP * tf.gather(self.ids, ids) * known[:, tf.newaxis])
        unit = tf.math.l2_normalize(tf.concat(parts, axis=1), axis=1)
        past = tf.linalg.matvec(content["popularity"], self.bias)
        expected = self.prior_level + tf.linalg.matvec(unit, self.prior)
        bias = _BIAS_STEP * tf.where(_is_new(content), expected, past)
        return unit, tf.clip_by_value(bias, -LARGEST_BIAS, LARGEST_BIAS)

    def asks(
        self, items: tf.Tensor, known: tf.Tensor, distance: tf.Tensor | None = None
    ) -> tf.Tensor:
        """What histories ask for.

        Args:
          items: Products' vectors, [B, H, dim].
          known: 1 where there is one, else 0, float32 [B, H].
          distance: How many places before what is asked for each stands, negative for after it,
            int32 [B, H], absolutely at most H; None for histories in their order, the newest last.

        Returns:
          float32 [B, dim].
        """
        if distance is None:
            distance = tf.range(self._length, 0, -1) * tf.ones_like(known, tf.int32)
        step = tf.maximum(tf.abs(distance) - 1, 0)
        before, after = (tf.gather(self.places[side], step) for side in range(2))
        weight = known * tf.exp(tf.where(distance > 0, before, after))
        summed = tf.einsum("bhd,bh->bd", items, weight)
        if "id" in self.widths:
            own = items[:, :, self.dim - self.widths["id"] :]
            by_ids = self._ids_ask(own, weight * tf.exp(tf.gather(self.id_places, step)), distance)
            summed = tf.concat([summed[:, : self.dim - self.widths["id"]], by_ids], axis=1)
        total = tf.reduce_sum(weight, axis=1, keepdims=True)
        summed *= tf.maximum(total, 1e-6) ** -self._length_power
        return tf.exp(self.log_scale) * summed

    def _ids_ask(self, ids: tf.Tensor, weight: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
        """The share of ids [B, H, W] in what is asked for, [B, W]."""

        def near(places: tf.Tensor) -> tf.Tensor:
            beside = tf.cast((places > 0) & (places <= _NEAR), tf.float32)
            return tf.einsum("bhd,bh->bd", ids, weight * beside)

        followed = tf.linalg.matmul(near(distance), self.follows)
        following = tf.linalg.matmul(near(-distance), self.follows, transpose_b=True)
        return tf.einsum("bhd,bh->bd", ids, weight) + followed + following

    def penalty(self) -> tf.Tensor:
        """Sum of the squares of the numbers learnt of products, and of what follows what."""
        if "id" not in self.widths:
            return tf.constant(0.0)
        squares = tf.square(_ID_STEP * self.ids), tf.square(self.follows)
        return tf.add_n([tf.reduce_sum(one) for one in squares])

    def product_part(self, features: Features) -> tf.Tensor:
        """A product's share of its vector, `[B, dim + 2]`: two unit vectors side by side."""
        ids = features.get("id", tf.zeros_like(features["row"]))
        content = self.content(features)
        vectors, bias = self.vectors(content, ids)
        bias += self._new_boost * tf.cast(_is_new(content), tf.float32)
        bias = tf.clip_by_value(bias, -LARGEST_BIAS, LARGEST_BIAS)
        share = (bias / LARGEST_BIAS)[:, tf.newaxis]
        return tf.concat([vectors, share, tf.sqrt(1.0 - tf.square(share))], axis=1)

    def query_part(self, items: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """What is multiplied by `product_part`, `[B, dim + 2]`; zeros for no history."""
        there = tf.reduce_max(known, axis=1, keepdims=True)
        asks = self.asks(items, known)
        bias = tf.concat([LARGEST_BIAS * there, tf.zeros_like(there)], axis=1)
        return tf.concat([asks, bias], axis=1)

    def word_weights(self, ids: tf.Tensor) -> tf.Tensor:
        """TF-IDF of each of the WordPieces int32 `[C, L]`, 0 = padding, of unit norm a product."""
        weight = tf.gather(self.idf, ids) * tf.cast(ids > 0, tf.float32)
        return tf.math.l2_normalize(weight, axis=1)

    def _bags(self, features: Features) -> tf.Tensor:
        ids = features["ids"]
        return tf.einsum("clw,cl->cw", tf.gather(self.projection, ids), self.word_weights(ids))

    def _standardised(self, features: Features) -> tf.Tensor:
        centred = (features["encoded"] - self.image_mean) / self.image_spread
        return tf.math.l2_normalize(centred, axis=1)

    def _normal(self, shape: list[int], stddev: float) -> tf.Tensor:
        self._seed += 1
        return keras.initializers.RandomNormal(stddev=stddev, seed=self._seed)(shape)

    def _fixed(self, name: str, value: tf.Tensor) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=value.shape,
            initializer=lambda *args, **kwargs: tf.cast(value, tf.float32),
            trainable=False,
        )

    def _learnt(self, name: str, value: tf.Tensor) -> tf.Variable:
        self.learnt.append(self._fixed(name, value))
        return self.learnt[-1]


def _is_new(content: Features) -> tf.Tensor:
    """Which products have no past, bool [B]: the first number of one says whether there is any."""
    return content["popularity"][:, 0] <= 0


def _spread(
    features: Features,
    modality: str,
    rows: tf.Tensor,
    width: int,
    made: Callable[[Features], tf.Tensor],
) -> tf.Tensor:
    """What is made of packed rows where they belong, zeros elsewhere, `[B, width]`."""
    row = features.get(f"{modality}/row")
    if row is None or row.shape[0] == 0:
        return tf.zeros([rows, width])
    prefix = f"{modality}/"
    own = {k.removeprefix(prefix): v for k, v in features.items() if k.startswith(prefix)}
    return tf.math.unsorted_segment_sum(made(own), row, rows)
