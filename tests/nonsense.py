"""Broken and odd bytes for requests that nobody would write."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import tiny_shop
from sample_media import photo, sound

PHOTOS = [photo(kind) for kind in ("JPEG", "PNG", "GIF", "BMP")] + [
    tiny_shop.products()[0]["image"],
    photo("PNG", "RGBA"),
    photo("JPEG", "L", progressive=True),
]
SOUNDS = [sound("WAV", kind) for kind in ("PCM_16", "PCM_24", "FLOAT", "PCM_U8")] + [
    tiny_shop.voice(1, 1),
    sound("FLAC"),
]


def damaged(chance: random.Random, content: bytes) -> bytes:
    """Some bytes changed, lost or doubled."""
    result = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(4):
            case 0:
                del result[at:]
            case 1:
                result[at : at + 1] = chance.randbytes(1)
            case 2:
                del result[at : at + chance.randint(1, 9)]
            case 3:
                result[at:at] = result[at : at + chance.randint(1, 40)]
    return bytes(result)


def huge_photo(chance: random.Random) -> bytes:
    """A header that states 100 megapixels and far more, in front of a few bytes."""
    wide, high = (chance.choice((0, 1, 10_000, 40_000, 65_535, 1 << 31, -1)) for _ in range(2))
    jpeg = bytearray(PHOTOS[0])
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", high & 0xFFFF, wide & 0xFFFF)
    png = bytearray(PHOTOS[1])
    png[16:24] = struct.pack(">II", wide & 0xFFFFFFFF, high & 0xFFFFFFFF)
    gif = bytearray(PHOTOS[2])
    gif[6:10] = struct.pack("<HH", wide & 0xFFFF, high & 0xFFFF)
    bmp = bytearray(PHOTOS[3])
    bmp[18:26] = struct.pack("<II", wide & 0xFFFFFFFF, high & 0xFFFFFFFF)
    return bytes(chance.choice((jpeg, png, gif, bmp)))


def odd_sound(chance: random.Random) -> bytes:
    """A WAV whose header states what cannot be."""
    odd = (0, 1, 3, 7, 255, 0xFFFF, 0xFFFE)
    channels, bits, block, tag = (chance.choice(odd) for _ in range(4))
    rate = chance.choice((0, 1, 8_000, 768_000, 0xFFFFFFFF))
    size = chance.choice((0, 2, 16, 0x7FFFFFFF, 0xFFFFFFFF))
    form = struct.pack("<HHIIHH", chance.choice((1, 3, tag)), channels, rate, rate, block, bits)
    head = struct.pack("<4sI4s4sI", b"RIFF", size, b"WAVE", b"fmt ", chance.choice((16, size)))
    return head + form + struct.pack("<4sI", b"data", size) + b"\x01" * 64


def peak_mb(pid: int) -> int:
    """The most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
