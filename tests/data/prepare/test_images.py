"""Tests of image decoding: conversion rules for every format and mode, and errors for invalid files."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.data.images import InvalidImageError, decode_and_center_crop, resize_and_center_crop
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path


def encode(image, file_format, **kwargs):
    file = BytesIO()
    image.save(file, file_format, **kwargs)
    return file.getvalue()


def solid_image(color, size=(40, 30), mode="RGB"):
    return Image.new(mode, size, color)


def center_pixel(data, size=16):
    pixels = decode_and_center_crop(data, size)
    assert pixels.shape == (size, size, 3)
    return pixels[size // 2, size // 2].tolist()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_format_is_detected_from_content(file_format):
    assert np.abs(np.array(center_pixel(encode(solid_image((200, 30, 90)), file_format))) - (200, 30, 90)).max() <= 4


def test_gray_is_converted_to_rgb():
    assert center_pixel(encode(solid_image(77, mode="L"), "PNG")) == [77, 77, 77]
    assert center_pixel(encode(solid_image(1, mode="1"), "PNG")) == [255, 255, 255]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_upper_8_bits(file_format):
    image = Image.fromarray(np.full((30, 40), 77 * 256 + 200, np.uint16))
    assert center_pixel(encode(image, file_format)) == [77, 77, 77]


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_to_rgb(file_format):
    red = center_pixel(encode(solid_image((0, 255, 255, 0), mode="CMYK"), file_format))
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_transparent_pixels_become_white():
    assert center_pixel(encode(solid_image((10, 20, 30, 0), mode="RGBA"), "PNG")) == [255, 255, 255]
    assert center_pixel(encode(solid_image((10, 20, 30, 255), mode="RGBA"), "PNG")) == [10, 20, 30]
    palette = solid_image((10, 20, 30)).quantize(4)
    assert center_pixel(encode(palette, "PNG")) == [10, 20, 30]
    assert center_pixel(encode(palette, "PNG", transparency=palette.getpixel((0, 0)))) == [255, 255, 255]


def test_first_frame_of_animation():
    data = encode(solid_image((250, 0, 0)), "GIF", save_all=True, append_images=[solid_image((0, 250, 0))])
    assert center_pixel(data) == [250, 0, 0]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(file_format):
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[:16] = 255  # the top, which orientation 6 rotates to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode_and_center_crop(encode(Image.fromarray(pixels), file_format, exif=exif), 48)
    assert upright[:, 36:].mean() > 240
    assert upright[:, :28].mean() < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_tiny_and_narrow_images_are_upscaled(size):
    assert center_pixel(encode(solid_image((50, 100, 150), size), "PNG"), 256) == [50, 100, 150]


def test_square_of_target_size_is_unchanged(rng):
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(decode_and_center_crop(encode(Image.fromarray(pixels), "PNG"), 32), pixels)
    assert resize_and_center_crop(pixels, 32) is pixels
    np.testing.assert_array_equal(
        resize_and_center_crop(pixels, 8), decode_and_center_crop(encode(Image.fromarray(pixels), "PNG"), 8)
    )


def test_center_crop_of_resized_image(rng):
    """Compare with Pillow: as in the paper, the shorter side is resized, then the center is cropped."""
    image = Image.fromarray(rng.integers(0, 256, (64, 160, 3), np.uint8))
    resized = image.resize((80, 32), Image.Resampling.BICUBIC).crop((24, 0, 56, 32))
    np.testing.assert_array_equal(decode_and_center_crop(encode(image, "PNG"), 32), np.asarray(resized))


def huge_png():
    """Return a small PNG file whose header specifies 0.5 gigapixels."""

    def chunk(chunk_type, data):
        return struct.pack(">I", len(data)) + chunk_type + data + struct.pack(">I", zlib.crc32(chunk_type + data))

    header = struct.pack(">IIBBBBB", 20_000, 25_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [10_000, 20_000], ids=["warning in Pillow", "error in Pillow"])
def test_huge_images_are_rejected(width):
    data = huge_png()
    header = data[16:33].replace(struct.pack(">I", 20_000), struct.pack(">I", width), 1)[:13]
    data = data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the check must not depend on the filters
        with pytest.raises(InvalidImageError, match="exceeds limit"):
            decode_and_center_crop(data, 32)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.9])
def test_truncated_images_are_rejected(file_format, fraction, rng):
    data = encode(Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)), file_format)
    with pytest.raises(InvalidImageError, match=r"\w"):
        decode_and_center_crop(data[: int(fraction * len(data))], 32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected one of JPEG, PNG"),
        (b"not an image", "expected one of JPEG, PNG"),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32-bit pixels"),
        (encode(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "32-bit pixels"),
        (encode(solid_image(0), "PPM"), "expected one of JPEG, PNG"),
    ],
    ids=["empty", "text", "float", "int32", "unsupported format"],
)
def test_invalid_images_are_rejected(data, message):
    with pytest.raises(InvalidImageError, match=message):
        decode_and_center_crop(data, 32)


def test_warnings_of_pillow_are_reported_once_with_the_name_of_the_image(tmp_path, capsys, monkeypatch):
    def warn(image, **_):
        for _ in range(2):
            warnings.warn_explicit("Corrupt EXIF data.\n expecting to read", UserWarning, "TiffImagePlugin.py", 1, "PIL.Tiff")
        return image

    monkeypatch.setattr(images.ImageOps, "exif_transpose", warn)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            solid_image("red").save(tmp_path / "photos" / name / f"{i}.png")
    prepare_path(tmp_path / "photos", tmp_path / "out", PrepareOptions(size=8))
    lines = [line for line in capsys.readouterr().err.split("\n") if "EXIF" in line]
    assert sorted(lines) == [f"{name}/{i}.png: Corrupt EXIF data. expecting to read" for name in "ab" for i in range(2)]
