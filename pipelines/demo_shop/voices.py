"""Spoken queries, synthesised by eSpeak NG.

eSpeak NG is GPL-3. It comes with the optional package espeakng-loader and is loaded only in
processes that `record` starts for it; nothing of it is part of tfmm.

The library carries noise and filter states from one utterance to the next, so each batch of a
fixed size is spoken by a fresh process: the same requests give the same sounds, byte for byte,
however many processes there are.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.demo_shop.language import Language
from pipelines.demo_shop.ogg import with_serial

SAMPLE_RATE_HZ = 22_050
_BATCH = 400

_SPEAKERS = (
    "f1", "f2", "f4", "m1", "m2", "m3", "m4", "m6", "linda", "Alex", "Andy", "Annie", "Denis",
    "Gene", "Hugo", "Lee", "Mario", "Michael", "Mike", "antonio", "ed", "paul", "rob", "robert",
)  # fmt: skip

HEARD: dict[Language, tuple[str, ...]] = {
    "en": ("en-us", "en", *(f"en-us+{name}" for name in _SPEAKERS), "en+f1", "en+f4", "en+m2"),
    "zh": ("cmn", "cmn+klatt2", "cmn+klatt3", *(f"cmn+{name}" for name in _SPEAKERS)),
}
"""Voices of the log, and of those queries of the test set whose slice is "heard voice"."""

UNHEARD: dict[Language, tuple[str, ...]] = {
    "en": ("en-us+f3", "en+m5", "en-us+m7", "en+f5", "en-us+steph"),
    "zh": ("cmn+f3", "cmn+m5", "cmn+m7", "cmn+f5", "cmn+steph"),
}
"""Voices that speak in the test set only."""


@dataclass(frozen=True)
class Utterance:
    """What to say and how.

    Attributes:
      text: English or Chinese words.
      voice: eSpeak NG's name of a language and a variant.
      words_per_minute: Speed.
      pitch: 0..100, 50 is the voice's own.
      seed: Source of the noise and of the room.
      container: Format of the sound.
    """

    text: str
    voice: str
    words_per_minute: int
    pitch: int
    seed: int
    container: Literal["WAV", "FLAC", "OGG"]


def utterance(text: str, voices: Sequence[str], rng: np.random.Generator) -> Utterance:
    """Draws a speaker of a text and how it is spoken and recorded."""
    containers: tuple[Literal["OGG", "FLAC", "WAV"], ...] = ("OGG", "FLAC", "WAV")
    return Utterance(
        text=text,
        voice=voices[int(rng.integers(len(voices)))],
        words_per_minute=int(rng.integers(155, 196)),
        pitch=int(rng.integers(38, 63)),
        seed=int(rng.integers(2**31)),
        container=containers[int(rng.choice(3, p=(0.25, 0.65, 0.1)))],
    )


def is_available() -> bool:
    """Whether the packages that the voices need are installed."""
    return all(importlib.util.find_spec(name) for name in ("espeakng_loader", "soundfile"))


def record(utterances: Sequence[Utterance], *, processes: int) -> list[bytes]:
    """Speaks all utterances, in order, as WAV, FLAC or Ogg of 22,050 Hz, 16 bit, one channel."""
    batches = [utterances[at : at + _BATCH] for at in range(0, len(utterances), _BATCH)]
    if not batches:
        return []
    with ProcessPoolExecutor(
        min(processes, len(batches)),
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
    ) as pool:
        return [sound for batch in pool.map(_record_batch, batches) for sound in batch]


def _record_batch(batch: Sequence[Utterance]) -> list[bytes]:
    speaker = _Speaker()
    return [_encode(_in_a_room(speaker.say(one), one.seed), one) for one in batch]


class _Speaker:
    """eSpeak NG behind ctypes; see speak_lib.h for the numbers."""

    def __init__(self) -> None:
        import espeakng_loader  # noqa: PLC0415 (GPL-3: only ever loaded in a process of its own)

        self._espeak = ctypes.CDLL(espeakng_loader.get_library_path())
        synchronous, data = 2, espeakng_loader.get_data_path().encode()
        rate_hz = self._espeak.espeak_Initialize(synchronous, 1000, data, 0)
        if rate_hz != SAMPLE_RATE_HZ:
            raise RuntimeError(f"eSpeak NG: expected {SAMPLE_RATE_HZ} Hz, received {rate_hz}")
        self._espeak.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._espeak.espeak_ng_SetRandSeed(1)
        self._chunks: list[NDArray[np.int16]] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._receive)
        self._espeak.espeak_SetSynthCallback(self._callback)
        self._espeak.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
            ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip

    def say(self, utterance: Utterance) -> NDArray[np.float32]:
        """The clean sound, -1..1, [samples]."""
        rate, pitch = 1, 3
        if self._espeak.espeak_SetVoiceByName(utterance.voice.encode()):
            raise RuntimeError(f"eSpeak NG: expected a known voice, received {utterance.voice}")
        self._espeak.espeak_SetParameter(rate, utterance.words_per_minute, 0)
        self._espeak.espeak_SetParameter(pitch, utterance.pitch, 0)
        self._chunks.clear()
        text, utf8 = utterance.text.encode(), 1
        if self._espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, utf8, None, None):
            raise RuntimeError(f"eSpeak NG: expected to say {utterance.text!r}, received an error")
        self._espeak.espeak_Synchronize()
        return np.concatenate(self._chunks).astype(np.float32) / 32_768

    def _receive(self, samples: Any, count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def _in_a_room(clean: NDArray[np.float32], seed: int) -> NDArray[np.int16]:
    """Adds echoes, a colour, noise at 20 to 38 dB below the voice, and a loudness."""
    rng = np.random.default_rng([seed, 5])
    quiet = np.zeros(int(rng.uniform(0.02, 0.15) * SAMPLE_RATE_HZ), np.float32)
    sound = np.concatenate([quiet, clean])
    dry = sound.copy()
    for _ in range(3):
        delay = int(rng.uniform(0.004, 0.06) * SAMPLE_RATE_HZ)
        sound[delay:] += np.float32(rng.uniform(0.0, 0.2)) * dry[:-delay]
    tilt = np.float32(rng.uniform(-0.35, 0.35))
    sound[1:] += tilt * sound[:-1]
    level = float(np.sqrt(np.mean(sound**2))) * 10 ** (-rng.uniform(20, 38) / 20)
    sound += rng.standard_normal(len(sound), np.float32) * np.float32(level)
    sound *= np.float32(rng.uniform(0.25, 0.9) / max(float(np.abs(sound).max()), 1e-6))
    samples: NDArray[np.int16] = np.round(sound * 32_767).astype(np.int16)
    return samples


def _encode(sound: NDArray[np.int16], utterance: Utterance) -> bytes:
    import soundfile  # noqa: PLC0415 (part of the optional extra, like eSpeak NG)

    buffer = io.BytesIO()
    if utterance.container == "FLAC":
        sound = sound // 128 * 128  # a cheap microphone: 9 bits that matter, a third of the bytes
    subtype = "VORBIS" if utterance.container == "OGG" else "PCM_16"
    soundfile.write(buffer, sound, SAMPLE_RATE_HZ, format=utterance.container, subtype=subtype)
    encoded = buffer.getvalue()
    return with_serial(encoded, utterance.seed) if utterance.container == "OGG" else encoded
