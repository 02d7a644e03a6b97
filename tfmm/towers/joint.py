"""What joins the encoded modalities of a side into one unit vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config, Modality
from tfmm.errors import TfmmError
from tfmm.towers.encoders import Encoder
from tfmm.towers.fusion import Places, make_fusion
from tfmm.towers.sequence import history_width

Side = Literal["query", "product"]


def modalities(config: Config, side: Side) -> tuple[Modality, ...]:
    """The modalities that a side of a recipe reads: those it names whose handle is not empty.

    Raises:
      TfmmError: None is left.
    """
    handles = {"text": config.text.handle, "image": config.image.handle}
    handles |= {"audio": config.audio.handle, "history": "the index"}
    handles |= {"id": "the log", "popularity": "the log"}
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
            if modality == "history" and incoming == dim:
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

    def call(self, tokens: tf.Tensor, present: tf.Tensor, places: Places = None) -> tf.Tensor:
        """Tokens `[B, M, W]`, of which `present` `[B, M]` says which count, to `[B, dim]`.

        With `places` they are of these of the modalities, and no row has any other.
        """
        fused = self.fusion(tokens, present, places)
        return tf.math.l2_normalize(self.head(fused), axis=-1)

    def alone(self, modality: str, tokens: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Unit vectors `[B, dim]` of one modality, as if no other were present."""
        return self(tokens, self.only(modality, present))

    def only(self, modality: str, present: tf.Tensor) -> tf.Tensor:
        """`present` `[B, M]` with zeros for all other modalities."""
        return present * tf.one_hot(self.modalities.index(modality), len(self.modalities))


def make_joint(config: Config, sides: list[Side], encoders: Mapping[str, Encoder]) -> Joint:
    """The joint layer over all modalities that the named sides read."""
    names = [m for side in sides for m in modalities(config, side)]
    width = config.tower.width
    own = {"history": history_width(config), "id": width, "popularity": width}
    widths: dict[str, int] = {
        m: own[m] if m in own else encoders[m].output_width
        for m in ("text", "image", "audio", "history", "id", "popularity")
        if m in names
    }
    seed = config.seed * 1000 + (500 if sides == ["product"] else 0)
    return Joint(config, widths, seed=seed)
