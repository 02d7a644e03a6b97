"""Photos on the host: from JPEG, PNG, GIF or BMP bytes to pixels of the encoder's size.

Who converts what: `prepare` turns WebP into JPEG and applies the EXIF orientation of catalogue
photos; for a query the client does both (Pillow's `ImageOps.exif_transpose` and `save`), because
neither is in TensorFlow's core.
"""

from __future__ import annotations

import functools

import tensorflow as tf

_HEADER_BYTES = 32
# libjpeg decodes to these fractions of a side, at a fraction of the time and memory.
_REDUCTIONS = (1, 2, 4, 8)
# A side stays this many times as long as in the frame, so that the resampling decides.
_SPARE = 2
# No side becomes a pixel in which a block's padding shows.
_SHORTEST = 16
# Photos that are decoded side by side, where together they are no more than two of the largest.
_AT_A_TIME = 16
_BACKGROUND = 255.0
_UNREADABLE = (
    "image: expected the bytes of a JPEG, PNG, GIF or BMP photo, received other bytes"
    " (the client converts other formats)"
)


def decode_images(
    contents: tf.Tensor, *, height_px: int, width_px: int, max_pixels: int
) -> tf.Tensor:
    """Decodes photos and fits them, antialiased, into a frame.

    The aspect ratio is kept, and the rest of the frame is white, as the background of most
    catalogue photos is; transparent pixels become white too. Of an animation the first frame
    counts. The dimensions are read from the header, before memory is taken for the pixels: of many
    large photos one is decoded at a time, and a large JPEG is decoded to a fraction of its size.

    Args:
      contents: Bytes of the photos, string [C]; C may be 0.
      height_px: Height of the frame.
      width_px: Width of the frame.
      max_pixels: The most pixels that a photo may have.

    Returns:
      uint8 [C, height_px, width_px, 3].

    Raises:
      tf.errors.InvalidArgumentError: Bytes that are no such photo, or of too many pixels.
    """
    headers = _headers(contents)
    is_jpeg = _starts_with(headers, b"\xff\xd8")
    pixels, known = _pixels_of_header(headers)
    readable = tf.debugging.Assert(tf.reduce_all(is_jpeg | known), [_UNREADABLE])
    with tf.control_dependencies([readable]):
        sizes = _sizes_of_jpegs(contents, is_jpeg)
    pixels = tf.where(is_jpeg, tf.reduce_prod(sizes, axis=1), pixels)
    decode = functools.partial(_decode_one, height_px=height_px, width_px=width_px)

    def decoded(at_a_time: int) -> tf.Tensor:
        return tf.map_fn(
            lambda each: decode(*each),
            (contents, is_jpeg, sizes),
            fn_output_signature=tf.TensorSpec([height_px, width_px, 3], tf.uint8),
            parallel_iterations=None if tf.executing_eagerly() else at_a_time,
        )

    with tf.control_dependencies([_refuse_large(pixels, max_pixels)]):
        is_much = tf.reduce_sum(pixels) > 2 * max_pixels
        photos = tf.cond(is_much, lambda: decoded(1), lambda: decoded(_AT_A_TIME))
    return tf.ensure_shape(photos, [None, height_px, width_px, 3])


def _headers(contents: tf.Tensor) -> tf.Tensor:
    """The first bytes of each photo, zeros where it is shorter, int32 [C, _HEADER_BYTES]."""
    padded = tf.strings.join([_start(contents), "\0" * _HEADER_BYTES])
    read = tf.io.decode_raw(_start(padded), tf.uint8)
    return tf.cast(tf.reshape(read, [tf.size(contents), _HEADER_BYTES]), tf.int32)


def _start(contents: tf.Tensor) -> tf.Tensor:
    """At most `_HEADER_BYTES` bytes of each string."""
    return tf.strings.substr(contents, 0, _HEADER_BYTES)


