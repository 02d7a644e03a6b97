"""Photos, sounds and videos of a dataset: read, checked, and kept in one form each.

Sounds become 16 kHz mono WAV, the form that the exported graph reads with core ops alone. Their
decoders are TensorFlow IO's, and this is the one place where they run.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_io as tfio

from tfmm._quiet import no_advice
from tfmm.config import PrepareConfig
from tfmm.contract import RATE_HZ
from tfmm.errors import RecordError
from tfmm.records.photo import normalise_photo
from tfmm.records.schema import MediaReference
from tfmm.records.sound_headers import SoundHeader, read_header, wav_header

_REMEMBERED_BYTES = 64 << 20
_ENTRY_BYTES = 1024  # what remembering costs beside the result, roughly
# Half the length of TensorFlow IO's resampling filter, in samples at the lower of the two rates.
_HALF_FILTER = 32
# Beyond this many filter phases TensorFlow IO interpolates between them and takes 9 ms for a second
# of 22,050 Hz sound, where a Fourier transform takes .5 ms.
_MOST_PHASES = 32

Waveform = npt.NDArray[np.float32]


class MediaConverter:
    """Turns media references into the bytes to store, each distinct file once.

    A log repeats the photo of a query with every event, so the last results are remembered, up to
    64 MiB of them. Safe to use from several threads; a file that two threads want at the same
    time is converted by one of them.
    """

    def __init__(self, folder: Path, config: PrepareConfig) -> None:
        self._folder = os.path.realpath(folder)
        self._config = config
        self._known: OrderedDict[tuple[str, bytes | str], Future[bytes]] = OrderedDict()
        self._known_bytes = 0
        self._lock = threading.Lock()

    def convert(self, reference: MediaReference) -> bytes:
        """The bytes to store of a photo, sound or video.

        Raises:
          RecordError: It cannot be read, or is not what it should be.
        """
        content = reference.content
        name = content if isinstance(content, str) else hashlib.sha256(content).digest()
        key = (reference.kind, name)
        with self._lock:
            future = self._known.get(key)
            mine = future is None
            if future is None:
                future = self._known[key] = Future()
            self._known.move_to_end(key)
        if mine:
            self._fill(future, reference)
        try:
            return future.result()
        except ValueError as error:
            raise RecordError(reference.field, str(error)) from None

    def _fill(self, future: Future[bytes], reference: MediaReference) -> None:
        try:
            future.set_result(self._converted(reference))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, ValueError):
                raise
        with self._lock:
            self._known_bytes += _size(future)
            while self._known_bytes > _REMEMBERED_BYTES:
                key, oldest = next(iter(self._known.items()))
                if not oldest.done() or oldest is future:
                    break
                del self._known[key]
                self._known_bytes -= _size(oldest)

    def _converted(self, reference: MediaReference) -> bytes:
        content = reference.content
        if isinstance(content, str):
            content = read_inside(self._folder, content)
        match reference.kind:
            case "photo":
                return normalise_photo(content, max_pixels=self._config.max_image_pixels)
            case "sound":
                return normalise_sound(content, max_seconds=self._config.max_audio_seconds)
            case "video":
                if not content:
                    raise ValueError("expected a video, received 0 bytes")
                return content


def _size(done: Future[bytes]) -> int:
    return _ENTRY_BYTES + (len(done.result()) if done.exception() is None else 0)


def read_inside(folder: str, path: str) -> bytes:
    """Reads a file of the dataset folder.

    Args:
      folder: The dataset's real path.
      path: Path relative to it.

    Raises:
      ValueError: The path leads out of the folder, through a link too, or cannot be read.
    """
    real = os.path.realpath(os.path.join(folder, path))
    if os.path.commonpath((folder, real)) != folder or os.path.isabs(path):
        raise ValueError(f"expected a path inside the dataset folder, received {path!r}")
    try:
        return Path(real).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"expected a readable file, received {path!r}: {reason}") from None


def normalise_sound(content: bytes, *, max_seconds: float) -> bytes:
    """Checks a sound and returns it as 16-bit mono WAV at `RATE_HZ`.

    A file that is just that comes back byte for byte.

    Args:
      content: Bytes of a WAV, FLAC, Ogg Vorbis or MP3 file.
      max_seconds: Longer sounds are refused from their header.

    Raises:
      ValueError: The bytes are no sound, a truncated one, or one too long.
    """
    header = read_header(content)
    seconds = header.frames / header.rate_hz
    if seconds > max_seconds:
        raise ValueError(f"expected at most {max_seconds:g} s of sound, received {seconds:.1f} s")
    form = (header.format, header.rate_hz, header.channels, header.bits)
    if form == ("WAV", RATE_HZ, 1, 16):
        samples = content[header.data_start : header.data_end]
    else:
        mono = decode_sound(content, header).mean(axis=1)
        if not np.isfinite(mono).all():
            raise ValueError("expected finite samples, received NaN or infinity")
        resampled = resample(mono, header.rate_hz)
        if not resampled.size:
            raise ValueError(f"expected a sound, received {header.frames} samples")
        samples = np.clip(np.rint(resampled * 32768), -32768, 32767).astype("<i2").tobytes()
    whole = wav_header(len(samples), rate_hz=RATE_HZ, channels=1, bits=16) + samples
    return content if whole == content else whole


def decode_sound(content: bytes, header: SoundHeader) -> Waveform:
    """Samples [frames, channels] in -1..1.

    Raises:
      ValueError: The decoder refuses the bytes, or finds fewer samples than the header states.
    """
    try:
        samples = _decoded(content, header)
    except tf.errors.OpError as error:
        raise ValueError(
            f"expected a whole {header.format} file, received: {error.message}"
        ) from None
    if header.format != "MP3" and len(samples) < header.frames:
        raise ValueError(
            f"expected {header.frames} samples of {header.format}, received {len(samples)}:"
            " truncated"
        )
    return samples


def _decoded(content: bytes, header: SoundHeader) -> Waveform:
    match header.format:
        case "WAV":
            return _decoded_wav(content[header.data_start : header.data_end], header)
        case "FLAC":
            if header.bits not in (8, 16, 24):
                raise ValueError(f"expected FLAC of 8, 16 or 24 bits, received {header.bits}")
            kind = {8: tf.uint8, 16: tf.int16, 24: tf.int32}[header.bits]
            return _scaled(tfio.audio.decode_flac(content, dtype=kind).numpy())
        case "Ogg Vorbis":
            return _scaled(tfio.audio.decode_vorbis(content).numpy())
        case "MP3":
            return _scaled(tfio.audio.decode_mp3(content).numpy())


def _decoded_wav(data: bytes, header: SoundHeader) -> Waveform:
    """Samples of a WAV file's data.

    TensorFlow IO reads 32-bit integers as floats and knows no 64-bit ones: these two are NumPy's.
    It also gets a plain header, since it does not understand every one that is in use.
    """
    if header.bits in (32, 64) and not (header.is_float and header.bits == 32):
        raw = np.frombuffer(data, "<f8" if header.is_float else "<i4")
        return _scaled(raw.reshape(-1, header.channels))
    tag = 3 if header.is_float else 1
    plain = wav_header(
        len(data), rate_hz=header.rate_hz, channels=header.channels, bits=header.bits, tag=tag
    )
    kind = {8: tf.uint8, 16: tf.int16, 24: tf.int32, 32: tf.float32}[header.bits]
    return _scaled(tfio.audio.decode_wav(plain + data, dtype=kind).numpy())


def _scaled(samples: npt.NDArray[Any]) -> Waveform:
    """Samples of any type in -1..1; bytes have their zero at 128, 24 bits come shifted to 32."""
    match samples.dtype.name:
        case "uint8":
            return (samples.astype(np.float32) - 128) / 128
        case "int16":
            return samples.astype(np.float32) / 2**15
        case "int32":
            return (samples / 2**31).astype(np.float32)
        case _:
            return samples.astype(np.float32)


def resample(samples: Waveform, rate_hz: int) -> Waveform:
    """A waveform [n] at `RATE_HZ`, [round(n * RATE_HZ / rate_hz)], band-limited, without delay.

    TensorFlow IO resamples where the two rates are in a simple ratio; a Fourier transform over
    whole seconds, as in the exported graph, where they are not (22,050 and 44,100 Hz).
    """
    if rate_hz == RATE_HZ:
        return samples
    length = round(len(samples) * RATE_HZ / rate_hz)
    if RATE_HZ // gcd(rate_hz, RATE_HZ) > _MOST_PHASES:
        return _resample_fourier(samples, rate_hz)[:length]
    # TensorFlow IO's output starts half a filter late and stops with the input: push it through.
    lower = min(rate_hz, RATE_HZ)
    delay = round(_HALF_FILTER * RATE_HZ / lower)
    silence = np.zeros((_HALF_FILTER + 2) * rate_hz // lower + 2, np.float32)
    late = _resample_op(np.concatenate([samples, silence])[:, None], rate_hz)
    return late.numpy()[delay : delay + length, 0]


# Called without a graph, `tfio.audio.resample` traces one for every length it meets: 20 ms each.
@tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32), tf.TensorSpec([], tf.int64)])
def _resample_op(samples: tf.Tensor, rate_hz: tf.Tensor) -> tf.Tensor:
    with no_advice():
        return tfio.audio.resample(samples, rate_hz, tf.constant(RATE_HZ, tf.int64))


def _resample_fourier(samples: Waveform, rate_hz: int) -> Waveform:
    """Cuts or extends the spectrum over whole seconds, where both rates have the same bins."""
    seconds = -(-(len(samples) + rate_hz // 50) // rate_hz)
    spectrum = np.fft.rfft(samples, seconds * rate_hz)
    return np.fft.irfft(
        spectrum[: seconds * RATE_HZ // 2 + 1] * (RATE_HZ / rate_hz), seconds * RATE_HZ
    ).astype(np.float32)
