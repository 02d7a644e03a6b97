"""Miniatures of public TF-Hub modules: the same contracts, a few weights."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

BERT_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


class _Miniature(tf.Module):
    variables: Any = None
    trainable_variables: Any = None

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        values = np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32)
        self.kernel = tf.Variable(values)
        self.trainable_variables = [self.kernel]
        self.variables = [self.kernel]
        self.regularization_losses: list[Any] = []


class FeatureVector(_Miniature):
    """Photos float32 `[C, H, W, 3]` in 0..1 to `[C, 5]`; adds 100 when it is in training mode."""

    def __init__(self) -> None:
        super().__init__(3, 5)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([], tf.bool)])
    def _apply(self, pixels: tf.Tensor, training: tf.Tensor) -> tf.Tensor:
        mode = tf.where(training, 100.0, 0.0)
        return tf.reduce_mean(pixels, [1, 2]) @ self.kernel + mode

    @tf.function
    def __call__(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self._apply(pixels, training)


class Bert(_Miniature):
    """BERT's inputs to a dict with `pooled_output` `[C, 6]` and `sequence_output`."""

    def __init__(self) -> None:
        super().__init__(50, 6)

    @tf.function
    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> Any:
        mask = tf.cast(inputs["input_mask"], tf.float32)[..., tf.newaxis]
        sequence = tf.gather(self.kernel, inputs["input_word_ids"]) * mask
        return {"pooled_output": tf.reduce_sum(sequence, 1), "sequence_output": sequence}


class Yamnet(_Miniature):
    """One waveform `[S]` to (scores, embeddings `[frames, 7]`, log-mel), 400 samples a frame."""

    def __init__(self) -> None:
        super().__init__(400, 7)

    @tf.function
    def __call__(self, waveform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        frames = tf.signal.frame(waveform, 400, 200)
        return frames[:, :2], frames @ self.kernel, frames


class Strings(_Miniature):
    """A text module that reads strings."""

    def __init__(self) -> None:
        super().__init__(1, 4)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, text: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.strings.length(text), tf.float32)[:, tf.newaxis] * self.kernel


class Preprocessing(tf.Module):
    """Strings to BERT's inputs, one id for each character, always `[C, 10]`."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return _packed(tf.strings.unicode_decode(text, "UTF-8"), 10)


class PackingPreprocessing(Preprocessing):
    """The same with `tokenize` and `bert_pack_inputs` beside, as BERT's own have."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tf.strings.unicode_decode(text, "UTF-8")

    @tf.function(
        input_signature=[
            [tf.RaggedTensorSpec([None, None], tf.int32)],
            tf.TensorSpec([], tf.int32),
        ]
    )
    def bert_pack_inputs(self, tokens: Any, seq_length: tf.Tensor) -> dict[str, tf.Tensor]:
        return _packed(tokens[0], seq_length)


def _packed(codes: tf.RaggedTensor, length: Any) -> dict[str, tf.Tensor]:
    ids = (codes % 50).to_tensor()
    ids = tf.pad(ids, [[0, 0], [0, length]])[:, :length]
    mask = tf.cast(ids != 0, tf.int32)
    values = (ids, mask, tf.zeros_like(ids))
    return dict(zip(BERT_INPUTS, values, strict=True))


def save(module: tf.Module, folder: Path) -> str:
    """Saves a miniature and returns its handle."""
    match module:
        case FeatureVector():
            spec: Any = tf.TensorSpec([None, None, None, 3])
            modes: Any = ({"training": True}, {"training": False})
        case Bert():
            spec = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in BERT_INPUTS}
            modes = ({"training": True}, {"training": False})
        case Yamnet():
            spec, modes = tf.TensorSpec([None]), ({},)
        case _:
            spec, modes = None, ()
    for mode in modes:
        module.__call__.get_concrete_function(spec, **mode)
    tf.saved_model.save(module, str(folder))
    return str(folder)
