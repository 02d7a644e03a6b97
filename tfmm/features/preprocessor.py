"""The host half of the model: raw strings and bytes to the dense features that towers see.

Training maps it inside tf.data and the exported signatures run the same object, so there is no
second preprocessing code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import tensorflow as tf

from tfmm.config import Config, Modality
from tfmm.errors import TfmmError
from tfmm.features import audio, image
from tfmm.features.history import UNKNOWN_AGE, event_codes, history_facts
from tfmm.features.ids import LoggedProducts, ProductIds
from tfmm.features.text import Preprocessing, TextFeatures

Side = Literal["query", "product"]
Tensors = dict[str, tf.Tensor]


class Preprocessor(tf.Module):
    """Turns a batch of queries or products into packed features.

    Every modality is packed: "<modality>/row" int32 [C] names the rows of the batch that have it,
    in order, and its other features hold those rows only, [C, ...]; C may be 0. "row" int32 [B] is
    range(B); "history" int32 [B, H] is the product index + 1, 0 for none or an unknown product,
    "history/event" int32 and "history/age" float32 [B, H] what the recipe's `history` reads of it.
    A modality is absent from a row where its string is empty, and its features are left out
    altogether where its key is missing or the recipe's tower does not read it.

    Args:
      config: The recipe.
      vocabulary: WordPieces, as `learn_vocabulary` returns them.
      product_ids: The catalogue's ids, in index order.
      text_preprocessing: A loaded TF-Hub text preprocessing module, instead of the vocabulary.
      logged: What the training log says of products, for export and serving; training brings it
        beside the features.

    Raises:
      TfmmError: An id is empty, repeated, or holds a line break.
    """

    def __init__(
        self,
        config: Config,
        *,
        vocabulary: Sequence[str],
        product_ids: Sequence[str] = (),
        text_preprocessing: Preprocessing | None = None,
        logged: LoggedProducts | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self._text = (
            TextFeatures(config.text, vocabulary, text_preprocessing)
            if config.text.handle
            else None
        )
        self._ids = ProductIds(product_ids) if product_ids else None
        self._logged = logged

    def modalities(self, side: Side) -> tuple[Modality, ...]:
        """The modalities that a side reads."""
        tower = self._config.tower
        wanted = tower.query if side == "query" else tower.product
        handles = {
            "text": self._config.text.handle,
            "image": self._config.image.handle,
            "audio": self._config.audio.handle,
            "history": "the index",
            # Which product a row is, and what the log says of it, is no modality of its content.
            "id": "",
            "popularity": "",
        }
        return tuple(modality for modality in wanted if handles[modality])

    def query(self, raw: Mapping[str, tf.Tensor]) -> Tensors:
        """Packed features of queries.

        Args:
          raw: Any of "text", "image", "audio", strings or bytes [B], and "history", product ids
            [B, any], the oldest first, "" for none; the newest H are read. Beside it, as wide,
            "history_event", strings, and "history_age_seconds", negative where unknown.
        """
        wanted = self.modalities("query")
        features = {"row": _rows_of(raw)}
        if "text" in wanted and "text" in raw and self._text is not None:
            features |= _packed("text", self._text.query(raw["text"]))
        if "history" in wanted and "history" in raw:
            features["history"] = self._newest(self.lookup(raw["history"]) + 1, 0)
            features |= self._history_facts(raw)
        return features | self._media(raw, wanted)

    def product(self, raw: Mapping[str, tf.Tensor]) -> Tensors:
        """Packed features of products.

        Args:
          raw: Any of the recipe's text columns, "image", "audio"; strings or bytes [B]. With
            "product_id" and a log, "id" and "popularity" of `LoggedProducts` come too.
        """
        wanted = self.modalities("product")
        features = {"row": _rows_of(raw)}
        fields = [raw[name] for name in self._config.catalogue.text if name in raw]
        if "text" in wanted and fields and self._text is not None:
            features |= _packed("text", self._text.product(fields))
        if self._logged is not None and "product_id" in raw:
            features |= self._logged.features(raw["product_id"])
        return features | self._media(raw, wanted)

    def lookup(self, product_id: tf.Tensor) -> tf.Tensor:
        """The index of each product id, string [...], as int32 [...]; -1 where it is unknown."""
        if self._ids is None:
            return tf.fill(tf.shape(product_id), -1)
        return self._ids.lookup(product_id)

    def feature_spec(self, side: Side) -> dict[str, tf.TensorSpec]:
        """Shape and type of each feature of one row, without "row" and "<modality>/row"."""
        raw = {name: tf.constant([""]) for name in ("image", "audio")}
        if side == "query":
            length = self._config.catalogue.history_length
            raw |= {"text": tf.constant([""]), "history": tf.fill([1, length], "")}
            raw |= {"history_event": raw["history"], "history_age_seconds": tf.zeros([1, length])}
            features = self.query(raw)
        else:
            raw |= {name: tf.constant([""]) for name in self._config.catalogue.text}
            features = self.product(raw)
        return {
            name: tf.TensorSpec(value.shape[1:], value.dtype)
            for name, value in features.items()
            if name.split("/")[-1] != "row"
        }

    def _history_facts(self, raw: Mapping[str, tf.Tensor]) -> Tensors:
        features: Tensors = {}
        for feature, name in history_facts(self._config.history).items():
            if name in raw:
                is_event = feature == "history/event"
                value = event_codes(raw[name]) if is_event else raw[name]
                features[feature] = self._newest(value, 0 if is_event else UNKNOWN_AGE)
        return features

    def _newest(self, values: tf.Tensor, blank: float) -> tf.Tensor:
        """The last H values of each row, [B, H], with blanks on the left where there are fewer."""
        width = self._config.catalogue.history_length
        values = values[:, -width:]
        missing = [[0, 0], [width - tf.shape(values)[1], 0]]
        return tf.ensure_shape(tf.pad(values, missing, constant_values=blank), [None, width])

    def _media(self, raw: Mapping[str, tf.Tensor], wanted: Sequence[Modality]) -> Tensors:
        features: Tensors = {}
        if "image" in wanted and "image" in raw:
            row = _present(raw["image"])
            features |= {"image/row": row, "image/pixels": self._pixels(raw["image"], row)}
        if "audio" in wanted and "audio" in raw:
            row = _present(raw["audio"])
            name = "waveform" if self._config.audio.front == "waveform" else "log_mel"
            features |= {"audio/row": row, f"audio/{name}": self._sound(raw["audio"], row)}
        return features

    def _pixels(self, contents: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        size = {"height_px": self._config.image.height_px, "width_px": self._config.image.width_px}
        most = self._config.prepare.max_image_pixels
        return _made_if_any(
            tf.gather(contents, row),
            lambda photos: image.decode_images(photos, **size, max_pixels=most),
            tf.zeros([0, *size.values(), 3], tf.uint8),
        )

    def _sound(self, contents: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        """Waveforms or log-mel frames, as the encoder reads them."""
        config = self._config.audio

        def made(sounds: tf.Tensor) -> tf.Tensor:
            waveform = audio.decode_waveforms(sounds, seconds=config.seconds)
            return waveform if config.front == "waveform" else audio.log_mel(waveform, config)

        heard = [audio.samples_of(config.seconds)]
        if config.front != "waveform":
            heard = [audio.frames_of(config), config.mel_bins]
        return _made_if_any(tf.gather(contents, row), made, tf.zeros([0, *heard]))


def _rows_of(raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    if not raw:
        raise TfmmError("raw: expected at least one input, received none")
    return tf.range(tf.shape(next(iter(raw.values())))[0])


def _present(contents: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(contents != "")[:, 0], tf.int32)


def _made_if_any(
    contents: tf.Tensor, make: Callable[[tf.Tensor], tf.Tensor], none: tf.Tensor
) -> tf.Tensor:
    """What `make` makes of strings [C]; `none`, [0, ...], where there is none to make it of."""
    made = tf.cond(tf.size(contents) > 0, lambda: make(contents), lambda: none)
    return tf.ensure_shape(made, [None, *none.shape[1:]])


def _packed(modality: Modality, features: Tensors) -> Tensors:
    """Keeps the rows of [B, ...] features that are "present"."""
    row = tf.cast(tf.where(features["present"])[:, 0], tf.int32)
    packed = {
        f"{modality}/{name}": tf.gather(value, row)
        for name, value in features.items()
        if name != "present"
    }
    return packed | {f"{modality}/row": row}
