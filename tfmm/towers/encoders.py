"""Encoders: one modality's device features -> one vector, by a TF-Hub module of any usual contract.

| modality | features | module |
|---|---|---|
| text | `ids`, `ngrams` | tfmm's small module, or a local one of the same inputs |
| text | `input_word_ids`, `input_mask`, `input_type_ids` | BERT-like: dict in, `pooled_output` or `default` out |
| image | `pixels` uint8 `[C, H, W, 3]` | feature vector: float32 in 0..1 in, `[C, W]` out |
| audio | `log_mel` float32 `[C, T, mel]` | tfmm's small module, or a local one of the same inputs |
| audio | `waveform` float32 `[C, S]` | YAMNet-like: one 1-D waveform in, (scores, embeddings, spectrogram) out |
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.towers import hub

_TEXT_OUTPUTS = ("pooled_output", "default")


class Encoder(keras.layers.Layer):
    """One modality's encoder. A row's vector depends on that row alone.

    Attributes:
      output_width: W_enc, the width of an encoded row.
    """

    def __init__(self, modality: str, module: Any, *, contract: str, handle: str) -> None:
        super().__init__(name=f"{modality}_encoder")
        self._modality = modality
        self._contract = contract
        self._handle = handle
        self.module = module
        self.trainable = module.trainable
        self.output_width = 0

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """`features` of this modality, without its prefix, to float32 `[C, W_enc]`."""
        encoded = self._encode(features, bool(training) and self.module.trainable)
        return tf.stop_gradient(encoded) if self.is_frozen() else encoded

    def encode(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """What a tower may be given as `<modality>/encoded`: float32 `[C, W_enc]`."""
        return self(features, training=False)

    def is_frozen(self) -> bool:
        """Whether training leaves the encoder as it is, so that its output may be cached."""
        return not self.trainable_variables

    @tf.autograph.experimental.do_not_convert
    def _encode(self, features: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        match self._contract:
            case "tokens":
                encoded = self.module(features, training=training)
            case "bert":
                inputs = {name: features[name] for name in hub.BERT_INPUTS}
                encoded = self._text_vector(self.module(inputs, training=training))
            case "pixels":
                pixels = tf.cast(features["pixels"], tf.float32) * (1.0 / 255.0)
                encoded = self.module(pixels, training=training)
            case "log_mel":
                encoded = self.module(features["log_mel"], training=training)
            case _:
                encoded = self._waveform_vectors(features["waveform"], training)
        return self._checked(encoded, next(iter(features.values())))

    def _text_vector(self, outputs: Any) -> tf.Tensor:
        if not isinstance(outputs, dict):
            return outputs
        for name in _TEXT_OUTPUTS:
            if name in outputs:
                return outputs[name]
        raise self._refused(f"one of {', '.join(_TEXT_OUTPUTS)}", ", ".join(sorted(outputs)))

    def _waveform_vectors(self, waveform: tf.Tensor, training: bool) -> tf.Tensor:
        """Mean of the frames' embeddings, waveform by waveform, as the contract has no batch."""

        def encode(samples: tf.Tensor) -> tf.Tensor:
            outputs = self.module(samples, training=training)
            if not isinstance(outputs, tuple | list) or len(outputs) != 3:
                raise self._refused("(scores, embeddings, spectrogram)", repr(outputs))
            return tf.reduce_mean(outputs[1], axis=0)

        spec = tf.TensorSpec([self.output_width or None], tf.float32)
        return tf.map_fn(encode, waveform, fn_output_signature=spec)

    def _checked(self, encoded: Any, feature: tf.Tensor) -> tf.Tensor:
        if isinstance(encoded, dict | tuple | list):
            raise self._refused("one vector a row", repr(encoded))
        if encoded.shape.rank not in (None, 2):
            raise self._refused("one vector a row", f"a tensor of shape {encoded.shape}")
        encoded = tf.cast(encoded, tf.float32)
        return tf.ensure_shape(encoded, [feature.shape[0], self.output_width or None])

    def _refused(self, expected: str, received: str) -> TfmmError:
        return TfmmError(
            f"{self._modality}.handle: expected a module that returns {expected},"
            f" received {received} from {self._handle!r}"
        )


def make_encoder(modality: str, config: Config, *, handle: str) -> Encoder:
    """Loads the encoder of one modality.

    Args:
      modality: "text", "image" or "audio".
      config: The recipe; its section of the modality says what the encoder reads and whether it
        is trained.
      handle: Folder or TF-Hub handle of the module.

    Raises:
      TfmmError: The module cannot be found, or its inputs or outputs are not of the contract.
    """
    trainable = {
        "text": config.text.trainable,
        "image": config.image.trainable,
        "audio": config.audio.trainable,
    }
    module = hub.load(handle, trainable=trainable[modality])
    if _takes_strings(module.resolved_object):
        raise TfmmError(
            f"{modality}.handle: expected a module that reads numbers, received one that reads"
            f" strings ({handle!r}); strings never reach the device: use a module with a"
            " preprocessing module in front, and name that one in text.preprocessing"
        )
    encoder = Encoder(modality, module, contract=_contract(modality, config), handle=handle)
    try:
        encoder.output_width = _width(encoder, dummy_features(modality, config))
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TfmmError(
            f"{modality}.handle: expected a module that reads"
            f" {', '.join(sorted(dummy_features(modality, config)))}, received {handle!r}: {reason}"
        ) from error
    return encoder


def _width(encoder: Encoder, features: dict[str, tf.Tensor]) -> int:
    """W_enc, from one row; traced only, where a restored module cannot be run outside a replica."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return int(encoder.encode(features).shape[-1])
    traced = tf.function(encoder.encode, autograph=False).get_concrete_function(features)
    return int(traced.structured_outputs.shape[-1])


def dummy_features(modality: str, config: Config) -> dict[str, tf.Tensor]:
    """One row of zeros of a modality's device features, without its prefix."""
    match _contract(modality, config):
        case "tokens":
            shape = [1, config.text.max_query_tokens]
            names = ["ids", "ngrams"] if config.text.ngram_buckets else ["ids"]
            return {name: tf.zeros(shape, tf.int32) for name in names}
        case "bert":
            shape = [1, config.text.max_query_tokens]
            return {name: tf.zeros(shape, tf.int32) for name in hub.BERT_INPUTS}
        case "pixels":
            return {"pixels": tf.zeros([1, config.image.height_px, config.image.width_px, 3])}
        case "log_mel":
            frames = round(1000.0 * config.audio.seconds / config.audio.hop_ms)
            return {"log_mel": tf.zeros([1, frames, config.audio.mel_bins])}
        case _:
            return {"waveform": tf.zeros([1, round(16_000 * config.audio.seconds)])}


def _contract(modality: str, config: Config) -> str:
    match modality:
        case "text":
            return "bert" if config.text.preprocessing else "tokens"
        case "image":
            return "pixels"
        case _:
            return config.audio.front


def _takes_strings(module: Any) -> bool:
    """Whether a loaded module was traced for string inputs."""
    traces = getattr(vars(module).get("__call__"), "concrete_functions", ())
    signatures = (trace.structured_input_signature for trace in traces)
    return any(
        getattr(spec, "dtype", None) == tf.string
        for signature in signatures
        for spec in tf.nest.flatten(signature)
    )
