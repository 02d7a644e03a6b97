"""Changes made to training inputs only, on packed device features; never part of an export.

Random numbers come from TensorFlow's global generator (`tf.random.set_seed`), because TensorFlow
IO's masks draw theirs there.
"""

from __future__ import annotations

import functools

import tensorflow as tf
import tensorflow_io as tfio

from tfmm.config import AugmentConfig

_SEPARATOR_ID = 3
_GREY = (0.299, 0.587, 0.114)
Tensors = dict[str, tf.Tensor]


def augment(features: Tensors, config: AugmentConfig) -> Tensors:
    """Augments a batch; entries of packed rows that are padding (row -1) stay as they are.

    - photos ("image/pixels"): crop, mirror, brightness, contrast, saturation;
    - sounds ("audio/log_mel"): speed and, by stretching the mel axis, vocal tract length (Jaitly
      and Hinton, "Vocal tract length perturbation improves speech recognition", 2013);
      parts that change places around a random cut, which is another order of the words;
      SpecAugment, one frequency and one time mask (Park et al. 2019);
    - text ("text/ids", "text/ngrams"): token dropout. A dropped token becomes 0 where it stands,
      without closing the gap; [SEP] and the last token that would remain are kept. Of a
      preprocessing module's tokens, "text/input_mask" is set to 0, but for the first;
    - modality dropout: "<modality>/row" becomes -1, "history" 0, where another modality of the row
      remains.

    Args:
      features: Packed features of one side of a batch, as the Preprocessor describes them.
      config: The recipe's augment section.

    Returns:
      The same features, shapes and types.
    """
    changed = dict(features)
    changes = {
        "image/pixels": functools.partial(_photos, config=config),
        "audio/log_mel": functools.partial(_spec_augment, config=config),
        "text/ids": functools.partial(_drop_tokens, probability=config.token_dropout),
        "text/ngrams": functools.partial(_drop_tokens, probability=config.token_dropout),
        "text/input_mask": functools.partial(_hide_tokens, probability=config.token_dropout),
    }
    for name in [name for name in changes if name in features]:
        row, value = features[name.split("/", 1)[0] + "/row"], features[name]
        changed[name] = _where_real(row, changes[name](value), value)
    return _drop_modalities(changed, config.modality_dropout)


def _where_real(row: tf.Tensor, changed: tf.Tensor, original: tf.Tensor) -> tf.Tensor:
    real = tf.reshape(row >= 0, [-1] + [1] * (len(original.shape) - 1))
    return tf.ensure_shape(tf.where(real, changed, original), original.shape)


