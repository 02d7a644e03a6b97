"""Photos: checked, turned upright, and kept in a form that TensorFlow's core ops decode."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_STORED_SIDE_PX = 1024
"""Longer photos are stored smaller, so that training never pays for pixels it cannot see."""

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # MPO, the JPEG of some phones, opens as JPEG
_LOSSLESS = ("PNG", "GIF", "BMP")
_ORIENTATION_TAG = 0x0112
# What undoes each orientation that is not upright (EXIF 2.3, table 6).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_QUALITY = 92
_LARGE_PIXELS = 8_000_000
# Photos are converted on several threads, but only one large one at a time: a 64-megapixel PNG
# takes a quarter of a GiB while it is decoded.
_one_large_photo = threading.Lock()


def normalise_photo(content: bytes, *, max_pixels: int) -> bytes:
    """Checks a photo and returns the bytes to store.

    The content decides the format, never a name. JPEG (grey or RGB), PNG (without transparency),
    still GIF and BMP photos that are upright and at most `MAX_STORED_SIDE_PX` long come back byte
    for byte. All others are converted to 8-bit RGB: the first frame of an animation, upright,
    transparency on white; lossless formats to PNG, the others and all that shrink to JPEG.

    Args:
      content: The file's bytes.
      max_pixels: Photos with more are refused from their header, before anything is decoded.

    Raises:
      ValueError: The bytes are no photo, a broken one, or one too large.
    """
    if not content:
        raise ValueError("expected a photo, received 0 bytes")
    photo = _opened(content)
    width_px, height_px = photo.size
    if width_px * height_px > max_pixels:
        raise ValueError(
            f"expected a photo of at most {max_pixels} pixels, received {width_px}x{height_px}"
        )
    try:
        if width_px * height_px > _LARGE_PIXELS:
            with _one_large_photo:
                return _normalised(photo, content)
        return _normalised(photo, content)
    # Pillow's decoders raise errors of many kinds on damaged files; a row is at stake, not the run.
    except Exception as error:
        raise ValueError(f"expected a whole {photo.format} photo, received: {error}") from None


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"expected a photo of fewer pixels, received: {error}") from None
    except UnidentifiedImageError:
        start = content[:8].hex(" ")
        raise ValueError(
            f"expected a JPEG, PNG, GIF, BMP or WebP photo, received bytes {start}"
        ) from None
    except Exception as error:
        raise ValueError(f"expected a whole photo, received: {error}") from None


def _normalised(photo: Image.Image, content: bytes) -> bytes:
    turn = _TURNS.get(_orientation(photo))
    small = max(photo.size) <= MAX_STORED_SIDE_PX
    if turn is None and small and _decodes_as_it_is(photo):
        photo.load()
        return content
    source = photo.format
    if not small and source in ("JPEG", "MPO"):
        photo.draft(None, (MAX_STORED_SIDE_PX, MAX_STORED_SIDE_PX))
    pixels = _rgb(photo)
    if not small:
        pixels.thumbnail((MAX_STORED_SIDE_PX, MAX_STORED_SIDE_PX), Image.Resampling.LANCZOS)
    if turn is not None:
        pixels = pixels.transpose(turn)
    encoded = io.BytesIO()
    if small and source in _LOSSLESS:
        Image.fromarray(np.asarray(pixels)).save(encoded, "PNG")
    else:
        Image.fromarray(np.asarray(pixels)).save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def _orientation(photo: Image.Image) -> int:
    try:
        return int(photo.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata beside a photo that is whole
        return 1


def _decodes_as_it_is(photo: Image.Image) -> bool:
    """Whether `tf.io.decode_image(channels=3)` shows what a person sees."""
    match photo.format:
        case "JPEG" | "MPO":
            return photo.mode in ("L", "RGB")
        case "PNG":
            still = not getattr(photo, "is_animated", False)
            return photo.mode in ("L", "RGB") and "transparency" not in photo.info and still
        case "GIF":
            still = not getattr(photo, "is_animated", False)
            return "transparency" not in photo.info and still
        case "BMP":
            return photo.mode == "RGB" and photo.info.get("compression", 0) == 0
        case _:
            return False


def _rgb(photo: Image.Image) -> Image.Image:
    """The first frame as 8-bit RGB, transparency on white."""
    if photo.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 where it should scale them.
        grey = np.clip(np.asarray(photo) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "transparency" in photo.info or photo.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layered = photo.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        white.alpha_composite(layered)
        return white.convert("RGB")
    return photo.convert("RGB")
