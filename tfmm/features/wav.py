"""WAV files in core TensorFlow ops, which `tf.audio.decode_wav` reads as plain 16-bit PCM only.

Chunks are walked in the order in which they come, whatever stands before the samples. References:
Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (1991), and
Microsoft, "Multiple Channel Audio Data and WAVE Files" (WAVE_FORMAT_EXTENSIBLE).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RIFF_HEADER, _CHUNK_HEADER = 12, 8
_LARGEST_RATE_HZ = 768_000
_EXPECTED = "audio: expected the bytes of a WAV sound, 8..32-bit PCM or float"


def decode(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one WAV file and mixes its channels.

    PCM of 8, 16, 24 or 32 bits and float of 32 or 64 bits, plain or extensible. A data chunk that
    is longer than the file (streamed, or cut short) or states a size of 0 ends with the file.

    Args:
      contents: Bytes of the file, a scalar string.

    Returns:
      Mono samples float32 [frames], full scale at -1..1, and the sample rate in Hz, int64.

    Raises:
      tf.errors.InvalidArgumentError: The bytes are no such file.
    """
    data = tf.io.decode_raw(contents, tf.uint8)
    is_wave = tf.strings.regex_full_match(
        tf.strings.substr(contents, 0, _RIFF_HEADER), r"(?s)RIFF\C{4}WAVE"
    )
    check = _refuse_unless(is_wave, "other bytes (the client converts other formats)")
    with tf.control_dependencies([check]):
        format_at, data_at, length = _chunks(tf.identity(data))
    found = (format_at > 0) & (format_at + 16 <= _size(data)) & (data_at > 0)
    check = _refuse_unless(found, "one without a format and a data chunk")
    with tf.control_dependencies([check]):
        kind, channels, rate, sample_bytes = _format(data, format_at)
    frame_bytes = channels * sample_bytes
    frames = length // frame_bytes
    samples = tf.reshape(
        data[data_at : data_at + frames * frame_bytes], [frames, channels, sample_bytes]
    )
    return tf.reduce_mean(_to_float(samples, kind, sample_bytes), axis=1), rate


def _refuse_unless(condition: tf.Tensor, received: str | tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(condition, [tf.strings.join([f"{_EXPECTED}, received ", received])])


def _size(data: tf.Tensor) -> tf.Tensor:
    return tf.size(data, out_type=tf.int64)


def _integer(data: tf.Tensor, at: tf.Tensor, count: int) -> tf.Tensor:
    """An unsigned integer of `count` bytes, the lowest first, as int64; 0s beyond the end."""
    parts = tf.cast(data[at : at + count], tf.int64)
    parts = tf.pad(parts, [[0, count - tf.size(parts)]])
    return tf.reduce_sum(parts * tf.constant([1 << (8 * i) for i in range(count)], tf.int64))


def _chunks(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where the format and the samples begin (0: nowhere), and the bytes of samples; int64."""
    size = _size(data)

    def unfinished(
        position: tf.Tensor, format_at: tf.Tensor, data_at: tf.Tensor, length: tf.Tensor
    ) -> tf.Tensor:
        return (position + _CHUNK_HEADER <= size) & (data_at == 0)

    def step(
        position: tf.Tensor, format_at: tf.Tensor, data_at: tf.Tensor, length: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        name, stated = data[position : position + 4], _integer(data, position + 4, 4)
        body = position + _CHUNK_HEADER
        format_at = tf.where(tf.reduce_all(tf.equal(name, list(b"fmt "))), body, format_at)
        is_data = tf.reduce_all(tf.equal(name, list(b"data")))
        there = size - body
        taken = tf.where(stated == 0, there, tf.minimum(stated, there))
        following = body + stated + stated % 2
        return following, format_at, tf.where(is_data, body, 0), tf.where(is_data, taken, 0)

    start = (tf.constant(_RIFF_HEADER, tf.int64), *(tf.constant(0, tf.int64) for _ in range(3)))
    _, format_at, data_at, length = tf.while_loop(unfinished, step, start)
    return format_at, data_at, length


def _format(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Kind, channels, sample rate in Hz and bytes of a sample, each checked; int64."""
    tag, channels, rate = (_integer(data, at + o, n) for o, n in ((0, 2), (2, 2), (4, 4)))
    block, bits = _integer(data, at + 12, 2), _integer(data, at + 14, 2)
    is_extensible = (tag == _EXTENSIBLE) & (at + 26 <= _size(data))
    kind = tf.where(is_extensible, _integer(data, at + 24, 2), tag)
    # A sample of 20 bits stands in a container of 3 bytes, its low bits empty.
    sample_bytes = tf.where(channels > 0, block // tf.maximum(channels, 1), 0)
    sample_bytes = tf.where(block == 0, (bits + 7) // 8, sample_bytes)
    known = ((kind == _PCM) & (sample_bytes >= 1) & (sample_bytes <= 4)) | (
        (kind == _FLOAT) & ((sample_bytes == 4) | (sample_bytes == 8))
    )
    sane = (channels > 0) & (rate > 0) & (rate <= _LARGEST_RATE_HZ)
    names = ("kind", "bits", "channels", "Hz")
    facts = zip(names, (kind, sample_bytes * 8, channels, rate), strict=True)
    stated = [tf.strings.join([name, tf.as_string(fact)], " ") for name, fact in facts]
    received = tf.strings.join(["one of ", tf.strings.reduce_join(stated, separator=", ")])
    with tf.control_dependencies([_refuse_unless(known & sane, received)]):
        return tf.identity(kind), channels, rate, tf.identity(sample_bytes)


def _to_float(samples: tf.Tensor, kind: tf.Tensor, sample_bytes: tf.Tensor) -> tf.Tensor:
    """Samples uint8 [frames, channels, bytes], the lowest byte first, as float32 in -1..1."""

    def of_width(width: int) -> tf.Tensor:
        return tf.ensure_shape(samples, [None, None, width])

    def unsigned_8() -> tf.Tensor:
        return (tf.cast(of_width(1)[..., 0], tf.float32) - 128.0) / 128.0

    def signed_16() -> tf.Tensor:
        return tf.cast(tf.bitcast(of_width(2), tf.int16), tf.float32) / 2.0**15

    def signed_24() -> tf.Tensor:
        shifted = tf.pad(of_width(3), [[0, 0], [0, 0], [1, 0]])
        return tf.cast(tf.bitcast(shifted, tf.int32), tf.float32) / 2.0**31

    def signed_32() -> tf.Tensor:
        return tf.cast(tf.bitcast(of_width(4), tf.int32), tf.float32) / 2.0**31

    def float_32() -> tf.Tensor:
        return tf.bitcast(of_width(4), tf.float32)

    def float_64() -> tf.Tensor:
        return tf.cast(tf.bitcast(of_width(8), tf.float64), tf.float32)

    branches: list[Callable[[], tf.Tensor]]
    branches = [unsigned_8, signed_16, signed_24, signed_32, float_32, float_64]
    chosen = tf.where(kind == _FLOAT, sample_bytes // 8 + 4, sample_bytes - 1)
    decoded = tf.switch_case(tf.cast(chosen, tf.int32), branches)
    finite = tf.where(tf.math.is_finite(decoded), decoded, 0.0)
    return tf.ensure_shape(finite, [None, None])