def _photos(pixels: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Photos uint8 [C, H, W, 3], each cropped, mirrored and coloured in its own way."""
    # A static count keeps TensorFlow's cost model, and so its log, quiet.
    count = tf.shape(pixels)[0] if pixels.shape[0] is None else pixels.shape[0]
    side = 1.0 - tf.random.uniform([count, 2], 0.0, config.crop)
    start = tf.random.uniform([count, 2]) * (1.0 - side)
    (top, left), (bottom, right) = (tf.unstack(edge, axis=1) for edge in (start, start + side))
    mirrored = tf.random.uniform([count]) < config.flip
    left, right = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    # A box whose left lies right of its right is read backwards: the mirror costs nothing.
    boxes = tf.stack([top, left, bottom, right], axis=1)
    image = tf.image.crop_and_resize(pixels, boxes, tf.range(count), pixels.shape[1:3])
    image = _coloured(image, config.colour)
    return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)


def _coloured(image: tf.Tensor, strength: float) -> tf.Tensor:
    """Brightness, contrast and saturation of each photo as one affine map of its colours."""
    factors = tf.random.uniform([tf.shape(image)[0], 3], 1.0 - strength, 1.0 + strength)
    brightness, contrast, saturation = tf.unstack(factors[:, :, tf.newaxis, tf.newaxis], axis=1)
    mean = tf.reduce_mean(image, axis=[1, 2, 3])[:, tf.newaxis, tf.newaxis]
    identity, to_grey = tf.eye(3), tf.tile(tf.constant(_GREY)[:, tf.newaxis], [1, 3])
    colours = contrast * (saturation * identity + (1.0 - saturation) * to_grey) * brightness
    offset = (1.0 - contrast) * mean * brightness
    flat = tf.reshape(image, [tf.shape(image)[0], -1, 3])
    return tf.reshape(tf.matmul(flat, colours) + offset, tf.shape(image))


def _spec_augment(log_mel: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Masks sounds float32 [C, T, mel] with 0, which is a sound's mean after normalisation."""
    mask = functools.partial(
        _masked,
        bands=_mask_bound(config.frequency_mask, log_mel.shape[2]),
        frames=_mask_bound(config.time_mask, log_mel.shape[1]),
    )
    rolled = _rolled(_stretched(log_mel, config), config.roll)
    return tf.map_fn(mask, rolled, parallel_iterations=1)


def _rolled(log_mel: tf.Tensor, probability: float) -> tf.Tensor:
    """Sounds float32 [C, T, mel], some with what follows a random cut put first."""
    count, frames = tf.shape(log_mel)[0], log_mel.shape[1]
    cut = tf.random.uniform([count], 0, frames, tf.int32)
    cut = tf.where(tf.random.uniform([count]) < probability, cut, 0)
    order = (tf.range(frames) + cut[:, tf.newaxis]) % frames
    return tf.gather(log_mel, order, batch_dims=1)


def _stretched(log_mel: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Stretches sounds float32 [C, T, mel] along both axes; what comes in from outside is 0."""
    count = tf.shape(log_mel)[0] if log_mel.shape[0] is None else log_mel.shape[0]
    frames = 1.0 + tf.random.uniform([count], -config.speed, config.speed)
    bands = 1.0 + tf.random.uniform([count], -config.warp, config.warp)
    start = tf.zeros([count])
    boxes = tf.stack([start, start, frames, bands], axis=1)
    grown = tf.image.crop_and_resize(
        log_mel[..., tf.newaxis], boxes, tf.range(count), log_mel.shape[1:3]
    )
    return grown[..., 0]


def _masked(log_mel: tf.Tensor, *, bands: int, frames: int) -> tf.Tensor:
    return tfio.audio.time_mask(tfio.audio.freq_mask(log_mel, bands), frames)


def _mask_bound(fraction: float, size: int) -> int:
    """The bound that a mask stays below, and it must not cover everything."""
    return min(int(fraction * size) + 1, size)


def _drop_tokens(ids: tf.Tensor, probability: float) -> tf.Tensor:
    """Drops tokens int32 [C, L], but not all of a row."""
    kept = (tf.random.uniform(tf.shape(ids)) >= probability) | (ids == _SEPARATOR_ID)
    content = (ids != 0) & (ids != _SEPARATOR_ID)
    remains = tf.reduce_any(content & kept, axis=1, keepdims=True)
    return tf.where(kept | ~remains, ids, 0)


def _hide_tokens(mask: tf.Tensor, probability: float) -> tf.Tensor:
    """Takes tokens out of an attention mask int32 [C, L], but not the first."""
    kept = tf.random.uniform(tf.shape(mask)) >= probability
    return tf.where(kept | (tf.range(tf.shape(mask)[1]) == 0), mask, 0)


def _drop_modalities(features: Tensors, probability: float) -> Tensors:
    """Drops each modality of a row with a probability, except the one with the highest draw."""
    batch = tf.shape(features["row"])[0]
    packed = [name.removesuffix("/row") for name in features if name.endswith("/row")]
    present = [_has(features[f"{name}/row"], batch) for name in packed]
    if "history" in features:
        present.append(tf.reduce_any(features["history"] > 0, axis=1))
    if not present:
        return features
    has = tf.stack(present, axis=1)
    draw = tf.where(has, tf.random.uniform(tf.shape(has)), -1.0)
    dropped = (draw < probability) & (draw < tf.reduce_max(draw, axis=1, keepdims=True))
    changed = dict(features)
    for place, name in enumerate(packed):
        row = features[f"{name}/row"]
        gone = tf.gather(dropped[:, place], tf.maximum(row, 0))
        changed[f"{name}/row"] = tf.where(gone, -1, row)
    if "history" in features:
        changed["history"] = tf.where(dropped[:, -1:], 0, features["history"])
    return changed


def _has(row: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """Which of the batch's rows are named in int32 [C], bool [B]."""
    return tf.math.unsorted_segment_sum(tf.ones_like(row), row, batch) > 0
