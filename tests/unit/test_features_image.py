import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfmm.features.image import decode_images


def photo(height=30, width=40):
    """Smooth colours, so that JPEG loses little, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / width, 255 * y / height
    return np.stack([red, green, 255 - (red + green) / 2], axis=-1).astype(np.uint8)


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def decode_16(contents):
    return decode_images(contents, height_px=16, width_px=16, max_pixels=10_000)


def decode(*contents):
    return decode_16(tf.constant(contents)).numpy().astype(int)


def read(contents):
    return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))


def fitted(pixels, size=16):
    """The oracle: Pillow's triangle filter, which antialiases too, on a white frame."""
    image = Image.fromarray(pixels)
    scale = min(size / image.height, size / image.width)
    height, width = round(image.height * scale), round(image.width * scale)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    frame = np.full((size, size, 3), 255, dtype=int)
    top, left = (size - height) // 2, (size - width) // 2
    frame[top : top + height, left : left + width] = small
    return frame


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 2), ("BMP", 2), ("JPEG", 6)])
def test_a_photo_is_resized_with_antialiasing_and_framed_in_white(kind, tolerance):
    for height, width in ((30, 40), (45, 20), (16, 16), (8, 5)):
        contents = encoded(photo(height, width), kind)
        read = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        (made,) = decode(contents)
        np.testing.assert_allclose(made, fitted(read), atol=tolerance)


@pytest.mark.parametrize(("height", "width"), [(63, 64), (90, 70), (100, 30), (800, 4), (17, 500)])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(height, width):
    contents = encoded(photo(height, width), "JPEG")
    (made,) = decode(contents)
    np.testing.assert_allclose(made, decode(encoded(read(contents), "PNG"))[0], atol=6)


def test_fine_stripes_become_grey_and_no_pattern():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    (made,) = decode(encoded(stripes, "PNG"))
    # Pixels at the border see half a window.
    assert np.abs(made[:, 1:-1] - 127.5).max() < 4


def test_very_long_photos_keep_a_pixel():
    pixels = np.zeros((2, 300, 3), dtype=np.uint8)
    (made,) = decode(encoded(pixels, "PNG"))
    black_rows = (made == 0).all(axis=(1, 2))
    assert black_rows.sum() == 1
    assert (made[~black_rows] == 255).all()


def test_grey_photos_become_three_equal_channels():
    grey = Image.fromarray(photo()).convert("L")
    for kind in ("PNG", "JPEG", "GIF"):
        (made,) = decode(encoded(grey, kind))
        assert (made[..., 0] == made[..., 1]).all()
        np.testing.assert_allclose(made, fitted(np.asarray(grey.convert("RGB"))), atol=8)


def test_cmyk_jpegs_have_their_colours():
    cmyk = Image.fromarray(photo()).convert("CMYK")
    (made,) = decode(encoded(cmyk, "JPEG", quality=95))
    np.testing.assert_allclose(made, fitted(photo()), atol=16)


def test_sixteen_bit_and_palette_pngs_are_read():
    levels = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    (deep,) = decode(encoded(Image.fromarray(levels), "PNG"))
    np.testing.assert_allclose(deep[..., 0], levels // 256, atol=1)
    palette = Image.fromarray(photo()).convert("P")
    (made,) = decode(encoded(palette, "PNG"))
    np.testing.assert_allclose(made, fitted(np.asarray(palette.convert("RGB"))), atol=2)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode):
    alpha = np.full((16, 16), 255, dtype=np.uint8)
    alpha[:, 8:], alpha[:, 4:8] = 0, 102
    image = Image.new("RGB", (16, 16)).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    (made,) = decode(encoded(image, "PNG"))
    # 102 of 255 is an opacity of .4, so that .6 of white shows through black.
    assert (made[:, :4] == 0).all()
    assert (made[:, 4:8] == 153).all()
    assert (made[:, 8:] == 255).all()


def test_a_transparency_that_a_file_does_not_use_is_ignored():
    pixels = photo(16, 16)
    bgr0 = np.concatenate([pixels[::-1, :, ::-1], np.zeros((16, 16, 1), np.uint8)], axis=2)
    info = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 32, 0, bgr0.size, 0, 0, 0, 0)
    head = struct.pack("<2sIHHI", b"BM", 54 + bgr0.size, 0, 0, 54)
    (made,) = decode(head + info + bgr0.tobytes())
    np.testing.assert_allclose(made, pixels, atol=1)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    (made,) = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (made == [255, 0, 0]).all()


def test_a_batch_decodes_as_its_photos_do_alone():
    files = [
        encoded(photo(*size), kind)
        for size, kind in (((9, 30), "PNG"), ((50, 50), "JPEG"), ((20, 3), "BMP"), ((4, 4), "GIF"))
    ]
    np.testing.assert_array_equal(decode(*files), np.concatenate([decode(f) for f in files]))


def test_many_large_photos_decode_as_they_do_alone():
    files = [encoded(photo(90, 100), kind) for kind in ("PNG", "JPEG", "BMP")]
    np.testing.assert_array_equal(decode(*files), np.concatenate([decode(f) for f in files]))


def test_no_photos_are_an_empty_batch():
    empty = decode_16(tf.constant([], tf.string))
    assert empty.shape == (0, 16, 16, 3)
    assert empty.dtype == tf.uint8


def test_other_formats_are_refused_with_the_ones_expected():
    for contents in (b"no photo", b"\xff", encoded(photo(), "WEBP"), encoded(photo(), "TIFF")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image: expected .*JPEG, PNG"):
            decode(encoded(photo(), "PNG"), contents)


def test_a_truncated_photo_is_refused():
    for kind in ("PNG", "JPEG", "BMP"):
        whole = encoded(photo(), kind)
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_photo_of_too_many_pixels_is_refused_by_its_header(kind):
    assert decode(encoded(photo(100, 100), kind)).shape == (1, 16, 16, 3)
    expected = r"image: expected at most 10000 pixels .*, received 10100"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        decode(encoded(photo(100, 101), kind))


def test_a_header_that_lies_about_a_hundred_megapixels_costs_nothing():
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 1 << 31, 2, 8, 2, 0, 0, 0)
    for contents in (head, b"BM" + b"\0" * 16 + struct.pack("<ii", 60_000, -60_000)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected at most 10000 pixels"):
            decode(contents)
