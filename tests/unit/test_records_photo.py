"""Photos: what is stored of each kind, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_media import encoded, photo, pixels

from tfmm.records.photo import MAX_STORED_SIDE_PX, normalise_photo

CORNERS = ((2, 2), (2, -3), (-3, 2), (-3, -3))
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (230, 230, 230)])


def stored(content: bytes, max_pixels: int = 64_000_000) -> bytes:
    return normalise_photo(content, max_pixels=max_pixels)


def seen_by_tensorflow(content: bytes) -> np.ndarray:
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()


def shows_the_four_quarters(content: bytes, tolerance: int = 12) -> bool:
    shown = seen_by_tensorflow(content).astype(int)
    corners = np.array([shown[y, x] for y, x in CORNERS])
    return bool(np.abs(corners - COLOURS).max() <= tolerance)


@pytest.mark.parametrize(
    "content",
    [
        photo("JPEG"),
        photo("JPEG", "L"),
        photo("JPEG", progressive=True),
        photo("PNG"),
        photo("PNG", "L"),
        photo("BMP"),
    ],
    ids=["JPEG", "grey JPEG", "progressive JPEG", "PNG", "grey PNG", "BMP"],
)
def test_what_tensorflow_shows_as_it_is_stays_byte_for_byte(content: bytes) -> None:
    assert stored(content) == content
    assert seen_by_tensorflow(content).shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("JPEG", "CMYK", 20),
        ("WEBP", "RGB", 40),
        ("WEBP", "RGBA", 40),
        ("PNG", "P", 60),
        ("PNG", "RGBA", 0),
        ("GIF", "RGB", 60),
        ("BMP", "P", 60),
        ("BMP", "1", 256),
    ],
)
def test_every_other_kind_becomes_one_that_tensorflow_shows(
    kind: str, mode: str, tolerance: int
) -> None:
    result = stored(photo(kind, mode))
    assert result[:3] in (b"\xff\xd8\xff", b"\x89PN", b"GIF")
    assert shows_the_four_quarters(result, tolerance)


def test_a_cmyk_jpeg_is_stored_as_an_rgb_jpeg() -> None:
    assert Image.open(io.BytesIO(stored(photo("JPEG", "CMYK")))).mode == "RGB"


def test_a_phone_jpeg_with_a_second_picture_stays_and_shows_the_first() -> None:
    second = [Image.new("RGB", (32, 24), "black")]
    content = encoded(Image.fromarray(pixels()), "MPO", save_all=True, append_images=second)
    assert stored(content) == content
    assert shows_the_four_quarters(content)


def test_webp_becomes_jpeg() -> None:
    assert stored(photo("WEBP")).startswith(b"\xff\xd8\xff")


def test_of_an_animated_gif_the_first_frame_is_kept() -> None:
    first = Image.fromarray(pixels())
    later = [Image.new("RGB", (32, 24), colour) for colour in ("black", "yellow")]
    content = encoded(first, "GIF", save_all=True, append_images=later, duration=50)
    result = stored(content)
    assert getattr(Image.open(io.BytesIO(result)), "n_frames", 1) == 1
    assert shows_the_four_quarters(result, 60)


def test_transparency_is_shown_on_white() -> None:
    layered = np.dstack([pixels(), np.full((24, 32), 255, np.uint8)])
    layered[:12, :16, 3] = 0
    shown = seen_by_tensorflow(stored(encoded(Image.fromarray(layered), "PNG")))
    assert shown[2, 2].tolist() == [255, 255, 255]
    assert shown[2, -3].tolist() == [30, 200, 30]


def test_a_palette_with_a_transparent_colour_is_shown_on_white() -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for kind in ("PNG", "GIF"):
        shown = seen_by_tensorflow(stored(encoded(palette, kind, transparency=0)))
        assert shown[4, 4].tolist() == [255, 255, 255]


def test_sixteen_bit_greys_are_scaled_and_not_clipped() -> None:
    greys = Image.fromarray(np.array([[0, 128 * 256, 65535]], np.uint16))
    shown = seen_by_tensorflow(stored(encoded(greys, "PNG")))
    assert shown[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # What a camera stores is the inverse of what undoes it.
    inverse = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = Image.fromarray(np.ascontiguousarray(inverse(pixels())))
    for kind in ("JPEG", "PNG", "WEBP"):
        result = stored(encoded(lying, kind, exif=exif))
        assert seen_by_tensorflow(result).shape == (24, 32, 3)
        assert shows_the_four_quarters(result, 60)


def test_a_png_with_transparency_is_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(pixels()))).convert("RGBA")
    assert shows_the_four_quarters(stored(encoded(lying, "PNG", exif=exif)), 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_beside_a_whole_photo_does_no_harm() -> None:
    content = photo("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert shows_the_four_quarters(stored(content))


def test_a_large_photo_is_stored_smaller_in_the_same_shape() -> None:
    large = Image.fromarray(pixels()).resize((2400, 1800), Image.Resampling.NEAREST)
    for kind in ("JPEG", "PNG", "WEBP"):
        result = stored(encoded(large, kind))
        assert seen_by_tensorflow(result).shape == (768, MAX_STORED_SIDE_PX, 3)
        assert shows_the_four_quarters(result, 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "received 0 bytes"),
        (b"GIF", "expected a JPEG, PNG, GIF, BMP or WebP photo"),
        (b"<html>not found</html>", "expected a JPEG, PNG, GIF, BMP or WebP photo"),
        (photo("TIFF"), "expected a JPEG, PNG, GIF, BMP or WebP photo"),
    ],
)
def test_what_is_no_photo_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stored(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_photo_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ValueError, match="expected a"):
        stored(whole[: int(len(whole) * share)])


def test_too_many_pixels_are_refused_from_the_header_alone() -> None:
    # A PNG that claims 20,000 x 20,000 pixels and holds none: decoding it would say "truncated".
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I4s", 0, b"IDAT")
    with pytest.raises(ValueError, match="pixels"):
        stored(bomb)
    with pytest.raises(ValueError, match="at most 767 pixels, received 32x24"):
        stored(photo(), max_pixels=767)
    assert stored(photo(), max_pixels=768) == photo()


def test_a_thirty_megapixel_photo_takes_little_memory() -> None:
    script = """
import io, resource
import numpy as np
from PIL import Image
from tfmm.records.photo import normalise_photo
for kind in ("JPEG", "PNG"):
    content = io.BytesIO()
    tile = np.random.default_rng(0).integers(0, 255, (50, 63, 3), dtype=np.uint8)
    Image.fromarray(tile).resize((6300, 5000), Image.Resampling.NEAREST).save(content, kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stored = normalise_photo(content.getvalue(), max_pixels=64_000_000)
    assert max(Image.open(io.BytesIO(stored)).size) == 1024, kind
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    # 31.5 megapixels of RGB are 90 MiB; making the fixture took as much, so little may come on top.
    assert max(map(float, shown.split())) < 120
