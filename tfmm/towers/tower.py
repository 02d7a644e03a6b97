"""A tower: the encoders of a side's modalities, joined into one unit vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config, Modality, late_weights
from tfmm.errors import TfmmError
from tfmm.towers import hub
from tfmm.towers.encoders import Encoder, make_encoder
from tfmm.towers.fusion import make_fusion

Side = Literal["query", "product"]


def modalities(config: Config, side: Side) -> tuple[Modality, ...]:
    """The modalities that a side of a recipe reads: those it names whose handle is not empty.

    Raises:
      TfmmError: None is left.
    """
    handles = {"text": config.text.handle, "image": config.image.handle}
    handles |= {"audio": config.audio.handle, "history": "mean"}
    named = config.tower.query if side == "query" else config.tower.product
    kept = tuple(modality for modality in named if handles[modality])
    if not kept:
        raise TfmmError(
            f"tower.{side}: expected a modality whose handle is set, received {', '.join(named)}"
        )
    return kept


class Joint(keras.layers.Layer):
    """Projections, fusion and head: encoded modalities -> unit vectors.

    Towers that share their encoders share this layer too, so that a photo means the same vector
    on either side; each passes the modalities that it has.

    Attributes:
      modalities: Names of the tokens, in the order of fusion's axis M.
    """

    def __init__(self, config: Config, widths: Mapping[str, int], *, seed: int) -> None:
        super().__init__(name="joint")
        width, dim = config.tower.width, config.tower.dim
        self.modalities = tuple(widths)
        self.projections: dict[str, keras.layers.Layer] = {}
        self.norms: dict[str, keras.layers.Layer] = {}
        head = keras.initializers.Orthogonal(seed=seed)((width, dim))
        for index, (modality, incoming) in enumerate(widths.items()):
            kernel = keras.initializers.GlorotUniform(seed=seed + 1 + index)
            if modality == "history":
                # The mean of product vectors starts as itself: the head undoes this projection.
                kernel = keras.initializers.Constant(tf.transpose(head).numpy())
            dense = keras.layers.Dense(width, kernel_initializer=kernel)
            dense.build([None, incoming])
            self.projections[modality] = dense
            self.norms[modality] = keras.layers.LayerNormalization(epsilon=1e-5)
            self.norms[modality].build([None, width])
        self.fusion = make_fusion(
            config.tower.fusion, width, modalities=len(widths), seed=seed + 100
        )
        self.head = keras.layers.Dense(
            dim, kernel_initializer=keras.initializers.Constant(head.numpy())
        )
        self.head.build([None, width])
        self(tf.zeros([1, len(widths), width]), tf.zeros([1, len(widths)]))

    def project(self, modality: str, encoded: tf.Tensor) -> tf.Tensor:
        """`[C, W_enc]` to tokens `[C, W]`."""
        return self.norms[modality](self.projections[modality](encoded))

    def call(self, tokens: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Tokens `[B, M, W]`, of which `present` `[B, M]` says which count, to `[B, dim]`."""
        return tf.math.l2_normalize(self.head(self.fusion(tokens, present)), axis=-1)

    def alone(self, modality: str, tokens: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Unit vectors `[B, dim]` of one modality, as if no other were present."""
        return self(tokens, self.only(modality, present))

    def only(self, modality: str, present: tf.Tensor) -> tf.Tensor:
        """`present` `[B, M]` with zeros for all other modalities."""
        return present * tf.one_hot(self.modalities.index(modality), len(self.modalities))


class Tower(keras.layers.Layer):
    """One side's tower.

    Attributes:
      side: "query" or "product".
      modalities: What this side reads.
      encoders: The encoder of each modality but history.
      joint: Projections, fusion and head.
      late: Weight of each modality that is also compared on its own.
    """

    def __init__(
        self,
        side: Side,
        config: Config,
        encoders: Mapping[str, Encoder],
        *,
        joint: Joint | None = None,
    ) -> None:
        super().__init__(name=f"{side}_tower")
        self.side = side
        self.modalities = modalities(config, side)
        self.encoders: dict[str, Encoder] = {
            m: encoders[m] for m in self.modalities if m != "history"
        }
        self.joint = joint or make_joint(config, [side], encoders)
        self._width = config.tower.width
        self.late = late_weights(config)

    def is_frozen(self, modality: str) -> bool:
        """Whether a modality's encoder is not trained, so that `<modality>/encoded` is lasting."""
        return modality in self.encoders and self.encoders[modality].is_frozen()

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Embeds a batch.

        Args:
          features: Packed device features. "row" int32 `[B]`; for each modality that is there
            "<modality>/row" int32 `[C]` (row of the batch, -1 for padding) and its features, or
            "<modality>/encoded" float32 `[C, W_enc]` in their place; for the query side's history
            "history/mean" float32 `[B, dim]` and "history/present" float32 `[B]`.
          training: Whether trainable encoders run in training mode.

        Returns:
          float32 `[B, D]` of unit norm. A row's vector depends on that row alone.
        """
        tokens, present = self.tokens(features, training)
        alone = {name: self.joint.alone(name, tokens, present) for name in self.late}
        return self.vector(self.joint(tokens, present), alone, present)

    @tf.autograph.experimental.do_not_convert
    def tokens(
        self, features: dict[str, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What `call` fuses: tokens `[B, M, W]` and which are present, `[B, M]` of 0 and 1."""
        batch = features["row"].shape[0]
        rows = tf.shape(features["row"])[0] if batch is None else batch
        tokens, present = [], []
        for modality in self.joint.modalities:
            token, there = self._token(modality, features, rows, training)
            tokens.append(tf.ensure_shape(token, [batch, self._width]))
            present.append(tf.ensure_shape(there, [batch]))
        return tf.stack(tokens, axis=1), tf.stack(present, axis=1)

    def vector(
        self, fused: tf.Tensor, alone: Mapping[str, tf.Tensor], present: tf.Tensor
    ) -> tf.Tensor:
        """Puts the parts of a vector side by side.

        Args:
          fused: Unit vectors of whole rows `[B, dim]`.
          alone: The same of each modality of `late`.
          present: `[B, M]` of 0 and 1.

        Returns:
          float32 `[B, D]` of unit norm.
        """
        parts = [fused]
        for modality, weight in self.late.items():
            own = alone[modality]
            there = tf.reduce_max(self.joint.only(modality, present), axis=1, keepdims=True) > 0.5
            if self.side == "query":
                parts.append(tf.where(there, weight * own, 0.0))
            else:
                parts.append(tf.where(there, own, fused))
        return tf.math.l2_normalize(tf.concat(parts, axis=1), axis=-1) if self.late else fused

    def _token(
        self, modality: str, features: dict[str, tf.Tensor], rows: tf.Tensor | int, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A modality's tokens `[B, W]` and presence `[B]`; zeros where it is absent."""
        absent = tf.zeros([rows, self._width]), tf.zeros([rows])
        if modality == "history":
            if modality not in self.modalities or "history/mean" not in features:
                return absent
            there = features["history/present"]
            mean = tf.where(there[:, tf.newaxis] > 0.5, features["history/mean"], 0.0)
            return self.joint.project(modality, mean), there
        row = features.get(f"{modality}/row")
        if modality not in self.modalities or row is None or row.shape[0] == 0:
            return absent
        prefix = f"{modality}/"
        own = {
            name.removeprefix(prefix): value
            for name, value in features.items()
            if name.startswith(prefix) and not name.endswith("/row")
        }
        if row.shape[0] is not None:
            return self._scatter(modality, own, row, rows, training)
        return tf.cond(
            tf.shape(row)[0] > 0,
            lambda: self._scatter(modality, own, row, rows, training),
            lambda: absent,
        )

    def _scatter(
        self,
        modality: str,
        features: dict[str, tf.Tensor],
        row: tf.Tensor,
        rows: tf.Tensor | int,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes packed rows and puts each where it belongs; several of one row are averaged."""
        features = {name: _without_padding(value, row) for name, value in features.items()}
        if "encoded" in features:
            encoded = features["encoded"]
        else:
            encoded = self.encoders[modality](features, training=training)
        packed = self.joint.project(modality, encoded)
        count = tf.math.unsorted_segment_sum(tf.ones_like(row, tf.float32), row, rows)
        total = tf.math.unsorted_segment_sum(packed, row, rows)
        return total / tf.maximum(count, 1.0)[:, tf.newaxis], tf.minimum(count, 1.0)


def fused_part(products: Any, dim: int) -> Any:
    """The fused unit vectors `[..., dim]` within product vectors `[..., D]`."""
    return products[..., :dim] * math.sqrt(products.shape[-1] / dim)


def make_joint(config: Config, sides: list[Side], encoders: Mapping[str, Encoder]) -> Joint:
    """The joint layer over all modalities that the named sides read."""
    names = [m for side in sides for m in modalities(config, side)]
    widths: dict[str, int] = {
        m: config.tower.dim if m == "history" else encoders[m].output_width
        for m in ("text", "image", "audio", "history")
        if m in names
    }
    seed = config.seed * 1000 + (500 if sides == ["product"] else 0)
    return Joint(config, widths, seed=seed)


def build_towers(config: Config, *, vocabulary_size: int = 0) -> tuple[Tower, Tower]:
    """Builds the query and the product tower of a recipe.

    Small modules are built below `tower.hub_dir` where they are missing. With
    `tower.shared_encoders` both sides have the same encoders, projections, fusion and head.

    Args:
      config: The recipe.
      vocabulary_size: WordPieces that the Preprocessor emits; needed for the small text module.

    Raises:
      TfmmError: A module cannot be found or used, or a side has no modality.
    """
    sides: list[Side] = ["query", "product"]
    if config.tower.shared_encoders:
        encoders = _make_encoders(config, sides, vocabulary_size)
        joint = make_joint(config, sides, encoders)
        query, product = (Tower(side, config, encoders, joint=joint) for side in sides)
    else:
        query, product = (
            Tower(side, config, _make_encoders(config, [side], vocabulary_size)) for side in sides
        )
    return query, product


def _make_encoders(config: Config, sides: list[Side], vocabulary_size: int) -> dict[str, Encoder]:
    handles = {
        "text": config.text.handle,
        "image": config.image.handle,
        "audio": config.audio.handle,
    }
    named = {m for side in sides for m in modalities(config, side)} - {"history"}
    encoders: dict[str, Encoder] = {}
    for modality in sorted(named):
        handle = handles[modality]
        if handle == hub.SMALL:
            if modality == "text" and vocabulary_size < 1:
                raise TfmmError(
                    "text.handle: expected a vocabulary for the small module, received none"
                )
            path = hub.small_module(modality, config, vocabulary_size=vocabulary_size)
            handle = str(path)
        encoders[modality] = make_encoder(modality, config, handle=handle)
    return encoders


def _without_padding(feature: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Zeros in the rows of padding, so that nothing in them can reach a gradient as NaN."""
    kept = tf.reshape(row >= 0, [-1] + [1] * (feature.shape.rank - 1))
    return tf.where(kept, feature, tf.zeros_like(feature))
