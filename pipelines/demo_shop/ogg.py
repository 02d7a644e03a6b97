"""The serial number of an Ogg stream, which encoders draw at random."""

from __future__ import annotations

import zlib

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_serial(stream: bytes, serial: int) -> bytes:
    """The same Ogg stream under the given serial number, so that equal sounds have equal bytes.

    The page layout and its checksum are those of RFC 3533, section 6.
    """
    pages, at = bytearray(stream), 0
    while at < len(pages):
        if pages[at : at + 4] != b"OggS":
            raise ValueError(f"Ogg: expected a page at byte {at}, received other bytes")
        segments = pages[at + 26]
        end = at + 27 + segments + sum(pages[at + 27 : at + 27 + segments])
        pages[at + 14 : at + 18] = (serial & 0xFFFFFFFF).to_bytes(4, "little")
        pages[at + 22 : at + 26] = bytes(4)
        pages[at + 22 : at + 26] = _checksum(bytes(pages[at:end])).to_bytes(4, "little")
        at = end
    return bytes(pages)


def _checksum(page: bytes) -> int:
    """CRC-32 with the polynomial 0x04c11db7, not reflected, starting from 0 and not inverted.

    zlib's CRC is the reflected one, inverted at both ends: reverse the bits of each byte and of
    the result, and undo the inversions.
    """
    reflected = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