def _pixels_of_header(headers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels that PNG, GIF and BMP headers state, int64 [C] (0 for JPEG), and which are such."""

    def area(low_first: tuple[int, ...], other: tuple[int, ...]) -> tf.Tensor:
        return tf.abs(_integer(headers, low_first)) * tf.abs(_integer(headers, other))

    png, gif, bmp = (_starts_with(headers, m) for m in (b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"))
    zero = tf.zeros(tf.shape(headers)[:1], tf.int64)
    pixels = tf.where(png, area((19, 18, 17, 16), (23, 22, 21, 20)), zero)
    pixels = tf.where(gif, area((6, 7), (8, 9)), pixels)
    pixels = tf.where(bmp, area((18, 19, 20, 21), (22, 23, 24, 25)), pixels)
    return pixels, png | gif | bmp


def _sizes_of_jpegs(contents: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    """Heights and widths that the headers of JPEGs state, int64 [C, 2]; 0 for others."""

    def size(content: tf.Tensor) -> tf.Tensor:
        return tf.image.extract_jpeg_shape(content, output_type=tf.int64)[:2]

    return tf.map_fn(
        lambda each: tf.cond(each[1], lambda: size(each[0]), lambda: tf.zeros([2], tf.int64)),
        (contents, is_jpeg),
        fn_output_signature=tf.TensorSpec([2], tf.int64),
    )


def _starts_with(headers: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.reduce_all(tf.equal(headers[:, : len(magic)], list(magic)), axis=1)


def _integer(headers: tf.Tensor, places: tuple[int, ...]) -> tf.Tensor:
    """Bytes at `places`, the lowest first, as int64 [C]; four bytes are signed."""
    parts = tf.gather(headers, places, axis=1)
    weights = tf.constant([1 << (8 * i) for i in range(len(places))], tf.int64)
    value = tf.reduce_sum(tf.cast(parts, tf.int64) * weights, axis=1)
    return tf.where(value >= 1 << 31, value - (1 << 32), value)


def _refuse_large(pixels: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Refuses photos of more pixels than the recipe allows; int64, any shape."""
    largest = tf.reduce_max(tf.concat([[0], tf.reshape(pixels, [-1])], axis=0))
    expected = f"image: expected at most {max_pixels} pixels (prepare.max_image_pixels), received "
    sentence = tf.strings.join([expected, tf.as_string(largest)])
    return tf.debugging.Assert(largest <= max_pixels, [sentence])


def _decode_one(
    contents: tf.Tensor, is_jpeg: tf.Tensor, size: tf.Tensor, *, height_px: int, width_px: int
) -> tf.Tensor:
    def jpeg() -> tf.Tensor:
        spare = tf.reduce_max(size / (_SPARE * tf.constant([height_px, width_px], tf.int64)))
        spare = tf.minimum(spare, tf.reduce_min(size) / _SHORTEST)
        reduction = tf.searchsorted(tf.constant(_REDUCTIONS, tf.float64), [spare], side="right")
        branches = [
            functools.partial(tf.io.decode_jpeg, contents, channels=3, ratio=ratio)
            for ratio in _REDUCTIONS
        ]
        decoded = tf.switch_case(tf.maximum(reduction[0] - 1, 0), branches)
        return _fit(tf.ensure_shape(decoded, [None, None, 3]), height_px, width_px)

    def other() -> tf.Tensor:
        decoded = tf.io.decode_image(contents, channels=0, expand_animations=False)
        return _fit(_on_white(decoded), height_px, width_px)

    return tf.cond(is_jpeg, jpeg, other)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Grey or colour, with or without transparency, uint8 [h, w, 1..4], as colour [h, w, 3].

    A transparency of 0 in every pixel is a file that does not use it (32-bit BMP).
    """
    image = tf.ensure_shape(image, [None, None, None])
    channels = tf.shape(image)[2]

    def blended() -> tf.Tensor:
        alpha = tf.cast(image[:, :, -1:], tf.float32) / 255.0
        alpha = tf.where(tf.reduce_max(alpha) > 0, alpha, 1.0)
        colour = tf.cast(image[:, :, :-1], tf.float32)
        return tf.cast(tf.round(colour * alpha + _BACKGROUND * (1.0 - alpha)), tf.uint8)

    opaque = tf.cond(channels % 2 == 0, blended, lambda: image)
    copies = tf.where(tf.shape(opaque)[2] == 1, 3, 1)
    return tf.ensure_shape(tf.tile(opaque, [1, 1, copies]), [None, None, 3])


def _fit(image: tf.Tensor, height_px: int, width_px: int) -> tf.Tensor:
    """Fits uint8 [h, w, 3] into a white frame [height_px, width_px, 3]."""
    frame = tf.constant([height_px, width_px], tf.float32)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    fitted = tf.cast(tf.round(size * tf.reduce_min(frame / size)), tf.int32)
    fitted = tf.clip_by_value(fitted, 1, [height_px, width_px])
    resized = tf.image.resize(image, fitted, antialias=True) - _BACKGROUND
    top, left = (height_px - fitted[0]) // 2, (width_px - fitted[1]) // 2
    framed = tf.image.pad_to_bounding_box(resized, top, left, height_px, width_px) + _BACKGROUND
    return tf.cast(tf.round(tf.clip_by_value(framed, 0.0, 255.0)), tf.uint8)
