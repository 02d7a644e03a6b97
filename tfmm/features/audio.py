"""Sounds on the host: from WAV bytes to a 16 kHz waveform, and from that to log-mel frames.

Who converts what: `prepare` turns FLAC, Ogg Vorbis and MP3 of catalogues and logs into 16 kHz mono
WAV; for a query the client sends WAV of any rate, as soundfile or a browser writes it.
"""

from __future__ import annotations

import functools
import math

import tensorflow as tf

from tfmm.config import AudioConfig
from tfmm.contract import RATE_HZ
from tfmm.features import wav

LOWEST_HZ, HIGHEST_HZ = 60.0, 7_600.0
_FLOOR = 1e-2
_SILENCE = 0.02
_LEAD_BLOCKS = 5


def decode_waveforms(contents: tf.Tensor, *, seconds: float) -> tf.Tensor:
    """Decodes WAV sounds to mono at 16 kHz, of one length.

    Silence at the start, quieter than 1/50 of the sound's peak, is left out but for 50 ms, so that
    a late speaker is not cut; then the sound is cut, or padded with silence.

    Args:
      contents: Bytes of WAV files, string [C]; C may be 0.
      seconds: Length of the result.

    Returns:
      float32 [C, seconds * 16,000], full scale at -1..1.

    Raises:
      tf.errors.InvalidArgumentError: Bytes that are not WAV.
    """
    samples = samples_of(seconds)
    return tf.map_fn(
        functools.partial(_decode_one, samples=samples),
        contents,
        fn_output_signature=tf.TensorSpec([samples], tf.float32),
        parallel_iterations=None if tf.executing_eagerly() else 16,
    )


def samples_of(seconds: float) -> int:
    """Samples of a waveform of this length."""
    return round(seconds * RATE_HZ)


def frames_of(config: AudioConfig) -> int:
    """Log-mel frames of a sound."""
    return math.ceil(samples_of(config.seconds) / _samples_of_ms(config.hop_ms))


def _samples_of_ms(milliseconds: float) -> int:
    return round(milliseconds * RATE_HZ / 1000)


def _decode_one(contents: tf.Tensor, *, samples: int) -> tf.Tensor:
    decoded, rate_hz = wav.decode(contents)
    decoded = _without_leading_silence(decoded, rate_hz)
    decoded = decoded[: rate_hz * math.ceil(samples / RATE_HZ)]
    resampled = tf.cond(rate_hz == RATE_HZ, lambda: decoded, lambda: resample(decoded, rate_hz))[
        :samples
    ]
    padded = tf.pad(resampled, [[0, samples - tf.shape(resampled)[0]]])
    return tf.ensure_shape(padded, [samples])


def _without_leading_silence(samples: tf.Tensor, rate_hz: tf.Tensor) -> tf.Tensor:
    """Drops blocks of 10 ms from the start of float32 [N] while they are silent."""
    block = tf.maximum(rate_hz // 100, 1)
    whole = tf.size(samples, out_type=tf.int64) // block
    blocks = tf.reshape(tf.abs(samples[: whole * block]), tf.stack([whole, block]))
    level = tf.concat([tf.reduce_max(blocks, axis=1), [0.0]], axis=0)
    first = tf.argmax(level >= _SILENCE * tf.reduce_max(level))
    return samples[tf.maximum(first - _LEAD_BLOCKS, 0) * block :]


def resample(samples: tf.Tensor, rate_hz: tf.Tensor) -> tf.Tensor:
    """Resamples float32 [N] from `rate_hz`, int64, to 16 kHz.

    The sound is padded with silence to whole seconds, so that its spectrum has whole bins of both
    rates: frequencies that both can hold are kept, the others dropped, and none is aliased.

    Returns:
      float32 [16,000 x whole seconds].
    """
    length = tf.size(samples, out_type=tf.int64)
    seconds = tf.maximum((length + rate_hz - 1) // rate_hz, 1)
    before, after = seconds * rate_hz, seconds * RATE_HZ
    spectrum = tf.signal.rfft(tf.pad(samples, [[0, before - length]]))
    kept = (tf.minimum(before, after) + 1) // 2
    spectrum = tf.pad(spectrum[:kept], [[0, after // 2 + 1 - kept]])
    scale = tf.cast(after, tf.float32) / tf.cast(before, tf.float32)
    return tf.signal.irfft(spectrum, fft_length=[tf.cast(after, tf.int32)]) * scale


def log_mel(waveform: tf.Tensor, config: AudioConfig) -> tf.Tensor:
    """Log-mel frames that do not depend on loudness.

    The waveform is brought to a peak of 1; log(magnitude in mel bands + 0.01), HTK's mel scale
    from 60 to 7,600 Hz; then each sound is brought to mean 0 and variance 1, so that the 0 which
    SpecAugment writes is the sound's mean. Silence becomes zeros.

    Args:
      waveform: float32 [C, samples] at 16 kHz.
      config: The recipe's audio section.

    Returns:
      float32 [C, frames, mel_bins].
    """
    frame, hop = _samples_of_ms(config.frame_ms), _samples_of_ms(config.hop_ms)
    peak = tf.reduce_max(tf.abs(waveform), axis=1, keepdims=True)
    waveform = tf.math.divide_no_nan(waveform, peak)
    length = 1 << (frame - 1).bit_length()
    windows = tf.signal.frame(waveform, frame, hop, pad_end=True) * tf.signal.hann_window(frame)
    # Padded here: rfft does not pad a batch of no sounds, and then refuses it as too short.
    spectrum = tf.abs(tf.signal.rfft(tf.pad(windows, [[0, 0], [0, 0], [0, length - frame]])))
    bands = tf.signal.linear_to_mel_weight_matrix(
        config.mel_bins, length // 2 + 1, RATE_HZ, LOWEST_HZ, HIGHEST_HZ
    )
    frames = tf.math.log(tf.matmul(spectrum, bands) + _FLOOR)
    mean, variance = tf.nn.moments(frames, axes=[1, 2], keepdims=True)
    normal = (frames - mean) * tf.math.rsqrt(variance + 1e-3)
    return tf.ensure_shape(normal, [None, frames_of(config), config.mel_bins])
