"""A tower: the encoders of a side's modalities, joined into one unit vector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config, affinity_widths, late_parts, late_weights
from tfmm.contract import SMALL
from tfmm.errors import TfmmError
from tfmm.features.history import FACTS
from tfmm.features.popularity import popularity_width
from tfmm.towers import hub
from tfmm.towers.affinity import Affinity
from tfmm.towers.encoders import Encoder, make_encoder
from tfmm.towers.joint import Joint, Side, make_joint, modalities
from tfmm.towers.sequence import History, make_history


class Tower(keras.layers.Layer):
    """One side's tower.

    Attributes:
      side: "query" or "product".
      modalities: What this side reads.
      encoders: The encoder of each modality but history, id and popularity.
      joint: Projections, fusion and head.
      late: Weight of each medium that is also compared on its own.
      affinity: Which products go with which, where histories are compared so too; of both sides.
      parts: Unit vectors side by side in a product's vector.
      history: What makes one vector of past products, where this side has them.
      ids: A vector for each product of the training catalogue, where this side has them.
      popularity: What reads how often and how lately a product was asked for, likewise.
    """

    def __init__(
        self,
        side: Side,
        config: Config,
        encoders: Mapping[str, Encoder],
        *,
        joint: Joint | None = None,
        affinity: Affinity | None = None,
        products: int = 0,
    ) -> None:
        super().__init__(name=f"{side}_tower")
        self.side = side
        self.modalities = modalities(config, side)
        self.encoders: dict[str, Encoder] = {
            m: encoders[m] for m in self.modalities if m in encoders
        }
        self.ids: keras.layers.Embedding | None = None
        if "id" in self.modalities:
            self.ids = _make_ids(config, products)
        self.popularity: keras.layers.Dense | None = None
        if "popularity" in self.modalities:
            self.popularity = _make_popularity(config)
        self._dropout = {
            "id": config.tower.id_dropout,
            "popularity": config.tower.popularity_dropout,
        }
        self.joint = joint or make_joint(config, [side], encoders)
        self._width = config.tower.width
        self.late = late_weights(config)
        self.parts = late_parts(config)
        self.affinity = affinity
        self._affinity_weight = config.tower.late.history
        self.history: History | None = None
        if "history" in self.modalities:
            self.history = make_history(config, seed=config.seed * 1000 + 900)

    def is_frozen(self, modality: str) -> bool:
        """Whether a modality's encoder is not trained, so that `<modality>/encoded` is lasting."""
        return modality in self.encoders and self.encoders[modality].is_frozen()

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Embeds a batch.

        Args:
          features: Packed device features. "row" int32 `[B]`; for each modality that is there
            "<modality>/row" int32 `[C]` (row of the batch, -1 for padding) and its features, or
            "<modality>/encoded" float32 `[C, W_enc]` in their place; for the query side's history
            "history/items" float32 `[B, H, dim]`, oldest first, zeros where there is none, and
            "history/known" float32 `[B, H]`, and where the recipe and the caller have them
            "history/event" and "history/age" (see `AttentionHistory`); for the product side "id"
            int32 `[B]`, the product's row of the training catalogue + 1, 0 for none, and
            "popularity" float32 `[B, F]` as `popularity_features` gives it.
          training: Whether trainable encoders run in training mode.

        Returns:
          float32 `[B, D]` of unit norm. A row's vector depends on that row alone.
        """
        if self.affinity is not None and self.side == "product":
            features = self.encoded(features, training)
        names, late = self._possible(features)
        tokens, present = self.tokens(features, training, names)
        alone = {name: self._alone(name, tokens, present) for name in late}
        more = self._affinity_part(features, tf.shape(present)[0])
        every = self.joint.modalities
        places = None if names == every else [every.index(name) for name in names]
        return self.vector(self.joint(tokens, present, places), alone, present, more)

    @tf.autograph.experimental.do_not_convert
    def _possible(self, features: Mapping[str, tf.Tensor]) -> list[tuple[str, ...]]:
        """Modalities that rows may have, and those compared alone, which are made of all tokens."""
        given = {key.split("/")[0] for key in features}.intersection(self.modalities)
        late = tuple(name for name in self.late if name in given)
        names = tuple(name for name in self.joint.modalities if name in given)
        return [self.joint.modalities if late or not names else names, late]

    @tf.autograph.experimental.do_not_convert
    def _alone(self, modality: str, tokens: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Unit vectors `[B, dim]` of one modality; anything where `vector` takes none of it."""
        if self.side == "product" or present.shape[0] is not None:
            return self.joint.alone(modality, tokens, present)
        dim = self.joint.head.units
        return tf.cond(
            tf.reduce_any(self.joint.only(modality, present) > 0.5),
            lambda: tf.ensure_shape(self.joint.alone(modality, tokens, present), [None, dim]),
            lambda: tf.zeros([tf.shape(present)[0], dim]),
        )

    @tf.autograph.experimental.do_not_convert
    def tokens(
        self,
        features: dict[str, tf.Tensor],
        training: bool = False,
        names: Sequence[str] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokens `[B, M, W]` of modalities, all if not named, and presence `[B, M]` of 0 and 1."""
        batch = features["row"].shape[0]
        rows = tf.shape(features["row"])[0] if batch is None else batch
        tokens, present = [], []
        for modality in names or self.joint.modalities:
            token, there = self._token(modality, features, rows, training)
            tokens.append(tf.ensure_shape(token, [batch, self._width]))
            present.append(tf.ensure_shape(there, [batch]))
        return tf.stack(tokens, axis=1), tf.stack(present, axis=1)

    def encoded(self, features: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Features with "<modality>/encoded" `[C, W_enc]` for every modality that is there."""
        made = dict(features)
        for modality in self.encoders:
            row = features.get(f"{modality}/row")
            if row is not None and row.shape[0] != 0 and f"{modality}/encoded" not in features:
                made[f"{modality}/encoded"] = self._encoded_if_any(modality, features, training)
        return made

    def _encoded_if_any(
        self, modality: str, features: dict[str, tf.Tensor], training: bool
    ) -> tf.Tensor:
        """Encodings `[C, W_enc]`; a module need not know what to do with no rows at all."""
        row = features[f"{modality}/row"]
        if row.shape[0] is not None:
            return self._encoded(modality, features, training)
        width = self.encoders[modality].output_width
        return tf.cond(
            tf.shape(row)[0] > 0,
            lambda: tf.ensure_shape(self._encoded(modality, features, training), [None, width]),
            lambda: tf.zeros([0, width]),
        )

    def foretell(self, features: dict[str, tf.Tensor], at: tf.Tensor) -> tf.Tensor:
        """What a history says alone had it ended earlier, in a training step.

        Args:
          features: Those of `call`; only the history is read.
          at: Places int32 `[M]`, row times H plus place.

        Returns:
          float32 `[M, dim]` of unit norm.
        """
        assert self.history is not None
        known = features["history/known"]
        facts = _history_facts(features)
        every = self.history.every(features["history/items"], known, training=True, facts=facts)
        encoded = tf.gather(tf.reshape(every, [-1, every.shape[2]]), at)
        token = self.joint.project("history", encoded)[:, tf.newaxis, :]
        present = self.joint.only("history", tf.ones([at.shape[0], len(self.joint.modalities)]))
        return self.joint(token * present[:, :, tf.newaxis], present)

    def vector(
        self,
        fused: tf.Tensor,
        alone: Mapping[str, tf.Tensor],
        present: tf.Tensor,
        more: Sequence[tf.Tensor] = (),
    ) -> tf.Tensor:
        """Puts the parts of a vector side by side.

        Args:
          fused: Unit vectors of whole rows `[B, dim]`.
          alone: The same of each modality of `late` that any row may have.
          present: `[B, M]` of 0 and 1; of all modalities, where `alone` has any.
          more: What stands behind them, `[B, ...]` each.

        Returns:
          float32 `[B, D]` of unit norm.
        """
        parts = [fused]
        for modality, weight in self.late.items():
            if modality not in alone:
                parts.append(tf.zeros_like(fused) if self.side == "query" else fused)
                continue
            own = alone[modality]
            there = tf.reduce_max(self.joint.only(modality, present), axis=1, keepdims=True) > 0.5
            if self.side == "query":
                parts.append(tf.where(there, weight * own, 0.0))
            else:
                parts.append(tf.where(there, own, fused))
        parts += more
        return fused if len(parts) == 1 else tf.math.l2_normalize(tf.concat(parts, axis=1), axis=-1)

    def _affinity_part(self, features: Mapping[str, tf.Tensor], rows: tf.Tensor) -> list[tf.Tensor]:
        if self.affinity is None:
            return []
        if self.side == "product":
            return [self.affinity.product_part(features)]
        if "history/affinity" not in features:
            return [tf.zeros([rows, self.affinity.dim + 2])]
        known = features["history/known"]
        items = tf.where(known[:, :, tf.newaxis] > 0.5, features["history/affinity"], 0.0)
        return [self._affinity_weight * self.affinity.query_part(items, known)]

    def _token(
        self, modality: str, features: dict[str, tf.Tensor], rows: tf.Tensor | int, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A modality's tokens `[B, W]` and presence `[B]`; zeros where it is absent."""
        absent = tf.zeros([rows, self._width]), tf.zeros([rows])
        if modality == "history":
            if self.history is None or "history/items" not in features:
                return absent
            if features["history/known"].shape[0] is not None:
                return self._past(features, training)
            return tf.cond(
                tf.reduce_any(features["history/known"] > 0.5),
                lambda: self._past(features, training),
                lambda: absent,
            )
        if modality in ("id", "popularity"):
            layer = self.ids if modality == "id" else self.popularity
            if layer is None or modality not in features:
                return absent
            there = self._is_logged(modality, features[modality], training)
            return self.joint.project(modality, layer(features[modality])), there
        row = features.get(f"{modality}/row")
        if modality not in self.modalities or row is None or row.shape[0] == 0:
            return absent
        if row.shape[0] is not None:
            return self._scatter(modality, features, rows, training)
        return tf.cond(
            tf.shape(row)[0] > 0,
            lambda: self._scatter(modality, features, rows, training),
            lambda: absent,
        )

    def _past(self, features: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The history's tokens `[B, W]` and presence `[B]`."""
        assert self.history is not None
        known = features["history/known"]
        items = tf.where(known[:, :, tf.newaxis] > 0.5, features["history/items"], 0.0)
        encoded = self.history(items, known, training=training, facts=_history_facts(features))
        return self.joint.project("history", encoded), tf.reduce_max(known, axis=1)

    def _is_logged(self, modality: str, given: tf.Tensor, training: bool) -> tf.Tensor:
        """Presence `[B]` of what the log says of products; training hides it now and then."""
        there = tf.cast((given if modality == "id" else given[:, 0]) > 0, tf.float32)
        if training:
            kept = tf.random.uniform(tf.shape(there)) >= self._dropout[modality]
            there *= tf.cast(kept, tf.float32)
        return there

    def _encoded(self, modality: str, features: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Encodes packed rows of one modality, `[C, W_enc]`."""
        prefix, row = f"{modality}/", features[f"{modality}/row"]
        own = {
            name.removeprefix(prefix): _without_padding(value, row)
            for name, value in features.items()
            if name.startswith(prefix) and not name.endswith("/row")
        }
        return (
            own["encoded"] if "encoded" in own else self.encoders[modality](own, training=training)
        )

    def _scatter(
        self, modality: str, features: dict[str, tf.Tensor], rows: tf.Tensor | int, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes packed rows and puts each where it belongs; several of one row are averaged."""
        row = features[f"{modality}/row"]
        packed = self.joint.project(modality, self._encoded(modality, features, training))
        count = tf.math.unsorted_segment_sum(tf.ones_like(row, tf.float32), row, rows)
        total = tf.math.unsorted_segment_sum(packed, row, rows)
        return total / tf.maximum(count, 1.0)[:, tf.newaxis], tf.minimum(count, 1.0)


def fused_part(products: Any, dim: int, parts: int) -> Any:
    """The fused unit vectors `[..., dim]` within product vectors `[..., D]` of `parts` ones."""
    return products[..., :dim] * math.sqrt(parts)


def affinity_part(products: Any, config: Config) -> Any:
    """The unit vectors `[..., dim]` of `Affinity` within product vectors `[..., D]`."""
    width = sum(affinity_widths(config).values())
    start = config.tower.dim * (1 + len(late_weights(config)))
    return products[..., start : start + width] * math.sqrt(late_parts(config))


def build_towers(
    config: Config, *, vocabulary_size: int = 0, products: int = 0
) -> tuple[Tower, Tower]:
    """Builds the query and the product tower of a recipe.

    Small modules are built below `tower.hub_dir` where they are missing. With
    `tower.shared_encoders` both sides have the same encoders, projections, fusion and head.

    Args:
      config: The recipe.
      vocabulary_size: WordPieces that the Preprocessor emits; needed for the small text module.
      products: Products of the training catalogue; needed for ids.

    Raises:
      TfmmError: A module cannot be found or used, or a side has no modality.
    """
    sides: list[Side] = ["query", "product"]
    if config.tower.shared_encoders:
        shared = _make_encoders(config, sides, vocabulary_size)
        encoders = [shared, shared]
        joint = make_joint(config, sides, shared)
    else:
        encoders = [_make_encoders(config, [side], vocabulary_size) for side in sides]
        joint = None
    affinity = None
    if widths := affinity_widths(config):
        affinity = Affinity(
            config,
            image_width=encoders[1]["image"].output_width if "image" in widths else 0,
            vocabulary_size=vocabulary_size,
            products=products,
        )
    query, product = (
        Tower(side, config, own, joint=joint, affinity=affinity, products=products)
        for side, own in zip(sides, encoders, strict=True)
    )
    return query, product


def _make_encoders(config: Config, sides: list[Side], vocabulary_size: int) -> dict[str, Encoder]:
    handles = {
        "text": config.text.handle,
        "image": config.image.handle,
        "audio": config.audio.handle,
    }
    named = {m for side in sides for m in modalities(config, side)}
    named -= {"history", "id", "popularity"}
    encoders: dict[str, Encoder] = {}
    for modality in sorted(named):
        handle = handles[modality]
        if handle == SMALL:
            if modality == "text" and vocabulary_size < 1:
                raise TfmmError(
                    "text.handle: expected a vocabulary for the small module, received none"
                )
            path = hub.small_module(modality, config, vocabulary_size=vocabulary_size)
            handle = str(path)
        encoders[modality] = make_encoder(modality, config, handle=handle)
    return encoders


def _history_facts(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What a history encoder is told of the products beside their vectors."""
    return {name: features[name] for name in FACTS if name in features}


def _make_ids(config: Config, products: int) -> keras.layers.Embedding:
    if products < 1:
        raise TfmmError("tower.product: expected products to give ids to, received none")
    normal = keras.initializers.RandomNormal(stddev=0.02, seed=config.seed * 1000 + 950)
    table = keras.layers.Embedding(products + 1, config.tower.width, embeddings_initializer=normal)
    table.build(None)
    return table


def _make_popularity(config: Config) -> keras.layers.Dense:
    kernel = keras.initializers.GlorotUniform(seed=config.seed * 1000 + 960)
    layer = keras.layers.Dense(config.tower.width, activation="relu", kernel_initializer=kernel)
    layer.build([None, popularity_width(config.tower.popularity_days)])
    return layer


def _without_padding(feature: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Zeros in the rows of padding, so that nothing in them can reach a gradient as NaN."""
    kept = tf.reshape(row >= 0, [-1] + [1] * (feature.shape.rank - 1))
    return tf.where(kept, feature, tf.zeros_like(feature))
